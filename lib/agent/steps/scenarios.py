"""Info-gain and answer simulation: keep the questions whose answers would tell situations or plans apart.

Knows the answers that the model itself imagines. A reply that cannot be read counts as no answer and is noted; without
one readable answer there is nothing to choose by, and the case fails.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from lib.agent import prompt
from lib.agent.likeness import repeats, variety
from lib.agent.pipeline import Call, State, Work, step
from lib.agent.prompt import BadReply, Draft
from lib.agent.steps.asking import Count


def _keep(state: State, draft: Draft, worth: list[float], to: int) -> State:
    """The `to` questions of most worth, in the order of the draft. What was not looked at has no worth, nor a repeat."""
    worth = [-1.0 if again else w for again, w in zip(repeats(draft.questions), worth, strict=False)]
    ranked = sorted(range(len(worth)), key=lambda i: (-worth[i], i))[:to]
    told = ", ".join(f"{w:.2f}" for w in worth)
    questions = tuple(draft.questions[i] for i in sorted(ranked))
    return replace(state, draft=Draft(draft.title, questions)).note(f"worth by question: {told}")


@step("info-gain", calls=lambda situations, most, **_: 1 + situations * most, role="after")
def discriminate(to: Count = 7, situations: Annotated[int, Field(ge=2, le=8)] = 4, most: Count = 10):
    """Imagine different situations, answer each question of the draft in each, keep those whose answers differ most."""

    def run(state: State) -> Work:
        draft = state.need("discriminate")
        asked = draft.questions[:most]
        [reply] = yield [Call(prompt.scenarios(state.task))]
        told = [s for s in prompt.parse_list(reply.text, "scenarios") if s][:situations]
        if len(told) < 2:
            raise BadReply(f"{len(told)} situations listed, at least 2 are needed to tell apart")
        state = state.note("situations: " + " | ".join(told))
        replies = yield [Call(prompt.answer(state.task, s, q)) for q in asked for s in told]
        answers, faults = prompt.parse_each(replies, lambda r: prompt.parse_text(r.text, "answer"))
        if len(faults) == len(answers):
            raise BadReply(f"no answer could be read; the first: {faults[0] if faults else 'nothing asked'}")
        rows = [[a for a in answers[i * len(told) : (i + 1) * len(told)] if a] for i in range(len(asked))]
        if faults:
            state = state.note(f"{len(faults)} of {len(answers)} answers left out: {faults[0]}")
        return _keep(state, draft, [variety(r) for r in rows], to)

    return run


@step("answer simulation", calls=lambda by, most, **_: most * (3 if by == "plan" else 1), role="after")
def simulate(to: Count = 7, by: Literal["answers", "plan"] = "answers", most: Count = 10):
    """Imagine three answers to each question of the draft; keep those whose answers differ most, or change the plan most."""

    def run(state: State) -> Work:
        draft = state.need("simulate")
        asked = draft.questions[:most]
        replies = yield [Call(prompt.answers(state.task, q)) for q in asked]
        told, faults = prompt.parse_each(replies, lambda r: prompt.parse_list(r.text, "answers"))
        if len(faults) == len(told):
            raise BadReply(f"no answers could be read; the first: {faults[0] if faults else 'nothing asked'}")
        rows = [list(t or ())[:3] for t in told]
        if by == "plan":
            # The first and the last answer, each said with the task: does another plan come out?
            pairs = [(i, a) for i, row in enumerate(rows) if len(row) > 1 for a in (row[0], row[-1])]
            replies = yield [Call(prompt.plan(f"{state.task} ({asked[i]} {a})")) for i, a in pairs]
            plans, more = prompt.parse_each(replies, lambda r: prompt.parse_list(r.text, "steps"))
            faults, found = [*faults, *more], [(i, " ".join(p)) for (i, _), p in zip(pairs, plans, strict=True) if p]
            rows = [[text for k, text in found if k == i] for i in range(len(asked))]
        if faults:
            state = state.note(f"{len(faults)} replies left out: {faults[0]}")
        return _keep(state, draft, [variety(r) for r in rows], to)

    return run
