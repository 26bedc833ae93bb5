"""What each lever class did: adapters by their training, both gates, negatives with what they promised."""

import pytest

from lib.report import levers
from tests.report.test_tables import ERA, ledger_of, made, scores


def against(delta, p, low=-0.1, high=0.1):
    return {"reason": "r", "against": "0001-stock", "delta": delta, "p": p, "low": low, "high": high, "floor": 0.0}


@pytest.fixture
def ledger(tmp_path):
    return ledger_of(
        tmp_path,
        made(1, "kept", 0.30, "stock", lever="baseline"),
        made(2, "discarded", 0.20, "worse", decision=against(-0.10, 0.001)),
        made(3, "indecisive", 0.31, "chance", predicted=0.0, decision=against(0.01, 0.7)),
        made(4, "reference", None, "sft", kind="train", lever="adapter"),
        made(
            5, "kept", 0.41, "on-sft", lever="adapter", adapter="runs/0004-sft/adapter", decision=against(0.11, 0.004)
        ),
        made(6, "indecisive", 0.50, "screen", gate="dev", scores=scores(0.5, wins=1, ties=2, losses=6, no_answer=1)),
        made(7, "indecisive", 0.39, "on-unknown", lever="adapter", adapter="somewhere", decision=against(-0.02, 0.6)),
        made(8, "reference", 0.5, "larger", lever="anchor"),
        made(9, "invalid", 0.9, "leaked"),
    )


def test_a_class_has_a_row_for_each_gate_and_names_its_cases(ledger):
    found = levers.classes(ledger, ERA)
    assert list(zip(found.lever, found.gate, found.runs, strict=True)) == [
        ("baseline", "full-30", 1), ("prompting", "full-30", 2), ("adapter (SFT)", "full-30", 1),
        ("prompting", "dev-10", 1), ("adapter", "full-30", 1),
    ]  # fmt: skip


def test_an_adapter_is_named_by_the_run_that_trained_it(ledger):
    assert [levers.method(ledger, r) for r in ledger.records] == ["", "", "", "", "sft", "", "", "", ""]


def test_an_invalid_run_counts_nowhere_and_is_said(ledger):
    assert "1 more crashed or are invalid" in levers.summary(ledger, ERA).text
    assert "0009-leaked" not in set(levers.classes(ledger, ERA)["best run"])


def test_negatives_stand_worst_first_and_say_what_is_beyond_chance(ledger):
    found = levers.negatives(ledger, ERA)
    assert list(found.run) == ["0002-worse", "0007-on-unknown", "0003-chance"]
    assert list(found.reading) == ["worse beyond chance", "indecisive", "indecisive"]


def test_the_sentences_count_empty_classes_and_broken_promises(ledger):
    told = levers.failed(ledger, ERA).text
    assert "Nothing was kept in: prompting, adapter." in told
    assert "1 of 3 runs that were not kept are worse" in told
    assert (
        "Of 3 hypotheses that promised a gain, 2 promised more" in told
    )  # 0.01 predicted by all but one; -0.10 and -0.02 came


def test_the_summary_gives_the_range_of_coverage_with_its_runs(tmp_path):
    low, high = scores(0.3), scores(0.3)
    low["dims"] = low["dims"] | {"coverage": 2.63}
    high["dims"] = high["dims"] | {"coverage": 3.47}
    told = levers.summary(ledger_of(tmp_path, made(1, scores=low), made(2, scores=high)), ERA).text
    assert "2.63 (0001-run) and 3.47 (0002-run)" in told and "2 experiments in 1 lever classes" in told


@pytest.mark.parametrize("table", [levers.classes, levers.negatives])
def test_nothing_tried_is_an_empty_table(tmp_path, table):
    assert table(ledger_of(tmp_path), ERA).empty
    assert levers.summary(ledger_of(tmp_path), ERA).text == "No experiment yet."
