"""Prompting and schema: one call that writes the whole set, or a few whose questions are merged.

Knows which paragraphs, schema and grammar to send. Does not know what comes after.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from lib.agent import prompt
from lib.agent.likeness import round_robin
from lib.agent.pipeline import Call, Run, State, Work, step
from lib.agent.prompt import BadReply, Draft
from lib.forms import Number
from lib.models.model import Completion

# Ranges of arguments: questions, ways or examples, what may happen not at all, a temperature.
Count = Annotated[int, Field(ge=1, le=20)]
Few = Annotated[int, Field(ge=1, le=8)]
Limit = Annotated[int, Field(ge=0, le=20)]
Heat = Annotated[Number, Field(ge=0, le=5)]
Schema = Literal["json", "lines", "slots", "unknowns", "reasons", "givens"]
Grammar = Literal["off", "count", "questions"]


@step("prompting", calls=lambda **_: 1, needs=lambda grammar, **_: ["grammar"] * (grammar != "off"), uses=("demos",))
def ask(
    n: Count = 7,
    schema: Schema = "json",
    advice: list[str] = [],  # noqa: B006
    tokens: Annotated[int, Field(ge=0, le=100_000)] = 0,  # 0: the decoding's own
    grammar: Grammar = "off",
    take: int = 0,
) -> Run:
    """Write a title and n questions in one call, in a schema, with optional advice and a grammar that fixes the form.

    With `take`, a reply that goes on after so many questions is read up to there, also where it was cut off later.
    """
    if not 0 <= take <= n:
        raise ValueError(f"take is {take}, expected 0 (all of the reply) to n, which is {n}")
    if take and schema not in ("json", "lines"):
        raise ValueError(f"take is {take} and schema {schema}: take reads the schemas json and lines alone")
    if take and grammar != "off":
        raise ValueError(
            f"take is {take} and grammar {grammar}: a grammar fixes the number already; take one of the two out"
        )
    if schema == "slots" and n != 7:
        raise ValueError(f"n is {n}, but the slots schema has seven slots")
    for a in advice:
        if a not in prompt.ADVICE and len(a.split()) < 2:
            raise ValueError(f"advice {a!r} is neither your own words nor one of {', '.join(prompt.ADVICE)}")
    # Made once, not a case: the same grammar compiled for every row would cost more than the answer.
    change: dict[str, Any] = {}
    if tokens > 0:
        change["max_tokens"] = tokens
    if grammar != "off":
        change["grammar"] = prompt.set_grammar(n, schema, grammar == "questions")

    def run(state: State) -> Work:
        demos = state.shown_demos(schema)
        [reply] = yield [Call(prompt.ask(state.task, n, schema, advice, demos), change)]
        return replace(state, draft=read_set(reply, schema, take))

    return run


def read_set(reply: Completion, schema: str = "json", take: int = 0) -> Draft:
    """The draft of a completion, its first `take` questions if given. Raises BadReply, also where the reply was cut off
    at a place that parses."""
    # Asked for before the length is looked at: what was cut off behind them is not needed.
    if take:
        return prompt.parse_first(reply.text, take, schema)
    if reply.finish_reason == "length":
        raise BadReply(f"cut off after {reply.generation_tokens} tokens")
    return prompt.parse_set(reply.text, schema)


# Published study, exp021, with three frames: 0.178 on dev beside 0.308, the lowest of that gate.
@step("prompting", calls=lambda names, **_: len(names), gives=("draft", "pool"))
def frames(names: list[str] = ["doer", "payer", "guest", "sceptic"], n: Count = 7, to: Count = 7) -> Run:  # noqa: B006
    """Ask once from each perspective and merge the sets in turn, first questions first, without repeats."""
    known = list(prompt.FRAMES)
    if not 1 <= len(names) <= 8 or not set(names) <= set(known):
        raise ValueError(f"names is {names}, expected 1 to 8 of {', '.join(known)}")

    def run(state: State) -> Work:
        """A frame whose reply cannot be read is left out and noted. Raises BadReply where none can."""
        replies = yield [Call(prompt.ask(state.task, n, "json", [name])) for name in names]
        drafts, faults = prompt.parse_each(replies, read_set)
        failed = [name for name, draft in zip(names, drafts, strict=True) if draft is None]
        for name, fault in zip(failed, faults, strict=True):
            state = state.note(f"frame {name} left out: {fault}")
        good = [draft for draft in drafts if draft is not None]
        if not good:
            raise BadReply(f"no frame gave a set; the first said: {faults[0]}")
        return replace(state, draft=Draft(good[0].title, round_robin(good, to)), pool=(*state.pool, *good))

    return run


# Published study, exp027: 0.288 on dev beside 0.308. With the adapter 0.470 on full, repeated 0.403 (exp078, exp079).
@step(
    "prompting",
    calls=lambda **_: 1,
    needs=lambda temp, **_: ["temperature"] * (temp > 0),
    takes=("draft",),
    gives=("draft", "pool"),
)
def beat(n: Count = 7, temp: Heat = 0.0) -> Run:
    """Show the model its own draft as the obvious set and ask for one that beats it (temp 0: the run's own decoding)."""

    def run(state: State) -> Work:
        """What was to be beaten goes into the pool, so that a later step may still choose it. Raises BadReply."""
        # Without a temperature of its own the run's decoding holds: 0 would force greedy on a run that samples.
        first, change = state.written, {}
        if temp:
            change["temp"] = temp
        [reply] = yield [Call(prompt.beat(state.task, first.questions, n), change)]
        return replace(state, draft=read_set(reply), pool=(*state.pool, first))

    return run
