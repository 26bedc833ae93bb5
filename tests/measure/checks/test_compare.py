"""Models side by side: counts add up, differences are paired by case, missing answers stay in."""

import pytest

from lib.measure.answer import NoAnswer
from lib.measure.calibrate import row_of
from lib.measure.checks import compare
from lib.measure.judge import DIMENSIONS, Judgment, Unscored

CASES = [f"case-{i}" for i in range(12)]


def judged(score, verdict="loss", **changes):
    return Judgment({d: score for d in DIMENSIONS} | changes, verdict)


def rows(group, run, outcomes):
    return [row_of("sealed", c, o, group=group, run=run) for c, o in zip(CASES, outcomes, strict=True)]


@pytest.fixture
def found():
    weak = [judged(3.0)] * 11 + [NoAnswer("nothing")]
    strong = [judged(3.0, coverage=4.0)] * 6 + [judged(3.0, "tie", coverage=4.0)] * 6
    gold = [judged(5.0, "tie")] * 12
    return compare.readings([*rows("ask", "a", weak), *rows("ask", "b", strong), *rows(compare.CEILING, "gold", gold)])


def test_wins_ties_losses_and_no_answers_add_up_to_the_cases(found):
    for run in found["groups"][0]["runs"]:
        s = run["scores"]
        assert s["wins"] + s["ties"] + s["losses"] + s["no_answer"] + s["unscored"] == len(CASES)
    assert found["groups"][0]["runs"][0]["scores"]["no_answer"] == 1


def test_the_first_of_a_group_is_compared_with_nothing_and_the_others_with_it(found):
    first, other = found["groups"][0]["runs"]
    assert "difference" not in first
    assert other["difference"]["delta"] == pytest.approx(other["scores"]["quality"] - first["scores"]["quality"])
    assert other["difference"]["n"] == 12


def test_only_the_dimension_that_moved_has_a_difference_and_only_judged_cases_count(found):
    dims = found["groups"][0]["runs"][1]["dims"]
    assert dims["coverage"]["delta"] == pytest.approx(1.0) and dims["coverage"]["n"] == 11
    assert {d for d in DIMENSIONS if dims[d]["delta"] != 0} == {"coverage"}
    assert dims["coverage"]["p"] < 0.01 and dims["atomicity"]["p"] == 1.0


def test_gold_is_the_ceiling_and_no_candidate(found):
    assert [g["group"] for g in found["groups"]] == ["ask"] and found["ceiling"]["quality"] == pytest.approx(0.75)


def test_runs_without_a_common_case_have_no_difference_and_do_not_crash():
    some = [judged(3.0)] * 6 + [Unscored("cut")] * 6
    other = [Unscored("cut")] * 6 + [judged(3.0)] * 6
    found = compare.readings([*rows("g", "a", some), *rows("g", "b", other)])
    assert found["groups"][0]["runs"][1]["difference"] == {"delta": None, "p": None, "low": None, "high": None, "n": 0}
    assert found["ceiling"] == {}
