"""Info-gain and answer simulation: keep the questions whose answers would tell situations or plans apart.

Knows the answers that the model itself imagines. A reply that cannot be read counts as no answer and is noted; without
one readable answer there is nothing to choose by, and the case fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field

from lib.agent import prompt
from lib.agent.likeness import repeats, top, variety
from lib.agent.pipeline import Call, Run, State, Work, step
from lib.agent.prompt import BadReply, Draft
from lib.agent.steps.asking import Count


def _some(answers: Sequence[Any], faults: Sequence[str]) -> None:
    """Raise BadReply where not one reply could be read: there would be nothing to choose by."""
    if len(faults) == len(answers):
        raise BadReply(f"no answer could be read; the first: {next(iter(faults), 'nothing asked')}")


def _keep(state: State, draft: Draft, worth: list[float], to: int) -> State:
    """The `to` questions of most worth, in the order of the draft. What was not looked at has no worth, nor a repeat."""
    for i, again in enumerate(repeats(draft.questions)[: len(worth)]):
        if again:
            worth[i] = -1.0
    # In the order of the draft: the model's own order is its guess at importance.
    questions = tuple(draft.questions[i] for i in top(worth, to))
    shown = ", ".join(f"{w:.2f}" for w in worth)
    return replace(state, draft=Draft(draft.title, questions)).note(f"worth by question: {shown}")


# Published study, exp030: 0.305 on full beside 0.409, a third of its cases without a set.
@step("info-gain", calls=lambda situations, most, **_: 1 + situations * most, takes=("draft",))
def discriminate(to: Count = 7, situations: Annotated[int, Field(ge=2, le=8)] = 4, most: Count = 10) -> Run:
    """Imagine different situations, answer each question of the draft in each, keep those whose answers differ most."""

    def run(state: State) -> Work:
        """Raises BadReply where fewer than two situations are listed, or no answer can be read."""
        draft = state.written
        [reply] = yield [Call(prompt.scenarios(state.task))]
        different = list(filter(None, prompt.parse_list(reply.text, "scenarios")))[:situations]
        if len(different) < 2:
            raise BadReply(f"{len(different)} situations listed, at least 2 are needed to tell apart")
        state = state.note("situations: " + " | ".join(different))
        pairs = list(product(draft.questions[:most], different))
        replies = yield [Call(prompt.answer(state.task, situation, question)) for question, situation in pairs]
        # A question whose answer is the same in every situation cannot tell them apart: expected information gain,
        # with the spread of the answers in place of an entropy that a model of this size cannot give.
        answers, faults = prompt.parse_each(replies, lambda r: prompt.parse_text(r.text, "answer"))
        _some(answers, faults)
        worth = []
        for at in range(0, len(answers), len(different)):  # the answers to one question stand together
            worth.append(variety(list(filter(None, answers[at : at + len(different)]))))
        return _keep(state.left_out(faults, len(answers), "answers"), draft, worth, to)

    return run


# Published study, exp038, which chose whole sets by it: 0.383 on full beside 0.409.
@step("answer simulation", calls=lambda by, most, **_: most * (1 + 2 * (by == "plan")), takes=("draft",))
def simulate(to: Count = 7, by: Literal["answers", "plan"] = "answers", most: Count = 10) -> Run:
    """Imagine three answers to each question of the draft; keep those whose answers differ most, or change the plan most."""

    def run(state: State) -> Work:
        """By plan, the worth of a question is how far the plans of its first and its last answer differ."""
        draft = state.written
        questions = draft.questions[:most]
        replies = yield [Call(prompt.answers(state.task, question)) for question in questions]
        answers, faults = prompt.parse_each(replies, lambda r: prompt.parse_list(r.text, "answers"))
        _some(answers, faults)
        count = len(replies)
        imagined = [list(of_one or ())[:3] for of_one in answers]
        if by == "plan":
            # The first and the last answer, each said with the task: does another plan come out?
            pairs = []
            for i, row in enumerate(imagined):
                if len(row) > 1:
                    pairs += [(i, row[0]), (i, row[-1])]
            replies = yield [Call(prompt.plan(f"{state.task} ({questions[i]} {answer})")) for i, answer in pairs]
            plans, more = prompt.parse_each(replies, lambda r: prompt.parse_list(r.text, "steps"))
            faults, count = [*faults, *more], count + len(replies)
            imagined = [list[str]() for _ in questions]
            for (i, _), steps in zip(pairs, plans, strict=True):
                if steps:
                    imagined[i].append(" ".join(steps))
        state = state.left_out(faults, count, "replies")
        return _keep(state, draft, [variety(row) for row in imagined], to)

    return run
