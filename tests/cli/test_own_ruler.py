"""A ruler of one's own, with nothing in it but what a ruler must have: every command and kernel measures with it."""

import json
import os
import subprocess
import sys

import pytest

from lib.files import ROOT, Exit, rows
from lib.measure.ruler import Ruler, freeze
from lib.runs.offline import OfflineJudge
from tests.conftest import write_ruler

TASKS = (
    ("bees", "full", "beekeeping", "start a beehive on our roof"),
    ("hull", "full", "boats", "repair the hull of an old rowing boat"),
    ("honey", "full", "beekeeping", "sell honey at the market"),
    ("coast", "dev", "boats", "sail along the coast for a week"),
    ("swarm", "confirm", "beekeeping", "catch the swarm in our chimney"),
    ("rowing", "confirm", "boats", "teach my niece to row"),
)
TOY = ("-p", "model", "toy", "-p", "hypothesis", "The stock toy is where we start.")


@pytest.fixture
def notch(tmp_path):
    """Call `notch` in a process of its own, beside the ruler, which is named as a person there would name it."""
    write_ruler(tmp_path / "mine", TASKS)
    env = os.environ | {"PYTHONPATH": str(ROOT), "NOTCH_RULER": "mine", "NOTCH_RUNS": str(tmp_path / "runs")}

    def call(*args):
        command = [sys.executable, "-m", "lib.cli", *args]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)

    return call


def ran(done):
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_whole_study_goes_through_on_it(notch, tmp_path):
    ran(notch("freeze", "--ruler", "mine"))
    assert "6 cases" in ran(notch("doctor"))
    for gate in ("dev", "full"):
        ran(notch("run", *TOY, "-p", "gate", gate))
    ran(notch("calibrate", "-p", "model", "toy", "-p", "repeats", "2"))
    assert "1 looks" in ran(notch("confirm"))
    ran(notch("rejudge", "0002", "--without", "coverage"))
    assert "pages: open site/index.html" in ran(notch("report", "--html", "site"))
    assert "clean: the ruler and 5 sealed runs" in ran(notch("verify"))
    folders = sorted(p for p in (tmp_path / "runs").iterdir() if (p / "SEALED").exists())
    records = [json.loads((folder / "record.json").read_text()) for folder in folders]
    cases = [rows((folder / "cases.jsonl").read_text(encoding="utf-8")) for folder in folders]
    answered = [[json.loads(row)["case"] for row in run] for run in cases]
    assert answered[:2] == [["coast"], ["bees", "hull", "honey"]] and answered[3] == ["swarm", "rowing"]
    assert {r["fingerprint"] for r in records} == {Ruler.load(tmp_path / "mine").fingerprint(OfflineJudge().identity)}
    assert "start a beehive on our roof" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")


def test_it_is_refused_before_it_is_frozen_and_named(notch):
    done = notch("run", *TOY)
    assert done.returncode == Exit.FAILED and "mine/FROZEN: missing" in done.stderr


def test_verdicts_that_it_does_not_keep_are_one_line(notch):
    ran(notch("freeze", "--ruler", "mine"))
    done = notch("calibrate", "--against", "verdicts")
    assert done.stderr.startswith("notch: ") and "keeps no verdicts by hand" in done.stderr


def test_without_a_dev_gate_it_still_counts_its_gates(tmp_path):
    folder = write_ruler(tmp_path / "full-only", TASKS[:3])
    freeze(folder)
    assert Ruler.load(folder).counts == "full 3, dev 0, confirm 0"
