"""The line about a run under way: rewritten in place on a terminal, sparse lines elsewhere, nothing where nobody waits."""

import os
import pty
import subprocess
import sys
import time

import pytest

from lib.agent.pipeline import run
from lib.agent.steps import build
from lib.cli.options import progress
from lib.files import PROGRESS, ROOT
from lib.lab.base import Telling
from lib.lab.experiment import Experiment
from lib.models.model import Decoding, ToyModel

CHILD = """
import time
from lib.cli.options import progress
with progress() as file:
    for text in ("1 ask 3 of 30 cases", "1 ask 30 of 30 cases" + "x" * 300):
        file.write_text(text)
        time.sleep(1.2)
"""


def test_on_a_terminal_one_line_rewrites_itself_and_goes_away():
    terminal, side = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", CHILD], cwd=ROOT, stderr=side, stdout=subprocess.DEVNULL)
    os.close(side)
    said = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # Linux: the other side is closed
            part = b""
        if not part:
            break
        said += part
    os.close(terminal)
    first, second, end = said.decode().split("\r\x1b[K")[1:]
    assert child.wait() == 0 and b"\n" not in said
    assert first == "1 ask 3 of 30 cases" and second.startswith("1 ask 30 of 30 cases") and end == ""
    assert len(second) < 300  # a line that wraps could not be written over


def test_elsewhere_each_change_is_a_line_and_a_quick_run_says_nothing(capsys):
    with progress(every=0.05) as file:
        for text in ("loading toy", "loading toy", "1 ask 3 of 30 cases  "):
            file.write_text(text)
            time.sleep(0.3)
    assert capsys.readouterr().err == "loading toy\n1 ask 3 of 30 cases\n"
    with progress() as file:
        file.write_text("1 ask 3 of 30 cases")
    assert capsys.readouterr().err == ""


def test_a_pipeline_tells_its_stage_and_its_replies_so_far():
    heard = []
    steps = build([{"step": "ask", "n": 8}, {"step": "critique"}])
    tasks = [("a", "sail"), ("b", "bake")]
    run(steps, tasks, ToyModel(), Decoding(), tell=lambda *told: heard.append(told))
    assert heard[0] == ("1 ask", 2) and heard[1][0] == "2 critique"
    assert [replies for _, replies in heard] == sorted(replies for _, replies in heard)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv(PROGRESS, str(tmp_path / "progress"))
    return tmp_path / "progress"


def test_what_runs_how_many_cases_are_done_and_how_long_it_takes(file):
    tell = Telling(30, 2.0)
    tell("1 ask", 0)
    assert file.read_text() == "1 ask ░░░░░░░░░░░░ 0 of 30 cases"
    time.sleep(0.2)
    tell("2 prune", 30)  # half of the calls
    assert file.read_text() == "2 prune ██████░░░░░░ 15 of 30 cases, 0 s left"
    tell("2 prune", 40)
    assert "15 of 30" in file.read_text()  # not written for every token
    tell("3 x", 99)
    assert "30 of 30 cases, 0 s left" in file.read_text()  # more calls than were foreseen


def test_an_experiment_tells_and_is_silent_where_nobody_waits(file, monkeypatch, tmp_path):
    toy = Experiment(hypothesis="x", model="toy", gate="dev", folder=tmp_path / "runs")
    toy.run()
    assert file.read_text() == "judging 10 answers"
    file.unlink()
    monkeypatch.delenv(PROGRESS)
    toy.run()
    assert not file.exists()
