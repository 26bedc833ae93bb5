"""Paired comparison: how sure we are that one run is better than another on the same cases.

Knows numbers per case and nothing else. With 30 cases a normal interval is too narrow, so the test is a sign-flip
permutation and the interval a bias-corrected bootstrap (arXiv 2503.01747). All of it is seeded: same input, same output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

EXACT = 16  # up to this many non-zero differences every sign pattern is counted; beyond it, DRAWS random ones
DRAWS = 100_000
RESAMPLES = 10_000
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
    first, second = (np.asarray(side, dtype=float) for side in _aligned(a, b))
    if not np.isfinite([first, second]).all():
        raise ValueError("a quality is not a finite number; leave unscored cases out of both runs before pairing")
    d = first - second
    low, high = bca(d)
    return Paired(float(d.mean()), sign_flip(d), low, high, len(d))


def _aligned(a: Qualities, b: Qualities) -> tuple[Sequence[float], Sequence[float]]:
    if isinstance(a, Mapping) != isinstance(b, Mapping):
        raise ValueError("one run has case ids and the other has none; give both as mappings or both as sequences")
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            odd = sorted(a.keys() ^ b.keys(), key=str)
            raise ValueError(f"{len(odd)} cases stand in one run only, first {odd[0]!r}; compare runs on the same gate")
        keys = sorted(a)
        a, b = [a[k] for k in keys], [b[k] for k in keys]
    if len(a) != len(b):
        raise ValueError(f"{len(a)} against {len(b)} cases; a paired comparison needs the same cases")
    if not len(a):
        raise ValueError("no cases to compare")
    return list(a), list(b)


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided probability that random signs give a mean at least as far from 0. 1.0 when nothing differs."""
    d = np.asarray(differences, dtype=float)
    d = d[d != 0]
    n = len(d)
    if n == 0:
        return 1.0
    seen = abs(d.sum()) - 1e-9
    if n <= EXACT:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ d) >= seen).mean())
    signs = np.random.default_rng(0).integers(0, 2, (DRAWS, n), dtype=np.int8) * 2 - 1
    # The observed pattern counts as one of the draws, so p is never 0 (Phipson and Smyth 2010).
    return float(((np.abs(signs @ d) >= seen).sum() + 1) / (DRAWS + 1))


def bca(values: Sequence[float]) -> tuple[float, float]:
    """Bias-corrected and accelerated 95 % bootstrap interval of the mean."""
    x = np.asarray(values, dtype=float)
    n, mean = len(x), float(np.mean(values))
    if n < 2 or np.ptp(x) == 0:
        return mean, mean
    draws = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    means = np.sort(x[draws].mean(axis=1))
    below = (np.sum(means < mean) + 0.5 * np.sum(means == mean)) / RESAMPLES
    normal = NormalDist()
    z0 = normal.inv_cdf(min(max(float(below), 1 / RESAMPLES), 1 - 1 / RESAMPLES))
    jack = (x.sum() - x) / (n - 1)
    away = jack.mean() - jack
    spread = float((away**2).sum())
    a = float((away**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    ends = []
    for z in (normal.inv_cdf((1 - 0.95) / 2), normal.inv_cdf((1 + 0.95) / 2)):
        at = normal.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))
        ends.append(float(np.quantile(means, at)))
    return ends[0], ends[1]
