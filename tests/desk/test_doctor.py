"""What the doctor says of a folder of runs: tried, not guessed, and nothing is left behind."""

import os
from pathlib import Path

import pytest

from lib.desk.doctor import doctor


def runs_row(folder):
    [row] = [c for c in doctor(folder)["checks"] if c["what"] == "runs"]
    return row


def test_a_folder_that_can_be_written_is_ok_whether_it_is_there_or_not(tmp_path):
    (tmp_path / "runs").mkdir()
    assert runs_row(tmp_path / "runs")["ok"] and runs_row(tmp_path / "deep" / "er" / "runs")["ok"]
    assert [p.name for p in tmp_path.rglob("*")] == ["runs"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system that nobody can write to")
def test_a_folder_that_cannot_be_made_is_missing_and_says_why():
    row = runs_row(Path("/proc/notch/runs"))
    assert not row["ok"] and "/proc/notch/runs cannot be written" in row["found"] and "--runs" in row["found"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system that nobody can write to")
def test_a_folder_that_is_there_and_cannot_be_written_is_missing():
    row = runs_row(Path("/proc/self"))
    assert not row["ok"] and row["needed"]
