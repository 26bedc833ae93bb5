"""Paired comparison: exact where it can be counted, near scipy where it cannot, and the same every time."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import bootstrap, permutation_test

from lib.measure.stats import DRAWS, EXACT, bca, paired, sign_flip


def counted(steps):
    """Two-sided sign-flip probability of whole numbers, by going through every pattern."""
    sums = [abs(sum(s * d for s, d in zip(signs, steps, strict=True))) for signs in product((1, -1), repeat=len(steps))]
    return sum(s >= abs(sum(steps)) for s in sums) / len(sums)


def convolved(steps):
    """The same for many whole numbers: the distribution of the sum, one difference at a time."""
    reach = sum(map(abs, steps))
    chance = np.zeros(2 * reach + 1)
    chance[reach] = 1.0
    for step in steps:
        chance = (np.roll(chance, step) + np.roll(chance, -step)) / 2
    return float(chance[abs(np.arange(-reach, reach + 1)) >= abs(sum(steps))].sum())


def runs(n, seed, shift=0.0):
    """Qualities of two runs on n cases, on the grid of a fortieth that five scores and a verdict make."""
    draw = np.random.default_rng(seed)
    b = draw.integers(0, 30, n) / 40
    return list(np.round((b + draw.integers(-8, 9, n) / 40 + shift) * 40) / 40), list(b)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1], 1.0),
        ([1, 1], 0.5),
        ([1, 2], 0.5),
        ([1, -1], 1.0),
        ([1, 1, 1], 0.25),
        ([-1, -1, -1, -1], 0.125),
        ([1, 2, -1], 0.75),
        ([3, 0, 0], 1.0),
        ([2, 0, 1, 0], 0.5),
        ([0.1, 0.2, -0.3], 1.0),
        ([0.7, -0.1, -0.2, -0.4], 1.0),
    ],
)
def test_small_cases_have_the_probability_that_can_be_counted_by_hand(differences, p):
    assert paired(differences, [0.0] * len(differences)).p == p


@pytest.mark.parametrize("seed", range(30))
def test_the_probability_is_that_of_every_sign_pattern(seed):
    draw = np.random.default_rng(seed)
    steps = [int(k) for k in draw.integers(-9, 12, int(draw.integers(1, 12)))]
    assert sign_flip([k / 40 for k in steps]) == pytest.approx(counted(steps), abs=1e-12)


@pytest.mark.parametrize("shift", [0, 2, 3])
@pytest.mark.parametrize("n", [EXACT, EXACT + 1, 30])
def test_the_probability_of_many_cases_is_exact_or_within_the_noise_of_its_draws(n, shift):
    draw = np.random.default_rng(n + shift)
    steps = [int(k) for k in draw.integers(-8, 9, n) + shift]
    steps = [k or 1 for k in steps]  # so that none drops out and n is what decides between counting and drawing
    expected = convolved(steps)
    noise = 4 * (expected * (1 - expected) / 100_000) ** 0.5 + 1e-5
    assert sign_flip(np.array(steps) / 40) == pytest.approx(expected, abs=1e-12 if n <= EXACT else noise)


def test_what_is_drawn_in_batches_is_what_is_drawn_at_once():
    d = np.random.default_rng(3).integers(-8, 12, 30) / 40
    d = d[d != 0]
    at_once = permutation_test(
        (d,), lambda x, axis: x.sum(axis=axis).round(9), permutation_type="samples", n_resamples=DRAWS - 1,
        vectorized=True, rng=np.random.default_rng(0),
    )  # fmt: skip
    assert len(d) > EXACT and sign_flip(d) == at_once.pvalue


def test_a_probability_is_never_0():
    assert 0 < paired([1.0] * 200, [0.0] * 200).p < 1e-4


@pytest.mark.parametrize(("n", "shift", "tolerance"), [(8, 0.05, 1e-12), (12, 0.02, 1e-12), (30, 0.03, 0.01)])
def test_the_probability_agrees_with_scipy(n, shift, tolerance):
    a, b = runs(n, seed=n, shift=shift)
    theirs = permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf if n <= EXACT else 50_000,
        rng=np.random.default_rng(1),
    )
    assert 0.001 < theirs.pvalue < 0.9
    assert paired(a, b).p == pytest.approx(theirs.pvalue, abs=tolerance)


@pytest.mark.parametrize("n", [10, 30])
def test_the_interval_agrees_with_scipy_and_is_not_the_plain_percentile_one(n):
    values = np.random.default_rng(n).exponential(size=n) ** 2  # skewed, so that the correction shows
    low, high = bca(values)
    found = {}
    for method in ("BCa", "percentile"):
        their = bootstrap(
            (values,), np.mean, method=method, n_resamples=40_000, rng=np.random.default_rng(1)
        ).confidence_interval
        found[method] = max(abs(low - their.low), abs(high - their.high)) / (values.std() / n**0.5)
    assert found["BCa"] < 0.1 < found["percentile"]


@pytest.mark.parametrize("n", [2, 5, 16, 30])
def test_swapping_the_runs_swaps_the_sign_and_nothing_else(n):
    a, b = runs(n, seed=4, shift=0.02)
    one, other = paired(a, b), paired(b, a)
    assert one.delta == -other.delta
    assert one.p == other.p
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-6)
    assert one.low <= one.delta <= one.high


def test_the_order_of_a_mapping_does_not_matter_and_its_ids_do():
    a, b = runs(20, seed=5, shift=0.02)
    ids = [f"case-{i:02}" for i in range(20)]
    first, second = dict(zip(ids, a, strict=True)), dict(zip(ids, b, strict=True))
    assert paired(first, dict(reversed(second.items()))) == paired(first, second) == paired(a, b)
    turned = dict(zip(ids, b[1:] + b[:1], strict=True))
    assert paired(first, turned).delta == pytest.approx(paired(first, second).delta)
    assert paired(first, turned).p != paired(first, second).p


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        ([], [], "no cases"),
        ({}, {}, "no cases"),
        ([1.0, 0.5], [1.0], "2 against 1 cases"),
        ({"x": 1.0, "y": 0.5}, {"x": 1.0, "z": 0.5}, "2 cases stand in one run only, first 'y'"),
        ({"x": 1.0, "y": 0.5}, {"x": 1.0}, "1 cases stand in one run only, first 'y'"),
        ({"x": 1.0}, [1.0], "both as mappings or both as sequences"),
        ([float("nan"), 1.0], [1.0, 1.0], "not a finite number"),
        ([1.0, 1.0], [float("inf"), 1.0], "not a finite number"),
        ([None, 1.0], [1.0, 1.0], "not a finite number"),
    ],
)
def test_runs_that_do_not_pair_up_are_refused_with_the_reason(a, b, says):
    with pytest.raises(ValueError, match=says):
        paired(a, b)


@pytest.mark.parametrize("n", [1, 2, 30])
def test_equal_runs_differ_by_nothing(n):
    a, _ = runs(n, seed=6)
    same = paired(a, list(a))
    assert (same.delta, same.p, same.low, same.high, same.n) == (0.0, 1.0, 0.0, 0.0, n)


def test_a_constant_gain_has_an_interval_of_one_point():
    gain = paired([0.75] * 6, [0.5] * 6)
    assert (gain.delta, gain.low, gain.high) == (0.25, 0.25, 0.25)
    assert gain.p == 2 / 2**6


def test_the_same_runs_compare_the_same_whatever_was_drawn_before():
    a, b = runs(30, seed=7, shift=0.02)
    first = paired(a, b)
    np.random.seed(99)
    np.random.random(10)
    assert paired(tuple(a), np.array(b)) == first


def test_what_was_compared_before_is_not_drawn_for_again():
    sides = {"a": 0.5, "b": 0.25, "c": 0.125}, {"a": 0.25, "b": 0.25, "c": 0.0}
    assert paired(*sides) is paired(*sides) and paired(*sides) != paired(*reversed(sides))


def test_a_comparison_reads_as_one_line():
    assert str(paired([1.0] * 3, [0.0] * 3)) == "+1.0000 (95 % +1.000 to +1.000, p = 0.25, n = 3)"
