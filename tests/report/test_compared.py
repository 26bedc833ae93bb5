"""The confirmation experiment as a reader sees it."""

import re

import pytest

from lib.lab.models import in_short
from lib.report import compared, figures
from lib.report.era import Era
from lib.runs.record import ComparisonFindings
from tests.measure.checks.test_compare import found as readings  # noqa: F401  a fixture
from tests.report.test_tables import ERA, ledger_of, made

TOLD = {"calls": 24, "generation_tokens": 1200, "adapter": "", "useful": {}}


@pytest.fixture
def found(readings):  # noqa: F811
    told = {"a": TOLD | {"candidate": "smollm2", "model": "smollm2"}}
    told["b"] = TOLD | {"candidate": "claude-haiku-4-5", "model": "claude-haiku-4-5"}
    return {**readings, "candidates": told}


def test_each_candidate_has_quality_interval_coverage_and_counts_that_add_up(found):
    table = compared.models(found).set_index("candidate")
    assert list(table.index) == ["smollm2", "claude-haiku-4-5", "gold against itself"]
    for _, row in table.iterrows():
        assert sum(map(int, row["wtl"].split("/"))) + row["no_answer"] == row["cases"] == 12
    assert list(table["where"]) == ["on-device", "cloud", ""]
    assert table.loc["claude-haiku-4-5", "calls_a_case"] == 2 and "useful" not in table
    assert re.fullmatch(r"\+\d\.\d{3}\sto\s\+\d\.\d{3}", table.loc["claude-haiku-4-5", "95 % of delta"])


def test_usefulness_has_a_column_only_where_it_was_asked(found):
    found["candidates"]["b"]["useful"] = {"mean": 3.5}
    assert compared.models(found).set_index("candidate").loc["claude-haiku-4-5", "useful"] == 3.5


def test_dimensions_keep_their_decimals(found):
    table = compared.dimensions(found).set_index("candidate")
    assert list(table.columns) == ["atomicity", "specificity", "coverage", "naturalness", "non-redundancy"]
    assert table.loc["claude-haiku-4-5", "coverage"] == 4.0


def test_every_difference_has_its_test(found):
    table = compared.differences(found)
    assert list(table["of"])[0] == "quality" and len(table) == 6 and table["p"].notna().all()


def test_the_report_shows_the_newest_comparison_of_this_era_and_of_its_kind(tmp_path, found):
    base = {**found, "groups": [{**found["groups"][0], "group": "stock"}]}
    ledger = ledger_of(
        tmp_path,
        made(1, "reference", None, "models", kind="models", found=found),
        made(2, "reference", None, "base-x", kind="models", found=base),
        made(3, "reference", None, "other", kind="models", found=found, fingerprint="e" * 64),
    )
    assert "From 0001-models" in compared.section(ledger, ERA).text
    assert "From 0002-base-x" in compared.regression(ledger, ERA).text
    assert "From 0003-other" in compared.section(ledger, "e" * 64).text


def test_a_sentence_says_what_a_change_of_the_model_did_and_names_an_adapter_by_its_training(found):
    found["candidates"]["a"]["candidate"] = "smollm2 + runs/0003-sft/adapter"
    said = "in the pipeline “ask” the quality of smollm2 + 0003-sft differs beyond chance from that of"
    assert in_short(ComparisonFindings.read(found)).startswith(f"{said} 1 of 1 other model (claude-haiku-4-5 +0.")
    found["groups"][0]["runs"][1]["difference"]["p"] = 0.5
    assert in_short(ComparisonFindings.read(found)) == f"{said} 0 of 1 other model"


def test_of_two_comparisons_the_wider_is_shown_and_of_equals_the_newer(tmp_path, found):
    group = found["groups"][0]
    wider = {**found, "groups": [group, {**group, "group": "again"}]}
    rows = [made(n, "reference", None, s, kind="models", found=f) for n, s, f in
            ((1, "wide", wider), (2, "wide-again", wider), (3, "narrow", found))]  # fmt: skip
    assert Era(ledger_of(tmp_path, *rows), ERA).comparison().id == "0002-wide-again"


def test_controls_stand_below_the_candidates_and_none_stands_twice(found):
    plain = {**found["ceiling"], "name": "any-task set", "quality": 0.15}
    table = compared.models(found, [{**plain, "name": "gold"}, {**plain, "name": "smollm2"}, plain])
    assert list(table["candidate"])[2:] == ["gold against itself", "any-task set"]
    assert table["quality"].iloc[-1] == 0.15 and len(compared.dimensions(found, [plain])) == 4


def test_before_any_comparison_the_page_says_which_command_makes_one(tmp_path):
    empty = ledger_of(tmp_path)
    assert "notch confirm --models" in compared.section(empty, ERA).text
    assert "notch confirm --base" in compared.regression(empty, ERA).text
    assert "not compared yet" in figures.comparison(empty).alt


def test_the_picture_says_its_numbers(found):
    alt = figures.candidates(found).alt
    assert "smollm2 (ask) " in alt and "Gold against itself 0.750" in alt
