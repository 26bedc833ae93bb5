"""How much texts say the same, and how good a question set looks without gold.

Knows words, letters and, where a lever asks for it, vectors. Does not know models, cases or gold: the composite ruler
here is a lever's own guess at quality and may be wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, combinations, zip_longest
from typing import TypeVar

from lib.agent.guard import content, letters, overlap
from lib.agent.prompt import Draft
from lib.measure.answer import Answer, normalised, spec_gate
from lib.models.embed import MiniLM

T = TypeVar("T")
REPEATS = 0.6  # similarity from which a second question adds nothing (the study's pool dropped from the same Jaccard)


def similarity(a: str, b: str) -> float:
    """How much two questions say the same, 0 to 1: the larger of word overlap and letter-trigram overlap."""
    # Words miss other endings ("moor", "mooring"), letters miss another order; the larger forgives both.
    return max(overlap(content(a), content(b)), overlap(letters(a, 3), letters(b, 3)))


def closest(text: str, others: Iterable[str]) -> float:
    """How much a text says the same as the nearest of the others; 0 where there are none."""
    return max((similarity(text, other) for other in others), default=0.0)


def others(items: Sequence[T], at: int) -> list[T]:
    """All but one of the items.

    >>> others("abc", 1)
    ['a', 'c']
    """
    return [*items[:at], *items[at + 1 :]]


def top(worth: Sequence[float], k: int) -> list[int]:
    """Where the k largest stand, in their own order; of equals the earlier come in.

    >>> top([0.1, 0.3, 0.3, 0.2], 2), top([1, 1], 1)
    ([1, 2], [0])
    """
    # By minus and not reversed: sorting is stable, so of equals the earlier comes first.
    ranked = sorted(range(len(worth)), key=lambda i: -worth[i])
    return sorted(ranked[:k])


def fresh(question: str, kept: Sequence[str]) -> bool:
    """Whether a question is none of those kept, nor nearly one."""
    return closest(question, kept) < REPEATS


def distinct(texts: Sequence[str], most: int) -> list[str]:
    """The first texts that say something new, at most so many."""
    kept: list[str] = []
    for text in texts:
        if len(kept) < most and fresh(text, kept):
            kept.append(text)
    return kept


def in_turn(lists: Sequence[Sequence[str]]) -> list[str]:
    """The first text of each list, then the second of each, and so on.

    >>> in_turn(["ab", "c"])
    ['a', 'c', 'b']
    """
    return [text for text in chain.from_iterable(zip_longest(*lists)) if text is not None]


def repeats(texts: Sequence[str]) -> list[bool]:
    """Of every text whether it stands there already, word for word.

    >>> repeats(["How long?", "How wide?", "how long"])
    [False, False, True]
    """
    flat = [normalised(t) for t in texts]
    return [text in flat[:i] for i, text in enumerate(flat)]


def variety(texts: Sequence[str]) -> float:
    """How much texts differ: 1 minus their mean similarity. Fewer than two do not differ: 0.

    >>> variety(["by car", "by car"]), variety(["by car", "on foot"])
    (0.0, 1.0)
    """
    pairs = list(combinations(texts, 2))
    if not pairs:
        return 0.0
    return 1 - sum(similarity(a, b) for a, b in pairs) / len(pairs)


def round_robin(drafts: Sequence[Draft], to: int) -> tuple[str, ...]:
    """Questions of several drafts in turn, first questions first, until `to` different ones are there.

    Near repeats only fill up what is missing then; a question said again word for word never comes in.
    """
    offered = in_turn([d.questions for d in drafts])
    kept = distinct(offered, to)
    # A set that is short fails the spec gate for certain; one that nearly repeats only loses points.
    for question in offered:
        if len(kept) < to and normalised(question) not in map(normalised, kept):
            kept.append(question)
    return tuple(kept)


def clusters(questions: Sequence[str]) -> list[list[int]]:
    """Indices of questions that say the same together, in the order of their first members."""
    groups: list[list[int]] = []
    for i, question in enumerate(questions):
        for group in groups:
            # Against the first of a group alone: a chain of near repeats would gather everything.
            if similarity(questions[group[0]], question) >= REPEATS:
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


def in_form(drafts: Sequence[Draft]) -> list[Draft]:
    """The drafts that would pass the spec gate, or all of them where none would."""
    return [d for d in drafts if isinstance(spec_gate(d.title, d.questions), Answer)] or list(drafts)


def composite(draft: Draft, task: str) -> float:
    """A guess at a set's quality from its texts alone, about 0 to 4: different, concrete, one thing each, on the task.

    The parts weigh the same because nothing here was fitted to a judge.
    """
    qs = draft.questions
    if not qs:
        return 0.0
    one_thing = sum(" and " not in q.lower() and " or " not in q.lower() for q in qs) / len(qs)
    concrete = sum(min(1.0, len(content(q)) / 5) for q in qs) / len(qs)
    # A concrete question names about five things; more does not make it better.
    named = overlap(content(draft.title), content(task))
    different = len(clusters(qs)) / len(qs)
    return different + one_thing + concrete + named


def dispersion(draft: Draft, embedder: MiniLM) -> float:
    """How far a set's questions stand apart: 1 minus the mean cosine of their vectors."""
    n = len(draft.questions)
    if n < 2:
        return 0.0
    vectors = embedder.vectors(draft.questions)
    # (n, n) cosines; the diagonal is n ones, each pair stands there twice.
    return round(1 - (float((vectors @ vectors.T).sum()) - n) / (n * (n - 1)), 5)
