"""The null world is calibrated: in it each rule keeps as much as it must, and the stricter the less."""

import luck
import pytest


def test_equals_set_as_many_new_bests_as_the_harmonic_sum_says():
    kept = luck.null_studies(30, 71, 1000, 3)["keep if better"].keeps.mean()
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
