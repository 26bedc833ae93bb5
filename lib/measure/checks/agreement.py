"""Verdicts beside those of another, a person or a judge: how far the two agree, and how sure that is.

Knows rows as `ratings.jsonl` holds them, what counts of them after an undo, and pairs of judgments. Does not know
files, widgets, or which of the two is right. Ratings of one case hang together, so the interval draws whole cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from operator import eq
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lib.files import canonical, leave_out, sha256
from lib.forms import Filled, Number, fill, form
from lib.measure.judge import DIMENSIONS, Judgment, Verdict
from lib.measure.score import quality

if TYPE_CHECKING:
    from pandas import DataFrame, Series

ENOUGH = 20  # ratings below which an interval would span nearly everything
RESAMPLES = 10_000
NUMBERING = ("n", "prev", "kind")  # of a line in the log, beside the fields of what it says


def item_id(case: str, title: str, questions: Sequence[str]) -> str:
    """The name of an answer to a case, by its words: the same answer in two runs is one item.

    >>> item_id("kite", "Build", ["How big?"])[:12]
    '9373a4984a53'
    """
    return sha256(canonical([case, title, *questions]))


NEITHER = "neither"  # of the answers: a line of the log too, for leaving it out would flatter every source
Score = Annotated[int, Field(ge=1, le=5)]


@form()
class Rating:
    """What a person said of one answer, blind to which side was gold. Raises ValueError naming the field."""

    item: Filled  # `item_id` of the candidate's answer
    case: Filled
    run: Filled  # sealed run that the answer was taken from
    gold: Literal["A", "B"]  # side that gold was shown on
    verdict: Verdict  # of the candidate against gold
    scores: dict[str, Score]  # of the candidate, by dimension
    gold_scores: dict[str, Score]  # of gold, asked in the same breath so that no letter gives itself away
    seconds: Annotated[Number, Field(ge=0)]  # from the moment the sets were shown to the last score
    who: Filled
    at: Filled
    fingerprint: Filled  # of that run

    def __post_init__(self) -> None:
        for name, scores in (("scores", self.scores), ("gold_scores", self.gold_scores)):
            if scores.keys() != set(DIMENSIONS):
                raise ValueError(f"{name}: expected one for each of {', '.join(DIMENSIONS)}")

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Rating:
        """The rating of one line of the log. Raises ValueError naming the field."""
        return fill(cls, leave_out(row, *NUMBERING))


@form()
class Chosen:
    """Which of several answers to a task typed by hand a person took, blind to where each came from. Raises ValueError."""

    item: Filled  # `item_id` of the answer that was taken, of an empty one for NEITHER
    task: Filled
    letters: dict[str, str]  # source by the letter that it was shown under
    chosen: Filled  # letter, or NEITHER
    answers: dict[str, list[str]]  # title and questions by source, empty where none came
    who: Filled
    at: Filled

    def __post_init__(self) -> None:
        title, *questions = self.answers.get(self.source) or [""]
        if self.chosen not in (*self.letters, NEITHER):
            raise ValueError(
                f"{self.chosen!r} was chosen, which is no letter of {', '.join(self.letters)}, nor {NEITHER}"
            )
        if self.answers.keys() != {*self.letters.values()} or self.item != item_id("typed", title, questions):
            raise ValueError("the item is not the answer under the letter that was chosen")

    @property
    def source(self) -> str:
        return self.letters.get(self.chosen, "")

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Chosen:
        """The choice of one line of the log. Raises ValueError naming the field."""
        return fill(cls, leave_out(row, *NUMBERING))


def taken(rows: Iterable[Mapping[str, Any]], who: str) -> dict[str, tuple[int, int]]:
    """By source how often a person chose it, and how often it was there to be chosen."""
    choices = [Chosen.of(row) for row in rows if row["kind"] == "choice" and row["who"] == who]
    names = sorted({name for choice in choices for name in choice.answers})
    return {name: (sum(c.source == name for c in choices), sum(name in c.answers for c in choices)) for name in names}


def standing(rows: Iterable[Mapping[str, Any]], who: str) -> list[Rating]:
    """The ratings of a person that nobody took back, oldest first; of two of one item the later counts."""
    # In the order of the log, which only grows: an undo takes back what stands before it, a later rating counts anew.
    kept: dict[str, Rating] = {}
    for row in rows:
        if row["who"] == who and row["kind"] != "choice":
            kept.pop(row["item"], None)
            if row["kind"] == "rating":
                kept[row["item"]] = Rating.of(row)
    return list(kept.values())


@dataclass(frozen=True)
class Pair:
    """One answer judged twice; numbers only."""

    run: str
    case: str
    ours: Judgment
    stored: Judgment  # the person's, or whoever is judged against


@dataclass(frozen=True)
class Agreement:
    """How far two judges, or a judge and a person, agree on the same answers."""

    n: int
    cases: int
    same: int  # equal verdicts
    low: float  # 95 % interval of same / n
    high: float
    always: float  # the share that always saying the commonest verdict would reach
    kappa: float | None  # None where both always say one and the same thing: chance alone would agree
    spearman: float  # of case quality
    dims: dict[str, float]  # Spearman of each dimension's scores
    runs: DataFrame  # run -> cases, mean quality of ours and stored, same, spearman

    def order(self, judge: str) -> list[str]:
        """The runs as a judge ranks them ("ours" or "stored"), best first."""
        return list(self.runs.sort_values(judge, ascending=False, kind="stable").index)

    def __str__(self) -> str:
        kappa = f"{self.kappa:.2f}" if self.kappa is not None else "undefined (one verdict throughout)"
        return (
            f"{self.same} of {self.n} verdicts ({100 * self.same / self.n:.0f} %, 95 % interval {100 * self.low:.0f} to "
            f"{100 * self.high:.0f} % over {self.cases} cases); "
            f"Cohen's kappa {kappa}, Spearman of case quality {self.spearman:.2f}"
        )


def agreement(pairs: Sequence[Pair]) -> Agreement:
    """Agreement over one pair or more, and by run. Sources: Cohen 1960; Efron 1979."""
    import pandas as pd

    rows = [
        (p.run, p.case, quality(p.ours.scores, p.ours.verdict), quality(p.stored.scores, p.stored.verdict))
        for p in pairs
    ]
    f = pd.DataFrame(rows, columns=["run", "case", "ours", "stored"])
    verdicts = [(p.ours.verdict, p.stored.verdict) for p in pairs]
    f["same"] = list(starmap(eq, verdicts))
    ours = pd.DataFrame([p.ours.scores for p in pairs], columns=DIMENSIONS)
    stored = pd.DataFrame([p.stored.scores for p in pairs], columns=DIMENSIONS)
    runs = f.groupby("run", sort=False)
    by_run = runs.agg(cases=("ours", "size"), ours=("ours", "mean"), stored=("stored", "mean"), same=("same", "mean"))
    by_run["spearman"] = [_rho(part.ours, part.stored) for _, part in runs]
    # The bar for `same`: where nearly all are losses, always saying "loss" agrees well and knows nothing.
    [(_, commonest)] = Counter(said for _, said in verdicts).most_common(1)
    return Agreement(
        len(f), f.case.nunique(), int(f.same.sum()), *interval(list(zip(f.case, f.same, strict=True))), commonest / len(f),
        kappa(verdicts), _rho(f.ours, f.stored), {d: _rho(ours[d], stored[d]) for d in DIMENSIONS}, by_run,
    )  # fmt: skip


def _rho(ours: Series, stored: Series) -> float:
    """Two points always lie on a line, so fewer than three say nothing."""
    return round(spearman(list(ours), list(stored)), 4) if len(ours) > 2 else 0.0


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation; 0.0 where one of the two never varies, and so ranks nothing.

    >>> spearman([1, 2, 3], [1, 4, 9]), spearman([1, 2, 3], [5, 5, 5])
    (1.0, 0.0)
    """
    from scipy.stats import spearmanr

    if min(len(set(a)), len(set(b))) < 2:
        return 0.0
    return float(spearmanr(a, b).statistic)


def kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa: agreement beyond what two such speakers would reach by chance; None where chance is certain.

    >>> kappa([("win", "win"), ("loss", "loss")]), kappa([("win", "loss"), ("loss", "loss")]), kappa([("tie", "tie")])
    (1.0, 0.0, None)
    """
    n = len(pairs)
    first, second = zip(*pairs, strict=True)
    observed = sum(map(eq, first, second)) / n
    # Two that know nothing of each other meet as often as their own habits make them.
    chance = sum(first.count(v) * second.count(v) for v in set(first)) / n**2
    # Two who always say one and the same agree by chance alone: 0 / 0 is neither 0 nor 1.
    return None if chance == 1 else (observed - chance) / (1 - chance)


def interval(hits: Sequence[tuple[str, bool]]) -> tuple[float, float]:
    """95 % interval of a share, whole cases drawn: rows are (case, whether it holds). The same rows give the same."""
    import numpy as np
    import pandas as pd
    from scipy.stats import binomtest, bootstrap

    # Ratings of one case are no independent witnesses: cases are what is drawn.
    by_case = pd.DataFrame(hits, columns=["case", "hit"]).groupby("case").hit.agg(["sum", "size"])
    shares = by_case["sum"] / by_case["size"]
    if shares.nunique() == 1:
        # Draws of cases that all say the same never differ; counted exactly, as many cases still leave room.
        exact = binomtest(round(len(shares) * shares.iloc[0]), len(shares)).proportion_ci()
        return float(exact.low), float(exact.high)

    def share(equal: Any, total: Any, axis: int) -> Any:
        return equal.sum(axis=axis) / total.sum(axis=axis)

    draws = bootstrap((by_case["sum"], by_case["size"]), share, n_resamples=RESAMPLES, paired=True, method="percentile",
                      rng=np.random.default_rng(0))  # fmt: skip
    return float(draws.confidence_interval.low), float(draws.confidence_interval.high)
