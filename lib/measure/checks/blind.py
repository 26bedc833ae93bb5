"""A judge without one dimension, in rubric and verdict, and what that changes on the same answers.

Knows how a dimension is taken out of a ruler's prompts and of the offline judge, and how a blind judgment is compared
with a placebo: the same answers judged again with all five, because a second judging alone moves numbers too. Does
not know where the answers come from. A judge may still be led by what it was told to ignore; that cannot be measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from lib.measure.answer import Answer
from lib.measure.checks.noise import detectable_of
from lib.measure.judge import DIMENSIONS, Judgment
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
    [gone] = [d for d in ruler.rubric if d.name == dimension] or [None]
    if gone is None:
        raise ValueError(f"no dimension {dimension!r}: expected one of {', '.join(d.name for d in ruler.rubric)}")
    name = dimension.replace("_", "-")
    order = (
        f"\n\nLeave one thing out of account altogether: {name}. ({gone.description}) A set that is better or worse "
        "only in that is neither better nor worse."
    )
    prompts = {kind: _cut(text, dimension).rstrip() + order for kind, text in ruler.prompts.items()}
    return replace(ruler, rubric=tuple(d for d in ruler.rubric if d.name != dimension), prompts=prompts)


def _cut(prompt: str, dimension: str) -> str:
    for old, new in CLAUSES.get(dimension, ()):
        prompt = prompt.replace(old, new)
    return prompt


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

    def judge_all(self, pairs: Iterable[tuple[Case, Answer]]) -> list[Judgment]:
        """Judgments in the order of the pairs."""
        made = []
        for full in self._full.judge_all(pairs, self.without):
            kept = {k: {d: v for d, v in part.items() if d != self.without} for k, part in
                    (("scores", full.scores), ("notes", full.notes))}  # fmt: skip
            made.append(Judgment(kept["scores"], full.verdict, kept["notes"]))
        return made


# --- what it changes -----------------------------------------------------------------------------


def readings(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By run: qualities with and without the dimension, their paired difference, losses before and after.

    Rows have `run`, `case`, `part` (stored, placebo, blind) and a judgment. The difference has three parts. Arithmetic
    is `from_dropping`: the placebo's own scores with one fewer in their mean, which needs no second judging. Judgment
    are `from_scores`, the scores that remain, and `from_verdicts`; `judged` tests the two together, and `detectable` in
    it is what that test could have seen. Cases unscored in either are left out.
    """
    return {"runs": {run: _run([r for r in rows if r["run"] == run]) for run in dict.fromkeys(r["run"] for r in rows)}}


def _run(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    part = {p: {r["case"]: r for r in rows if r["part"] == p} for p in ("stored", "placebo", "blind")}
    both = [
        c for c, r in part["placebo"].items() if r["quality"] is not None and _quality(part["blind"], c) is not None
    ]
    stored = [c for c in both if _quality(part["stored"], c) is not None]
    if not both:
        return {"cases": 0, "unscored": len(part["placebo"])}
    a, b = ({c: part[p][c]["quality"] for c in both} for p in ("blind", "placebo"))
    fewer = {c: _fewer(part["placebo"][c], part["blind"][c]) for c in both}
    test, judgment = paired(a, b), paired(a, {c: row["quality"] for c, row in fewer.items()})
    verdicts = math.fsum(_won(part["blind"][c]) - _won(part["placebo"][c]) for c in both) / (2 * len(both))
    judged = [r["judgment"] for c in both if (r := part["placebo"][c])["judgment"]]
    return {
        "cases": len(both), "unscored": len(part["placebo"]) - len(both),
        "no_answer": sum(part["placebo"][c]["no_answer"] is not None for c in both),
        "stored": _mean(part["stored"][c]["quality"] for c in stored) if len(stored) == len(both) else None,
        "placebo": _mean(b.values()), "blind": _mean(a.values()),
        "delta": test.delta, "p": test.p, "low": test.low, "high": test.high,
        "from_verdicts": verdicts, "from_rubric": test.delta - verdicts,
        "from_dropping": math.fsum(fewer[c]["quality"] - b[c] for c in both) / len(both),
        "from_scores": math.fsum(_rubric(part["blind"][c]) - _rubric(fewer[c]) for c in both) / len(both),
        "judged": {
            **{k: getattr(judgment, k) for k in ("delta", "p", "low", "high")},
            "detectable": detectable_of([a[c] - fewer[c]["quality"] for c in both]),
        },
        "verdicts_changed": sum(_won(part["blind"][c]) != _won(part["placebo"][c]) for c in both),
        "losses": [_losses(part["placebo"], both), _losses(part["blind"], both)],
        "moved": sum(part["placebo"][c]["quality"] != part["stored"][c]["quality"] for c in stored),
        "detectable": detectable_of([a[c] - b[c] for c in both]),
        "dims": {d: _mean(j["scores"][d] for j in judged) for d in DIMENSIONS} if judged else {},
    }  # fmt: skip


def _quality(rows: dict[str, dict[str, Any]], case: str) -> float | None:
    return rows[case]["quality"] if case in rows else None


def _fewer(placebo: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    """The placebo's judgment with those scores alone that the blind judge gives, and its quality."""
    if not placebo["judgment"] or not seen["judgment"]:
        return placebo
    scores = {d: s for d, s in placebo["judgment"]["scores"].items() if d in seen["judgment"]["scores"]}
    verdict = placebo["judgment"]["verdict"]
    return {"judgment": {"scores": scores, "verdict": verdict}, "quality": quality(scores, verdict)}


def _rubric(row: dict[str, Any]) -> float:
    """What the rubric adds to the quality of a case."""
    return quality(row["judgment"]["scores"], "loss") if row["judgment"] else 0.0


def _won(row: dict[str, Any]) -> float:
    return VALUE[row["judgment"]["verdict"]] if row["judgment"] else 0.0


def _losses(rows: dict[str, dict[str, Any]], cases: Sequence[str]) -> int:
    """Losses to gold; no answer has lost too."""
    return sum(not r["judgment"] or r["judgment"]["verdict"] == "loss" for c in cases if (r := rows[c]))


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found) if found else 0.0
