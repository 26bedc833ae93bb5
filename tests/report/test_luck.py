"""The null world is calibrated: in it each rule keeps as much as it must, and the stricter the less."""

import numpy as np
import pytest

from lib.measure.stats import sign_flip
from lib.report import luck, published


def test_equals_set_as_many_new_bests_as_the_harmonic_sum_says():
    kept = luck.null_studies(30, 71, 1000, 3)["keep if better"]["kept"].mean()
    # Two standard errors of 1,000 studies are 0.1; ties take away a little more.
    assert luck.by_luck(71) - 0.35 < kept < luck.by_luck(71) + 0.1


def test_the_simulation_is_deterministic_and_follows_its_seed():
    luck.null_studies.cache_clear()
    first = luck.luck(30, 20, 200, 1)
    luck.null_studies.cache_clear()
    assert first.equals(luck.luck(30, 20, 200, 1))
    assert not first.equals(luck.luck(30, 20, 200, 2))


@pytest.mark.parametrize("tasks", [10, 30])
def test_each_stricter_rule_is_fooled_less_in_the_null_world(tasks):
    table = luck.luck(tasks, 71, 1000, 5)
    plain, tested, floored, confirmed = table["studies fooled, %"]
    assert plain > 95 and 10 < tested < 50 and floored <= tested and confirmed < 5
    assert table.climb.iloc[0] > 2 * table.climb.iloc[1] > 0
    assert table.climb.iloc[3] < 0.005


def test_fewer_tasks_climb_farther_by_luck():
    assert luck.luck(10).climb.iloc[0] > 1.4 * luck.luck(30).climb.iloc[0]


def test_one_look_at_an_equal_is_kept_at_half_of_alpha_and_at_a_better_one_more_often():
    table = luck.power().set_index("true gain")
    # Two-sided alpha of 0.05, one side of which keeps; four standard errors of 1,000 looks are 0.02.
    assert table.loc["+0.00", ["paired, 30 tasks", "paired, 100 tasks", "paired, 300 tasks"]].max() < 0.045
    assert 0.4 < table.loc["+0.00", "keep if better, 30 tasks"] < 0.6
    assert table["paired, 300 tasks"].is_monotonic_increasing and table.loc["+0.10", "paired, 300 tasks"] > 0.95


def test_the_fast_test_agrees_with_the_one_that_decides():
    rng = np.random.default_rng(4)
    d = rng.choice([-0.6, -0.1, 0.0, 0.0, 0.1, 0.6], (120, 30)) + rng.choice([0.0, 0.1], (120, 1))
    signs = (rng.integers(0, 2, (30, 4000)) * 2 - 1).astype(float)
    kept = luck.beats(d, 0.0, signs)
    p = np.array([sign_flip(row) for row in d])
    clear = np.abs(p - 0.05) > 0.01
    assert (kept == ((p < 0.05) & (d.mean(axis=1) > 0)))[clear].all()
    assert 10 < kept.sum() < 110


def test_the_floor_stops_a_gain_that_is_not_above_it():
    d = np.full((1, 30), 0.1)
    signs = (np.random.default_rng(0).integers(0, 2, (30, 4000)) * 2 - 1).astype(float)
    assert luck.beats(d, np.array([0.09]), signs).all() and not luck.beats(d, np.array([0.11]), signs).any()


def test_a_truly_better_run_is_kept_and_confirmed():
    rng = np.random.default_rng(0)
    worlds = [luck.null_world(rng, 50, 2, 30, published.pools()) for _ in range(2)]
    for world in worlds:
        world[:, 1] += 0.3
    seen = luck.play(*worlds, 0.0, rng)
    assert seen["kept"].mean() > 0.95 and seen["confirmed"].mean() > 0.95
    assert (seen["champion"][:, 1] - seen["champion"][:, 0]).mean() > 0.2
