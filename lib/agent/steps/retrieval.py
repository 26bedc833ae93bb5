"""Retrieval: worked examples from the bank, shown, taken as a checklist or made over.

Knows the bank and the ways to be near. Examples of the same task are left out (leave-one-out by near-duplicate, not by
id). Which examples were taken is noted on the state.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from lib.agent import prompt
from lib.agent.bank import Example, bank, nearest
from lib.agent.guard import SAME_TASK, content, overlap
from lib.agent.likeness import distinct, in_turn
from lib.agent.pipeline import Call, Run, State, Work, step
from lib.agent.steps.asking import Count, Few, read_set

By = Literal["words", "embedding", "diverse", "fixed"]


def chosen(state: State, k: int, by: str) -> tuple[State, list[Example]]:
    """The k examples nearest to a task, nearest first, and the state with a note of which and how they were found."""
    if by == "fixed":
        examples = _fixed(state.task, k)
    elif by == "diverse":
        examples = _diverse(state.task, k)
    else:
        examples = nearest(state.task, bank(), k, by)
    return state.note("examples: " + " | ".join(e.task for e in examples)), examples


# Published study, by words 0.320 on dev (exp003) and by meaning 0.273 (exp007), beside 0.308. Its exp032, 0.498 on
# full, had gold among its examples: hence the leak guard.
@step("retrieval", gives=("demos",))
def demos(k: Few = 2, by: By = "words") -> Run:
    """Show the k nearest worked examples (by words, by meaning; of different families; the same for all)."""
    _can_differ(k, by)

    def run(state: State) -> Work:
        state, examples = chosen(state, k, by)
        # The nearest stands last, next to the task: a small model leans on what it read last.
        return replace(state, demos=tuple(reversed(examples)))
        yield  # makes this a generator, as every step is

    return run


def _can_differ(k: int, by: str) -> None:
    """Raise ValueError where examples of different families are asked for and one is taken: it is the nearest."""
    if k == 1 and by == "diverse":
        raise ValueError(
            "by is diverse and k is 1: one example has no other to differ from; take by words or more of them"
        )


def _fixed(task: str, k: int) -> list[Example]:
    """The same examples for every task, spread over the bank, passing over one that is the task itself."""
    examples = bank()
    # Evenly over the bank, whatever its size: sixteen candidates leave room to pass over the task itself.
    spread = [examples[i * len(examples) // 16] for i in range(16)]
    return [e for e in spread if overlap(content(e.task), content(task)) < SAME_TASK][:k]


def _diverse(task: str, k: int) -> list[Example]:
    """The nearest example of each of the k nearest families."""
    first: dict[str, Example] = {}
    for example in nearest(task, bank(), len(bank())):
        first.setdefault(example.family, example)
    return list(first.values())[:k]


# Published study, exp006: 0.290 on dev beside 0.308.
@step("retrieval", calls=lambda **_: 1)
def checklist(k: Few = 3, to: Count = 7, by: By = "words") -> Run:
    """Take what the k nearest examples ask as a checklist and write a question for each of `to` entries."""
    _can_differ(k, by)

    def run(state: State) -> Work:
        state, examples = chosen(state, k, by)
        # First what each of them asks first, the nearest before the others: the most decisive stand first in a set.
        listed = distinct(in_turn([e.draft.questions for e in examples]), to)
        [reply] = yield [Call(prompt.from_unknowns(state.task, listed))]
        return replace(state.note("checklist: " + " | ".join(listed)), draft=read_set(reply))

    return run


# Published study, exp008: 0.248 on dev beside 0.308.
@step("retrieval", calls=lambda **_: 1)
def adapt(n: Count = 7, by: By = "words") -> Run:
    """Show the questions of the nearest example and ask for them made over for this task."""
    _can_differ(1, by)

    def run(state: State) -> Work:
        state, [near] = chosen(state, 1, by)
        [reply] = yield [Call(prompt.adapt(state.task, near.task, near.draft.questions, n))]
        return replace(state, draft=read_set(reply))

    return run
