"""Chosen sets that Claude writes: the same tasks, the same builders, another author.

Knows the request, the parser of its reply and the key under which a reply stays paid. Does not know the ruler: tasks
come from the bank, and what comes back passes the leak guard like any other text. A set that did not come, or has
another form, is left out and counted by the builder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.agent import prompt
from lib.agent.bank import Example
from lib.agent.prompt import Draft
from lib.claude import client
from lib.claude.client import Reply
from lib.claude.paid import Ask, Fault, Paid
from lib.claude.prices import Request
from lib.claude.store import Store
from lib.files import canonical, sha256
from lib.log import Row
from lib.measure.answer import NoAnswer, spec_gate
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


def teacher(settings: Mapping[str, Any], path: Path | None, seed: int, poll: float = 60.0) -> Writer:
    """A writer of sets. `settings` has model, dollars (a cap for all of it) and batch. Raises NoKey, CloudError."""
    paid = Paid(
        Store(path or Path("teacher.jsonl")),
        settings["model"],
        float(settings["dollars"]),
        read,
        about={"fingerprint": "teacher", "replicate": 0},
        wrong="the chosen sets were {fault}; none of them is used",
        batch=settings["batch"],
        poll=poll,
    )

    def write(examples: Sequence[Example], kind: str) -> list[Draft | None]:
        # All at once: as a batch they cost half, and one batch a task would take a day each.
        asks = [_ask(request(settings["model"], e.task, kind), seed) for e in examples]
        [rows] = paid.collect([paid.submit(paid.answer(asks))])
        return [_draft(row) for row in rows]

    return write


def _draft(row: Row | Fault) -> Draft | None:
    """The set of a reply; None where there was no usable one."""
    if isinstance(row, Fault):
        return None
    return Draft(row["value"]["title"], tuple(row["value"]["questions"]))


# The seed is part of the key: another one asks for the same task afresh.
def _ask(parameters: Request, seed: int) -> Ask:
    return Ask(sha256(canonical([parameters, seed])), lambda: parameters)


def request(model: str, task: str, kind: str) -> Request:
    """The call that asks for one set. The instructions are the planner's own, so that what is learnt is what is asked."""
    parts = [prompt.ROLE, prompt.ASK, prompt.COACH]
    if kind == "coverage":
        parts.append(COVER)
    system = [{"type": "text", "text": "\n".join(parts)}]
    return client.request(model, MOST, system, prompt.user(task, QUESTIONS)["content"], FORM, effort="low")


def read(_: Row, reply: Reply) -> Row | Fault:
    """The set of a reply, or what is wrong with it."""
    # First: a set that was cut off can look whole.
    if reply.stop_reason != "end_turn":
        return Fault(f"stopped by {reply.stop_reason}")
    try:
        draft = prompt.parse_set(reply.text)
    except prompt.BadReply as error:
        return Fault(str(error))
    answer = spec_gate(draft.title, draft.questions, QUESTIONS)
    if isinstance(answer, NoAnswer):
        return Fault(answer.reason)
    return {"title": draft.title, "questions": list(draft.questions)}
