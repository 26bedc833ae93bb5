"""Runs judged by Claude from the command line to the seal: the real SDK and a kernel, against a loopback server."""

import json
import os
import random
import subprocess
import sys

import pytest

from lib.claude.store import Store
from lib.files import ROOT
from lib.measure.judge import DIMENSIONS
from lib.runs.ledger import Ledger
from lib.runs.verify import verify
from tests.claude import loopback
from tests.claude.loopback import Loopback

KEY = "sk-ant-planted-e2e-7c31"


def unsteady(seed):
    """A rule: the honest judgment with scores that move by up to one, and now and then a call that must be retried."""
    draw = random.Random(seed)

    def rule(n, body, headers):
        if n % 17 == 0:
            return {"status": 529, "message": f"overloaded, {KEY}"}
        said = loopback.judge(body)
        for name in DIMENSIONS:
            if name in said:
                said[name] = max(1, min(5, said[name] + draw.choice((0, 1, 2))))
        return {"text": json.dumps(said)}

    return rule


class Study:
    """A folder of runs, a server, and the command line between them."""

    def __init__(self, folder, server):
        self.folder, self.server = folder, server

    def notch(self, *args):
        env = os.environ | {
            "ANTHROPIC_BASE_URL": self.server.url, "ANTHROPIC_API_KEY": KEY, "PYTHONPATH": str(ROOT),
            "OPENBLAS_NUM_THREADS": "1",
        }  # fmt: skip
        told = [sys.executable, "-m", "lib.cli", *args, "--runs", str(self.folder)]
        return subprocess.run(told, env=env, cwd=ROOT, capture_output=True, text=True, timeout=180)

    def record(self, run):
        return Ledger.read(self.folder).get(run)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A run, a calibration and a re-judge by Claude, sealed one after the other; `said` is what each printed."""
    with Loopback(unsteady(5)) as server:
        made = Study(tmp_path_factory.mktemp("claude") / "runs", server)
        toy = ("-p", "model", "toy", "-p", "gate", "dev")
        claude = ("--judge", "claude")
        made.said = [
            made.notch("run", *toy, "-p", "hypothesis", "x", "-p", "judge", "claude", "--name", "base"),
            made.notch("calibrate", *claude, *toy, "-p", "damaged", "1", "-p", "repeats", "3", "-p", "of", "base"),
            made.notch("rejudge", "base", "--without", "coverage", *claude),
        ]
        yield made


@pytest.mark.slow
def test_run_calibration_and_rejudge_by_claude_are_sealed_and_verify_clean(study):
    assert [(s.returncode, "Traceback" in s.stderr) for s in study.said] == [(0, False)] * 3
    assert [r.kind for r in Ledger.read(study.folder).records] == ["experiment", "calibrate", "rejudge"]
    assert verify(study.folder) == []
    done = study.notch("verify")
    assert done.returncode == 0 and "3 sealed runs" in done.stdout


@pytest.mark.slow
def test_what_the_records_say_was_paid_is_what_the_store_holds_and_nothing_is_paid_twice(study):
    replies = list(Store(study.folder / "judgments.jsonl"))
    assert study.server.replies == len(replies) == len({r["key"] for r in replies})
    paid = sum(r.cost.judge_dollars for r in Ledger.read(study.folder).records)
    assert paid == pytest.approx(sum(r["dollars"] for r in replies), abs=1e-3)
    assert {r["model"] for r in replies} == {study.record("base").identity.judge["model"]}


@pytest.mark.slow
def test_an_unsteady_judge_gets_a_floor_that_later_decisions_use(study):
    base, found = study.record("base"), study.record("calibrate").found.as_dict()
    assert found["same"]["repeats"] == 3 and found["same"]["sd"] > 0 and found["unscored"] == 0
    assert found["floors"]["greedy"] > 0 and found["floor"] >= found["floors"]["greedy"]
    assert found["identity"]["ties"] == 1 and found["null_world"]["studies"] == 1000
    assert Ledger.read(study.folder).floor(base.fingerprint, sampled=False) == found["floors"]["greedy"]
    assert "about $" in study.said[1].stderr and "not measured yet" in study.said[1].stderr
    assert "The smallest gain" in study.said[2].stderr  # the calibration was read before the re-judge spent


@pytest.mark.slow
def test_a_blind_judge_by_claude_gives_four_scores_and_the_placebo_five(study):
    record = study.record("rejudge-without-coverage")
    rows = [json.loads(line) for line in (study.folder / record.id / "cases.jsonl").read_text().splitlines()]
    by = {p: [r["judgment"]["scores"] for r in rows if r["part"] == p] for p in ("stored", "placebo", "blind")}
    assert [len(v) for v in by.values()] == [10, 10, 10]
    assert all(set(s) == set(DIMENSIONS) for s in by["placebo"])
    assert all(set(s) == set(DIMENSIONS) - {"coverage"} for s in by["blind"])
    [v] = record.found.runs.values()
    assert v["cases"] == 10 and v["moved"] > 0 and v["detectable"] > 0  # a second judging alone moves numbers
    blind = [b for b in study.server.messages if "coverage" not in json.dumps(b["output_config"])]
    assert any("Leave one thing out" in json.dumps(b["system"]) for b in blind)


@pytest.mark.slow
def test_no_key_is_in_any_file_or_in_what_was_printed(study):
    assert any(headers["authorization"].endswith(KEY) for _, headers, _ in study.server.requests)
    for file in (p for p in study.folder.rglob("*") if p.is_file()):
        assert KEY.encode() not in file.read_bytes(), file
    assert not any(KEY in s.stdout + s.stderr for s in study.said)
