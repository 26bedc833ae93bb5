"""The fit of the offline judge: on toy verdicts what it must do, on the study's own, where they are here, how well."""

import json

import pytest

from lib.measure.judge import DIMENSIONS
from lib.measure.offline_judge import PRICES, TIE, WIN
from scripts import fit_offline_judge as fit
from tests.measure.test_against import ASKED, FITTED, REAL

FIELDS = ("atomicity", "specificity", "coverage", "naturalness", "nonRedundancy")


@pytest.fixture
def toy(tmp_path):
    """Two runs of three answers: gold's own words with the best scores, and telegrams with the worst."""
    (tmp_path / "verdicts").mkdir()
    gold = [{"id": c, "title": f"Buy a {c}", "questions": [f"{a} must your new {c} be?" for a in ASKED]}
            for c in ("boat", "kite", "goat")]  # fmt: skip
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(g) + "\n" for g in gold))
    whole = [g | dict.fromkeys(FIELDS, 5) | {"pairwise": "tie"} for g in gold]
    bare = [g | {"questions": ["Size?"] * 7, "pairwise": "goldBetter"} | dict.fromkeys(FIELDS, 1) for g in gold]
    for name, rows in (("one", [*whole[:2], bare[2]]), ("two", [whole[0], *bare[1:], gold[0] | {"pairwise": None}])):
        (tmp_path / "verdicts" / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def test_every_judged_answer_is_read_with_its_faults_and_none_of_the_unjudged(toy):
    rows = fit.load(toy)
    assert [r.run for r in rows] == ["one"] * 3 + ["two"] * 3
    assert [r.verdict for r in rows] == ["tie", "tie", "loss", "tie", "loss", "loss"]
    assert rows[0].length == 1 and rows[0].amount["missing"] < rows[2].amount["missing"]


def test_no_price_is_below_its_least_and_what_is_set_by_hand_stays(toy):
    prices = fit.fit(fit.load(toy))
    assert prices.keys() == set(DIMENSIONS)
    for dimension, priors in fit.PRIORS.items():
        for fault, (start, least) in priors.items():
            assert prices[dimension][fault] >= least
            assert fault not in fit.BY_HAND or prices[dimension][fault] == start


def test_a_fault_of_answers_that_lose_more_than_it_explains_costs_more_than_was_believed(toy):
    assert fit.fit(fit.load(toy))["atomicity"]["missing"] > fit.PRIORS["atomicity"]["missing"][0]


def test_left_out_runs_are_predicted_in_the_order_of_their_quality(toy):
    table = dict(line.split()[:2] for line in fit.left_out(fit.load(toy)).splitlines()[1:7])
    assert table.keys() == {"quality", *DIMENSIONS} and float(table["quality"]) > 0.8


@pytest.mark.skipif(not REAL.is_dir(), reason="the study's texts are not here")
def test_the_prices_are_what_the_fit_finds_on_the_runs_that_they_were_fitted_to():
    rows = [r for r in fit.load(REAL.parent) if r.run in FITTED]
    prices = fit.fit(rows)
    assert prices == PRICES and fit.thresholds(fit.predict(rows, prices)) == (WIN, TIE)
