"""Prompting and schema: one call that writes the whole set.

Knows which paragraphs and schema to send. Does not know what comes after.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from lib.agent import prompt
from lib.agent.pipeline import Call, State, Work, step

Schema = Literal["json", "lines", "slots", "unknowns", "reasons", "givens"]


@step("prompting", calls=lambda **_: 1)
def ask(n: int = 7, schema: Schema = "json", advice: list[str] = [], tokens: int = 0):  # noqa: B006
    """Write a title and n questions in one call, in a schema, with optional advice (a name or your own words)."""
    if not 1 <= n <= 20:
        raise ValueError(f"n is {n}, expected 1 to 20")
    if schema == "slots" and n != 7:
        raise ValueError(f"n is {n}, but the slots schema has seven slots")
    if not 0 <= tokens <= 100_000:
        raise ValueError(f"tokens is {tokens}, expected 0 (the decoding's own) to 100000")
    for a in advice:
        if a not in prompt.ADVICE and len(a.split()) < 2:
            raise ValueError(f"advice {a!r} is neither your own words nor one of {', '.join(prompt.ADVICE)}")
    change = {"max_tokens": tokens} if tokens > 0 else {}

    def run(state: State) -> Work:
        demos = [(e.task, e.draft) for e in state.demos]
        [reply] = yield [Call(prompt.ask(state.task, n, schema, advice, demos), change)]
        if reply.finish_reason == "length":
            raise prompt.BadReply(f"cut off after {reply.generation_tokens} tokens")
        return replace(state, draft=prompt.parse_set(reply.text, schema))

    return run
