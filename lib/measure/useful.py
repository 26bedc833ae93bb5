"""Absolute usefulness: does a set of questions enable a good plan? From 1 to 5, with no gold in sight.

Knows a task and an answer, nothing of gold, and never blends with quality: it is reported beside it, as a check that
does not share gold's taste. It is one more call of the same judge (`ruler/judge_useful.md`), with its store
and its cap. The offline judge is not asked: its estimate gave gold of another task more than gold itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lib.claude.paid import Fault
from lib.log import Row
from lib.measure.answer import Answer
from lib.measure.judge import Unscored
from lib.measure.judge_calls import USEFUL, Call
from lib.measure.ruler import Case


@dataclass(frozen=True)
class Useful:
    """How far a set of questions enables a good plan."""

    score: float  # 1 to 5; by Claude a whole number
    reason: str
    dollars: float = 0.0


def useful_all(judge: Any, pairs: Iterable[tuple[Case, Answer]]) -> list[Useful | Unscored]:
    """Usefulness in the order of the pairs, by a judge that can be asked; a case needs no gold.

    Raises what the judge's `ask_all` raises: BudgetSpent, NoKey, WrongModel, CloudError; ValueError on a ruler without
    the question.
    """
    return [_useful(row) for row in judge.ask_all(Call(USEFUL), pairs)]


def _useful(row: Row | Fault) -> Useful | Unscored:
    if isinstance(row, Fault):
        return Unscored(f"usefulness call: {row.reason}")
    value = row["value"]
    return Useful(float(value["usefulness"]), str(value["reason"]), row["dollars"])
