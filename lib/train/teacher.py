"""Chosen sets that Claude writes: the same tasks, the same builders, another author.

Knows the request, the parser of its reply, the store that makes a killed call resume without paying twice, and the
cap. Does not know the ruler: tasks come from the bank, and what comes back passes the leak guard like any
other text. A set that did not come, or has another form, is left out and counted by the builder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lib.agent import prompt
from lib.agent.bank import Example
from lib.agent.prompt import Draft
from lib.files import canonical, sha256
from lib.measure.answer import Answer, spec_gate
from lib.measure.claude import Claude, NotAnswered, Reply, WrongModel, check_key
from lib.measure.spend import CloudError, Request, listed, worst
from lib.measure.store import BATCH, ENDED, REPLY, Row, Store
from lib.train.data import QUESTIONS, Writer

COVER = (
    "Together the questions must span everything important that the plan depends on: goal, scope, people, money, "
    "time, present state and limits, as far as the task leaves them open."
)
FORM = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "questions": {"type": "array", "items": {"type": "string"}}},
    "required": ["title", "questions"],
    "additionalProperties": False,
}
MOST = 1200  # tokens of a reply


def teacher(told: Mapping[str, Any], path: Path | None, seed: int, poll: float = 60.0) -> Writer:
    """A writer of sets. `told` has model, dollars (a cap for all of it) and batch. Raises NoKey, CloudError."""
    store = Store(path or Path("teacher.jsonl"))
    client: list[Claude] = []

    def write(found: Sequence[Example], kind: str) -> list[Draft | None]:
        wanted = {_key(told, s, kind, seed): s for s in found}
        if any(store.reply(k) is None for k in wanted):
            check_key()
            client.extend([] if client else [Claude(told["model"], float(told["dollars"]))])
            requests = {k: request(told["model"], s.task, kind) for k, s in wanted.items()}
            job = _batch if told["batch"] else _live
            client[0].submit(job(client[0], store, requests, poll)).result()
        rows = (store.reply(_key(told, s, kind, seed)) for s in found)
        return [Draft(r["value"]["title"], tuple(r["value"]["questions"])) if r else None for r in rows]

    return write


def _key(told: Mapping[str, Any], s: Example, kind: str, seed: int) -> str:
    return sha256(canonical([request(told["model"], s.task, kind), seed]))


def request(model: str, task: str, kind: str) -> Request:
    """The call that asks for one set. The instructions are the planner's own, so that what is learnt is what is asked."""
    takes = listed(model)
    parts = [prompt.ROLE, prompt.ASK, prompt.COACH, *([COVER] if kind == "coverage" else [])]
    made: Request = {
        "model": model,
        "max_tokens": MOST,
        "system": [{"type": "text", "text": "\n".join(parts)}],
        "messages": [{"role": "user", "content": prompt.user(task, QUESTIONS)["content"]}],
        "output_config": {"format": {"type": "json_schema", "schema": FORM}},
    }
    if takes.effort:
        made["output_config"]["effort"] = "low"
    if takes.thinking:
        made["thinking"] = {"type": "between_tools"}  # as the judge: none before a plain reply
    return made


def read(reply: Reply) -> Draft | str:
    """The set of a reply, or what is wrong with it."""
    if reply.stop_reason != "end_turn":
        return f"stopped by {reply.stop_reason}"
    try:
        draft = prompt.parse_set(reply.text)
    except prompt.BadReply as error:
        return str(error)
    answer = spec_gate(draft.title, draft.questions, QUESTIONS)
    return draft if isinstance(answer, Answer) else answer.reason


async def _live(client: Claude, store: Store, requests: Mapping[str, Request], _: float) -> None:
    async def one(key: str, made: Request) -> None:
        try:
            _keep(client, store, key, await client.ask(made))
        except NotAnswered:
            return  # left out and counted; a later call asks again

    missing = {k: r for k, r in requests.items() if store.reply(k) is None}
    for failed in await asyncio.gather(*(one(k, r) for k, r in missing.items()), return_exceptions=True):
        if isinstance(failed, BaseException):
            raise failed


async def _batch(client: Claude, store: Store, requests: Mapping[str, Request], poll: float) -> None:
    """One message batch at half the price; one that was sent before a kill is picked up, not sent again."""
    for sent in store.pending():
        if any(key in requests for key in sent["calls"]):
            await _finish(client, store, sent["batch"], poll)
    missing = {k: r for k, r in requests.items() if store.reply(k) is None}
    if not missing:
        return
    most = sum(worst(r, batch=True) for r in missing.values())
    await client.budget.hold(most)
    paid = 0.0
    try:
        name = await client.start_batch(missing)
        # The id is on disk before anything else happens: from here on a kill loses nothing.
        store.append({"type": BATCH, "batch": name, "model": client.model, "calls": list(missing)})
        paid = await _finish(client, store, name, poll)
    finally:
        await client.budget.settle(most, paid)


async def _finish(client: Claude, store: Store, batch: str, poll: float) -> float:
    pause = min(1.0, poll)
    try:
        while not await client.batch_ended(batch):
            await asyncio.sleep(pause)
            pause = min(poll, pause * 2)
        results = await client.batch_results(batch)
    except CloudError as error:
        if type(error) is not CloudError:
            raise
        results = []  # the API no longer knows it: its calls are asked again
    paid = 0.0
    for key, reply in results:
        if isinstance(reply, Reply):
            paid += reply.dollars
            _keep(client, store, key, reply, batch)
    store.append({"type": ENDED, "batch": batch})
    return paid


def _keep(client: Claude, store: Store, key: str, reply: Reply, batch: str = "") -> None:
    """Put a reply on disk with what it is worth. Raises WrongModel."""
    value = read(reply)
    if reply.model != client.model:
        value = f"answered by {reply.model}, asked was {client.model}"
    said = (
        {"fault": value}
        if isinstance(value, str)
        else {"value": {"title": value.title, "questions": list(value.questions)}}
    )
    row: Row = {
        "type": REPLY, "key": key, "batch": batch, "fingerprint": "teacher", "replicate": 0, "model": reply.model,
        "message_id": reply.message_id, "request_id": reply.request_id, "stop_reason": reply.stop_reason,
        "usage": reply.usage, "dollars": reply.dollars, "text": reply.text,
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"), **said,
    }  # fmt: skip
    store.append(row)
    if reply.model != client.model:
        raise WrongModel(f"the chosen sets were {said['fault']}; none of them is used")
