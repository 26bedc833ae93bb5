"""A judge without one dimension, in rubric and verdict, and what that changes on the same answers.

Knows how a dimension is taken out of a ruler's prompts and of the offline judge, and how a blind judgment is compared
with a placebo: the same answers judged again with all five, because a second judging alone moves numbers too. Does
not know where the answers come from. A judge may still be led by what it was told to ignore; that cannot be measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from lib.files import leave_out
from lib.log import Row
from lib.measure.answer import Answer
from lib.measure.checks.noise import detectable_of
from lib.measure.judge import DIMENSIONS, Judgment
from lib.measure.offline_judge import OfflineJudge
from lib.measure.ruler import Case, Ruler
from lib.measure.score import VALUE, quality
from lib.measure.stats import paired

if TYPE_CHECKING:
    from pandas import DataFrame, Series

# What this project's two prompts say about a dimension beside its anchors: taken out where it stands.
CLAUSES: dict[str, tuple[tuple[str, str], ...]] = {
    "coverage": (
        ("does the set ask for the unknown that would change the plan most; ", ""),
        ("does it reach the other things that the plan depends on; ", ""),
        (" For coverage ask first: which single unknown would change the plan most, and does the candidate ask for it? "
         "The expert thinks that it is: {critical}", ""),
    ),
    "atomicity": (("concrete, single, natural", "concrete, natural"),),
    "specificity": (("concrete, single", "single"),),
    "naturalness": (("single, natural and different", "single and different"),),
    "non_redundancy": (("single, natural and different from the others", "single and natural"),),
}  # fmt: skip


def without(ruler: Ruler, dimension: str) -> Ruler:
    """A ruler whose judge is not asked about one dimension and is told to leave it out of the verdict.

    The cases and the seal stay, so judgments of both can be paired; the wording is part of a judge's identity, so
    their fingerprints differ. Raises ValueError on an unknown dimension.
    """
    # Taken out of the rubric and named in the order below: silence alone would leave it in the verdict.
    rubric = {d.name: d for d in ruler.rubric}
    if dimension not in rubric:
        raise ValueError(f"no dimension {dimension!r}: expected one of {', '.join(rubric)}")
    description = rubric.pop(dimension).description
    order = (
        f"\n\nLeave one thing out of account altogether: {dimension.replace('_', '-')}. ({description}) A set that is "
        "better or worse only in that is neither better nor worse."
    )
    prompts = {}
    for kind, text in ruler.prompts.items():
        for old, new in CLAUSES.get(dimension, ()):
            text = text.replace(old, new)
        prompts[kind] = text.rstrip() + order
    return replace(ruler, rubric=tuple(rubric.values()), prompts=prompts)


class BlindOfflineJudge:
    """The offline judge without one dimension: its other scores, and its verdict without the faults of that one alone."""

    def __init__(self, dimension: str, full: OfflineJudge) -> None:
        if dimension not in DIMENSIONS:
            raise ValueError(f"no dimension {dimension!r}: expected one of {', '.join(DIMENSIONS)}")
        self.without, self._full = dimension, full

    @property
    def identity(self) -> Row:
        return {**self._full.identity, "without": self.without}

    def judge(self, case: Case, answer: Answer) -> Judgment:
        """Four scores and a verdict. Raises ValueError without gold."""
        return self.judge_all([(case, answer)])[0]

    def judge_all(self, pairs: Sequence[tuple[Case, Answer]]) -> list[Judgment]:
        """Judgments in the order of the pairs."""
        return [self._blinded(full) for full in self._full.judge_all(pairs, self.without)]

    def _blinded(self, full: Judgment) -> Judgment:
        # The verdict is blind already; a note of that dimension would give away what the judge saw.
        return Judgment(leave_out(full.scores, self.without), full.verdict, leave_out(full.notes, self.without))


# --- what it changes -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Judged:
    """One case as one of the parts judged it."""

    quality: float | None  # None where the judge failed
    judgment: Judgment | None = None  # None where there is no answer, and that has lost
    no_answer: bool = False

    @property
    def won(self) -> float:
        """What the verdict counts, 0 to 1."""
        return VALUE["loss"] if self.judgment is None else VALUE[self.judgment.verdict]

    @property
    def rubric(self) -> float:
        """What the scores alone make of the quality."""
        if self.judgment is None:
            return 0.0
        # A loss counts 0, so what is left of the quality is the rubric's half.
        return quality(self.judgment.scores, "loss")

    def with_scores_of(self, other: _Judged) -> _Judged:
        """The same judgment with those scores alone that the other has too."""
        if not self.judgment or not other.judgment:
            return self
        scores = {d: score for d, score in self.judgment.scores.items() if d in other.judgment.scores}
        return _Judged(quality(scores, self.judgment.verdict), replace(self.judgment, scores=scores))


Part = dict[str, _Judged]  # by case


def readings(rows: Sequence[Row]) -> Row:
    """By run: qualities with and without the dimension, their paired difference, losses before and after.

    Rows have `run`, `case`, `part` (stored, placebo, blind) and a judgment. The difference has three parts. Arithmetic
    is `from_dropping`: the placebo's own scores with one fewer in their mean, which needs no second judging. Judgment
    are `from_scores`, the scores that remain, and `from_verdicts`; `judged` tests the two together, and `detectable` in
    it is what that test could have seen. Cases unscored in either are left out.
    """
    runs: dict[str, dict[str, Part]] = {}
    for row in rows:
        judgment = None
        if row["judgment"]:
            judgment = Judgment(row["judgment"]["scores"], row["judgment"]["verdict"])
        parts = runs.setdefault(row["run"], {"stored": {}, "placebo": {}, "blind": {}})
        parts[row["part"]][row["case"]] = _Judged(row["quality"], judgment, row["no_answer"] is not None)
    return {"runs": {run: _run(**parts) for run, parts in runs.items()}}


def _beside(stored: Part, placebo: Part, blind: Part) -> DataFrame:
    """A row a case that both judgings scored, in the order of the placebo."""
    import pandas as pd

    cases = {}
    for case, five in placebo.items():
        four = blind.get(case, _Judged(None))
        if five.quality is None or four.quality is None:
            continue
        dropped = five.with_scores_of(four)
        cases[case] = {
            "before": five.quality, "after": four.quality, "fewer": dropped.quality,
            "won_before": five.won, "won_after": four.won,
            "rubric_fewer": dropped.rubric, "rubric_after": four.rubric,
            "no_answer": five.no_answer, "stored": stored.get(case, _Judged(None)).quality,
        }  # fmt: skip
    return pd.DataFrame.from_dict(cases, orient="index")


def _run(stored: Part, placebo: Part, blind: Part) -> Row:
    """The readings of one run; `readings` says what each of them is."""
    f = _beside(stored, placebo, blind)
    if f.empty:
        return {"cases": 0, "unscored": len(placebo)}
    test, again = _tested(f.after, f.before), f.stored.dropna()
    # The verdict is half of the quality. A sum is halved before it is divided: sealed readings hold the last digit too.
    from_verdicts = math.fsum(f.won_after - f.won_before) / (2 * len(f))
    before = None
    # Of some of the cases alone it would be the mean of another gate.
    if len(again) == len(f):
        before = fmean(again)
    # fmean sums without rounding on the way, so that the order of the cases does not show in the last digit.
    return {
        "cases": len(f),
        "unscored": len(placebo) - len(f),
        "no_answer": int(f.no_answer.sum()),
        "stored": before,
        "placebo": fmean(f.before),
        "blind": fmean(f.after),
        **test,
        "from_verdicts": from_verdicts,
        "from_rubric": test["delta"] - from_verdicts,
        "from_dropping": fmean(f.fewer - f.before),
        "from_scores": fmean(f.rubric_after - f.rubric_fewer),
        "judged": _tested(f.after, f.fewer),
        "verdicts_changed": int((f.won_after != f.won_before).sum()),
        # No answer has lost too.
        "losses": [int((f.won_before == VALUE["loss"]).sum()), int((f.won_after == VALUE["loss"]).sum())],
        "moved": int((again != f.before[again.index]).sum()),
        "dims": _dims(placebo[case].judgment for case in f.index),
    }


def _dims(judgments: Iterable[Judgment | None]) -> dict[str, float]:
    """The mean of each dimension over what was judged."""
    scores = [judgment.scores for judgment in judgments if judgment]
    if not scores:
        return {}
    return {d: fmean(own[d] for own in scores) for d in DIMENSIONS}


def _tested(a: Series, b: Series) -> dict[str, float]:
    """The paired difference of two columns by case, and the smallest that this test could have seen."""
    test = paired(a.to_dict(), b.to_dict())
    detectable = detectable_of((a - b).tolist())
    return {"delta": test.delta, "p": test.p, "low": test.low, "high": test.high, "detectable": detectable}
