"""A re-judge in the report: arithmetic apart from judgment. The re-judges are made up: no run, no judge."""

import json

import pytest

from lib.measure.calibrate import row_of
from lib.measure.checks import blind
from lib.measure.judge import DIMENSIONS, Judgment
from lib.report import measured
from tests.report.test_tables import ERA, ledger_of, made

FOUR = [d for d in DIMENSIONS if d != "coverage"]


def rejudged(tmp_path, seen, judge="claude", number=2, run="0001-stock"):
    """A sealed re-judge without coverage of six cases that scored 3 and lost, coverage 1; `seen` is the blind judgment."""
    full = Judgment(dict.fromkeys(FOUR, 3) | {"coverage": 1}, "loss")
    parts = (("stored", full), ("placebo", full), ("blind", seen))
    rows = [row_of(part, f"c{i}", outcome, run=run) for i in range(6) for part, outcome in parts]
    record = made(number, "reference", None, "rejudge", kind="rejudge", lever="re-judge", judge=judge, model="", pipeline=[],
                  found={**blind.readings(rows), "without": "coverage"})  # fmt: skip
    (tmp_path / record["id"]).mkdir()
    (tmp_path / record["id"] / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return record


@pytest.fixture
def stock():
    return made(1, "kept", 0.3, "stock", lever="baseline")


def test_without_a_sealed_rejudge_the_report_says_what_would_make_one(tmp_path, stock):
    other = rejudged(tmp_path, Judgment(dict.fromkeys(FOUR, 3), "loss"), run="0009-of-another-era")
    for ledger in (ledger_of(tmp_path), ledger_of(tmp_path, stock), ledger_of(tmp_path, stock, other)):
        assert "No re-judge is sealed yet" in measured.dropped(ledger, ERA).text
        assert "`notch rejudge RUN --without coverage`" in measured.dropped(ledger, ERA).text


def test_a_gain_that_is_arithmetic_alone_is_no_reason(tmp_path, stock):
    ledger = ledger_of(tmp_path, stock, rejudged(tmp_path, Judgment(dict.fromkeys(FOUR, 3), "loss")))
    text = measured.dropped(ledger, ERA).text
    assert "| 0001-stock | +0.050 | +0.050 | +0.000 |" in text and "It is the lowest of the five in 1 of 1 run." in text
    assert "quality moves by +0.050." in text and "6 losses instead of 6 in 6 cases, and 0 verdicts change" in text
    assert "For no run does the judgment ease beyond chance" in text and "offline judge" not in text


def test_verdicts_that_ease_make_it_a_part_of_the_reason(tmp_path, stock):
    ledger = ledger_of(tmp_path, stock, rejudged(tmp_path, Judgment(dict.fromkeys(FOUR, 3), "tie")))
    text = measured.dropped(ledger, ERA).text
    assert "0 losses instead of 6 in 6 cases, and 6 verdicts change" in text and "quality moves by +0.250." in text
    assert "eases for 0001-stock: there coverage is a part of why it loses" in text


def test_the_newest_of_each_judge_is_shown_and_the_offline_one_says_what_it_cannot(tmp_path, stock):
    same, eased = (Judgment(dict.fromkeys(FOUR, 3), v) for v in ("loss", "tie"))
    records = [rejudged(tmp_path, *r) for r in ((same, "offline", 2), (eased, "offline", 3), (same, "claude", 4))]
    text = measured.dropped(ledger_of(tmp_path, stock, *records), ERA).text
    assert (
        "0002-rejudge" not in text
        and "From 0003-rejudge (judge offline)" in text
        and "From 0004-rejudge (judge claude)" in text
    )
    assert text.count("this judge cannot answer") == 1 == text.count("For no run does the judgment ease")
