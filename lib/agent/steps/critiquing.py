"""Self-critique: the model looks at its own draft and mends it.

Knows how to bound what a critique may change. A critique that cannot be read changes nothing and is noted; a revision
that cannot be read is the answer, so it fails the case.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from lib.agent import prompt
from lib.agent.likeness import fresh
from lib.agent.pipeline import Call, State, Work, step
from lib.agent.prompt import BadReply
from lib.agent.steps.asking import Count, read_set


def swap(state: State, at: int, question: str, why: str) -> State:
    """The state with question `at` replaced, unless the new one is no question or repeats another. Both are noted."""
    draft = state.need("swap")
    others = [q for i, q in enumerate(draft.questions) if i != at]
    if not question.endswith("?") or not fresh(question, others):
        return state.note(f"kept {draft.questions[at]!r} ({why}): the new one {prompt.clip(question)} is no better")
    questions = tuple(question if i == at else q for i, q in enumerate(draft.questions))
    return replace(state, draft=replace(draft, questions=questions)).note(
        f"swapped ({why}): {draft.questions[at]} > {question}"
    )


@step("self-critique", calls=lambda swaps, **_: 2 * swaps, role="after")
def critique(swaps: Annotated[int, Field(ge=1, le=7)] = 1):
    """Name the worst question and its fault and rewrite that one alone; at most `swaps` times, or until none is named."""

    def run(state: State) -> Work:
        for _ in range(swaps):
            draft = state.need("critique")
            [reply] = yield [Call(prompt.critique(state.task, draft.questions))]
            try:
                found = prompt.parse_critique(reply.text, len(draft.questions))
                if found is None:
                    return state.note("no fault found")
                at, fault = found
                [reply] = yield [Call(prompt.repair(state.task, draft.questions[at], fault))]
                state = swap(state, at, prompt.parse_text(reply.text, "question"), fault)
            except BadReply as error:
                return state.note(f"draft kept as it is: {error}")
        return state

    return run


@step("self-critique", calls=lambda rounds, **_: rounds, role="after")
def revise(rounds: Annotated[int, Field(ge=1, le=5)] = 1, n: Count = 7):
    """Show the whole draft and ask for a better one that keeps what is good."""

    def run(state: State) -> Work:
        for _ in range(rounds):
            draft = state.need("revise")
            [reply] = yield [Call(prompt.revise(state.task, draft.questions, n))]
            state = replace(state, draft=read_set(reply), pool=(*state.pool, draft))
        return state

    return run
