"""The client against a loopback server: what is sent, what is paid, what is refused, and a key that stays hidden."""

import asyncio
import gc
import importlib.util
import logging
import threading
import time
import traceback

import pytest

from lib.claude import client as cloud
from lib.claude.client import Claude, MustWait, NoAccess, NoKey, NotAnswered, NotFound
from lib.claude.prices import PRICED, BudgetSpent, CloudError, UnknownModel, dollars, worst
from tests.claude.loopback import Loopback

KEY = "sk-ant-planted-4f1d9c"
MODEL = "claude-sonnet-5-5"
FORM = {"type": "object", "properties": {"reason": {"type": "string"}}, "additionalProperties": False}
LIMITED = {"status": 429, "headers": {"retry-after": "0.02"}}


def request(model=MODEL, **more):
    text = '<task-0>\n"paint"\n</task-0>\n' + "\n".join(f'<{s}-0>\n{{"questions": ["Why?"]}}\n</{s}-0>' for s in "AB")
    made = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": text}],
            "system": [{"type": "text", "text": "<task-0>"}],
            "output_config": {"format": {"type": "json_schema", "schema": FORM}}}  # fmt: skip
    return made | more


@pytest.fixture
def serve(monkeypatch):
    """`serve(rule, ...)` starts a loopback server and points the environment at it."""
    running = []

    def start(rule=None, **more):
        server = Loopback(rule, **more).__enter__()
        running.append(server)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        return server

    yield start
    for server in running:
        server.__exit__()


@pytest.fixture
def client():
    made = []

    def make(cap=1.0, model=MODEL, **more):
        made.append(Claude(model, cap, **more))
        return made[-1]

    yield make
    for c in made:
        c.close()


def ask(client, **more):
    return client.submit(client.ask(request(client.model, **more))).result(60)


def first(change):
    return lambda n, body, headers: change if n == 1 else {}


# --- what goes over the wire


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-sonnet-latest", "claude-sonnet-5-5-20260101", ""])
def test_a_model_without_a_price_is_never_asked(model):
    with pytest.raises(UnknownModel, match=PRICED):
        Claude(model, 1.0)


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [(MODEL, "low", {"type": "between_tools"}), ("claude-sonnet-4-6", "low", None), ("claude-haiku-4-5", None, None)],
)
def test_settings_that_a_model_does_not_take_are_not_sent(model, effort, thinking):
    made = cloud.request(model, 100, [], "paint", FORM, effort="low")
    assert (made["output_config"].get("effort"), made.get("thinking")) == (effort, thinking)
    assert made["output_config"]["format"]["schema"] == FORM and made["messages"][0]["content"] == "paint"


def test_a_call_is_what_the_api_of_today_takes(serve, client):
    server = serve()
    reply = ask(client())
    [(path, headers, body)] = server.requests
    assert path == "/v1/messages" and headers["authorization"] == f"Bearer {KEY}"
    assert headers["anthropic-version"] == cloud.API_VERSION == "2026-10-21"
    assert not {"temperature", "top_p", "top_k", "tools", "stream"} & body.keys()
    assert reply.model == MODEL and reply.stop_reason == "end_turn" and reply.request_id == "req_000001"
    assert reply.message_id == "msg_000001" and reply.dollars == dollars(MODEL, reply.usage) > 0


def test_the_pinned_version_is_the_one_that_the_sdk_speaks():
    from anthropic._constants import ANTHROPIC_API_VERSION

    assert cloud.API_VERSION == ANTHROPIC_API_VERSION


def test_no_more_calls_are_in_flight_than_asked_for(serve, client):
    server, c = serve(delay=0.03), client(cap=10, concurrency=3)
    for future in [c.submit(c.ask(request())) for _ in range(12)]:
        future.result(60)
    assert server.peak == 3


# --- faults


def test_retry_after_is_waited_for(serve, client):
    server = serve(first({"status": 429, "headers": {"retry-after": "0.3"}}))
    c = client()
    c.sdk  # noqa: B018  so that only the call is timed
    began = time.perf_counter()
    ask(c)
    assert time.perf_counter() - began >= 0.3 and len(server.messages) == 2


@pytest.mark.parametrize("change", [{"status": 529}, {"status": 500}, {"reset": True}, {"delay": 30}], ids=str)
def test_a_fault_that_passes_is_tried_again(serve, client, change):
    server = serve(first(change))
    assert ask(client(timeout=1.0)).stop_reason == "end_turn"
    # The server counts a reply just after it is out, so the client can be a moment ahead of it.
    ends = time.monotonic() + 5
    while server.replies != 1 and time.monotonic() < ends:
        time.sleep(0.01)
    assert len(server.messages) == 2 and server.replies == 1


@pytest.mark.parametrize("asked", ["soon", "-1", "Sat, 99 Foo 2050"])
def test_a_wait_that_nobody_can_read_is_none(serve, client, asked):
    server = serve(first({"status": 429, "headers": {"retry-after": asked}}))
    assert ask(client()).stop_reason == "end_turn" and len(server.messages) == 2


@pytest.mark.parametrize(
    "headers", [{"retry-after": "43200"}, {"retry-after": "Sat, 01 Jan 2050 10:30:00 GMT"}], ids=str
)
def test_a_wait_of_hours_ends_at_once_and_says_until_when(serve, client, headers):
    server, c = serve(lambda *_: {"status": 429, "headers": headers}), client()
    with pytest.raises(MustWait, match=r"asks to wait until 20\d\d-\d\d-\d\d \d\d:\d\d UTC .*429") as stopped:
        ask(c)
    assert len(server.messages) == 1 and c.budget.spent == 0 and KEY not in everything(stopped.value)
    assert ("2050-01-01 10:30 UTC" in str(stopped.value)) == ("GMT" in headers["retry-after"])


def test_short_waits_add_up_to_a_bound(serve, client, monkeypatch):
    monkeypatch.setattr(cloud, "WAIT", 0.25)
    server = serve(lambda *_: {"status": 429, "headers": {"retry-after": "0.1"}})
    with pytest.raises(MustWait):
        ask(client())
    assert len(server.messages) == 3


def error_body(kind, message):
    return {"body": {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}}


def test_an_error_body_with_status_200_is_tried_again(serve, client):
    server, c = serve(first(error_body("overloaded_error", "Overloaded"))), client()
    assert ask(c).stop_reason == "end_turn" and len(server.messages) == 2


def test_an_error_body_with_status_200_that_stays_is_named_and_costs_nothing(serve, client, monkeypatch):
    monkeypatch.setattr(cloud, "PAUSES", (0.01,))
    server, c = serve(lambda *_: error_body("overloaded_error", "Overloaded")), client()
    with pytest.raises(NotAnswered, match="529: overloaded_error: Overloaded"):
        ask(c)
    assert len(server.messages) == 2 and c.budget.spent == 0
    server.rule = lambda *_: error_body("authentication_error", "no")
    with pytest.raises(NoKey):
        ask(c)


def test_a_socks_proxy_without_its_library_is_said_before_anything_runs(serve, monkeypatch):
    serve()
    cloud.check_key()
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    if importlib.util.find_spec("socksio"):
        pytest.skip("socksio is here")
    with pytest.raises(NoAccess, match="all_proxy names a SOCKS proxy.*socksio"):
        cloud.check_key()


def test_an_error_without_a_text_still_says_what_it_was(serve, client):
    serve()
    c = client()

    async def silent():
        raise ValueError

    with pytest.raises(NotAnswered, match="^ValueError: no reason was given$"):
        c.submit(c._tried(silent)).result(10)


@pytest.mark.parametrize("status", [429, 500])
def test_a_fault_that_stays_ends_after_the_retries_and_costs_nothing(serve, client, status):
    server, c = serve(lambda *_: {"status": status, "headers": {"retry-after": "0.01"}}), client()
    with pytest.raises(NotAnswered, match=str(status)):
        ask(c)
    assert len(server.messages) == 1 + len(cloud.PAUSES) and c.budget.spent == 0 and c.budget.flying == 0


@pytest.mark.parametrize(
    "status, kind", [(400, NotAnswered), (401, NoKey), (403, NoKey), (402, CloudError), (404, NotFound)]
)
def test_a_refusal_is_not_tried_again(serve, client, status, kind):
    server = serve(lambda *_: {"status": status})
    with pytest.raises(kind) as stopped:
        ask(client())
    assert type(stopped.value) is kind and len(server.messages) == 1


@pytest.mark.parametrize(
    "change", [{"content": None}, {"model": None, "content": "text"}, {"content": [{"type": "text"}]}]
)
def test_a_malformed_reply_is_no_answer_and_counts_at_its_worst(serve, client, change):
    serve(lambda *_: change)
    c = client()
    with pytest.raises(NotAnswered):
        ask(c)
    assert c.budget.spent == pytest.approx(worst(request()))


def test_text_after_thinking_blocks_is_found(serve, client):
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "{}"}]
    serve(lambda *_: {"content": blocks})
    assert ask(client()).text == "{}"


# --- the cap


def test_the_cap_is_never_passed_even_by_calls_in_flight(serve, client):
    server = serve(delay=0.02)
    c = client(cap=2.5 * worst(request()), concurrency=10)
    futures = [c.submit(c.ask(request())) for _ in range(40)]
    errors = [f.exception(60) for f in futures]
    assert server.peak <= 2 and all(e is None or isinstance(e, BudgetSpent) for e in errors)
    paid = sum(f.result().dollars for f in futures if f.exception() is None)
    assert c.budget.spent == pytest.approx(paid) and paid <= c.budget.cap and c.budget.held == 0
    assert server.replies > 2, "money that a call did not need is free for the next"


def test_a_call_that_may_pass_the_cap_is_not_made(serve, client):
    server = serve()
    with pytest.raises(BudgetSpent, match=r"the cap is \$0.00.*raise `dollars`"):
        ask(client(cap=1e-6))
    assert server.requests == []


# --- keys


@pytest.mark.parametrize("key", [None, "", "  ", "sk-ant one", "sk-ant-planted\n", "sk-änt"])
def test_without_a_sendable_key_nothing_starts_and_the_key_is_not_told(serve, client, monkeypatch, key):
    server = serve()
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("ANTHROPIC_API_KEY") if key is None else monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    with pytest.raises(NoKey, match="ANTHROPIC_API_KEY") as stopped:
        ask(client())
    assert server.requests == []
    if (key or "").strip():
        assert key.strip() not in everything(stopped.value)


def everything(error):
    """All that a reader of a traceback could see: messages, causes, contexts and the locals of every frame but ours."""
    frames = [f for f, _ in traceback.walk_tb(error.__traceback__) if f.f_code.co_filename != __file__]
    shown = [str(error), repr(error), *(repr(f.f_locals) for f in frames)]
    return "".join(shown + [everything(e) for e in (error.__cause__, error.__context__) if e is not None])


@pytest.mark.parametrize("status", [400, 401, 404, 529])
def test_a_key_that_the_server_sends_back_stays_out_of_errors_and_logs(serve, client, caplog, status):
    caplog.set_level(logging.DEBUG)
    serve(
        lambda n, body, headers: {
            "status": status,
            "message": f"bad {headers['authorization']}",
            "headers": {"retry-after": "0.01"},
        }
    )
    with pytest.raises(CloudError) as stopped:
        ask(client())
    assert "[ANTHROPIC_API_KEY]" in str(stopped.value)
    assert KEY not in everything(stopped.value) and KEY not in caplog.text and "POST" in caplog.text


def test_a_key_that_the_server_writes_into_its_reply_is_scrubbed(serve, client):
    serve(lambda n, body, headers: {k: f"{headers['authorization']}" for k in ("text", "model", "stop_reason")})
    assert KEY not in repr(ask(client()))


# --- its thread


def test_a_closed_or_forgotten_client_leaves_no_thread(serve):
    serve()
    before = threading.active_count()
    c = Claude(MODEL, 1.0)
    ask(c)
    c.close()
    c = Claude(MODEL, 1.0)
    del c
    gc.collect()
    assert threading.active_count() <= before


def test_it_works_where_a_loop_is_running_as_in_a_notebook(serve, client):
    serve()

    async def cell():
        return ask(client())

    assert asyncio.run(cell()).model == MODEL
