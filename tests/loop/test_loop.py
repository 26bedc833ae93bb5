"""The loop at work with kernels and the toy model: to its number, steered, killed, ended by its limits."""

import json
import random
import shutil
import subprocess
import sys

import pytest

from lib.files import ROOT, Exit, Tampered
from lib.lab import kernel
from lib.lab.experiment import BadParameters
from lib.loop import events, steering
from lib.loop.events import Events
from lib.loop.loop import Loop, Settings, exclusive_lock
from lib.loop.proposers.plan import Plan
from lib.loop.proposers.search import Search
from lib.loop.steering import Limits
from lib.loop.validate import Base
from lib.runs.ledger import Ledger
from lib.runs.record import MIME
from lib.runs.verify import verify
from tests.llama import small, write_broken
from tests.loop.kill_loop import torture
from tests.loop.test_proposal import GOOD

TOY = Base(model="toy")
SMALL = small()


def loop(folder, ask=None, **told):
    limits = told.pop("limits", Limits())
    return Loop(folder / "runs", folder / "steer", Settings(base=TOY, limits=limits, **told), ask)


def plan(folder, *proposals):
    path = folder / "plan.jsonl"
    path.write_text("".join((p if isinstance(p, str) else json.dumps(p)) + "\n" for p in proposals))
    return Plan(path)


def ask(n):
    """A proposal whose questions the toy can answer, different for each n."""
    return GOOD | {"pipeline": [{"step": "ask", "n": n}, {"step": "prune", "by": "last"}]}


def records(folder):
    return Ledger.read(folder / "runs").records


# --- without a kernel


def test_a_loop_whose_runs_are_there_runs_nothing(tmp_path):
    work = loop(tmp_path, total=0)
    assert [p.message for p in work.run()] == ["0 runs are sealed"] and work.end == Exit.OK
    assert [e["kind"] for e in Events(tmp_path / "runs")] == ["started", "stopped"]


def test_a_wait_at_a_usage_limit_is_said_before_it_begins(tmp_path):
    work = loop(tmp_path, total=0, wait=3600.0, most_wait=7200.0)
    list(work.run())
    assert next(work._wait("slow down")).message == "waits 3600 s: slow down"


def test_two_loops_cannot_share_a_folder(tmp_path):
    with exclusive_lock(tmp_path / "runs"), pytest.raises(BadParameters, match="another loop"):
        list(loop(tmp_path, total=0).run())


@pytest.mark.parametrize("name, text", [("bans.txt", "retreival"), ("budget.yaml", "dolars: 1")])
def test_a_misspelt_steering_file_is_refused_at_the_start(tmp_path, name, text):
    steering.write(tmp_path / "steer", name, text)
    with pytest.raises(BadParameters, match=name):
        list(loop(tmp_path, total=0).run())


def test_a_stop_file_ends_it_before_the_next_run(tmp_path):
    steering.write(tmp_path / "steer", "STOP", "")
    [end] = loop(tmp_path, total=3).run()
    assert end.what == "ended" and records(tmp_path) == []
    assert end.message == f"stopped by {tmp_path / 'steer' / 'STOP'}; remove it to go on"


def test_the_time_budget_ends_it_even_while_paused(tmp_path):
    steering.write(tmp_path / "steer", "PAUSE", "")
    work = loop(tmp_path, total=3, limits=Limits(minutes=0.01))
    assert ["time is over" in p.message for p in work.run()] == [False, True]


def test_a_pause_is_said_once_and_a_faulty_steering_file_once_a_fault(tmp_path):
    where = tmp_path / "steer"
    steering.write(where, "PAUSE", "")
    work = loop(tmp_path, total=3).run()
    assert next(work).message == f"paused by {where / 'PAUSE'}; remove it to go on"
    steering.write(where, "budget.yaml", "dolars: 1")
    first = next(work)
    steering.write(where, "bans.txt", "retreival")
    second = next(work)
    steering.write(where, "bans.txt", None)
    steering.write(where, "STOP", "")
    assert [(p.what, p.message.split("; ")[0].split("?")[0]) for p in (first, second)] == [
        ("steering", f"{where / 'budget.yaml'}: no parameter 'dolars', did you mean 'dollars'"),
        ("steering", f"{where / 'bans.txt'}: 'retreival' is no lever class, family or step"),
    ]
    assert first.message.endswith("; not heeded until it is corrected")
    assert [p.what for p in work] == ["ended"]


def test_a_pause_file_does_not_hold_a_loop_that_has_nothing_left_to_do(tmp_path):
    steering.write(tmp_path / "steer", "PAUSE", "")
    assert [p.message for p in loop(tmp_path, total=0).run()] == ["0 runs are sealed"]


def test_a_measuring_module_that_changed_between_two_calls_stops_it_until_accepted(tmp_path):
    from lib.measure.ruler import Tampered

    list(loop(tmp_path, total=0).run())
    path = tmp_path / "runs" / events.NAME
    first = Events(tmp_path / "runs").rows[0]
    path.unlink()
    Events(tmp_path / "runs").append("started", measure=first["measure"] | {"lib/measure/score.py": "0" * 64})
    with pytest.raises(Tampered, match=r"lib/measure/score\.py.*--accept-measure"):
        list(loop(tmp_path, total=0).run())
    assert [p.what for p in loop(tmp_path, total=0, accept_measure=True).run()] == ["ended"]


# --- with kernels


@pytest.fixture(scope="module")
def finished(first_runs, tmp_path_factory):
    """A plan of a good proposal, bad ones, and a second good one, steered by a wish; run to its end, twice."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(first_runs, folder, dirs_exist_ok=True)
    steering.write(folder / "steer", "next.md", "look at pruning")
    steering.write(folder / "steer", "standing.md", "keep it cheap")
    ask_plan = plan(folder, ask(8), ask(8) | {"hypothesis": "The same in other words."}, "not json", ask(9))
    said = list(loop(folder, ask_plan, total=12).run())
    again = list(loop(folder, plan(folder, ask(8)), total=12).run())
    return folder, said, again


@pytest.mark.slow
def test_a_plan_is_worked_off_in_order_and_bad_entries_are_refused_by_name(finished):
    folder, said, _ = finished
    assert [p.message.split(": ")[1] for p in said if p.what == "refused"] == ["duplicate", "malformed"]
    assert said[-1].message.startswith("the proposer 'plan' has nothing left")
    assert [r.slug.split("-")[0] for r in records(folder)][:3] == ["baseline", "reference", "screen"]
    assert {r.pipeline[0].get("n") for r in records(folder)} == {None, 8, 9}


@pytest.mark.slow
def test_everything_that_it_left_is_sound(finished):
    folder, _, _ = finished
    assert verify(folder / "runs") == [] and events.verify(folder / "runs") == []


@pytest.mark.slow
def test_a_wish_steers_one_proposal_and_is_archived_in_its_run(finished):
    folder, _, _ = finished
    told = {r.id: json.loads((folder / "runs" / r.id / "proposal.json").read_text()) for r in records(folder)}
    steered = {name for name, t in told.items() if t["wish"] == "look at pruning"}
    assert steered and all(told[name]["proposal"]["pipeline"][0]["n"] == 8 for name in steered)
    assert not (folder / "steer" / "next.md").exists() and len(list((folder / "steer" / "archive").iterdir())) == 1
    assert all(t["standing"] == "keep it cheap" for t in told.values() if t["proposal"])


@pytest.mark.slow
def test_the_same_proposal_in_a_second_call_is_known(finished):
    _, _, again = finished
    assert [p.what for p in again if p.record] == []


@pytest.mark.slow
def test_a_queued_proposal_comes_before_the_proposers(begun):
    steering.enqueue(begun / "steer", ask(10), "a person")
    said = list(loop(begun, Search(), total=3).run())
    assert [p.message.split(":")[0] for p in said if p.what == "accepted"] == ["a person"]
    assert steering.queued(begun / "steer") == []
    told = json.loads((begun / "runs" / records(begun)[2].id / "proposal.json").read_text())
    assert told["by"] == "a person"


@pytest.mark.slow
def test_proposals_refused_in_a_row_end_it(begun):
    bad = plan(begun, *[f"bad {n}" for n in range(5)])
    work = loop(begun, bad, total=9, limits=Limits(refusals=3))
    said = list(work.run())
    assert work.end == Exit.FAILED and sum(p.what == "refused" for p in said) == 3 and "3 proposals" in said[-1].message


@pytest.mark.slow
def test_zero_refusals_are_no_limit(begun):
    bad = plan(begun, *[f"bad {n}" for n in range(25)])
    said = list(loop(begun, bad, total=9, limits=Limits(refusals=0)).run())
    assert sum(p.what == "refused" for p in said) == 25 and "in a row" not in said[-1].message


@pytest.mark.slow
def test_crashes_in_a_row_end_it_and_each_is_sealed(tmp_path):
    write_broken(tmp_path / "model")
    base = Base(model=str(tmp_path / "model"))
    work = Loop(tmp_path / "runs", tmp_path / "steer", Settings(base=base, limits=Limits(crashes=2)), Search())
    said = list(work.run())
    assert work.end == Exit.RUN_FAILED and "2 runs in a row crashed" in said[-1].message
    assert [r.status for r in records(tmp_path)] == ["crashed", "crashed"]
    # Zero is no limit: it goes on until the folder holds as many runs as were asked for.
    settings = Settings(total=3, base=base, limits=Limits(crashes=0))
    *_, last = Loop(tmp_path / "runs", tmp_path / "steer", settings, Search()).run()
    assert last.message == "3 runs are sealed"
    assert [r.status for r in records(tmp_path)] == ["crashed"] * 3


@pytest.mark.slow
def test_a_run_whose_scores_do_not_follow_is_invalid_and_stops_the_loop(tmp_path, monkeypatch):
    # What a step could do to the kernel's memory, done to the result on its way to the seal.
    honest = kernel.execute

    def tampered(*args, **options):
        notebook, error = honest(*args, **options)
        for cell in notebook["cells"]:
            for output in cell.get("outputs", ()):
                if MIME in output.get("data", {}):
                    output["data"][MIME]["record"]["scores"]["quality"] = 0.9
        return notebook, error

    monkeypatch.setattr(kernel, "execute", tampered)
    with pytest.raises(Tampered, match="quality"):
        list(loop(tmp_path, Search(), total=2).run())
    [record] = records(tmp_path)
    assert record.status == "invalid" and record.scores is None
    assert Events(tmp_path / "runs").last("tampered") and verify(tmp_path / "runs") == []


@pytest.mark.slow
@pytest.mark.parametrize("seed, runs, more", [(1, 2, ()), (3, 4, ("--workers", "2"))])
def test_a_loop_killed_at_random_moments_ends_with_the_asked_runs_none_twice_none_torn(tmp_path, seed, runs, more):
    quiet = lambda *_, **__: None  # noqa: E731
    kills, wrong = torture(tmp_path / "runs", runs, 3, random.Random(seed), 5.0, say=quiet, more=more)
    assert wrong == [] and kills >= 1


# --- trainings that a proposal asks for


@pytest.mark.parametrize(
    "parameters, state",
    [
        ({"model": SMALL}, "open"),
        ({"model": SMALL, "data": {"source": "claude"}}, "open"),  # without a key: nothing is bought yet
        ({"method": "magic"}, ""),
        ({"model": "claude-haiku-4-5"}, ""),
        ({"model": SMALL, "adapter": "a" * 1000}, ""),
        ({"x": 1}, ""),
    ],
)
def test_a_training_request_waits_for_a_person_and_a_bad_one_is_an_event(tmp_path, monkeypatch, parameters, state):
    from lib.loop import training_requests

    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)

    asked = {"why": "Copying the object fails in half of the cases.", "expected": 0.03, "parameters": parameters}
    accepted = Events(tmp_path / "runs").append("accepted", by="plan", proposal=GOOD | {"request": asked})
    said = [p.message for p in loop(tmp_path, total=0).run() if p.what == "request"]
    [event] = Events(tmp_path / "runs").of("request")
    assert event["accepted"] == accepted["n"]
    opened = training_requests.requests(tmp_path / "steer" / "requests")
    assert [r.state for r in opened] == [state] * bool(state)
    assert [r.by.split(",")[0] for r in opened] == ["plan"] * bool(state)
    assert bool(event["opened"]) == bool(state) and bool(event["why"]) != bool(state)
    why = " ".join(event["why"].split())
    assert said == [
        f"plan: training opened {event['opened']}; a person approves it"
        if state
        else f"plan: training not opened: {why}"
    ]


ASKED = {"why": "It copies the object.", "expected": 0.03, "parameters": {"model": SMALL, "data": {"pairs": 6}}}
KILLED = """
import os, sys
from pathlib import Path
from lib.loop import loop
from tests.loop import test_loop

def killed(*args):
    opened = open_training(*args) if sys.argv[2] == "after" else ""
    os.kill(os.getpid(), 9)

open_training, loop.open_training = loop.open_training, killed
list(test_loop.loop(Path(sys.argv[1]), total=0).run())
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_beside_the_opening_of_a_request_neither_loses_nor_doubles_it(tmp_path, moment):
    from lib.loop import training_requests

    Events(tmp_path / "runs").append("accepted", proposal=GOOD | {"request": ASKED})
    dead = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), moment], cwd=ROOT, capture_output=True)
    assert dead.returncode == -9, dead.stderr
    assert Events(tmp_path / "runs").of("request") == []
    for _ in range(2):
        list(loop(tmp_path, total=0).run())
        [event], [request] = (
            Events(tmp_path / "runs").of("request"),
            training_requests.requests(tmp_path / "steer" / "requests"),
        )
        assert event["opened"] == request.id and request.state == "open"


def test_a_request_that_was_answered_before_events_said_for_whom_is_not_opened_again(tmp_path):
    log = Events(tmp_path / "runs")
    log.append("accepted", proposal=GOOD | {"request": ASKED})
    log.append("request", opened="0001-sft", why="", request=ASKED)
    list(loop(tmp_path, total=0).run())
    assert len(Events(log.path.parent).of("request")) == 1 and not (tmp_path / "steer" / "requests").exists()
