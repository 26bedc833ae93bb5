"""notch loop, log, propose, next: options, exit codes, one line an error."""

import json
from pathlib import Path

import pytest

from lib.lab.experiment import Experiment
from lib.loop import steering
from lib.loop.events import PROPOSAL, Events, origin
from lib.loop.proposal import Proposal
from lib.loop.validate import Base
from lib.runs.ledger import Ledger
from lib.runs.verify import verify
from tests.cli.conftest import one_line
from tests.lab.conftest import seal_run
from tests.llama import small
from tests.loop.test_proposal import GOOD

TOY = ("-p", "model", "toy")


def proposal(folder, **change):
    path = folder / "proposal.json"
    path.write_text(json.dumps(GOOD | change))
    return path


@pytest.mark.parametrize(
    "args, said",
    [
        (("--proposer", "plan"), "--plan FILE goes with"),
        (("--workers", "2", "--scheduler", "tcp://127.0.0.1:9"), "give one of them"),
        (("-p", "modle", "toy"), "loop has no 'modle', did you mean 'model'?"),
        (("-p", "lever", "schema"), "loop has no 'lever'; there are model, judge"),
        (("-p", "seed", "x"), "loop seed is 'x': expected a whole number"),
        (("--dollars", "-1", *TOY), "dollars is -1.0: expected 0 or more"),
        (("--dollars", "nan", *TOY), "dollars is nan"),
        (("--minutes", "-0.5", *TOY), "minutes is -0.5"),
        (("--crashes", "-1", *TOY), "crashes is -1"),
        (("--refusals", "-2", *TOY), "refusals is -2"),
        (("--proposer-model", "x", "--proposer", "claude"), "ANTHROPIC_API_KEY"),
        (("--proposer-model", "x"), "--proposer-model x and --proposer search"),
        (("--seed", "3", "--proposer", "none"), "--seed 3 and --proposer none"),
        (("-p", "judging", "{dollars: 1, dollars: 9}", *TOY), "'dollars' stands in line 1 and again in line 1"),
    ],
)
def test_bad_options_are_one_line_and_nothing_runs(notch, tmp_path, monkeypatch, args, said):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    found = notch("loop", *args)
    assert found.code == (3 if "KEY" in said else 2) and one_line(found.err) and said in found.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("args", [("--runs", "1", "--runs", "2"), ("--runs", "a", "--runs", "b"), ("--proposer", "x")])
def test_runs_is_a_number_once_and_a_folder_once(notch, args):
    assert notch("loop", *args).code == 2


@pytest.mark.parametrize("text", ["dollars: -1", "minutes: -1", "crashes: -3", "refusals: -1"])
def test_a_limit_below_zero_in_the_budget_file_is_one_line(notch, tmp_path, text):
    steering.write(tmp_path / "steer", "budget.yaml", text)
    found = notch("loop", "--runs", "0", "--runs", tmp_path / "runs", *TOY)
    assert found.code == 2 and one_line(found.err) and f"{text.replace(':', ' is')}: expected" in found.err


def test_a_number_is_a_count_and_anything_else_a_folder(notch, tmp_path):
    said = notch("loop", "--runs", "0", "--runs", tmp_path / "elsewhere", *TOY, "--no-report")
    assert said.code == 0 and "0 runs are sealed" in said.out and (tmp_path / "elsewhere" / "events.jsonl").exists()
    assert not (tmp_path / "runs").exists()


def test_a_count_in_words_makes_a_folder_that_is_named(notch, tmp_path):
    steering.write(tmp_path / "steer", "STOP", "")
    said = notch("loop", "--runs", tmp_path / "three", "--runs", "1", *TOY, "--no-report")
    assert said.code == 0 and "three is a new folder of runs; how many is a number" in said.out
    (tmp_path / "three").mkdir(exist_ok=True)
    assert "new folder" not in notch("loop", "--runs", tmp_path / "three", *TOY, "--no-report").out


def test_a_file_is_neither(notch, tmp_path):
    (tmp_path / "file").write_text("")
    assert notch("loop", "--runs", tmp_path / "file", *TOY).code == 2


def test_the_log_is_text_or_json_and_writes_nothing(notch, tmp_path):
    text, as_json = notch("log", *TOY), notch("log", *TOY, "--json")
    assert text.code == as_json.code == 0 and "# Steps" in text.out and "- step: ask; family: prompting" in text.out
    told = json.loads(as_json.out)
    assert told["champion"] is None and {s["step"] for s in told["steps"]} >= {"ask", "demos", "prune"}
    assert not (tmp_path / "runs").exists() and not (tmp_path / "steer").exists()


def test_a_good_proposal_is_queued(notch, tmp_path):
    said = notch("propose", proposal(tmp_path), *TOY, "--by", "me")
    [path] = steering.queued(tmp_path / "steer")
    assert said.code == 0 and path.name in said.out and json.loads(path.read_text())["by"] == "me"


def test_the_log_begins_with_what_is_due_and_queued(notch, tmp_path):
    era = Experiment(**Base(model="toy").baseline).fingerprint
    seal_run(tmp_path / "runs", slug="baseline", lever="baseline", fingerprint=era)
    assert "# Before a new proposal" not in notch("log", *TOY).out
    notch("propose", proposal(tmp_path), *TOY, "--by", "me")
    steering.enqueue(tmp_path / "steer", {}, "me")
    [good, bad] = steering.queued(tmp_path / "steer")
    parameters = Base(model="toy").parameters(Proposal.read(GOOD | {"lever": "prompting"}))
    log = Events(tmp_path / "runs")
    log.append("accepted", proposal=GOOD, parameters=parameters, runs=1, fingerprint=era)
    text, as_json = notch("log", *TOY).out, json.loads(notch("log", *TOY, "--json").out)
    due, *queued = as_json["waiting"]
    assert due.startswith("due: reference reference-baseline-ask: The champion 0001-baseline on the dev gate")
    assert queued == [
        f"queued: {good.name}: me: over-generate and prune: {GOOD['hypothesis']}",
        f"queued: {bad.name}: cannot be read, and will be refused",
    ]
    assert text.startswith(
        "\n".join(["# Before a new proposal", "", *(f"- {line}" for line in as_json["waiting"]), ""])
    )
    screen = seal_run(tmp_path / "runs", slug="screen", gate="dev", status="indecisive", fingerprint=era)
    (tmp_path / "runs" / screen / PROPOSAL).write_text(json.dumps({"event": 1, "purpose": "screen", "steered": None}))
    origin.cache_clear()
    assert f"\n- due: decide prompting-ask-prune: {GOOD['hypothesis']}\n" in notch("log", *TOY).out


def test_a_bad_proposal_is_refused_by_name_and_recorded(notch, tmp_path):
    said = notch("propose", proposal(tmp_path, lever="magic"), *TOY)
    assert said.code == 1 and one_line(said.err) and "unknown-lever" in said.err
    [event] = Events(tmp_path / "runs").of("refused")
    assert (event["rule"], event["by"]) == ("unknown-lever", "agent") and steering.queued(tmp_path / "steer") == []
    assert notch("verify").code == 0


def test_a_training_that_cannot_be_made_is_a_line_and_stands_with_the_refused(notch, tmp_path):
    for method in ("stf", "sft"):
        asked = {"why": "It copies.", "expected": 0.03, "parameters": {"method": method, "model": small()}}
        Events(tmp_path / "runs").append("accepted", by="me", proposal=GOOD | {"request": asked})
    said = [line for line in notch("loop", "--runs", "0", *TOY, "--no-report").out.splitlines() if "request " in line]
    assert len(said) == 2 and said[0].startswith("request   me: training not opened: ") and "'stf'" in said[0]
    assert said[1].startswith(f"request   me: training opened 0001-sft-{Path(small()).name}")
    assert [
        line[: len("- by: me; rule: request; ")] for line in notch("log", *TOY).out.splitlines() if "stf" in line
    ] == ["- by: me; rule: request; "]
    [row] = json.loads(notch("log", *TOY, "--json").out)["refused"]
    assert (row["rule"], row["by"]) == ("request", "me") and "stf" in row["reason"]


def test_changed_events_are_tampering(notch, tmp_path):
    notch("propose", proposal(tmp_path, lever="magic"), *TOY)
    path = tmp_path / "runs" / "events.jsonl"
    path.write_text(path.read_text().replace('"n":1', '"n":2'))
    said = notch("verify")
    assert said.code == 5 and "events.jsonl:1" in said.err
    assert notch("log", *TOY).code == 5 and notch("loop", "--runs", "0", *TOY).code == 5


def test_an_old_stop_file_is_named_and_more_runs_are_not_advised(notch, tmp_path):
    seal_run(tmp_path / "runs", slug="baseline", lever="baseline")
    loop = ("loop", "--runs", "1", *TOY, "--no-report")
    assert "--runs 21 adds 20" in notch(*loop).out
    steering.write(tmp_path / "steer", "STOP", "")
    said = notch(*loop)
    assert said.code == 0 and f"stopped by {tmp_path / 'steer' / 'STOP'}; remove it to go on" in said.out
    assert "adds 20" not in said.out


@pytest.mark.slow
def test_next_runs_what_is_queued_and_no_more(notch, tmp_path):
    better = [{"step": "ask", "n": 14}, {"step": "prune", "by": "meaning"}]
    notch("propose", proposal(tmp_path, pipeline=better), *TOY)
    said = notch("next", *TOY)
    assert said.code == 0 and "the queue is empty" in said.out
    assert [r.gate for r in Ledger.read(tmp_path / "runs").records] == [
        "full",
        "dev",
        "dev",
        "full",
        "confirm",
        "confirm",
    ]
    assert verify(tmp_path / "runs") == [] and "0 runs in" in notch("next", *TOY).out
    full = notch("loop", "--runs", "6", *TOY, "--no-report")
    assert full.code == 0 and "nothing to do: --runs 6 is how many" in full.out and "--runs 26 adds 20" in full.out
