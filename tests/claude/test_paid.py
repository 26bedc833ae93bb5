"""Paid calls against a loopback server: bought once, live or as a batch, whatever kills or reopens the buyer."""

import pytest

from lib.claude import client
from lib.claude.client import WrongModel
from lib.claude.paid import Ask, Fault, Paid
from lib.claude.prices import BudgetSpent
from lib.claude.store import Store
from tests.claude.loopback import Loopback

MODEL = "claude-sonnet-5-5"
FORM = {"type": "object", "properties": {"reason": {"type": "string"}}, "additionalProperties": False}
BOTH = pytest.mark.parametrize("batch", [False, True], ids=["live", "batch"])


def read(about, reply):
    """A toy: what was asked may come back in other words, but not silently."""
    return {"text": reply.text} if reply.text else Fault("silence", again=about.get("patient", True))


def ask(key, **about):
    return Ask(key, lambda: client.request(MODEL, 100, [], key, FORM, effort="low"), about)


def echo(n, body, headers):
    return {"text": body["messages"][0]["content"]}


@pytest.fixture
def serve(monkeypatch):
    """`serve(rule)` starts a loopback server that sends back what it was asked, unless the rule says otherwise."""
    running = []

    def start(rule=echo, **more):
        server = Loopback(rule, polls=0, **more).__enter__()
        running.append(server)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-loopback-0000")
        return server

    yield start
    for server in running:
        server.__exit__()


@pytest.fixture
def buyer(tmp_path):
    """`buyer(...)` makes a Paid on one store; all are closed at the end."""
    made = []

    def make(dollars=1.0, **more):
        made.append(Paid(Store(tmp_path / "store.jsonl"), MODEL, dollars, read, {"fingerprint": "f", "replicate": 0},
                         "{fault}: stop", **{"poll": 0.01} | more))  # fmt: skip
        return made[-1]

    yield make
    for paid in made:
        paid.close()


def buy(paid, *asks):
    [rows] = paid.collect([paid.submit(paid.answer(asks))])
    return [row.reason if isinstance(row, Fault) else row["value"]["text"] for row in rows]


@BOTH
def test_answers_come_in_the_order_of_the_asks_and_are_bought_once(serve, buyer, batch):
    server = serve()
    paid = buyer(batch=batch)
    assert buy(paid, ask("a"), ask("b"), ask("a")) == ["a", "b", "a"] and paid.cost.calls == 2
    again = buyer(batch=not batch)
    assert buy(again, ask("b"), ask("c")) == ["b", "c"] and (again.cost.calls, again.cost.stored) == (1, 1)
    assert len(server.messages) + sum(len(b["results"]) for b in server.batches.values()) == 3


@BOTH
@pytest.mark.parametrize(("asks", "patient", "bought"), [(1, True, 1), (2, True, 2), (3, True, 3), (3, False, 1)])
def test_a_faulty_reply_is_asked_for_again_as_often_as_that_can_help(serve, buyer, batch, asks, patient, bought):
    serve(lambda *_: {"text": ""})
    paid = buyer(batch=batch, asks=asks)
    assert buy(paid, ask("a", patient=patient)) == ["silence"] and paid.cost.calls == bought == len(paid.store)
    assert [row.get("attempt") for row in paid.store] == ([None] if asks == 1 else [*range(bought)])
    assert {row["fault"] for row in paid.store} == {"silence"} and paid.store.reply("a") is None


def test_a_call_that_gets_no_reply_costs_nothing_and_the_others_go_on(serve, buyer):
    serve(lambda n, body, headers: {"status": 400} if body["messages"][0]["content"] == "a" else echo(n, body, headers))
    paid = buyer()
    no, yes = buy(paid, ask("a"), ask("b"))
    assert no.startswith("no reply (") and yes == "b" and len(paid.store) == paid.cost.calls == 1


@BOTH
def test_another_model_is_refused_in_the_buyers_words_but_what_was_paid_is_kept(serve, buyer, batch):
    serve(lambda *_: {"model": "claude-haiku-4-5", "text": "a"})
    paid = buyer(batch=batch)
    with pytest.raises(WrongModel, match="^answered by claude-haiku-4-5, asked was claude-sonnet-5-5: stop$"):
        buy(paid, ask("a"))
    [row] = paid.store
    assert "value" not in row and row["dollars"] > 0 and paid.client.stop is None


def test_the_cap_is_one_also_when_the_client_is_opened_again(serve, buyer):
    serve()
    paid = buyer(dollars=0.005)
    assert buy(paid, ask("a")) == ["a"]
    spent = paid.client.budget.spent
    paid.close()
    assert paid.client.budget.spent == spent > 0
    with pytest.raises(BudgetSpent):
        buy(paid, *map(ask, "bcdefghijklmnopq"))
    assert spent < sum(row["dollars"] for row in paid.store) <= 0.005


def test_a_batch_says_what_its_calls_are_about_and_a_bare_call_is_its_key(serve, buyer):
    serve()
    paid = buyer(batch=True)
    buy(paid, ask("a"), ask("b", case="boat"))
    sent, *_, ended = paid.store.rows
    assert sent["calls"] == ["a", {"key": "b", "case": "boat"}] and "attempt" not in sent
    assert ended == {"type": "batch ended", "batch": sent["batch"]}
    assert {row["key"]: row.get("case") for row in paid.store} == {"a": None, "b": "boat"}


def killed(paid, lines):
    """A store as a kill leaves it after so many lines, and half of the next one."""
    whole = paid.store.path.read_bytes().splitlines(keepends=True)
    paid.store.path.write_bytes(b"".join(whole[:lines]) + whole[lines][:40])


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_a_batch_killed_anywhere_is_read_to_its_end_and_nothing_is_kept_twice(serve, buyer, lines):
    server = serve()
    killed_one = buyer(batch=True)
    buy(killed_one, ask("a"), ask("b"), ask("c", case="boat"))
    killed(killed_one, lines)
    paid = buyer(batch=True)
    assert buy(paid, ask("a"), ask("b"), ask("c", case="boat")) == ["a", "b", "c"] and len(server.batches) == 1
    assert len(paid.store) == 3 and paid.cost.calls == 4 - lines and paid.store.pending() == []


def test_where_every_reply_is_stored_no_key_is_needed_also_if_the_batch_was_never_closed(serve, buyer, monkeypatch):
    server = serve()
    killed_one = buyer(batch=True)
    buy(killed_one, ask("a"), ask("b"))
    killed(killed_one, 3)  # the batch and both replies
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    asked = len(server.requests)
    assert buy(buyer(batch=True), ask("a"), ask("b")) == ["a", "b"] and len(server.requests) == asked
