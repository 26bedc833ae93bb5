"""Few faults of every kind; `make faults` has them all. What must hold is in `tests.faults.ground`."""

import os
import random
import subprocess
import sys

import pytest

from lib.files import ROOT
from tests.faults import at_rest
from tests.faults.__main__ import KINDS
from tests.faults.ground import build, copy, one_line, overwrite, unsound

AT_REST = {kind: faults for kind, (faults, _) in KINDS.items() if getattr(faults, "__module__", "") == at_rest.__name__}


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return build(tmp_path_factory.mktemp("faults") / "ground")


@pytest.mark.parametrize("kind", AT_REST)
def test_a_fault_of_a_file_loses_nothing_doubles_nothing_and_is_said_in_one_line(kind, ground, tmp_path):
    tried = [wrong for wrong in AT_REST[kind](ground, tmp_path / "at", random.Random(1), 3)]
    assert len(tried) >= 2 and tried == [[]] * len(tried)


def test_what_looks_for_broken_promises_finds_them(ground, tmp_path):
    folder = copy(ground, tmp_path / "at")
    assert unsound(folder) == []
    (folder / "0004-half").mkdir()
    overwrite(folder / "0001-baseline" / "cases.jsonl", b"{}")
    assert {wrong.what for wrong in unsound(folder)} == {"torn"} and len(unsound(folder)) >= 2
    wrong = []
    with one_line(wrong):
        pass
    with one_line(wrong):
        raise KeyError("metadata")
    with one_line(wrong):
        raise OSError("two\nlines")
    assert [w.what for w in wrong] == ["unclear"] * 3


# Studies, loops and trainings that are killed have tests of their own: tests/lab/test_study.py, tests/loop/test_loop.py,
# tests/lab/test_training.py, tests/train/test_fit.py.
ELSEWHERE = ("study killed", "loop killed", "training killed")
UNDER_WAY = [kind for kind in KINDS if kind not in AT_REST and kind not in ELSEWHERE]


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [UNDER_WAY[:-3], *([kind] for kind in UNDER_WAY[-3:])], ids="+".join)
def test_few_faults_of_every_kind_break_nothing(kinds):
    command = [sys.executable, "-W", "ignore", "-m", "tests.faults", "--seed", "1", "--scale", "0.05", "--jobs", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([*command, *kinds], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("seed 1") and all(kind in done.stdout for kind in kinds)


@pytest.mark.slow
def test_kinds_of_faults_run_in_processes_of_their_own_are_added_up():
    command = [sys.executable, "-W", "ignore", "-m", "tests.faults", "--scale", "0.05", "--jobs", "2"]
    kinds = ["ledger cut", "read-only folder"]
    done = subprocess.run([*command, *kinds], cwd=ROOT, capture_output=True, text=True)
    rows = {line[:28].strip(): line[28:].split() for line in done.stdout.splitlines()[2:]}
    assert done.returncode == 0 and rows.keys() == {*kinds, "all"}, done.stdout + done.stderr
    assert int(rows["all"][0]) == sum(int(rows[kind][0]) for kind in kinds) > 2
