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


@pytest.mark.slow
def test_few_faults_of_every_kind_break_nothing():
    command = [sys.executable, "-W", "ignore", "-m", "tests.faults", "--seed", "1", "--scale", "0.05"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("seed 1") and all(kind in done.stdout for kind in KINDS)
