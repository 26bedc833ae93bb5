"""Self-critique: the model looks at its own draft and mends it.

Knows how to bound what a critique may change. A critique that cannot be read changes nothing and is noted; a revision
that cannot be read is the answer, so it fails the case.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from lib.agent import prompt
from lib.agent.likeness import fresh, others
from lib.agent.pipeline import Call, Run, State, Work, step
from lib.agent.prompt import BadReply
from lib.agent.steps.asking import Count, read_set


def swap(state: State, at: int, question: str, why: str) -> State:
    """The state with question `at` replaced, unless the new one is no question or repeats another. Both are noted."""
    draft = state.written
    old, questions = draft.questions[at], draft.questions
    # A swap must not cost what the gate and the redundancy score pay for.
    if not question.endswith("?") or not fresh(question, others(questions, at)):
        return state.note(f"kept {old!r} ({why}): the new one {prompt.clip(question)} is no better")
    draft = replace(draft, questions=(*questions[:at], question, *questions[at + 1 :]))
    return replace(state, draft=draft).note(f"swapped ({why}): {old} > {question}")


# Published study, exp023 and exp028, one swap at most: 0.273 on dev beside 0.308, 0.398 on full beside 0.409.
@step("self-critique", calls=lambda swaps, **_: 2 * swaps, takes=("draft",))
def critique(swaps: Annotated[int, Field(ge=1, le=7)] = 1) -> Run:
    """Name the worst question and its fault and rewrite that one alone; at most `swaps` times, or until none is named."""

    def run(state: State) -> Work:
        """A reply that cannot be read ends the rounds with a note, and what was swapped before stays."""
        for _ in range(swaps):
            questions = state.written.questions
            # Again over the whole draft: what was mended in the round before may be the worst one now.
            [reply] = yield [Call(prompt.critique(state.task, questions))]
            try:
                worst = prompt.parse_critique(reply.text, len(questions))
                if worst is None:
                    return state.note("no fault found")
                at, fault = worst
                [reply] = yield [Call(prompt.repair(state.task, questions[at], fault))]
                state = swap(state, at, prompt.parse_text(reply.text, "question"), fault)
            except BadReply as error:
                return state.note(f"draft kept as it is: {error}")
        return state

    return run


# Published study, exp005: 0.315 on dev beside 0.308.
@step("self-critique", calls=lambda rounds, **_: rounds, takes=("draft",), gives=("draft", "pool"))
def revise(rounds: Annotated[int, Field(ge=1, le=5)] = 1, n: Count = 7) -> Run:
    """Show the whole draft and ask for a better one that keeps what is good."""

    def run(state: State) -> Work:
        """Each draft that is replaced goes into the pool. Raises BadReply where a new one cannot be read."""
        for _ in range(rounds):
            draft = state.written
            [reply] = yield [Call(prompt.revise(state.task, draft.questions, n))]
            state = replace(state, draft=read_set(reply), pool=(*state.pool, draft))
        return state

    return run
