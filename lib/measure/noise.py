"""Noise: how far two measurements of the same thing differ, what can be seen above it, and what luck alone would keep.

Knows qualities by case, measured several times with nothing changed, and the numbers of the keep rule. Does not know
who measured. Pure and seeded: same input, same output. Source of the recipe: judges.md sections 4 and 6 (A/A, null
world); the simulations draw from measured residuals, so they assume no shape, but they do assume that a change which
changes nothing scatters a case as a repeat does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ALPHA = 0.05  # of the keep rule
SIGNS = 2000  # random sign patterns a test: enough for a rate over many tests, where `paired` draws 100,000 for one
RUNS = 71  # experiments of the published study
STUDIES = 1000
Repeats = Sequence[Sequence[float]]  # a row a repeat, a column a case


@dataclass(frozen=True)
class Noise:
    """What repeats of one run say about noise."""

    repeats: int
    cases: int
    sd: float  # standard deviation of a run's mean quality
    floor: float  # 95 % of differences between two such means are smaller
    moved: float  # share of cases that ever changed

    def as_dict(self) -> dict[str, Any]:
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
    # Rounded, so that another machine's last digit does not look like tampering.
    return Noise(len(values), n, round(sd, 8), round(1.959964 * 2**0.5 * sd, 8), round(moved, 8))


def residuals(repeats: Repeats) -> Floats:
    """What a repeat of a case adds to its mean: a row a repeat, a column a case, spread as one repeat is."""
    values = _table(repeats)
    k = len(values)
    spread: Floats = (values - values.mean(axis=0)) * (k / (k - 1)) ** 0.5
    spread[abs(spread) < 1e-12] = 0.0  # the mean of equal numbers may differ from them in the last digit
    return spread


def detectable(
    repeats: Repeats, floor: float = 0.0, cases: int = 30, power: float = 0.8, draws: int = STUDIES, seed: int = 0
) -> float:
    """The smallest true gain that the keep rule sees with this power on so many cases, by simulation.

    Two draws of residuals a case are two runs that differ in nothing; the gain is added to all cases of one. 0.0 when
    repeats do not differ: then every gain shows.
    """
    import numpy as np

    spread = residuals(repeats)
    if not spread.any():
        return 0.0
    random = np.random.default_rng(seed)
    nothing = _draw(spread, (draws, cases), random)[0] - _draw(spread, (draws, cases), random)[0]
    return _smallest(nothing, floor, power, random)


def detectable_of(differences: Sequence[float], power: float = 0.8, draws: int = STUDIES, seed: int = 0) -> float:
    """The smallest mean difference that a paired test would have seen, from the differences that it got."""
    import numpy as np

    d = np.asarray(differences, dtype=float)
    if len(d) < 2 or np.ptp(d) == 0:
        return 0.0
    random = np.random.default_rng(seed)
    centred = (d - d.mean())[random.integers(0, len(d), (draws, len(d)))]
    return _smallest(centred, 0.0, power, random)


def _smallest(nothing: Floats, floor: float, power: float, random: Any) -> float:
    signs = _signs(nothing.shape[1], random)

    def seen(gain: float) -> bool:
        return bool(_better(nothing + gain, floor, signs).mean() >= power)

    low, high = 0.0, max(floor, float(nothing.std()), 0.01)
    while not seen(high):
        low, high = high, 2 * high
    while high - low > 0.0005:
        middle = (low + high) / 2
        low, high = (low, middle) if seen(middle) else (middle, high)
    return round(high, 4)


@dataclass(frozen=True)
class NullWorld:
    """Studies in which no experiment changes anything."""

    runs: int  # experiments a study
    studies: int
    lucky_keeps: float  # a study keeps so many by "keep if it looks better"
    lucky_climb: float  # and seems to climb so far
    keeps: float  # a study keeps so many by the paired rule
    false_keep: float  # share of studies that keep anything by the paired rule
    confirmed: float  # share of studies that keep anything which the sealed gate does not take back

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def null_world(
    repeats: Repeats, floor: float = 0.0, runs: int = RUNS, studies: int = STUDIES, seed: int = 0
) -> NullWorld:
    """The keep rule over studies of `runs` experiments that change nothing: the first is the baseline.

    Each case of each run is its level plus a residual drawn anew, so a champion kept by luck is as hard to beat here
    as in life. Every kept run is looked at once on a sealed gate of as many cases, against the last run confirmed
    there (at first the baseline), by the same rule and with new draws.
    """
    import numpy as np

    spread, random = residuals(repeats), np.random.default_rng(seed)
    n = spread.shape[1]
    signs = _signs(n, random)
    champion, where = _draw(spread, (studies, n), random)
    lucky = first = champion.mean(axis=1)
    sealed, sealed_cases = _draw(spread, (studies, n), random)
    keeps, luck, wrong = (np.zeros(studies) for _ in range(3))
    for _ in range(runs - 1):
        run = _draw(spread, (studies, n), random, where)[0]
        luck += run.mean(axis=1) > lucky
        lucky = np.maximum(lucky, run.mean(axis=1))
        kept = _better(run - champion, floor, signs)
        keeps += kept
        champion = np.where(kept[:, None], run, champion)
        look = _draw(spread, (studies, n), random, sealed_cases)[0]
        passed = kept & _better(look - sealed, floor, signs)
        wrong += passed
        sealed = np.where(passed[:, None], look, sealed)
    return NullWorld(
        runs, studies, round(float(luck.mean()), 3), round(float((lucky - first).mean()), 4),
        round(float(keeps.mean()), 3), round(float((keeps > 0).mean()), 4), round(float((wrong > 0).mean()), 4),
    )  # fmt: skip


def floor_of(found: dict[str, Any], sampled: bool = True) -> float | None:
    """The A/A floor of a calibration for two greedy runs, or where one of them samples. `found` is what its record holds.

    A calibration from before the two were told apart has the greedy one in its answers judged again.
    """
    floors = found.get("floors") or {"sampled": found.get("floor"), "greedy": (found.get("same") or {}).get("floor")}
    floor = floors["sampled" if sampled else "greedy"]
    return found.get("floor") if floor is None else floor  # the larger one is safe where one was not measured


def world_of(found: dict[str, Any], sampled: bool = True) -> dict[str, Any] | None:
    """The null world of the keep rule with that floor, None where none was simulated."""
    if sampled or floor_of(found, True) == floor_of(found, False):
        return found.get("null_world")
    return found.get("greedy_world")


def detectable_in(found: dict[str, Any], sampled: bool = True) -> float | None:
    """The smallest gain that a calibration says the rule finds with that floor, None where it does not say."""
    same = sampled or floor_of(found, True) == floor_of(found, False)
    return found.get("detectable") if same else (found.get("greedy_world") or {}).get("detectable")


def sentence(found: dict[str, Any], sampled: bool = True) -> str:
    """Floor and false-keep rate of a calibration in one plain sentence; `sampled`: whether a run of the two samples."""
    floor, world = floor_of(found, sampled), world_of(found, sampled)
    if floor is None or (not world and floor):
        return "How often this rule keeps a change that changes nothing is not measured here yet: `notch calibrate`."
    what = "where one of them samples" if sampled else "both greedy"
    if not floor and (not world or not (world["lucky_climb"] or world["keeps"])):
        return (
            "A repeat differed in nothing (A/A floor 0), so nothing is kept by the noise of a repeat; what a change that "
            "merely reshuffles answers would do, only repeats with sampled decoding can show."
        )
    assert world is not None
    moved = (
        f"Two measurements of the same thing, {what}, differ by up to {floor:.4f} (95 %)"
        if floor
        else "Greedy runs repeat exactly (A/A floor 0), but a change that does no good still reshuffles answers"
    )
    return (
        f"{moved}; in a world where nothing ever changes, this rule keeps something in {100 * world['false_keep']:.0f} % of "
        f"studies of {world['runs']} runs, and in {100 * world['confirmed']:.1f} % something that the sealed gate does not "
        "take back."
    )


def _table(repeats: Repeats) -> Floats:
    import numpy as np

    if len(repeats) < 2 or len({len(r) for r in repeats}) != 1 or not len(repeats[0]):
        raise ValueError(f"{[len(r) for r in repeats]} cases: noise needs two repeats or more of the same cases")
    return np.asarray(repeats, dtype=float)


def _draw(spread: Floats, shape: tuple[int, int], random: Any, where: Any = None) -> tuple[Floats, Any]:
    """Residuals of cases drawn at random (or given, a measured case for each), and which cases they are."""
    where = random.integers(0, spread.shape[1], shape) if where is None else where
    return spread[random.integers(0, len(spread), shape), where], where


def _signs(n: int, random: Any) -> Any:
    import numpy as np

    return (random.integers(0, 2, (SIGNS, n)) * 2 - 1).astype(np.float32)


def _better(differences: Floats, floor: float, signs: Any) -> Any:
    """Which rows the keep rule would keep: two-sided sign-flip p below ALPHA and a mean above the floor."""
    import numpy as np

    d = differences.astype(np.float32)
    total = d.sum(axis=1)
    kept = d.mean(axis=1) > floor + 1e-7
    likely = np.flatnonzero(kept)  # only these can be kept, so only these are tested
    beyond = np.abs(signs @ d[likely].T) >= np.abs(total[likely]) - 1e-5
    kept[likely] = (beyond.sum(axis=0) + 1) / (SIGNS + 1) < ALPHA
    return kept
