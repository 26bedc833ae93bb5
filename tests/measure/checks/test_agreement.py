"""Ratings as rows, and a judge beside a person: counted by hand where that can be done."""

import pytest

from lib.measure.checks.agreement import Pair, Rating, agreement, interval, item_id, kappa, standing
from lib.measure.judge import DIMENSIONS, Judgment

THREES = dict.fromkeys(DIMENSIONS, 3)
ROW = {
    "kind": "rating", "item": "i1", "case": "kite", "run": "0001-a", "gold": "A", "verdict": "tie", "scores": THREES,
    "gold_scores": THREES, "seconds": 12.5, "who": "me", "at": "now", "fingerprint": "f",
}  # fmt: skip
UNDO = {"kind": "undo", "item": "i1", "who": "me", "at": "later"}


def pair(case, person, judge, mine=3, theirs=3):
    said = (Judgment(dict.fromkeys(DIMENSIONS, score), verdict) for score, verdict in ((theirs, judge), (mine, person)))
    return Pair("0001-a", case, *said)


def test_an_item_is_named_by_case_and_words():
    names = {item_id("a", "T", ["q", "r"]), item_id("b", "T", ["q", "r"]), item_id("a", "T", ["r", "q"])}
    assert len(names) == 3 and item_id("a", "T", ("q", "r")) in names


@pytest.mark.parametrize(
    "change, said",
    [
        ({"verdict": "draw"}, "verdict is 'draw': expected one of win, tie, loss"),
        ({"gold": "left"}, "gold is 'left': expected one of A, B"),
        ({"scores": THREES | {"coverage": 6}}, "scores coverage is 6: expected"),
        ({"scores": THREES | {"coverage": True}}, "scores coverage is True: expected a whole number"),
        ({"gold_scores": {"coverage": 3}}, "one for each of atomicity"),
        ({"seconds": -1}, "seconds is -1"),
        ({"who": ""}, "who is empty"),
        ({"mood": "fine"}, "no parameter 'mood'"),
    ],
)
def test_a_row_that_is_no_rating_is_refused_by_its_field(change, said):
    with pytest.raises(ValueError, match=said):
        Rating.of(ROW | change)


def test_an_undo_takes_back_what_the_same_person_said():
    other = ROW | {"who": "you"}
    assert standing([ROW, other, UNDO], "me") == [] and len(standing([ROW, other, UNDO], "you")) == 1
    again = standing([ROW, UNDO, ROW | {"verdict": "win"}], "me")
    assert [r.verdict for r in again] == ["win"]
    assert [r.item for r in standing([ROW, ROW | {"item": "i2"}, ROW], "me")] == ["i2", "i1"]


def test_agreement_by_hand():
    pairs = [pair("a", "win", "win", 5, 4), pair("a", "loss", "loss", 1, 2), pair("b", "win", "loss", 3, 4),
             pair("c", "loss", "loss", 2, 3)]  # fmt: skip
    found = agreement(pairs)
    assert (found.n, found.cases, found.same) == (4, 3, 3)
    # Chance: both win 2/4 * 1/4, both lose 2/4 * 3/4.
    assert found.kappa == pytest.approx((0.75 - 0.5) / 0.5)
    assert found.spearman == pytest.approx(1.0)
    assert found.low <= 0.75 <= found.high and "3 of 4 verdicts (75 %" in str(found)


def test_a_judge_that_always_says_the_same_agrees_by_chance_alone():
    assert kappa([("win", "loss"), ("loss", "loss"), ("loss", "loss")]) == 0
    assert "kappa undefined" in str(agreement([pair("a", "loss", "loss"), pair("b", "loss", "loss")]))


def test_the_interval_counts_cases_not_ratings():
    hits = [(f"case {i}", i % 3 > 0) for i in range(12)]
    many = interval(hits * 5)
    assert many == pytest.approx(interval(hits), abs=0.01)  # five times the same of each case says nothing new
    apart = interval([(f"case {i}", i % 3 > 0) for i in range(60)])
    assert apart[1] - apart[0] < (many[1] - many[0]) / 1.8


def test_the_interval_repeats_and_never_claims_certainty():
    hits = [("a", True), ("b", False), ("c", True)]
    assert interval(hits) == interval(hits)
    low, high = interval([(f"case {i}", True) for i in range(20)])
    assert (low, high) == (pytest.approx(0.8316, abs=1e-4), 1.0)  # exact binomial: 0.025 ** (1 / 20)
