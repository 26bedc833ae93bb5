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
        made(4, "reference", None, "sft", kind="train", lever="training", found={"method": "sft"}),
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
    assert list(levers.methods(ledger.frame())) == ["", "", "", "sft", "sft", "", "", "", ""]


@pytest.mark.parametrize(
    "slug, changes, method",
    [
        ("train-grpo", {"adapter": "0004-train-sft", "found": {"method": "grpo"}}, "grpo"),  # its adapter is its parent
        ("train-coverage", {"found": {"method": "sft"}}, "sft"),
        ("train-orpo-styles", {"status": "crashed"}, "orpo"),  # no method was found: its name has one
    ],
)
def test_a_training_is_of_its_own_method_whatever_it_goes_on_from(tmp_path, slug, changes, method):
    parent = made(4, "reference", None, "train-sft", kind="train", lever="training", found={"method": "sft"})
    training = made(
        5, **{"status": "reference", "quality": None, "slug": slug, "kind": "train", "lever": "training"} | changes
    )
    user = made(6, slug="on", lever="adapter", adapter=f"runs/0005-{slug}/adapter/epoch-01")
    ledger = ledger_of(tmp_path, parent, training, user)
    assert list(levers.methods(ledger.frame())) == ["sft", method, method]
    assert levers.classes(ledger, ERA).lever.iloc[0] == f"adapter ({method.upper()})"


def test_an_invalid_run_counts_nowhere_and_is_said(ledger):
    assert "Left out: 1 run that crashed, broke a rule" in levers.summary(ledger, ERA).text
    assert "0009-leaked" not in set(levers.classes(ledger, ERA)["best run"])


def test_negatives_stand_worst_first_and_say_what_is_beyond_chance(ledger):
    found = levers.negatives(ledger, ERA)
    assert list(found.id) == ["0002-worse", "0007-on-unknown", "0003-chance"]
    assert list(found.reading) == ["worse beyond chance", "indecisive", "indecisive"]


def test_the_sentences_count_empty_classes_and_broken_promises(ledger):
    text = levers.failed(ledger, ERA).text
    print(text)
    assert (
        "Of 3 hypotheses that promised a gain, 2 promised more" in text
    )  # 0.01 predicted by all but one; -0.10 and -0.02 came


def test_the_summary_gives_the_range_of_coverage_with_its_runs(tmp_path):
    low, high = scores(0.3), scores(0.3)
    low["dims"] = low["dims"] | {"coverage": 2.63}
    high["dims"] = high["dims"] | {"coverage": 3.47}
    told = levers.summary(ledger_of(tmp_path, made(1, scores=low), made(2, scores=high)), ERA).text
    assert (
        "2.63 (0001-run) and 3.47 (0002-run)" in told and "2 experiments in 1 lever class: 2 on the full gate" in told
    )


def test_names_of_classes_with_a_comma_stay_apart(tmp_path):
    """`over-generate and prune` kept a run; its class on an adapter did not, and the list must not say otherwise."""
    lever, training = (
        "over-generate and prune",
        made(1, "reference", None, "sft", kind="train", found={"method": "sft"}),
    )
    records = [made(2, "kept", slug="kept", lever=lever), made(3, "discarded", slug="schema", lever="schema"),
               made(4, "discarded", slug="on", lever=lever, adapter="0001-sft")]  # fmt: skip
    text = levers.failed(ledger_of(tmp_path, training, *records), ERA).text
    assert "| schema | 0 of 1 |" in text
    assert "| over-generate and prune, on an adapter | 0 of 1 |" in text


def test_a_run_that_never_came_to_ask_the_model_is_no_evidence_against_its_lever(tmp_path):
    silent = scores(0.0, wins=0, ties=0, losses=0, no_answer=10)
    idle = made(2, "discarded", 0.0, "idle", gate="dev", scores=silent, cost={"calls": 0, "generation_tokens": 0})
    mute = made(3, "discarded", 0.0, "mute", gate="dev", scores=silent)  # asked and never right: that is evidence
    ledger = ledger_of(tmp_path, made(1), idle, mute)
    assert list(levers.classes(ledger, ERA)["best run"]) == ["0001-run", "0003-mute"]
    assert "Left out: 1 run that" in levers.summary(ledger, ERA).text


@pytest.mark.parametrize("table", [levers.classes, levers.negatives])
def test_nothing_tried_is_an_empty_table(tmp_path, table):
    assert table(ledger_of(tmp_path), ERA).empty
    assert levers.summary(ledger_of(tmp_path), ERA).text == "No experiment yet."


def test_a_run_that_lost_the_adapter_of_what_it_was_compared_with_is_in_no_table_of_levers(tmp_path):
    beside = {
        "reason": "r",
        "against": "0002-on-sft",
        "delta": -0.3,
        "p": 0.001,
        "low": -0.4,
        "high": -0.2,
        "floor": 0.0,
    }
    ledger = ledger_of(
        tmp_path,
        made(1, "kept", 0.1, "stock", lever="baseline"),
        made(2, "kept", 0.4, "on-sft", lever="adapter", adapter="runs/0000-sft/adapter"),
        made(3, "discarded", 0.1, "bare", lever="retrieval", decision=beside),
        made(4, "discarded", 0.3, "on-it", lever="retrieval", adapter="runs/0000-sft/adapter", decision=beside),
    )
    assert list(levers.classes(ledger, ERA).lever) == ["baseline", "adapter (SFT)", "retrieval, on an adapter"]
    assert "Not in the tables: 1 run without the adapter" in levers.summary(ledger, ERA).text
    assert "0003-bare" not in levers.dead_ends(ledger).text and "0004-on-it" in levers.dead_ends(ledger).text


def test_a_prediction_whose_outcome_an_earlier_era_had_shown_is_counted(tmp_path):
    pipeline = [{"step": "ask"}, {"step": "prune"}]
    ledger = ledger_of(
        tmp_path,
        made(1, "kept", 0.1, "stock", lever="baseline", fingerprint="0" * 64),
        made(2, "kept", 0.3, "prune", fingerprint="0" * 64, pipeline=pipeline),
        made(3, "kept", 0.3, "prune-again", pipeline=pipeline, predicted=0.2, decision=against(0.2, 0.01)),
        made(4, "kept", 0.3, "new", pipeline=[*pipeline, {"step": "best"}]),
    )
    assert levers.known(ledger, ERA) == ["0003-prune-again"]
    assert "Set up as in an earlier era: 1 run, so roughly" in levers.failed(ledger, ERA).text
