"""Absolute usefulness: does a set of questions enable a good plan? From 1 to 5, with no gold in sight.

Knows a task and an answer, nothing of gold, and never blends with quality: it is reported beside it, as a check that
does not share gold's taste. By Claude it is one more call of the same judge (`ruler/judge_useful.md`), with its store
and its cap. By the offline judge it is an estimate from the words of the questions alone, and a weak stand-in: it sees
whether questions are single, concrete, different and of many kinds, not whether they are the right ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lib.claude.paid import Fault
from lib.log import Row
from lib.measure.answer import Answer
from lib.measure.judge import Unscored
from lib.measure.judge_calls import USEFUL, Call
from lib.measure.offline_judge import ALIKE, VAGUE, Question, likeness, parse
from lib.measure.ruler import Case

KINDS = 8  # kinds of unknowns from which a set is broad: seven single questions touch about so many
NARROW = 0.5  # share of its worth that a set keeps when all of it is of one kind
# What a question is worth: all of an answer, or less of it.
DOUBLE, STOCK, THIN, GIVEN = 0.5, 0.4, 0.8, 0.1


@dataclass(frozen=True)
class Useful:
    """How far a set of questions enables a good plan."""

    score: float  # 1 to 5; by Claude a whole number
    reason: str
    dollars: float = 0.0


def useful_all(judge: Any, pairs: Iterable[tuple[Case, Answer]]) -> list[Useful | Unscored]:
    """Usefulness in the order of the pairs; a case needs no gold. A judge by Claude is asked, any other estimates.

    Raises what the judge's `ask_all` raises: BudgetSpent, NoKey, WrongModel, CloudError; ValueError on a ruler without
    the question.
    """
    if not hasattr(judge, "ask_all"):
        return [estimate(case.task, answer) for case, answer in pairs]
    return [_useful(row) for row in judge.ask_all(Call(USEFUL), pairs)]


def _useful(row: Row | Fault) -> Useful | Unscored:
    if isinstance(row, Fault):
        return Unscored(f"usefulness call: {row.reason}")
    value = row["value"]
    return Useful(float(value["usefulness"]), str(value["reason"]), row["dollars"])


# --- without a key -------------------------------------------------------------------------------


def estimate(task: str, answer: Answer) -> Useful:
    """What the words of a set let expect: the worth of its questions, their breadth, less what repeats.

    >>> estimate("paint the shed", Answer("Paint the shed", ("How big is it?",) * 7)).score
    1.13
    """
    asked = [parse(q) for q in answer.questions]
    said = set(parse(task).stems)
    worths = [_worth(q, said) for q in asked]
    worth = [value for value, _ in worths]
    own, lost = _unrepeated(asked)
    lost = [(1 - value, f"question {i} {why}") for i, (value, why) in enumerate(worths, 1) if why] + lost
    kinds = {name for q, w in zip(asked, worth, strict=True) if w > GIVEN for name in q.about}
    breadth = min(1.0, len(kinds) / KINDS)
    if breadth < 1:
        lost.append((1.2 * (1 - breadth), f"{len(kinds)} kinds of unknowns"))
    # What is no question to the person (an order to whoever rates, say) also takes from the rest, so it never pays.
    real = 1 - sum(q.void for q in asked) / max(1, len(asked))
    # Fewer than seven questions leave room unused, more are no gain.
    mean = math.fsum(w * o for w, o in zip(worth, own, strict=True)) / max(7, len(asked))
    score = 1 + 4 * real * mean * (NARROW + (1 - NARROW) * breadth)
    lost.sort(key=lambda pair: -pair[0])
    why = "; ".join(text for _, text in lost[:3]) or "single, concrete, different questions of many kinds"
    return Useful(round(score, 2), f"estimated from the words alone: {why}")


def _worth(q: Question, said: set[str]) -> tuple[float, str]:
    """What the answer to a question is worth, 0 to 1, and why it is not 1."""
    if q.void:
        return 0.0, "is no question to the person"
    if q.stems and set(q.stems) <= said and not q.about:
        return GIVEN, "asks for nothing that the task does not say"
    if q.double or "and" in q.words or ";" in q.text:
        return DOUBLE, "asks two things"
    own = len(set(q.stems) - said)  # words of the task make no question concrete: "When do you want to" fits any
    if not own or (VAGUE & set(q.words) and own < 2):
        return STOCK, "names no thing of its own"
    return (THIN, "names little") if own < 2 else (1.0, "")


def _unrepeated(asked: Sequence[Question]) -> tuple[list[float], list[tuple[float, str]]]:
    """By question the share that no earlier one has asked, and what repeats."""
    alike, own, repeats = likeness(asked), [], []
    for i, q in enumerate(asked):
        near = [(max(0.0, alike(q, other) - ALIKE) / (1 - ALIKE), k) for k, other in enumerate(asked[:i], 1)]
        most, k = max(near, default=(0.0, 0))
        own.append(1 - most)
        if most > 0.25:
            repeats.append((most, f"questions {k} and {i + 1} ask nearly the same"))
    return own, repeats
