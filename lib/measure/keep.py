"""The keep rule: which difference between two runs of the same cases is kept, and how often luck alone passes it.

Knows a paired test, an A/A floor and ALPHA; plays whole studies in which nothing works. Does not know whose runs they
are, nor where outcomes come from: the ledger decides with it, calibrations and the published study simulate with it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.log import Row
from lib.measure.stats import Paired

Floats = NDArray[np.float64]
ALPHA = 0.05
LOOKS = 10  # at the sealed gate in one era; they share ALPHA, whatever they look at
HAIR = 1e-9  # two means of the same numbers may differ in their last digits
SIGNS = 4000  # random sign patterns a test: enough for a rate over many tests, where `paired` draws 100,000 for one


def passes(delta: Any, p: Any, floor: Any = None, looks: int = 1) -> Any:
    """The rule, of numbers or elementwise of arrays: p below ALPHA and a mean difference above the floor.

    `looks` at one hypothesis share ALPHA, for each is another chance for luck; an unmeasured floor (None) is no bar.

    >>> passes(0.1, 0.03), passes(0.1, 0.03, floor=0.1), passes(0.1, 0.03, looks=2), passes(-0.1, 0.03)
    (True, False, False, False)
    """
    return (p < ALPHA / looks) & (delta - (0.0 if floor is None else floor) > HAIR)


def decide(test: Paired, floor: float | None, least: float, looks: int = 1) -> tuple[str, str]:
    """Status and reason: kept, indecisive while the interval still admits a gain of `least`, else discarded."""
    # Bonferroni: with two looks at one hypothesis, each may err half as often, so that both together err no more.
    alpha = ALPHA / looks
    if passes(test.delta, test.p, floor, looks):
        above = "no A/A floor is measured yet"
        if floor is not None:
            above = f"the difference is above the floor {floor:.4f}"
        return "kept", f"better, p = {test.p:.3g} below {alpha:.3g}, and {above}"
    # By the interval's end and not by p: that a gain was not shown does not say that there is none.
    if test.high >= least:
        why = f"p = {test.p:.3g}"
        if test.p < alpha and test.delta > 0:
            why = "the difference is within the A/A floor"
        return "indecisive", f"{why}; the interval still admits a gain of {least:+.3f}, so it is not ruled out"
    return "discarded", f"the interval rules out a gain of {least:+.3f}"


def reach(gates: Iterable[str]) -> str:
    """How many of some cases each gate has, and what so few can never do: n of one sign have p = 2 / 2**n at best.

    >>> reach(["full"] * 6 + ["dev", "confirm"])
    'full 6, dev 1, confirm 1; fewer than 9 cases on confirm can never confirm a run'
    """
    count = Counter(gates)
    text = f"full {count['full']}, dev {count['dev']}, confirm {count['confirm']}"
    for gate, looks, verb in (("full", 1, "keep"), ("confirm", LOOKS, "confirm")):
        fewest = math.floor(2 - math.log2(ALPHA / looks))
        if count[gate] < fewest:
            text += f"; fewer than {fewest} cases on {gate} can never {verb} a run"
    return text


def accepts(differences: Floats, floor: Floats | float | None = None, looks: int = 1) -> NDArray[np.bool_]:
    """The rule on many comparisons at once: a row a comparison, a column a case; `floor` is one, or one a row."""
    # Shapes: differences (N, cases), signs (cases, SIGNS), sums (N, SIGNS): one matrix product tests all of them.
    total, delta = differences.sum(axis=1), differences.mean(axis=1)
    # A sum within its own deviation is reached by one sign pattern in ten or more (Oleszkiewicz 1996): not worth a test.
    far = np.flatnonzero(passes(delta, 0.0, floor) & (total**2 > (differences**2).sum(axis=1)))
    sums = np.abs(differences[far].astype(np.float32) @ _signs(differences.shape[1]))
    # The observed pattern counts as one of those drawn (Phipson & Smyth 2010): a p of 0 would claim too much.
    # Less a hair, because the sums are float32: a pattern that equals the observed one must count.
    p = np.ones(len(differences))
    p[far] = ((sums >= total[far, None] - 1e-5).sum(axis=1) + 1) / (SIGNS + 1)
    return passes(delta, p, floor, looks)


@lru_cache(maxsize=4)
def _signs(cases: int) -> NDArray[np.float32]:
    return (np.random.default_rng(0).integers(0, 2, (cases, SIGNS)) * 2 - 1).astype(np.float32)


# --- studies in which nothing works --------------------------------------------------------------


def alike(outcomes: Floats, shape: tuple[int, int, int], random: np.random.Generator) -> Floats:
    """Studies x runs x cases in which no run differs from another but by chance.

    `outcomes` has a row a repeat and a column a case. Each study draws its cases from the columns, each run takes for
    each of them one of that column's outcomes: so the noise has the shape that was measured, and no other is assumed.
    """
    studies, _, cases = shape
    # One draw of cases a study: its runs answer the same tasks, so their differences are paired as real ones are.
    where = random.integers(0, outcomes.shape[1], (studies, 1, cases))
    return outcomes[random.integers(0, len(outcomes), shape), where]


@dataclass(frozen=True)
class Course:
    """How studies went under one rule, a row a study and a column a run."""

    stands: NDArray[np.int_]  # the run that is the best after each run
    gain: Floats  # of its mean over that of the first run

    @property
    def keeps(self) -> NDArray[np.int_]:
        """How many runs each study kept after the first."""
        return (self.stands[:, 1:] != self.stands[:, :-1]).sum(axis=1)


def _course(world: Floats, stands: NDArray[np.int_]) -> Course:
    means = world.mean(axis=2)
    return Course(stands, np.take_along_axis(means, stands, axis=1) - means[:, :1])


def if_better(world: Floats) -> Course:
    """What "keep it if the number went up" makes of studies x runs x cases."""
    best = np.maximum.accumulate(world.mean(axis=2), axis=1)
    # A run where the best rises is the new best, and stands until the next such one: the largest such place so far.
    new = np.diff(best, axis=1, prepend=best[:, :1]) > HAIR
    return _course(world, np.maximum.accumulate(np.where(new, np.arange(best.shape[1]), 0), axis=1))


def play(world: Floats, sealed: Floats, floor: Floats | float | None = None) -> tuple[Course, Course]:
    """What the keep rule makes of them: its champions, and what the sealed gate confirms. `floor`: one, or one a study.

    As in `runs.ledger`: a run is tested against the last kept one; a kept run is looked at once on the sealed cases,
    against the last one confirmed there, and all looks share one ALPHA. The first run is the first of both. Calibrations
    that were sealed before 0217 gave each look an ALPHA of its own.
    """
    studies, runs, _ = world.shape
    every, floor = np.arange(studies), np.broadcast_to(0.0 if floor is None else floor, studies)
    champion, confirmed = np.zeros((2, studies, runs), int)
    for run in range(1, runs):
        champion[:, run], confirmed[:, run] = champion[:, run - 1], confirmed[:, run - 1]
        looks = np.flatnonzero(accepts(world[:, run] - world[every, champion[:, run]], floor))
        champion[looks, run] = run
        won = accepts(sealed[looks, run] - sealed[looks, confirmed[looks, run]], floor[looks], LOOKS)
        confirmed[looks[won], run] = run
    return _course(world, champion), _course(world, confirmed)


@dataclass(frozen=True)
class NullWorld:
    """Studies in which no experiment changes anything."""

    runs: int  # experiments a study
    studies: int
    lucky_keeps: float  # a study keeps so many by "keep if it looks better"
    lucky_climb: float  # and seems to climb so far
    keeps: float  # a study keeps so many by the keep rule
    false_keep: float  # share of studies that keep anything by it
    confirmed: float  # share of studies that keep anything which the sealed gate does not take back

    def as_dict(self) -> Row:
        return asdict(self)


def null_world(world: Floats, sealed: Floats, floor: float | None = None) -> NullWorld:
    """The false-keep rate: what the rules keep where runs are `alike`, the first of each study being the baseline."""
    luck, (rule, sure) = if_better(world), play(world, sealed, floor)
    return NullWorld(
        world.shape[1], len(world), round(float(luck.keeps.mean()), 3), round(float(luck.gain[:, -1].mean()), 4),
        round(float(rule.keeps.mean()), 3), round(float((rule.keeps > 0).mean()), 4),
        round(float((sure.keeps > 0).mean()), 4),
    )  # fmt: skip
