"""A loopback server that speaks enough of the Anthropic API for the real SDK: messages and batches.

    python -m tests.claude.loopback serve [--delay S]     serves until it is stopped, and prints its address
    python -m tests.claude.loopback demo                  two toy cases through ClaudeJudge, then it stops

Knows what the API of 2026-10-21 refuses (temperature, a missing Bearer key, a loose schema, a doubled custom_id) and
how to fail on demand. Judges by counting words, the same every time. Does not know `lib`, but for the demo.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import threading
import time

REASONS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
           429: "rate_limit_error", 500: "api_error", 529: "overloaded_error"}  # fmt: skip
STOP = frozenset(
    "a an and are do does for how in is it of on or the to what when where which who will with you your".split()
)


class Loopback:
    """The server, on a thread of its own. Use it as a context manager; `url` is its address.

    `rule(n, body, headers)` is asked for every message, n counting from 1, and may return changes to the honest
    reply: status (with message and headers), reset, delay, text, stop_reason, model, content, body (a whole body with
    status 200), or entry ("expired", "errored", "canceled") for a request of a batch. `polls` is how often a batch says
    that it is in progress, `unknown` how many looks at one are answered 404 first, -1 for all; a batch whose `archived`
    is set has ended and names no results.
    """

    def __init__(self, rule=None, delay=0.0, polls=1, seed=0, unknown=0, archived=False):
        self.rule = rule or (lambda n, body, headers: {})
        self.delay, self.polls, self.unknown, self.archived = delay, polls, unknown, archived
        self.requests = []  # (path, headers, body) of everything that came in
        self.replies = 0  # messages that went out whole: what a customer pays for
        self.flying = self.peak = 0
        self.batches = {}
        self._n = 0
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()

    def __enter__(self):
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        self._thread.join(10)
        self._loop.close()

    @property
    def messages(self):
        """Bodies of the message requests, batches left out."""
        return [body for path, _, body in self.requests if path == "/v1/messages"]

    def _serve(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._loop.run_forever()

    async def _start(self):
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._server = server
        self._ready.set()

    async def _end(self):
        self._server.close()
        others = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._loop.stop()

    # --- HTTP

    async def _connection(self, reader, writer):
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _one(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        body = json.loads(raw) if raw else None
        path = path.split("?")[0]
        self.requests.append((path, headers, body))
        number = len(self.requests)
        status, data, extra = await self._answer(method, path, headers, body)
        if status == 0:
            writer.transport.abort()
            return False
        writer.write(_response(status, data, {"request-id": f"req_{number:06}", **extra}))
        await writer.drain()
        self.replies += status == 200 and path == "/v1/messages"
        return True

    async def _answer(self, method, path, headers, body):
        if not re.fullmatch(r"Bearer \S+", headers.get("authorization", "")):
            return _error(401, "no Bearer key")
        if headers.get("anthropic-version") != "2026-10-21":
            return _error(400, f"anthropic-version {headers.get('anthropic-version')}")
        if (method, path) == ("POST", "/v1/messages"):
            return await self._message(headers, body)
        if (method, path) == ("POST", "/v1/messages/batches"):
            return self._new_batch(headers, body)
        found = re.fullmatch(r"/v1/messages/batches/([^/]+)(/results)?", path)
        if method == "GET" and found and found[1] in self.batches:
            return self._batch(found[1], bool(found[2]))
        return _error(404, f"no {path}")

    # --- messages

    async def _message(self, headers, body):
        self._n += 1
        wrong = refused(body)
        if wrong:
            return _error(400, wrong)
        change = self.rule(self._n, body, headers) or {}
        self.flying += 1
        self.peak = max(self.peak, self.flying)
        try:
            await asyncio.sleep(change.get("delay", self.delay))
        finally:
            self.flying -= 1
        if change.get("reset"):
            return 0, None, {}
        if "status" in change:
            status, data, _ = _error(change["status"], change.get("message", "on demand"))
            return status, data, change.get("headers", {})
        if "body" in change:
            return 200, change["body"], {}
        return 200, reply(body, change, self._n), {}

    # --- batches

    def _new_batch(self, headers, body):
        ids = [r["custom_id"] for r in body["requests"]]
        if len(set(ids)) != len(ids) or not all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", i) for i in ids):
            return _error(400, "a custom_id is doubled, or not 1 to 64 letters, digits, _ or -")
        name = f"msgbatch_{len(self.batches) + 1:03}"
        results = [{"custom_id": r["custom_id"], "result": self._entry(r["params"], headers)} for r in body["requests"]]
        self._random.shuffle(results)
        self.batches[name] = {
            "results": results, "polls": self.polls, "unknown": self.unknown, "archived": self.archived, "paid": 0}  # fmt: skip
        return self._state(name)

    def _entry(self, params, headers):
        self._n += 1
        change = self.rule(self._n, params, headers) or {}
        wrong = refused(params)
        if wrong or change.get("entry") == "errored":
            kind = {"type": "invalid_request_error", "message": wrong or "on demand"}
            return {"type": "errored", "error": {"type": "error", "error": kind, "request_id": None}}
        if "entry" in change:
            return {"type": change["entry"]}
        return {"type": "succeeded", "message": reply(params, change, self._n)}

    def _batch(self, name, results):
        batch = self.batches[name]
        if batch["unknown"]:
            batch["unknown"] -= 1
            return _error(404, f"no batch {name}")
        if results:
            batch["paid"] += 1
            return 200, "".join(json.dumps(r) + "\n" for r in batch["results"]), {}
        return self._state(name)

    def _state(self, name):
        batch = self.batches[name]
        ended = batch["polls"] <= 0
        batch["polls"] -= 1
        count = {k: 0 for k in ("canceled", "errored", "expired", "processing", "succeeded")}
        at = "2026-11-23T00:00:00Z"
        url = f"{self.url}/v1/messages/batches/{name}/results" if ended and not batch["archived"] else None
        data = {"id": name, "type": "message_batch", "processing_status": "ended" if ended else "in_progress",
                "request_counts": count, "created_at": at, "expires_at": at, "ended_at": at if ended else None,
                "results_url": url, "archived_at": at if ended and batch["archived"] else None, "cancel_initiated_at": None}  # fmt: skip
        return 200, data, {}


def _error(status, message):
    kind = REASONS.get(status, "api_error")
    return status, {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_error"}, {}


def _response(status, data, headers):
    kind = "application/x-jsonl" if isinstance(data, str) else "application/json"
    raw = (data if isinstance(data, str) else json.dumps(data)).encode()
    lines = [
        f"HTTP/1.1 {status} {'OK' if status == 200 else 'No'}",
        f"content-type: {kind}",
        f"content-length: {len(raw)}",
    ]
    return "\r\n".join([*lines, *(f"{k}: {v}" for k, v in headers.items()), "", ""]).encode("latin-1") + raw


def refused(body):
    """What the real API would answer 400 to, "" if nothing."""
    gone = [k for k in ("temperature", "top_p", "top_k", "tool_choice") if k in body]
    if gone:
        return f"{gone[0]} is not supported"
    if not isinstance(body.get("max_tokens"), int) or body["messages"][-1]["role"] != "user":
        return "max_tokens is missing, or the last message is not the user's"
    kind = body.get("thinking", {}).get("type")
    if body["model"] == "claude-sonnet-5-5" and kind in ("disabled", "enabled"):
        return f"thinking {kind} is not supported by this model"
    if body["model"] != "claude-sonnet-5-5" and kind == "between_tools":
        return "thinking between_tools is not supported by this model"
    schema = body.get("output_config", {}).get("format", {}).get("schema", {"additionalProperties": False})
    return "" if schema.get("additionalProperties") is False else "additionalProperties must be false"


def tokens(value):
    return len(json.dumps(value)) // 4


def reply(body, change, n):
    """A whole message: the honest judgment with the changes of the rule."""
    text = change["text"] if "text" in change else json.dumps(judge(body))  # a proposer's call has nothing to judge
    return {
        "id": f"msg_{n:06}", "type": "message", "role": "assistant", "model": change.get("model", body["model"]),
        "content": change.get("content", [{"type": "text", "text": text}]),
        "stop_reason": change.get("stop_reason", "end_turn"), "stop_sequence": None,
        "usage": {"input_tokens": tokens(body), "output_tokens": len(text) // 4,
                  "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "service_tier": "standard"},
    }  # fmt: skip


# --- a judge that counts words -------------------------------------------------------------------


def texts(body):
    """The data of a call by tag, read as the judge's instructions say: only tags with the call's own number."""
    nonce = re.search(r"<task-([0-9a-f]+)>", body["system"][-1]["text"])[1]
    content = body["messages"][-1]["content"]
    found = re.findall(rf"^<(\w+)-{nonce}>\n(.*)\n</\1-{nonce}>$", content, re.M)
    return {name: json.loads(data) for name, data in found}


def judge(body):
    """A judgment in the form that the request's schema asks for."""
    data, fields = texts(body), body["output_config"]["format"]["schema"]["properties"]
    a, b = (worth(data["task"], data.get(s, data["A"])) for s in "AB")
    said = {"reason": f"A has {a:.1f} and B {b:.1f} words of its own a question."}
    for name in fields:
        if name in ("verdict", "better"):
            said[name] = "tie" if abs(a - b) < 0.5 else "A" if a > b else "B"
        elif name != "reason":
            said[name] = max(1, min(5, round(b / 2)))
    return said


def worth(task, answer):
    """Different words a question, without small words and those of the task."""
    words = {w for q in answer["questions"] for w in re.findall(r"\w+", q.lower())}
    return len(words - STOP - set(re.findall(r"\w+", task.lower()))) / max(1, len(answer["questions"]))


# --- the program ---------------------------------------------------------------------------------


def demo():
    """Judge two toy cases over HTTP with the real SDK; everything is printed, nothing is kept."""
    import os
    import tempfile
    from pathlib import Path

    from lib.measure.answer import Answer
    from lib.measure.claude_judge import ClaudeJudge
    from lib.measure.ruler import Ruler

    ruler = Ruler.load()
    cases = ruler.gate("dev")[:2]
    vague = ("What is the budget?", "When is it?", "Who is it for?", "Where is it?", "What else?", "Why?", "How long?")
    pairs = [
        (cases[0], Answer(f"Plan: {cases[0].task}", vague)),
        (cases[1], Answer(cases[1].gold.title, cases[1].gold.questions)),
    ]
    with tempfile.TemporaryDirectory() as temp, Loopback(delay=0.05) as server:
        os.environ |= {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": "no-key-needed-here"}
        print(
            f"A stand-in for Claude at {server.url}: it counts words, so its verdicts mean nothing. The way is real.\n"
        )
        store = Path(temp) / "judgments.jsonl"
        judge = ClaudeJudge(ruler, store=store, dollars=1.0)
        for (case, _), found in zip(pairs, judge.judge_all(pairs), strict=True):
            print(f"{case.id}: {found}\n")
        print(f"What the store keeps, a line a reply ({judge.cost.calls}):")
        for line in store.read_text().splitlines():
            row = json.loads(line)
            print(" ", {k: row[k] for k in ("case", "kind", "order", "request_id", "stop_reason", "dollars", "value")})
        print(f"\nCost: {judge.cost}")
        again = ClaudeJudge(ruler, store=store)
        again.judge_all(pairs)
        print(
            f"The same again: {again.cost.calls} calls, {again.cost.stored} from the store; the server saw {server.replies}."
        )
        judge.close()


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("serve", "demo"))
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that every message takes")
    told = parser.parse_args()
    if told.what == "demo":
        demo()
        return
    with Loopback(delay=told.delay) as server:
        print(server.url, flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
