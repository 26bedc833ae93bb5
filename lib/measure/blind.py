"""A judge without one dimension, in rubric and verdict, and what that changes on the same answers.

Knows how a dimension is taken out of a ruler's prompts and of the offline judge, and how a blind judgment is compared
with a placebo: the same answers judged again with all five, because a second judging alone moves numbers too. Does
not know where the answers come from. A judge may still be led by what it was told to ignore; that cannot be measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import fsum
from statistics import fmean
from typing import Any

from lib.log import Row
from lib.measure.answer import Answer
from lib.measure.judge import DIMENSIONS, Judgment
from lib.measure.noise import detectable_of
from lib.measure.offline_judge import OfflineJudge, find, verdict
from lib.measure.ruler import Case, Ruler
from lib.measure.score import VALUE
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
    gone = next((d for d in ruler.rubric if d.name == dimension), None)
    if gone is None:
        raise ValueError(f"no dimension {dimension!r}: expected one of {', '.join(d.name for d in ruler.rubric)}")
    name = dimension.replace("_", "-")
    order = (
        f"\n\nLeave one thing out of account altogether: {name}. ({gone.description}) A set that is better or worse "
        "only in that is neither better nor worse."
    )
    prompts = dict(ruler.prompts)
    for kind in prompts:
        for old, new in CLAUSES.get(dimension, ()):
            prompts[kind] = prompts[kind].replace(old, new)
        prompts[kind] = prompts[kind].rstrip() + order
    return replace(ruler, rubric=tuple(d for d in ruler.rubric if d.name != dimension), prompts=prompts)


class BlindOfflineJudge:
    """The offline judge without one dimension: its other scores, and its verdict by its own margins on those alone.

    The margins are distances from gold, which has 5 in every dimension, so they mean the same on four. What an answer
    has in common with gold still bounds the verdict: that is its guard against copies, not a score.
    """

    def __init__(self, dimension: str) -> None:
        if dimension not in DIMENSIONS:
            raise ValueError(f"no dimension {dimension!r}: expected one of {', '.join(DIMENSIONS)}")
        self.without, self._full = dimension, OfflineJudge()

    @property
    def identity(self) -> dict[str, Any]:
        return {**self._full.identity, "without": self.without}

    def judge(self, case: Case, answer: Answer) -> Judgment:
        """Four scores and a verdict. Raises ValueError without gold."""
        full = self._full.judge(case, answer)
        gold = case.gold
        assert gold is not None  # the offline judge has refused it
        scores = {d: s for d, s in full.scores.items() if d != self.without}
        length = len(answer.text) / max(1, len("\n".join([gold.title, *gold.questions])))
        blind = verdict(find(gold, answer).amount, length, list(scores.values()))
        return Judgment(scores, blind, {d: n for d, n in full.notes.items() if d != self.without})

    def judge_all(self, pairs: Iterable[tuple[Case, Answer]]) -> list[Judgment]:
        return [self.judge(case, answer) for case, answer in pairs]


# --- what it changes -----------------------------------------------------------------------------


def readings(rows: Sequence[Row]) -> dict[str, Any]:
    """By run: qualities with and without the dimension, their paired difference, losses before and after.

    Rows have `run`, `case`, `part` (stored, placebo, blind) and a judgment. The difference has two parts: the rubric
    without the dimension, which needs no second judging, and the verdict. Cases unscored in either are left out.
    """
    return {"runs": {run: _run([r for r in rows if r["run"] == run]) for run in dict.fromkeys(r["run"] for r in rows)}}


def _run(rows: Sequence[Row]) -> dict[str, Any]:
    scored = [r for r in rows if r["quality"] is not None]
    stored, placebo, blind = ({r["case"]: r for r in scored if r["part"] == p} for p in ("stored", "placebo", "blind"))
    judged_again = sum(r["part"] == "placebo" for r in rows)
    both = [c for c in placebo if c in blind]
    if not both:
        return {"cases": 0, "unscored": judged_again}
    known = [c for c in both if c in stored]
    before, after = [placebo[c] for c in both], [blind[c] for c in both]
    test = paired({r["case"]: r["quality"] for r in after}, {r["case"]: r["quality"] for r in before})
    verdicts = fsum(_won(a) - _won(b) for a, b in zip(after, before, strict=True)) / (2 * len(both))
    scores = [r["judgment"]["scores"] for r in before if r["judgment"]]
    return {
        "cases": len(both), "unscored": judged_again - len(both),
        "no_answer": sum(r["no_answer"] is not None for r in before),
        "stored": fmean(stored[c]["quality"] for c in known) if known == both else None,
        "placebo": fmean(r["quality"] for r in before), "blind": fmean(r["quality"] for r in after),
        "delta": test.delta, "p": test.p, "low": test.low, "high": test.high,
        "from_verdicts": verdicts, "from_rubric": test.delta - verdicts,
        "losses": [_losses(before), _losses(after)],
        "moved": sum(placebo[c]["quality"] != stored[c]["quality"] for c in known),
        "detectable": detectable_of([a["quality"] - b["quality"] for a, b in zip(after, before, strict=True)]),
        "dims": {d: fmean(s[d] for s in scores) for d in DIMENSIONS} if scores else {},
    }  # fmt: skip


def _won(row: Row) -> float:
    return VALUE[row["judgment"]["verdict"]] if row["judgment"] else 0.0


def _losses(rows: Sequence[Row]) -> int:
    """Losses to gold; no answer has lost too."""
    return sum(not r["judgment"] or r["judgment"]["verdict"] == "loss" for r in rows)
