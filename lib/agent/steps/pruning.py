"""Over-generate and prune: drop questions from a draft that has more than it may keep.

Knows the texts alone. Does not call a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from lib.agent import prompt
from lib.agent.bank import bank, content, nearest, overlap
from lib.agent.pipeline import State, Work, step
from lib.measure.answer import normalised


@step("over-generate and prune")
def prune(to: int = 7, by: Literal["redundancy", "vagueness", "neighbours", "last"] = "redundancy"):
    """Drop questions one by one until `to` are left: the most redundant, the vaguest, the farthest from the bank, the last."""
    if not 1 <= to <= 20:
        raise ValueError(f"to is {to}, expected 1 to 20")

    def run(state: State) -> Work:
        draft = state.need("prune")
        questions, dropped = list(draft.questions), []
        extra = list(draft.extra)
        paired = len(extra) == len(questions)  # one reason or unknown a question: they go together
        scorer = _scorer(by, state.task)
        while len(questions) > to:
            worst = max(range(len(questions)), key=lambda i: (scorer(questions, i), i))
            dropped.append(questions.pop(worst))
            if paired:
                extra.pop(worst)
        if dropped:
            state = state.note(f"pruned by {by}: " + " | ".join(dropped))
        return replace(state, draft=prompt.Draft(draft.title, tuple(questions), tuple(extra)))
        yield  # makes this a generator, as every step is

    return run


def _scorer(by: str, task: str) -> Callable[[Sequence[str], int], float]:
    """How gladly one would drop question i of a list; higher goes first."""
    if by == "redundancy":
        return lambda qs, i: max((similarity(qs[i], q) for k, q in enumerate(qs) if k != i), default=0.0)
    if by == "vagueness":
        # A question that names nothing of its own says little: few content words, few letters.
        return lambda qs, i: -len(content(qs[i])) - len(qs[i]) / 1000
    if by == "neighbours":
        good = [q for e in nearest(task, bank(), 5) for q in e.draft.questions]
        return lambda qs, i: -max((similarity(qs[i], g) for g in good), default=0.0)
    return lambda qs, i: float(i)


def similarity(a: str, b: str) -> float:
    """How much two questions say the same, 0 to 1: the larger of word overlap and letter-trigram overlap."""
    return max(overlap(content(a), content(b)), overlap(_trigrams(a), _trigrams(b)))


def _trigrams(text: str) -> frozenset[str]:
    flat = normalised(text)
    return frozenset(flat[i : i + 3] for i in range(len(flat) - 2))
