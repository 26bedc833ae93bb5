"""Paired comparison: how sure we are that one run is better than another on the same cases.

Knows numbers per case and nothing else. With 30 cases a normal interval is too narrow, so the test is a sign-flip
permutation and the interval a bias-corrected bootstrap (arXiv 2503.01747), both by scipy. Seeded: same input, same
output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

EXACT = 16  # up to this many non-zero differences every sign pattern is counted; beyond it, DRAWS random ones
DRAWS = 100_000
RESAMPLES = 10_000
BATCH = 5_000  # drawn at a time: what a cache holds is summed in half the time, and the draws are the same
Qualities = Mapping[str, float] | Sequence[float]


@dataclass(frozen=True)
class Paired:
    """The mean difference of a over b on the same cases."""

    delta: float  # mean of a - b
    p: float  # two-sided sign-flip permutation probability
    low: float  # 95 % BCa interval of delta
    high: float
    n: int  # cases compared

    def __str__(self) -> str:
        return f"{self.delta:+.4f} (95 % {self.low:+.3f} to {self.high:+.3f}, p = {self.p:.3g}, n = {self.n})"


def paired(a: Qualities, b: Qualities) -> Paired:
    """Compare per-case qualities of two runs: `delta` is mean(a - b).

    Takes two mappings by case id (which must be the same ids) or two sequences in the same order.
    Raises ValueError when they do not pair up or are empty. Sources: Fisher's permutation test; Efron 1987 (BCa).

    >>> paired([1.0, 1.0, 1.0], [0.0, 0.0, 0.0]).p
    0.25
    """
    sides = np.asarray(_aligned(a, b), dtype=float)  # (2, cases)
    if not np.isfinite(sides).all():
        raise ValueError("a quality is not a finite number; leave unscored cases out of both runs before pairing")
    return _paired(tuple(sides[0] - sides[1]))


@lru_cache(maxsize=1024)  # the tables of a report ask for the same comparison again and again
def _paired(differences: tuple[float, ...]) -> Paired:
    low, high = bca(differences)
    return Paired(float(np.mean(differences)), sign_flip(differences), low, high, len(differences))


def on_both(a: Mapping[str, float], b: Mapping[str, float]) -> Paired | None:
    """`paired` on the cases that stand in both runs, None where there is no such case."""
    both = a.keys() & b.keys()
    return paired({case: a[case] for case in both}, {case: b[case] for case in both}) if both else None


def _aligned(a: Qualities, b: Qualities) -> tuple[Qualities, Qualities]:
    """Both sides in one order of cases. Raises ValueError where they do not pair up."""
    if isinstance(a, Mapping) != isinstance(b, Mapping):
        raise ValueError("one run has case ids and the other has none; give both as mappings or both as sequences")
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            alone = sorted(a.keys() ^ b.keys(), key=str)
            raise ValueError(
                f"{len(alone)} cases stand in one run only, first {alone[0]!r}; compare runs on the same gate"
            )
        # By id and not as they come: the seeded draws go by place, so the order of a file would show in p.
        keys = sorted(a)
        a, b = list(map(a.__getitem__, keys)), list(map(b.__getitem__, keys))
    if len(a) != len(b):
        raise ValueError(f"{len(a)} against {len(b)} cases; a paired comparison needs the same cases")
    if not len(a):
        raise ValueError("no cases to compare")
    return a, b


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided probability that random signs give a mean at least as far from 0. 1.0 when nothing differs.

    Every sign pattern is counted where that takes no longer than drawing; among drawn ones the observed pattern counts
    too, so that p is never 0 (Phipson and Smyth 2010).
    """
    d = np.asarray(differences, dtype=float)
    d = d[d != 0]
    if len(d) < 2:
        return 1.0  # one sign alone is as far from 0 either way
    from scipy.stats import permutation_test

    # scipy counts every pattern where as many draws are asked for as there are patterns, or more.
    # One fewer than DRAWS: scipy adds the observed pattern to those that it draws.
    draws = 2 ** len(d) if len(d) <= EXACT else DRAWS - 1
    test = permutation_test(
        (d,), _total, permutation_type="samples", n_resamples=draws, vectorized=True, batch=BATCH,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(test.pvalue)


def _total(x: Any, axis: int) -> Any:
    # Qualities are sums of fortieths: what differs in the sixteenth digit alone is the same sum.
    return x.sum(axis=axis).round(9)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """`bca`, and (0, 0) where there is nothing to draw from: a run whose cases are all unscored still has a record."""
    return bca(values) if values else (0.0, 0.0)


def bca(values: Sequence[float]) -> tuple[float, float]:
    """Bias-corrected and accelerated 95 % bootstrap interval of the mean (Efron 1987)."""
    x = np.asarray(values, dtype=float)
    # The acceleration divides by the spread, so values that are all the same have no interval but themselves.
    if len(x) < 2 or np.ptp(x) == 0:
        return float(x.mean()), float(x.mean())
    from scipy.stats import bootstrap

    draws = bootstrap((x,), np.mean, method="BCa", n_resamples=RESAMPLES, rng=np.random.default_rng(0))
    return float(draws.confidence_interval.low), float(draws.confidence_interval.high)
