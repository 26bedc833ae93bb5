"""From judgments to numbers: values worked out by hand, and the published study's own qualities."""

import json
import random

import pytest

from lib.files import NOTEBOOKS
from lib.measure.answer import NoAnswer
from lib.measure.judge import DIMENSIONS, Judgment, Unscored
from lib.measure.score import case_quality, quality, score, usefulness

# run: (judged, cases, quality over the judged cases, quality over all, logged), as published.
PUBLISHED = {
    "baseline": (10, 10, 0.3075, 0.3075, 0.3075),
    "exp003": (10, 10, 0.3200, 0.3200, 0.3200),
    "exp011": (10, 10, 0.3225, 0.3225, 0.3225),
    "adapter_e1": (9, 10, 0.4500, 0.4050, 0.4050),
    "adapter_e1_full": (29, 30, 0.2836, 0.2742, 0.2742),
    "adapter_e1_g": (29, 30, 0.3621, 0.3500, 0.3621),
    "adapter_v2a_e1": (29, 30, 0.4095, 0.3958, 0.4095),
    "exp046": (29, 30, 0.4302, 0.4158, 0.4302),
    "exp056": (29, 30, 0.4397, 0.4250, 0.4397),
    "exp078": (30, 30, 0.4700, 0.4700, 0.4700),
    "adapter_orpo_e2": (29, 30, 0.3612, 0.3492, 0.3612),
    "adapter_orpo_op_e2": (29, 30, 0.3759, 0.3633, 0.3759),
}


def judged(points, verdict):
    return Judgment(dict.fromkeys(DIMENSIONS, points), verdict)


@pytest.fixture(scope="module")
def published():
    """The published runs by name; the first line of the file is its header."""
    header, *runs = map(json.loads, (NOTEBOOKS / "published" / "verdicts.jsonl").read_text().splitlines())
    assert tuple(header["dimensions"]) == DIMENSIONS
    return {run["run"]: run for run in runs}


def outcomes(run, missing):
    return [
        Judgment(dict(zip(DIMENSIONS, c["scores"], strict=True)), c["verdict"]) if c["verdict"] else missing
        for c in run["cases"]
    ]


@pytest.mark.parametrize(
    ("scores", "verdict", "value"),
    [
        ((1, 1, 1, 1, 1), "loss", 0.0),
        ((5, 5, 5, 5, 5), "win", 1.0),
        ((5, 5, 5, 5, 5), "tie", 0.75),
        ((5, 5, 5, 5, 5), "loss", 0.5),
        ((1, 1, 1, 1, 1), "win", 0.5),
        ((4, 3, 3, 3, 4), "loss", 0.3),
        ((5, 4, 3, 4, 5), "tie", 0.65),
        ((2.5, 2.5, 2.5, 2.5, 2.5), "loss", 0.1875),
    ],
)
def test_quality_is_half_the_rubric_and_half_the_verdict(scores, verdict, value):
    assert quality(dict(zip(DIMENSIONS, scores, strict=True)), verdict) == pytest.approx(value, abs=1e-12)


def test_any_number_of_dimensions_has_a_quality():
    assert quality({"atomicity": 5, "coverage": 4}, "loss") == pytest.approx(0.4375)


@pytest.mark.parametrize(
    ("scores", "verdict", "says"),
    [
        ({"coverage": 3}, "draw", "'draw': expected win, tie or loss"),
        ({"coverage": 3}, None, "None: expected win"),
        ({}, "win", "no scores"),
        ({"coverage": 0}, "win", "coverage is 0: expected 1 to 5"),
        ({"atomicity": 3, "coverage": 5.1}, "win", "coverage is 5.1"),
        ({"coverage": float("nan")}, "win", "coverage is nan"),
    ],
)
def test_what_is_no_judgment_has_no_quality(scores, verdict, says):
    with pytest.raises(ValueError, match=says):
        quality(scores, verdict)


def test_no_answer_counts_0_and_unscored_has_no_quality():
    assert case_quality(NoAnswer("6 questions instead of 7")) == 0.0
    assert case_quality(Unscored("the judge timed out")) is None


def test_no_answer_stays_in_the_mean_and_unscored_is_left_out():
    good = judged(5, "win")
    assert score([good, good, good]).quality == 1.0
    assert score([good, good, NoAnswer("refused")]).quality == pytest.approx(2 / 3)
    assert score([good, good, Unscored("timed out")]).quality == 1.0
    assert score([good, NoAnswer("refused"), Unscored("timed out")]).quality == 0.5


def test_every_case_is_counted_once():
    draw = random.Random(0)
    kinds = [judged(5, "win"), judged(3, "tie"), judged(2, "loss"), NoAnswer("refused"), Unscored("timed out")]
    for _ in range(20):
        chosen = draw.choices(kinds, k=draw.randint(1, 30))
        found = score(chosen)
        counts = [found.wins, found.ties, found.losses, found.no_answer, found.unscored]
        assert counts == [chosen.count(kind) for kind in kinds]
        assert sum(counts) == found.n == len(chosen)


def test_dimensions_are_unrounded_means_over_judged_cases_alone():
    found = score([judged(3, "loss"), judged(4, "loss"), judged(4, "loss"), NoAnswer("refused"), Unscored("timed out")])
    assert found.dims == pytest.approx(dict.fromkeys(DIMENSIONS, 11 / 3))
    assert score([NoAnswer("refused")]).dims == {}


def test_the_interval_holds_the_quality_and_closes_where_all_cases_are_equal():
    mixed = score([judged(p, v) for p in (1, 2, 3, 4, 5) for v in ("win", "tie", "loss")])
    assert 0 < mixed.low < mixed.quality < mixed.high < 1
    same = score([judged(4, "tie")] * 5)
    assert same.low == same.high == same.quality


def test_the_interval_counts_a_case_without_an_answer_as_0():
    good = [judged(4, "tie"), judged(3, "tie")] * 5
    assert score([*good, NoAnswer("refused")]).low < score(good).low


def test_no_cases_have_no_score():
    with pytest.raises(ValueError, match="no cases"):
        score([])


def test_a_shown_score_says_how_many_cases_had_no_answer_and_no_judgment():
    text = score([judged(4, "tie"), NoAnswer("refused"), NoAnswer("refused"), Unscored("?")])._repr_markdown_()
    assert "all 4 cases" in text and "2 without an answer" in text and "1 unscored" in text


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_qualities_come_out_over_both_denominators(published, name):
    run, (count, n, over_judged, over_all, logged) = published[name], PUBLISHED[name]
    found = {"judged": score(outcomes(run, Unscored("refused"))), "all": score(outcomes(run, NoAnswer("refused")))}
    assert found["judged"].quality == pytest.approx(over_judged, abs=1e-4)
    assert found["all"].quality == pytest.approx(over_all, abs=1e-4)
    assert found["all"].n == found["judged"].n == n
    assert found["judged"].unscored == found["all"].no_answer == n - count
    assert run["logged"] == pytest.approx(logged, abs=1e-4)
    assert found[run["denominator"]].quality == pytest.approx(run["logged"], abs=1e-9)


def test_the_published_file_has_these_runs_and_no_texts(published):
    assert published.keys() == PUBLISHED.keys()
    for run in published.values():
        assert run.keys() == {"run", "gate", "logged", "denominator", "cases"}
        assert all(case.keys() == {"case", "verdict", "scores"} for case in run["cases"])


# --- usefulness


def rated(score=None, no_answer=None, **other):
    return {"no_answer": no_answer, "useful": other or (None if no_answer else {"score": score, "reason": "r"})}


def test_a_case_without_an_answer_is_as_useless_as_can_be_and_stays_in_the_mean():
    found = usefulness([rated(5), rated(3), rated(no_answer="nothing")])
    assert (found["mean"], found["cases"], found["no_answer"], found["unscored"]) == (3.0, 3, 1, 0)


def test_an_unrated_case_is_left_out_and_counted():
    found = usefulness([rated(4), rated(unscored="the judge did not answer")])
    assert (found["mean"], found["cases"], found["unscored"]) == (4.0, 1, 1)


def test_where_nothing_was_asked_there_is_nothing_and_where_nothing_was_rated_no_mean():
    assert usefulness([{"no_answer": None}]) == {} == usefulness([])
    assert usefulness([rated(unscored="cut")])["mean"] is None
