"""Unscored is not done: what a judge left out waits beside the sealed runs, and the same call judges only that."""

import json
import os
import subprocess
import sys

import pytest

from lib.files import ROOT, Exit
from lib.lab import study
from lib.lab.calibration import Calibration
from lib.lab.execute import Unfinished, adopt, lacks_judgments
from lib.lab.experiment import Experiment
from lib.lab.study import read
from lib.measure.judge import Unscored
from lib.runs import pending
from lib.runs.ledger import Ledger
from lib.runs.record import CaseRow
from lib.runs.verify import verify
from tests.claude.loopback import Loopback
from tests.lab.conftest import without_kernel

CREDIT = {"status": 400, "message": "Your credit balance is too low to access the API."}
PLAN = """
name: two
about: two plain runs judged by Claude
common: {model: toy, judge: claude, gate: dev}
runs:
  - {name: first, hypothesis: One plain call., lever: baseline}
  - {name: nine, hypothesis: Nine asked for., lever: over-generate and prune, pipeline: [{step: ask, n: 9}, {step: prune}]}
"""


def broke(n, body, headers):
    return CREDIT


def broke_for(task):
    """A rule that fails every call about one task."""
    return lambda n, body, headers: CREDIT if task in json.dumps(body) else {}


@pytest.fixture
def serve(monkeypatch):
    """A server whose rule can be changed, and the environment that leads to it."""
    with Loopback() as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-planted-unfinished")
        yield server


def experiment(folder, **changes):
    plain = {"hypothesis": "One plain call.", "model": "toy", "gate": "dev", "judge": "claude", "folder": folder}
    return Experiment(**(plain | changes))


def carried_out(runnable):
    return without_kernel("10_experiment", {}, runnable)


def task_of(folder):
    return experiment(folder).ruler.gate("dev")[3].task


def test_a_run_with_an_unscored_case_waits_and_says_why(tmp_path, serve):
    serve.rule = broke_for(task_of(tmp_path))
    with pytest.raises(Unfinished, match=r"1 of 10 cases are unscored \(.*credit balance is too low") as stopped:
        adopt(carried_out(experiment(tmp_path)), "run")
    assert stopped.value.exit == Exit.RUN_FAILED and not stopped.value.nothing
    assert Ledger.read(tmp_path).records == [] and verify(tmp_path) == []
    record, rows = pending.read(tmp_path, experiment(tmp_path).key)
    assert record.scores.unscored == 1 and sum(row.judgment is not None for row in rows) == 9


def test_the_same_call_judges_only_what_is_missing_seals_it_and_forgets_what_waited(tmp_path, serve):
    serve.rule = broke_for(task_of(tmp_path))
    first = carried_out(experiment(tmp_path))
    with pytest.raises(Unfinished):
        adopt(first, "run")
    serve.rule, before = (lambda n, body, headers: {}), len(serve.messages)
    record, rows = pending.read(tmp_path, first.record.key)
    pending.keep(tmp_path, record, [row.revised(notes=["from before"]) for row in rows])
    done = carried_out(experiment(tmp_path))
    assert len(serve.messages) - before == 3 and {row.notes[0] for row in done.cases} == {"from before"}
    record = adopt(done, "run")
    assert record.status == "reference" and record.whole and record.scores.unscored == 0
    assert record.cost.calls == first.record.cost.calls
    assert record.cost.judge_dollars > first.record.cost.judge_dollars > 0
    assert not pending.place(tmp_path, record.key).exists() and verify(tmp_path) == []
    assert Ledger.read(tmp_path).by_key(experiment(tmp_path).key).id == record.id


def test_an_incomplete_run_of_before_can_be_read_and_counts_as_not_done(lab):
    qualities = lab.full | {"case-00": None}
    lab.seal(qualities, key="k", status="incomplete")
    assert lab.read().records[0].scores.unscored == 1 and lab.read().by_key("k") is None
    assert lab.seal(key="k", slug="again") == "0002-again" and lab.read().by_key("k").id == "0002-again"


def test_readings_wait_only_where_there_is_no_judgment_at_all(tmp_path):
    record = Calibration(model="toy", gate="dev", folder=tmp_path).record()
    judged = experiment(tmp_path, judge="offline").run().cases
    missing = CaseRow(case="a").judged(Unscored("the judge refuses it"))
    assert not lacks_judgments(record, [*judged, missing])
    assert lacks_judgments(record, [missing]) and not lacks_judgments(record, judged)


def test_a_kill_while_it_is_written_leaves_nothing_that_is_taken_for_a_run(tmp_path, serve):
    serve.rule = broke
    with pytest.raises(Unfinished) as stopped:
        adopt(carried_out(experiment(tmp_path)), "run")
    assert stopped.value.nothing
    place = pending.place(tmp_path, experiment(tmp_path).key)
    (place / "record.json").unlink()
    assert pending.read(tmp_path, experiment(tmp_path).key) is None
    (place / "record.json").write_text("{")
    assert pending.read(tmp_path, experiment(tmp_path).key) is None


@pytest.mark.slow
def test_a_study_stops_with_the_reason_and_a_later_call_completes_it(tmp_path, serve):
    plan = tmp_path / "two.yaml"
    plan.write_text(PLAN)
    command = [sys.executable, "-m", "lib.cli", "study", str(plan), "--runs", str(tmp_path / "runs"), "--no-report"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}

    def notch():
        return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)

    serve.rule = broke
    failed = notch()
    assert failed.returncode == Exit.RUN_FAILED and "credit balance is too low" in failed.stderr
    assert not list((tmp_path / "runs").glob("0*"))
    serve.rule = lambda n, body, headers: {}
    whole, again = notch(), notch()
    assert whole.returncode == Exit.OK and "2 runs" in whole.stdout
    assert "nothing to run" in again.stdout and verify(tmp_path / "runs") == []


@pytest.mark.slow
def test_one_unscored_case_does_not_keep_a_study_from_its_other_rows(tmp_path, serve):
    (tmp_path / "two.yaml").write_text(PLAN)
    task = task_of(tmp_path)
    answered = []

    def once(n, body, headers):  # fails the first run's calls about one task, and only those
        if task in json.dumps(body) and len(answered) < 3:
            answered.append(n)
            return CREDIT
        return {}

    serve.rule = once
    plan = read(tmp_path / "two.yaml")
    states = [(p.entry.name, p.state) for p in study.run(plan, tmp_path / "runs")]
    assert states == [("first", "unfinished"), ("nine", "ran")]
    states = [(p.entry.name, p.state) for p in study.run(plan, tmp_path / "runs")]
    assert states == [("first", "ran"), ("nine", "there")] and verify(tmp_path / "runs") == []
