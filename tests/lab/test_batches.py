"""Many runs judged in one message batch: the judgments that live calls give, paid for once, under one cap."""

import json
import os
import subprocess
import sys
import time

import pytest

from lib.claude import store
from lib.claude.prices import BudgetSpent
from lib.files import ROOT, Exit
from lib.lab import batches
from lib.lab.experiment import Experiment
from lib.runs import pending
from lib.runs.ledger import Ledger
from lib.runs.verify import verify
from tests.claude.loopback import Loopback
from tests.llama import write_broken

NINE = [{"step": "ask", "n": 9}, {"step": "prune"}]
SAME = [{"step": "ask", "n": 9}, {"step": "prune", "by": "last"}]  # the toy's plain answers again
CALLS = 30  # of one run on the dev gate
PLAN = """
name: four
common: {model: toy, judge: claude, gate: dev}
runs:
  - {name: first, hypothesis: One plain call., lever: baseline}
  - {name: silent, hypothesis: h, lever: decoding, decoding: {max_tokens: 1}}
  - {name: broken, hypothesis: h, lever: anchor, model: MODEL}
  - {name: nine, hypothesis: Nine asked for., lever: over-generate and prune, pipeline: [{step: ask, n: 9}, {step: prune}]}
"""


@pytest.fixture
def server(monkeypatch):
    with Loopback() as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-planted-in-batches")
        yield server


def experiment(folder, **changes):
    plain = {"hypothesis": "One plain call.", "model": "toy", "gate": "dev", "judge": "claude", "folder": folder}
    return Experiment(**(plain | changes))


@pytest.fixture
def waiting(tmp_path, monkeypatch):
    """Two answered runs that wait to be judged, made again whenever it is called: a run knows its judge's store."""

    def runs(second=NINE, **more):
        return [
            experiment(tmp_path, lever="baseline", **more),
            experiment(tmp_path, lever="prompting", pipeline=second, **more),
        ]

    def made(**more):
        for run in runs(**more):
            if not pending.read(tmp_path, run.key):
                with monkeypatch.context() as kernel:
                    kernel.setenv(*next(iter(batches.LATER.items())))
                    result = run.run().result
                pending.keep(tmp_path, result.record, result.cases)
        return runs(**more)

    return made


def sent(server):
    """The calls of each batch that came in."""
    return [len(body["requests"]) for path, _, body in server.requests if path == "/v1/messages/batches" and body]


def said(run):
    return [
        (row.case, row.judgment and (row.judgment.scores, row.judgment.verdict, row.judgment.flipped))
        for row in run.cases
    ]


def test_what_is_only_answered_asks_nobody_and_waits(server, waiting, tmp_path):
    first, second = waiting()
    assert server.requests == [] and batches.lacks(first) and batches.lacks(second)
    record, rows = pending.read(tmp_path, first.key)
    assert len(rows) == 10 and record.scores.unscored == 10 and record.cost.judge_dollars == 0


def test_one_batch_gives_every_run_the_judgments_that_live_calls_give_and_its_own_bill(server, waiting, tmp_path):
    cost = batches.judge(waiting(), 5.0, poll=0.01)
    assert sent(server) == [2 * CALLS] and server.messages == []
    runs = [run.run() for run in waiting()]
    assert sent(server) == [2 * CALLS] and server.messages == []
    live = [experiment(tmp_path / "live", lever=r.record.lever, pipeline=r.record.pipeline).run() for r in runs]
    assert len(server.messages) == 2 * CALLS
    assert [said(r) for r in runs] == [said(r) for r in live] and [r.scores for r in runs] == [r.scores for r in live]
    billed = [r.record.cost.judge_dollars for r in runs]
    assert min(billed) > 0 and sum(billed) == pytest.approx(cost, abs=1e-3)
    assert cost == pytest.approx(store.paid(tmp_path / store.NAME))
    assert cost == pytest.approx(sum(r.record.cost.judge_dollars for r in live) / 2, rel=0.05)
    assert [r.record.cost.as_dict()["judge_calls"] for r in runs] == [CALLS, CALLS]


def test_runs_that_give_the_same_answers_are_judged_and_paid_for_once(server, waiting):
    batches.judge(waiting(second=SAME), 5.0, poll=0.01)
    first, second = (run.run() for run in waiting(second=SAME))
    assert sent(server) == [CALLS] and said(first) == said(second)
    assert first.record.cost.judge_dollars > 0 == second.record.cost.judge_dollars


def test_repeats_that_are_asked_afresh_go_out_in_the_same_batch(server, waiting):
    again = waiting(judging={"replicate": 1})
    batches.judge([*waiting(), *again], 5.0, poll=0.01)
    assert sent(server) == [4 * CALLS] and not any(map(batches.lacks, [*waiting(), *again]))


def test_usefulness_is_asked_in_the_same_batch(server, waiting):
    batches.judge(waiting(useful=True), 5.0, poll=0.01)
    runs = [run.run() for run in waiting(useful=True)]
    assert sent(server) == [2 * (CALLS + 10)] and server.messages == []
    assert all(r.record.found.useful.cases == 10 for r in runs)


def test_a_cap_that_the_batch_might_pass_is_refused_before_anything_is_sent(server, waiting):
    with pytest.raises(BudgetSpent, match=r"the cap is \$0\.01"):
        batches.judge(waiting(), 0.01, poll=0.01)
    assert sent(server) == [] and all(map(batches.lacks, waiting()))


def test_of_a_batch_that_ends_in_part_only_the_rest_is_asked_again(server, waiting, tmp_path):
    task = waiting()[0].ruler.gate("dev")[3].task
    server.rule = lambda n, body, headers: {"entry": "expired"} if task in json.dumps(body) else {}
    batches.judge(waiting(), 5.0, poll=0.01)
    rows = pending.read(tmp_path, waiting()[0].key)[1]
    assert [row.unscored for row in rows if row.unscored] == ["rubric call, gold first: its batch entry expired"]
    server.rule = lambda n, body, headers: {}
    batches.judge(waiting(), 5.0, poll=0.01)
    assert sent(server) == [2 * CALLS, 6] and not any(map(batches.lacks, waiting()))


def test_a_batch_that_is_not_known_everywhere_yet_is_looked_at_again(server, waiting):
    server.unknown = 3
    batches.judge(waiting(), 5.0, poll=0.01)
    assert sent(server) == [2 * CALLS] and not any(map(batches.lacks, waiting()))


def test_a_batch_that_is_never_found_counts_at_its_worst_and_is_asked_again(server, waiting, tmp_path):
    def lost(n, body, headers):
        server.unknown = -1 if n <= 2 * CALLS else 0
        return {}

    server.rule = lost
    cost = batches.judge(waiting(), 5.0, poll=0.01)
    assert sent(server) == [2 * CALLS, 2 * CALLS] and not any(map(batches.lacks, waiting()))
    given_up = next(row for row in store.Store(tmp_path / store.NAME).rows if row["type"] == store.BATCH)["worst"]
    assert cost > given_up > 0 and cost == pytest.approx(store.paid(tmp_path / store.NAME))


# --- as a command


@pytest.fixture
def notch(tmp_path):
    write_broken(tmp_path / "model")
    (tmp_path / "four.yaml").write_text(PLAN.replace("MODEL", str(tmp_path / "model")), encoding="utf-8")

    def start(*more):
        command = [
            sys.executable,
            "-m",
            "lib.cli",
            "study",
            str(tmp_path / "four.yaml"),
            "--runs",
            str(tmp_path / "runs"),
        ]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [*command, "--no-report", *more],
            env=env,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.mark.slow
def test_a_study_killed_while_it_waits_picks_the_same_batch_up_and_seals_in_the_order_of_the_plan(
    server, notch, tmp_path
):
    server.polls = 10**9
    child = notch("--batch", "--dollars", "3")
    ends = time.monotonic() + 400
    while not server.batches and child.poll() is None and time.monotonic() < ends:
        time.sleep(0.1)
    assert server.batches, child.communicate()
    child.kill()
    child.communicate()
    assert not list((tmp_path / "runs").glob("0*")) and len(list((tmp_path / "runs" / pending.FOLDER).iterdir())) == 3
    server.batches["msgbatch_001"]["polls"] = 0
    child = notch("--batch", "--dollars", "3")
    out, err = child.communicate(timeout=500)
    assert child.returncode == Exit.RUN_FAILED and "3 runs in" in out and "1 crashed" in out, (out, err)
    assert sent(server) == [2 * CALLS] and server.messages == [] and server.batches["msgbatch_001"]["paid"] == 1
    ledger = Ledger.read(tmp_path / "runs")
    assert [(r.slug, r.status) for r in ledger.records] == [
        ("first", "reference"), ("silent", "discarded"), ("broken", "crashed"), ("nine", ledger.records[-1].status),
    ]  # fmt: skip
    assert verify(tmp_path / "runs") == []
    paid = sum(r.cost.judge_dollars or 0.0 for r in ledger.records)
    assert paid == pytest.approx(store.paid(tmp_path / "runs" / store.NAME), abs=1e-3) and paid > 0
