"""The keep rule: one rule for one comparison and for many, and a false-keep rate that is calibrated."""

import random

import numpy as np
import pytest

from lib.measure import keep
from lib.measure.stats import Paired, paired, sign_flip


def test(delta=0.1, p=0.01, high=0.2):
    return Paired(delta, p, delta - 0.1, high, 30)


test.__test__ = False


@pytest.mark.parametrize(
    ("p", "delta", "floor", "looks", "kept"),
    [
        (0.049, 0.01, None, 1, True),
        (0.05, 0.01, None, 1, False),
        (0.049, -0.01, None, 1, False),
        (0.01, 0.1, 0.09, 1, True),
        (0.01, 0.1, 0.1, 1, False),
        (0.01, 0.1 + 1e-16, 0.1, 1, False),
        (0.02, 0.1, 0.0, 2, True),
        (0.02, 0.1, 0.0, 3, False),
    ],
)
def test_a_gain_is_kept_where_p_is_below_its_share_of_alpha_and_the_gain_above_the_floor(p, delta, floor, looks, kept):
    assert keep.passes(delta, p, floor, looks) is kept
    assert (keep.decide(test(delta, p), floor, 0.02, looks)[0] == "kept") is kept


def test_the_reason_of_a_keep_says_which_floor_it_passed_or_that_none_is_measured():
    assert keep.decide(test(), 0.05, 0.02)[1].endswith(
        "p = 0.01 below 0.05, and the difference is above the floor 0.0500"
    )
    assert keep.decide(test(), 0.0, 0.02)[1].endswith("above the floor 0.0000")
    assert keep.decide(test(), None, 0.02)[1].endswith("no A/A floor is measured yet")


def test_what_is_not_kept_is_indecisive_while_the_interval_admits_the_least_gain_and_discarded_after():
    assert keep.decide(test(0.1, 0.01), 0.2, 0.02) == (
        "indecisive", "the difference is within the A/A floor; the interval still admits a gain of +0.020, so it is not ruled out",
    )  # fmt: skip
    assert keep.decide(test(0.1, 0.2), None, 0.02)[1].startswith("p = 0.2; ")
    assert keep.decide(test(-0.1, 0.01, high=0.01), None, 0.02) == (
        "discarded",
        "the interval rules out a gain of +0.020",
    )


@pytest.mark.slow
def test_many_comparisons_are_kept_as_one_is():
    rng = np.random.default_rng(4)
    gains = rng.choice([-0.6, -0.1, 0.0, 0.0, 0.1, 0.6], (120, 30)) + rng.choice([0.0, 0.1], (120, 1))
    p = np.array([sign_flip(row) for row in gains])
    clear = np.abs(p - keep.ALPHA) > 0.01
    one = [keep.decide(paired(row, row * 0), None, 0.02)[0] == "kept" for row in gains]
    assert (keep.accepts(gains) == one)[clear].all()
    assert 10 < sum(one) < 110


def test_one_large_difference_among_small_ones_that_all_agree_is_kept_as_the_test_says():
    gains = np.array([[1.0, *[0.1] * 5, *[0.0] * 24]])
    assert sign_flip(gains[0]) == pytest.approx(2 / 64)
    assert keep.accepts(gains).all()


def test_each_comparison_has_a_floor_of_its_own():
    gains = np.full((2, 30), 0.1)
    assert keep.accepts(gains, np.array([0.09, 0.11])).tolist() == [True, False]
    assert keep.accepts(gains, 0.1).tolist() == [False, False]


# --- studies


def outcomes(repeats=8, cases=30, seed=0):
    return np.random.default_rng(seed).normal(0.4, 0.15, (repeats, cases))


def worlds(studies=400, runs=71, cases=30, seed=1):
    rng = np.random.default_rng(seed)
    return [keep.alike(outcomes(), (studies, runs, cases), rng) for _ in range(2)]


def test_a_run_of_a_null_world_has_outcomes_of_its_own_cases_only():
    table = np.arange(12.0).reshape(3, 4)
    world = keep.alike(table, (50, 5, 4), np.random.default_rng(0))
    assert world.shape == (50, 5, 4)
    assert (world % 4 == world[:, :1] % 4).all() and set(world.ravel()) == set(table.ravel())


def test_equals_set_as_many_new_bests_as_the_harmonic_sum_says():
    luck = keep.if_better(worlds(1000)[0])
    assert luck.keeps.mean() == pytest.approx(sum(1 / k for k in range(2, 72)), abs=0.15)
    assert (np.diff(luck.gain, axis=1) >= 0).all()


def test_a_truly_better_run_is_kept_and_confirmed_and_its_gain_is_what_it_adds():
    open_, sealed = worlds(50, 3)
    open_[:, 1:] += 0.3
    sealed[:, 1:] += 0.3
    rule, sure = keep.play(open_, sealed)
    assert (rule.keeps >= 1).mean() > 0.95 and (sure.keeps >= 1).mean() > 0.95
    assert rule.gain[:, 1].mean() == pytest.approx(0.3, abs=0.03)


def test_what_wins_on_the_open_cases_alone_is_kept_and_never_confirmed():
    open_, sealed = worlds(50, 2)
    open_[:, 1] += 0.3
    sealed[:, 1] -= 0.3
    rule, sure = keep.play(open_, sealed)
    assert rule.keeps.all() and not sure.keeps.any() and not sure.gain.any()


def test_a_look_counts_at_its_share_of_alpha():
    for cases, passed in ((7, False), (9, True)):  # p = 2 / 2**cases: 0.016 and 0.004, of which 0.005 is the share
        open_ = np.zeros((5, 2, 30))
        open_[:, 1] = 0.3
        sealed = np.zeros((5, 2, 30))
        sealed[:, 1, :cases] = 0.3
        rule, sure = keep.play(open_, sealed)
        assert rule.keeps.all() and (sure.keeps > 0).tolist() == [passed] * 5


def test_where_nothing_works_each_stricter_rule_is_fooled_less():
    open_, sealed = worlds()
    bare, floored = keep.null_world(open_, sealed), keep.null_world(open_, sealed, 0.04)
    assert (bare.runs, bare.studies) == (71, 400)
    assert floored.false_keep <= bare.false_keep < 0.6 and bare.false_keep > 0.1
    assert bare.confirmed <= keep.ALPHA / 2 and floored.confirmed <= keep.ALPHA / 2
    assert bare.keeps < bare.lucky_keeps / 5 and bare.lucky_climb > 0.03


def test_without_noise_nothing_is_kept_by_luck():
    flat = np.full((50, 71, 30), 0.1 + 0.2)
    world = keep.null_world(flat, flat)
    assert (world.lucky_keeps, world.keeps, world.false_keep, world.confirmed) == (0, 0, 0, 0)


def test_one_look_at_an_equal_is_kept_at_half_of_alpha():
    runs = keep.alike(outcomes(), (2000, 2, 30), np.random.default_rng(3))
    # One side of a two-sided test keeps; four standard errors of 2,000 looks are 0.014.
    assert keep.accepts(runs[:, 0] - runs[:, 1]).mean() == pytest.approx(keep.ALPHA / 2, abs=0.014)


def test_the_same_differences_are_always_kept_alike():
    draw = random.Random(2)
    gains = np.array([[draw.gauss(0.03, 0.1) for _ in range(30)] for _ in range(200)])
    assert (keep.accepts(gains) == keep.accepts(gains.copy())).all()
