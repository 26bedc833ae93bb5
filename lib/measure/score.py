"""From judgments to numbers: the quality of a case, the scores of a run.

Knows how rubric and verdict are blended and what to do with what is missing: NoAnswer scores 0 and stays in every mean,
Unscored is left out, counted and shown. Does not know who judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from lib.log import Row
from lib.measure.answer import NoAnswer
from lib.measure.judge import DIMENSIONS, Judgment, Unscored
from lib.measure.stats import interval

VALUE = {"win": 1.0, "tie": 0.5, "loss": 0.0}
Outcome = Judgment | NoAnswer | Unscored


def quality(scores: Mapping[str, float], verdict: str) -> float:
    """Quality of one case, 0 to 1: half the rubric mean on a 0 to 1 scale, half the verdict.

    Raises ValueError on a verdict that is none, on no scores, or on a score outside 1 to 5.

    >>> quality({"coverage": 3, "atomicity": 5}, "tie")
    0.625
    """
    if verdict not in VALUE:
        raise ValueError(f"verdict {verdict!r}: expected win, tie or loss")
    if not scores:
        raise ValueError("no scores: expected one for each dimension")
    for name, score in scores.items():
        if not 1 <= score <= 5:
            raise ValueError(f"{name} is {score!r}: expected 1 to 5")
    # fmean sums exactly: the same value whatever the order, so that a sorted copy of a judgment scores the same to the last bit.
    mean = fmean(scores.values())
    return 0.5 * (mean - 1) / 4 + 0.5 * VALUE[verdict]


def case_quality(outcome: Outcome) -> float | None:
    """Quality of one outcome: 0 for NoAnswer, None for Unscored."""
    if isinstance(outcome, Judgment):
        return quality(outcome.scores, outcome.verdict)
    # The model's failure and the judge's: else a lever would win by falling silent, or a judge decide by failing.
    if isinstance(outcome, NoAnswer):
        return 0.0
    return None


@dataclass(frozen=True)
class Scores:
    """What a run scored over all cases of its gate."""

    quality: float  # mean over all cases but the unscored ones, NoAnswer as 0
    low: float  # 95 % BCa interval over cases
    high: float
    dims: dict[str, float]  # unrounded means over the judged cases
    wins: int
    ties: int
    losses: int
    no_answer: int
    unscored: int

    @property
    def n(self) -> int:
        """All cases of the gate."""
        return self.wins + self.ties + self.losses + self.no_answer + self.unscored

    def as_dict(self) -> Row:
        return asdict(self)

    def _repr_markdown_(self) -> str:
        return (
            f"**Quality {self.quality:.4f}** (95 % {self.low:.3f} to {self.high:.3f}) over all {self.n} cases: "
            f"{self.wins} wins, {self.ties} ties, {self.losses} losses against gold, {self.no_answer} without an "
            f"answer, {self.unscored} unscored."
        )


def score(outcomes: Sequence[Outcome]) -> Scores:
    """Scores of a run from the outcomes of its cases. Raises ValueError on no cases."""
    if not outcomes:
        raise ValueError("no cases to score")
    values = [q for q in (case_quality(o) for o in outcomes) if q is not None]
    judged = [o for o in outcomes if isinstance(o, Judgment)]
    count = Counter(o.verdict if isinstance(o, Judgment) else type(o).__name__ for o in outcomes)
    dims = {}
    for dimension in DIMENSIONS:
        every = [j.scores[dimension] for j in judged if dimension in j.scores]
        # A re-judge leaves one out. A mean over fewer answers than the others have would not stand beside them.
        if judged and len(every) == len(judged):
            dims[dimension] = sum(every) / len(every)
    return Scores(
        _mean(values) or 0.0, *interval(values), dims, count["win"], count["tie"], count["loss"],
        count[NoAnswer.__name__], count[Unscored.__name__],
    )  # fmt: skip


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


# --- absolute usefulness, beside quality and never in it ------------------------------------------


def usefulness(rows: Sequence[Row]) -> Row:
    """How useful the sets of a run are in absolute terms, 1 to 5: mean and interval over all cases.

    Rows as cases.jsonl holds them, `useful` being {"score", "reason"}, {"unscored"} or None for a case without an
    answer: no set enables no plan, so it counts as 1. Unscored cases are left out and counted. {} where none was asked.
    """
    if not any("useful" in r for r in rows):
        return {}
    rated, missing = [], 0
    for row in rows:
        if row["no_answer"] is not None:
            missing += 1
            rated.append(1.0)
        elif "score" in (row.get("useful") or {}):
            rated.append(float(row["useful"]["score"]))
    low, high = interval(rated)
    return {
        "mean": _mean(rated), "low": low, "high": high, "cases": len(rated),
        "no_answer": missing, "unscored": len(rows) - len(rated),
    }  # fmt: skip
