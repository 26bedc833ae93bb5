"""The line about a run under way: rewritten in place on a terminal, sparse lines elsewhere, nothing where nobody waits."""

import json
import os
import pty
import re
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
from lib.report.live import standing

CHILD = """
import time
from lib.cli.options import progress
with progress() as folder:
    for text in ("1 ask 3 of 30 cases", "1 ask 30 of 30 cases" + "x" * 300):
        (folder / "7").write_text("baseline-ask: x\\n" + text)
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
    with progress(every=0.05) as folder:
        for text in ("loading toy", "loading toy", "1 ask 3 of 30 cases  "):
            (folder / "7").write_text(f"baseline-ask: x\n{text}")
            time.sleep(0.3)
    assert capsys.readouterr().err == "loading toy\n1 ask 3 of 30 cases\n"
    with progress() as folder:
        (folder / "7").write_text("baseline-ask: x\n1 ask 3 of 30 cases")
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
    monkeypatch.setenv(PROGRESS, str(tmp_path))
    return tmp_path / str(os.getpid())


def test_what_runs_how_many_cases_are_done_and_how_long_it_takes(file):
    tell = Telling(30, 2.0, "baseline-ask: x")
    tell("1 ask", 0)
    assert file.read_text() == "baseline-ask: x\n1 ask ░░░░░░░░░░░░ 0 of 30 cases"
    time.sleep(0.2)
    tell("2 prune", 30)  # half of the calls
    assert file.read_text() == "baseline-ask: x\n2 prune ██████░░░░░░ 15 of 30 cases, 0 s left"
    tell("2 prune", 40)
    assert "15 of 30" in file.read_text()  # not written for every token
    tell("3 x", 99)
    assert "30 of 30 cases, 0 s left" in file.read_text()  # more calls than were foreseen


def test_an_experiment_tells_and_is_silent_where_nobody_waits(file, monkeypatch, tmp_path):
    toy = Experiment(hypothesis="One call.", model="toy", gate="dev", folder=tmp_path / "runs")
    toy.run()
    assert file.read_text() == "baseline-ask: One call.\njudging 10 answers"
    file.unlink()
    monkeypatch.delenv(PROGRESS)
    toy.run()
    assert not file.exists()


def test_a_run_does_not_fail_for_whoever_has_stopped_waiting(file, monkeypatch):
    monkeypatch.setenv(PROGRESS, str(file.parent / "gone"))
    Telling(30, 2.0).say("loading toy")
    assert not (file.parent / "gone").exists()


PLAN = """
common: {model: toy}
runs:
  - {name: a, lever: baseline, hypothesis: Twenty questions., pipeline: &pruned [{step: ask, n: 20}, {step: prune, by: meaning}]}
  - {name: b, lever: prompting, hypothesis: Another twenty., pipeline: *pruned, seed: 1}
"""


@pytest.mark.slow
def test_a_study_shows_how_far_each_of_its_workers_is_before_the_first_run_is_sealed(tmp_path):
    (tmp_path / "two.yaml").write_text(PLAN)
    options = ["--workers", "2", "--no-report", "--runs", str(tmp_path / "runs")]
    study = subprocess.Popen([sys.executable, "-m", "lib.cli", "study", str(tmp_path / "two.yaml"), *options], cwd=ROOT)
    state, seen = tmp_path / "figures" / "live.json", set()
    while study.poll() is None:
        if state.exists():
            told = json.loads(state.read_text())
            seen.update((told["said"].split(";")[0], len(told["kernels"]), *told["kernels"]))
            assert standing(tmp_path / "runs")[0].startswith("two: ")
        time.sleep(0.2)
    assert study.returncode == 0 and json.loads(state.read_text())["kernels"] == []
    assert {"0 of 2 done", 2} < seen  # both at once
    told = " ".join(map(str, seen))
    assert "· baseline-ask-prune: Twenty questions." in told and "· prompting-ask-prune: Another twenty." in told
    assert re.search(r"\d+ of 30 cases|judging 30 answers", told)
