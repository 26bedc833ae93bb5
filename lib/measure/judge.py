"""What a judge is: a case and an answer in, a Judgment or Unscored out.

Knows the five dimensions and the verdict. Does not know which judge is asked, nor which model or lever answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from lib.log import Row
from lib.measure.answer import Answer
from lib.measure.ruler import Case

# Those of the published study, so that its verdicts can be read again with the same code.
DIMENSIONS = ("atomicity", "specificity", "coverage", "naturalness", "non_redundancy")
DIMS = {d: d.replace("_", "-") for d in DIMENSIONS}  # as a reader sees them
Verdict = Literal["win", "tie", "loss"]  # of the candidate against gold


@dataclass(frozen=True)
class Judgment:
    """What a judge says about one answer."""

    scores: dict[str, float]  # by dimension, 1 to 5
    verdict: Verdict
    notes: dict[str, str] = field(default_factory=dict)  # by dimension: what lowered the score
    flipped: bool = False  # the two orders disagreed, so the verdict is a tie
    dollars: float = 0.0


@dataclass(frozen=True)
class Unscored:
    """The judge failed, and how. Left out of every mean, counted, and blocks a keep."""

    reason: str


class Judge(Protocol):
    """Anything that can judge. `identity` goes into the fingerprint."""

    @property
    def identity(self) -> Row: ...

    def judge(self, case: Case, answer: Answer) -> Judgment | Unscored: ...

    def judge_all(self, pairs: Sequence[tuple[Case, Answer]]) -> Sequence[Judgment | Unscored]: ...
