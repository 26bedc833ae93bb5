"""Noise: how far two measurements of the same thing differ, what can be seen above it, and what luck alone would keep.

Knows qualities by case, measured several times with nothing changed, and the keep rule. Does not know
who measured. Pure and seeded: same input, same output. The simulations draw from measured residuals, so they assume
no shape, but they do assume that a change which changes nothing scatters a case as a repeat does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from lib.log import Row
from lib.measure import keep
from lib.measure.keep import Floats

RUNS = 71  # experiments of the published study
STUDIES = 1000
CASES = 30  # of a gate
POWER = 0.8  # share of simulated comparisons in which a gain is seen
Repeats = Sequence[Sequence[float]]  # a row a repeat, a column a case


@dataclass(frozen=True)
class Noise:
    """What repeats of one run say about noise."""

    repeats: int
    cases: int
    sd: float  # standard deviation of a run's mean quality
    floor: float  # 95 % of differences between two such means are smaller
    moved: float  # share of cases that ever changed

    def as_dict(self) -> Row:
        return asdict(self)


def noise(repeats: Repeats) -> Noise:
    """Standard deviation of the mean and the 95 % floor, from the spread within cases.

    The spread within each of n cases counts (n estimates), not that of the few means. Raises ValueError on fewer than
    two repeats or unequal ones.

    >>> noise([[0.5, 0.2], [0.5, 0.2]]).floor
    0.0
    """
    values = _table(repeats)
    n = values.shape[1]
    sd = float((values.var(axis=0, ddof=1).mean() / n) ** 0.5)
    moved = float((values.max(axis=0) > values.min(axis=0)).mean())
    # A difference of two such means has twice the variance of one; 1.96 deviations hold 95 % of a normal one.
    # Rounded, so that another machine's last digit does not look like tampering.
    return Noise(len(values), n, round(sd, 8), round(1.959964 * 2**0.5 * sd, 8), round(moved, 8))


def residuals(repeats: Repeats) -> Floats:
    """What a repeat of a case adds to its mean: a row a repeat, a column a case, spread as one repeat is."""
    values = _table(repeats)
    k = len(values)
    # Deviations from a mean of k are too small by (k - 1) / k in variance: two repeats would show half of the noise.
    spread: Floats = (values - values.mean(axis=0)) * (k / (k - 1)) ** 0.5
    # The mean of equal numbers may differ from them in the last digit, and that is no noise.
    spread[abs(spread) < 1e-12] = 0.0
    return spread


def detectable(repeats: Repeats, floor: float | None = None, seed: int = 0) -> float:
    """The smallest true gain that the keep rule sees with POWER on CASES cases, by simulation.

    Two draws of residuals a case are two runs that differ in nothing; the gain is added to all cases of one. 0.0 when
    repeats do not differ: then every gain shows.
    """
    spread = residuals(repeats)
    if not spread.any():
        return 0.0
    runs = keep.alike(spread, (STUDIES, 2, CASES), np.random.default_rng(seed))
    return _smallest(runs[:, 0] - runs[:, 1], floor)


def detectable_of(differences: Sequence[float]) -> float:
    """The smallest mean difference that a paired test would have seen, from the differences that it got."""
    # Resampled about 0: what the test would see of cases like these if nothing had changed, then with a gain added.
    d = np.asarray(differences, dtype=float)
    if len(d) < 2 or np.ptp(d) == 0:
        return 0.0
    again = np.random.default_rng(0).integers(0, len(d), (STUDIES, len(d)))
    return _smallest((d - d.mean())[again], None)


def _smallest(nothing: Floats, floor: float | None) -> float:
    """The smallest gain on top of differences that are noise which the rule sees with POWER, to 0.0005."""

    def passes(gain: float) -> bool:
        return bool(keep.accepts(nothing + gain, floor).mean() >= POWER)

    # More gain never passes less often, so the edge can be closed in on: doubled until it passes, then halved.
    low, high = 0.0, max(floor or 0.0, float(nothing.std()), 0.01)
    while not passes(high):
        low, high = high, 2 * high
    while high - low > 0.0005:
        middle = (low + high) / 2
        if passes(middle):
            high = middle
        else:
            low = middle
    return round(high, 4)


def null_world(repeats: Repeats, floor: float | None = None, studies: int = STUDIES, seed: int = 0) -> keep.NullWorld:
    """The keep rule over studies of RUNS experiments that change nothing, on as many open and sealed cases.

    Each case of each run is its level plus a residual drawn anew, so a champion kept by luck is as hard to beat here
    as in life.
    """
    spread, random = residuals(repeats), np.random.default_rng(seed)
    shape = (studies, RUNS, spread.shape[1])
    # Open before sealed: both draw from one generator, and recorded figures hold that order.
    open_ = keep.alike(spread, shape, random)
    return keep.null_world(open_, keep.alike(spread, shape, random), floor)


def floor_of(readings: Row, sampled: bool = True) -> float | None:
    """The A/A floor of a calibration for two greedy runs, or where one of them samples. `readings` are what its record holds.

    A calibration from before the two were told apart has the greedy one in its answers judged again.
    """
    early = {"sampled": readings.get("floor"), "greedy": (readings.get("same") or {}).get("floor")}
    floor = (readings.get("floors") or early)["sampled" if sampled else "greedy"]
    # The larger one is safe where one was not measured.
    return readings.get("floor") if floor is None else floor


def _one_floor(readings: Row, sampled: bool) -> bool:
    # Where both floors are the same number, one world was simulated for both.
    return sampled or floor_of(readings, True) == floor_of(readings, False)


def world_of(readings: Row, sampled: bool = True) -> Row | None:
    """The null world of the keep rule with that floor, None where none was simulated."""
    if _one_floor(readings, sampled):
        return readings.get("null_world")
    return readings.get("greedy_world")


def detectable_in(readings: Row, sampled: bool = True) -> float | None:
    """The smallest gain that a calibration says the rule finds with that floor, None where it does not say."""
    if _one_floor(readings, sampled):
        return readings.get("detectable")
    return (readings.get("greedy_world") or {}).get("detectable")


def sentence(readings: Row, sampled: bool = True) -> str:
    """Floor and false-keep rate of a calibration in one plain sentence; `sampled`: whether a run of the two samples."""
    floor, world = floor_of(readings, sampled), world_of(readings, sampled)
    if floor is None or (not world and floor):
        return "How often this rule keeps a change that changes nothing is not measured here yet: `notch calibrate`."
    if not floor and (not world or not (world["lucky_climb"] or world["keeps"])):
        return (
            "A repeat differed in nothing (A/A floor 0), so nothing is kept by the noise of a repeat; what a change that "
            "merely reshuffles answers would do, only repeats with sampled decoding can show."
        )
    assert world is not None
    moved = "Greedy runs repeat exactly (A/A floor 0), but a change that does no good still reshuffles answers"
    if floor:
        what = "where one of them samples" if sampled else "both greedy"
        moved = f"Two measurements of the same thing, {what}, differ by up to {floor:.4f} (95 %)"
    return (
        f"{moved}; in a world where nothing ever changes, this rule keeps something in {100 * world['false_keep']:.0f} % of "
        f"studies of {world['runs']} runs, and in {100 * world['confirmed']:.1f} % something that the sealed gate does not "
        "take back."
    )


def _table(repeats: Repeats) -> Floats:
    """Qualities as (repeats, cases). Raises ValueError unless two repeats or more have the same number of cases."""
    if len(repeats) < 2 or len({len(r) for r in repeats}) != 1 or not len(repeats[0]):
        raise ValueError(f"{[len(r) for r in repeats]} cases: noise needs two repeats or more of the same cases")
    return np.asarray(repeats, dtype=float)
