"""Over-generate and prune: drop questions from a draft that has more than it may keep.

Knows the texts alone. Does not call a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from lib.agent.bank import Example, bank, nearest
from lib.agent.guard import content
from lib.agent.likeness import closest, others, repeats, similarity
from lib.agent.pipeline import Run, State, Work, step
from lib.agent.prompt import Draft
from lib.agent.steps.asking import Count
from lib.models.embed import embedder

By = Literal["redundancy", "meaning", "vagueness", "given", "neighbours", "corpus", "covering", "last"]
Scorer = Callable[[Sequence[str], int], float]


# Published study, one of eight dropped: by redundancy 0.430 on full (exp046), by near tasks 0.440 (exp056), beside 0.409.
@step("over-generate and prune", takes=("draft",))
def prune(to: Count = 7, by: By = "redundancy") -> Run:
    """Drop questions one by one until `to` are left: the most redundant, vaguest, least covering, farthest from the bank."""

    def run(state: State) -> Work:
        draft = state.written
        if len(draft.questions) > to:
            scorer = _scorer(by, state.task, draft.questions)
            draft, dropped = drop(draft, to, scorer)
            state = state.note(f"pruned by {by}: " + " | ".join(dropped))
        return replace(state, draft=draft)
        yield  # makes this a generator, as every step is

    return run


def drop(draft: Draft, to: int, scorer: Scorer) -> tuple[Draft, list[str]]:
    """A draft without what a scorer drops most gladly, one at a time, and the questions dropped.

    A question that stands there word for word already goes first: a set with one fails the spec gate. The later of
    equals goes.
    """
    questions, extra, dropped = list(draft.questions), list(draft.extra), []
    paired = len(extra) == len(questions)  # one reason or unknown a question: they go together
    while len(questions) > to:
        again = repeats(questions)
        # One at a time: of two that repeat each other, dropping the first makes the second worth keeping.
        worst = max(range(len(questions)), key=lambda i: (again[i], scorer(questions, i), i))
        dropped.append(questions.pop(worst))
        if paired:
            extra.pop(worst)
    return Draft(draft.title, tuple(questions), tuple(extra)), dropped


def _scorer(by: str, task: str, all_of: Sequence[str]) -> Scorer:
    """How gladly one would drop question i of a list: higher goes first."""
    if by == "redundancy":
        return lambda qs, i: closest(qs[i], others(qs, i))
    if by == "meaning":
        vector = dict(zip(all_of, embedder().vectors(all_of), strict=True))
        # Rounded: the last digits of a product differ between machines and must not decide a tie.
        return lambda qs, i: max((round(float(vector[qs[i]] @ vector[q]), 5) for q in others(qs, i)), default=0)
    if by == "vagueness":
        # A question that names nothing of its own says little: few content words, few letters.
        return lambda qs, i: -len(content(qs[i])) - len(qs[i]) / 1000
    if by == "given":
        words = content(task)
        return lambda qs, i: len(content(qs[i]) & words) / max(1, len(content(qs[i])))
    if by == "neighbours":
        good = _asked(nearest(task, bank(), 5))
        return lambda qs, i: -closest(qs[i], good)
    if by in ("corpus", "covering"):
        # The one whose loss costs least of what the set covers: questions of near tasks, or the whole first draft.
        wanted = list(all_of) if by == "covering" else _asked(nearest(task, bank(), 3))
        close = {q: [similarity(q, w) for w in wanted] for q in all_of}
        return lambda qs, i: _covered([close[q] for q in others(qs, i)])
    return lambda qs, i: float(i)


def _asked(examples: Sequence[Example]) -> list[str]:
    questions: list[str] = []
    for example in examples:
        questions += example.draft.questions
    return questions


def _covered(rows: list[list[float]]) -> float:
    """Facility location: how near each wanted question has its nearest in the set, summed."""
    return round(sum(max(column) for column in zip(*rows, strict=True)), 9)
