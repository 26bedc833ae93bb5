"""The typed model of a run: what is read back is what was written, and what is no record is said in one line."""

import json

import pytest

from lib.files import ROOT, canonical
from lib.measure.judge import Judgment
from lib.measure.score import Scores
from lib.runs.ledger import Ledger
from lib.runs.record import (
    BadRecord,
    CalibrationRecord,
    CaseRow,
    ComparisonRecord,
    Decision,
    Record,
    RejudgeRecord,
    RunCost,
    TrainingRecord,
    record_of,
)
from lib.runs.seal import read_cases, sealed_folders

SEALED = sealed_folders(ROOT / "runs")
MINIMAL = {"kind": "experiment", "hypothesis": "h", "fingerprint": "f" * 64, "code": {"commit": "unknown"}}


@pytest.mark.parametrize("run", SEALED, ids=lambda run: run.name)
def test_every_sealed_record_is_the_same_json_after_it_was_typed(run):
    plain = json.loads((run / "record.json").read_bytes())
    assert canonical(record_of(plain).as_dict()) == canonical(plain)


@pytest.mark.parametrize("run", SEALED, ids=lambda run: run.name)
def test_every_row_of_an_experiment_is_the_same_json_after_it_was_typed(run):
    lines = (run / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    rows = read_cases(run)
    assert len(rows) == len(lines)
    if not rows or "part" not in rows[0].as_dict():  # readings leave the notes of a judgment out
        assert [canonical(row.as_dict()) for row in rows] == lines


def test_each_kind_of_run_has_its_type():
    kinds = {r.kind: type(r) for r in Ledger.read(ROOT / "runs").records}
    assert kinds == {"experiment": Record, "confirm": Record, "train": TrainingRecord, "models": ComparisonRecord,
                     "rejudge": RejudgeRecord, "calibrate": CalibrationRecord}  # fmt: skip


def test_a_record_without_newer_fields_has_their_defaults():
    record = record_of(MINIMAL)
    assert record.scores is None and record.useful is False and record.sampled is None and not record.found
    assert record.decision == Decision() and record.cost.calls == 0


def test_what_a_later_version_wrote_stays_in_the_record():
    assert record_of(MINIMAL | {"later": 1}).as_dict()["later"] == 1


def test_what_is_not_measured_is_absent():
    assert RunCost(calls=3).as_dict() == {"calls": 3}
    decision = Decision("kept", "the first")
    assert decision.floor is None and "0.0000" not in decision._repr_markdown_()


@pytest.mark.parametrize(
    "change, said",
    [
        ({"kind": None}, "kind is None: expected text"),
        ({"predicted": "0.1"}, "predicted is '0.1': expected a number"),
        ({"seed": 1.5}, "seed is 1.5: expected a whole number"),
        ({"pipeline": ["ask"]}, "pipeline 0 is 'ask'|pipeline.0. is 'ask'"),
        ({"scores": {"quality": 0.1}}, "scores is no Scores"),
        ({"leaks": "case-1"}, "leaks is 'case-1': expected a list"),
    ],
)
def test_what_is_no_record_is_said_in_one_line(change, said):
    with pytest.raises(BadRecord, match=said) as stopped:
        record_of(MINIMAL | change)
    assert "\n" not in str(stopped.value)


def test_a_revised_record_is_read_as_the_new_one_everywhere():
    record = record_of(MINIMAL)
    kept = record.revised(status="kept", scores=Scores(0.5, 0.4, 0.6, {}, 1, 0, 1, 0, 0))
    assert (
        kept.as_dict()["status"] == kept.status == "kept"
        and kept.as_dict()["scores"]["quality"] == kept.scores.quality == 0.5
    )
    assert record.status == ""


def test_setups_differ_by_what_changes_answers_or_judgments_and_not_by_the_purse():
    one = record_of(MINIMAL | {"judging": {"dollars": 1.0}})
    assert one.setup.differs(record_of(MINIMAL | {"judging": {"dollars": 9.0}, "hypothesis": "other"}).setup) == []
    other = record_of(MINIMAL | {"seed": 1, "judging": {"replicate": 1}})
    assert one.setup.differs(other.setup) == ["seed", "judging"]
    adapted = record_of(MINIMAL | {"adapter": "a"})
    assert adapted.setup.harness() == one.setup.harness() != record_of(MINIMAL | {"seed": 1}).setup.harness()


def test_a_row_keeps_the_numbers_of_its_judgment_as_they_are():
    row = {"case": "a", "judgment": {"scores": {"coverage": 3}, "verdict": "tie"}, "quality": 0.5}
    typed = CaseRow.read(row)
    assert isinstance(typed.outcome, Judgment) and canonical(typed.as_dict()["judgment"]["scores"]) == '{"coverage":3}'
