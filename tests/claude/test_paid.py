"""Paid calls against a loopback server: bought once, live or as a batch, whatever kills or reopens the buyer."""

import os

import pytest

from lib.claude import client
from lib.claude import paid as buying
from lib.claude.client import MustWait, NotAnswered, WrongModel
from lib.claude.paid import Ask, Fault, Paid
from lib.claude.prices import BudgetSpent
from lib.claude.store import Store
from lib.claude.store import paid as paid_of
from lib.files import PROGRESS
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
        server = Loopback(rule, **{"polls": 0} | more).__enter__()
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

    def make(dollars=1.0, model=MODEL, **more):
        made.append(Paid(Store(tmp_path / "store.jsonl"), model, dollars, read, {"fingerprint": "f", "replicate": 0},
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
    assert buy(paid, ask("a", patient=patient)) == ["silence"] and paid.cost.calls == bought == len(list(paid.store))
    assert [row.get("attempt") for row in paid.store] == ([None] if asks == 1 else [*range(bought)])
    assert {row["fault"] for row in paid.store} == {"silence"} and paid.store.reply("a") is None


def test_a_call_that_gets_no_reply_costs_nothing_and_the_others_go_on(serve, buyer):
    serve(lambda n, body, headers: {"status": 400} if body["messages"][0]["content"] == "a" else echo(n, body, headers))
    paid = buyer()
    no, yes = buy(paid, ask("a"), ask("b"))
    assert no.startswith("no reply (") and yes == "b" and len(list(paid.store)) == paid.cost.calls == 1


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
    assert sent["calls"] == ["a", {"key": "b", "case": "boat"}] and "attempt" not in sent and sent["at"]
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
    assert len(list(paid.store)) == 3 and paid.cost.calls == 4 - lines and paid.store.pending() == []


def test_where_every_reply_is_stored_no_key_is_needed_also_if_the_batch_was_never_closed(serve, buyer, monkeypatch):
    server = serve()
    killed_one = buyer(batch=True)
    buy(killed_one, ask("a"), ask("b"))
    killed(killed_one, 3)  # the batch and both replies
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    asked = len(server.requests)
    assert buy(buyer(batch=True), ask("a"), ask("b")) == ["a", "b"] and len(server.requests) == asked


# --- batches that are not there, or no more


def test_a_batch_that_is_not_known_yet_is_looked_for_again_and_sent_once(serve, buyer, capsys):
    server = serve(unknown=3)
    paid = buyer(batch=True)
    assert buy(paid, ask("a"), ask("b")) == ["a", "b"] and len(server.batches) == 1
    assert paid.client.budget.spent == pytest.approx(paid.cost.dollars) and capsys.readouterr().err == ""


def test_a_batch_that_stays_unknown_is_given_up_at_its_worst_and_asked_again(serve, buyer, tmp_path, capsys):
    server = serve(unknown=-1)
    paid = buyer(batch=True, asks=2)
    assert buy(paid, ask("a")) == ["no reply in its batch"] and len(server.batches) == 2
    assert "msgbatch_001" in capsys.readouterr().err and paid.store.pending() == []
    worst = sum(row["worst"] for row in paid.store.rows if row["type"] == "batch")
    assert worst > 0 and paid.cost.calls == 0
    for dollars in (paid.cost.dollars, paid.client.budget.spent, paid_of(paid.store.path)):
        assert dollars == pytest.approx(worst)


def test_a_cap_sees_what_a_lost_batch_may_have_cost(serve, buyer):
    server = serve(unknown=-1)
    paid = buyer(batch=True, asks=9, dollars=0.005)
    with pytest.raises(BudgetSpent):
        buy(paid, ask("a"))
    assert 1 <= len(server.batches) < 9


@pytest.mark.parametrize("archived", [True, False])
def test_a_batch_whose_results_are_gone_is_closed_said_and_asked_again_in_the_same_call(serve, buyer, capsys, archived):
    server = serve()
    killed_one = buyer(batch=True)
    buy(killed_one, ask("a"), ask("b"))
    killed(killed_one, 1)
    server.batches["msgbatch_001"] |= {"archived": True} if archived else {"unknown": -1}
    paid = buyer(batch=True)
    assert buy(paid, ask("a"), ask("b")) == ["a", "b"] and len(server.batches) == 2
    said = capsys.readouterr().err
    assert "msgbatch_001" in said and "asked again" in said and said.count("\n") == 1
    assert paid.store.pending() == [] and buy(buyer(batch=True), ask("a")) == ["a"]
    replies = sum(row["dollars"] for row in paid.store)
    assert paid.client.budget.spent == pytest.approx(paid.cost.dollars) and paid.cost.dollars > replies


def test_a_batch_that_is_still_pending_counts_at_its_worst(serve, buyer):
    serve()
    paid = buyer(batch=True)
    buy(paid, ask("a"))
    killed(paid, 1)
    [sent] = Store(paid.store.path).rows
    assert paid_of(paid.store.path) == sent["worst"] > 0


def test_a_network_that_is_away_while_a_batch_runs_is_waited_for_and_said(serve, buyer, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(client, "PAUSES", ())
    monkeypatch.setenv(PROGRESS, str(tmp_path))
    server = serve(polls=2)
    paid, answer = buyer(batch=True), server._answer
    looks = []

    async def away(method, *rest):
        looks.append(method)
        return (503, {}, {}) if method == "GET" and len(looks) < 6 else await answer(method, *rest)

    server._answer = away
    assert buy(paid, ask("a")) == ["a"] and len(server.batches) == 1
    assert capsys.readouterr().err.count("trying again") == 4
    # A notebook has the error stream, so whoever waits in a terminal reads this file.
    assert (tmp_path / str(os.getpid())).read_text().endswith("trying again, 4 of 30")


def test_a_network_that_stays_away_ends_it_and_leaves_the_batch_to_a_later_call(serve, buyer, monkeypatch):
    monkeypatch.setattr(client, "PAUSES", ())
    monkeypatch.setattr(buying, "OUTAGE", 2)
    server = serve()
    paid, answer = buyer(batch=True), server._answer

    async def away(method, *rest):
        return (503, {}, {}) if method == "GET" else await answer(method, *rest)

    server._answer = away
    with pytest.raises(NotAnswered, match="batch msgbatch_001 cannot be looked at .*503.*a later call reads it"):
        buy(paid, ask("a"))
    assert paid.client.budget.spent == paid.store.pending()[0]["worst"]
    server._answer = answer
    assert buy(buyer(batch=True), ask("a")) == ["a"] and len(server.batches) == 1


# --- waits, and names


def test_a_wait_of_hours_stops_what_was_not_sent_and_keeps_what_was_answered(serve, buyer):
    busy = {"status": 429, "headers": {"retry-after": "86400"}}
    server = serve(lambda n, *rest: busy if n > 2 else echo(n, *rest))
    paid = buyer(concurrency=1)
    with pytest.raises(MustWait, match="asks to wait until"):
        buy(paid, *map(ask, "abcdef"))
    assert len(list(paid.store)) == 2 and len(server.messages) == 3
    server.rule = echo
    assert buy(buyer(), *map(ask, "abcdef")) == [*"abcdef"] and server.replies == 6


@BOTH
def test_the_dated_snapshot_of_an_alias_is_the_model_that_was_asked(serve, buyer, batch):
    serve(lambda n, body, headers: echo(n, body, headers) | {"model": "claude-haiku-4-5-20251001"})
    haiku = Ask("h", lambda: client.request("claude-haiku-4-5", 100, [], "h", FORM, effort=""))
    paid = buyer(model="claude-haiku-4-5", batch=batch)
    assert buy(paid, haiku) == ["h"] and [row["model"] for row in paid.store] == ["claude-haiku-4-5-20251001"]
