"""A judge without one dimension, in rubric and verdict, and what that changes on the same answers.

Knows how a dimension is taken out of a ruler's prompts and of the offline judge, and how a blind judgment is compared
with a placebo: the same answers judged again with all five, because a second judging alone moves numbers too. Does
not know where the answers come from. A judge may still be led by what it was told to ignore; that cannot be measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lib.log import Row
from lib.measure.answer import Answer
from lib.measure.checks.noise import detectable_of
from lib.measure.judge import DIMENSIONS, Fields, Judgment
from lib.measure.offline_judge import OfflineJudge
from lib.measure.ruler import Case, Ruler
from lib.measure.score import VALUE, quality
from lib.measure.stats import paired

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
    def identity(self) -> dict[str, Any]:
        return {**self._full.identity, "without": self.without}

    def judge(self, case: Case, answer: Answer) -> Judgment:
        """Four scores and a verdict. Raises ValueError without gold."""
        return self.judge_all([(case, answer)])[0]

    def judge_all(self, pairs: Sequence[tuple[Case, Answer]]) -> list[Judgment]:
        """Judgments in the order of the pairs."""
        return [self._blinded(full) for full in self._full.judge_all(pairs, self.without)]

    def _blinded(self, full: Judgment) -> Judgment:
        # The verdict is blind already; a note of that dimension would give away what the judge saw.
        scores = {d: score for d, score in full.scores.items() if d != self.without}
        notes = {d: note for d, note in full.notes.items() if d != self.without}
        return Judgment(scores, full.verdict, notes)


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
        return VALUE[self.judgment.verdict] if self.judgment else 0.0

    @property
    def rubric(self) -> float:
        """What the scores alone make of the quality."""
        return quality(self.judgment.scores, "loss") if self.judgment else 0.0

    def with_scores_of(self, other: _Judged) -> _Judged:
        """The same judgment with those scores alone that the other has too."""
        if not self.judgment or not other.judgment:
            return self
        scores = {d: score for d, score in self.judgment.scores.items() if d in other.judgment.scores}
        return _Judged(quality(scores, self.judgment.verdict), replace(self.judgment, scores=scores))


Part = dict[str, _Judged]  # by case


def readings(rows: Sequence[Fields]) -> Row:
    """By run: qualities with and without the dimension, their paired difference, losses before and after.

    Rows have `run`, `case`, `part` (stored, placebo, blind) and a judgment. The difference has three parts. Arithmetic
    is `from_dropping`: the placebo's own scores with one fewer in their mean, which needs no second judging. Judgment
    are `from_scores`, the scores that remain, and `from_verdicts`; `judged` tests the two together, and `detectable` in
    it is what that test could have seen. Cases unscored in either are left out.
    """
    runs: dict[str, dict[str, Part]] = {}
    for row in rows:
        verdict = row["judgment"]
        judgment = Judgment(verdict["scores"], verdict["verdict"]) if verdict else None
        parts = runs.setdefault(row["run"], {"stored": {}, "placebo": {}, "blind": {}})
        parts[row["part"]][row["case"]] = _Judged(row["quality"], judgment, row["no_answer"] is not None)
    return {"runs": {run: _run(**parts) for run, parts in runs.items()}}


def _run(stored: Part, placebo: Part, blind: Part) -> Row:
    after, before = _qualities(blind), _qualities(placebo)
    both = [case for case in before if case in after]
    if not both:
        return {"cases": 0, "unscored": len(placebo)}
    after, before = {c: after[c] for c in both}, {c: before[c] for c in both}
    dropped = {c: placebo[c].with_scores_of(blind[c]) for c in both}
    fewer, again = _qualities(dropped), {c: q for c, q in _qualities(stored).items() if c in before}
    test = _tested(after, before)
    # The verdict is half of the quality. A sum is halved before it is divided: sealed readings hold the last digit too.
    from_verdicts = math.fsum(blind[c].won - placebo[c].won for c in both) / (2 * len(both))
    scores = [judgment.scores for c in both if (judgment := placebo[c].judgment)]
    return {
        "cases": len(both),
        "unscored": len(placebo) - len(both),
        "no_answer": sum(placebo[c].no_answer for c in both),
        "stored": _mean(again.values()) if len(again) == len(both) else None,
        "placebo": _mean(before.values()),
        "blind": _mean(after.values()),
        **test,
        "from_verdicts": from_verdicts,
        "from_rubric": test["delta"] - from_verdicts,
        "from_dropping": _mean(fewer[c] - before[c] for c in both),
        "from_scores": _mean(blind[c].rubric - dropped[c].rubric for c in both),
        "judged": _tested(after, fewer),
        "verdicts_changed": sum(blind[c].won != placebo[c].won for c in both),
        "losses": [_losses(placebo, both), _losses(blind, both)],
        "moved": sum(before[c] != quality for c, quality in again.items()),
        "dims": {d: _mean(s[d] for s in scores) for d in DIMENSIONS} if scores else {},
    }


def _tested(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    """The paired difference, and the smallest that this test could have seen."""
    test = paired(a, b)
    detectable = detectable_of([a[c] - b[c] for c in a])
    return {"delta": test.delta, "p": test.p, "low": test.low, "high": test.high, "detectable": detectable}


def _losses(part: Part, cases: Sequence[str]) -> int:
    """Losses to gold; no answer has lost too."""
    return sum(part[c].won == VALUE["loss"] for c in cases)


def _qualities(part: Part) -> dict[str, float]:
    return {case: judged.quality for case, judged in part.items() if judged.quality is not None}


def _mean(values: Iterable[float]) -> float:
    """Summed without rounding on the way, so that the order of the cases does not show in the last digit."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)
