"""Requests for a training: which step may follow which, who may say yes, what a file holds."""

import json
import os
import time
from pathlib import Path

import pytest

from lib.agent.guard import Leak
from lib.lab.experiment import BadParameters
from lib.loop import training_requests
from lib.measure.ruler import Ruler
from lib.models.model import NoModel
from lib.train.data import BadData
from tests.claude.loopback import Loopback
from tests.llama import small

BASE = small()
FIRST = f"0001-sft-{Path(BASE).name}"
SMALL = {"method": "sft", "model": BASE, "data": {"pairs": 8}, "settings": {"epochs": 1}}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "steer" / "requests"


@pytest.fixture
def one(folder):
    return training_requests.open_request(
        folder, SMALL, "the planner repeats itself in runs 3 and 5", 0.05, by="a proposer"
    )


def test_an_open_request_says_what_is_trained_on_what_and_with_which_command(folder, one):
    assert (one.id, one.state, one.expected, one.by) == (FIRST, "open", 0.05, "a proposer")
    assert one.command == f"notch train --request {FIRST}"
    assert one.data == one.training(folder).check().data_hash and len(one.data) == 64
    assert training_requests.requests(folder) == [one] and training_requests.get(folder, "1") == one
    assert one.training(folder).hypothesis == one.why and one.training(folder).request == one.id


def test_the_whole_way_of_a_request_is_in_its_history(folder, one):
    training_requests.approve(folder, one.id, "Ada")
    training_requests.advance(folder, one.id, "running")
    training_requests.advance(folder, one.id, "delivered", run="0007-sft")
    training_requests.advance(folder, one.id, "measured", measured="0008-sft-greedy")
    done = training_requests.advance(folder, one.id, "closed")
    assert [h["state"] for h in done.history] == ["open", "approved", "running", "delivered", "measured", "closed"]
    assert (done.run, done.measured, done.history[1]["who"]) == ("0007-sft", ("0008-sft-greedy",), "Ada")
    assert training_requests.get(folder, one.id) == done


def test_a_failed_training_goes_back_to_approved_with_its_reason(folder, one):
    training_requests.approve(folder, one.id, "Ada")
    training_requests.advance(folder, one.id, "running")
    back = training_requests.advance(folder, one.id, "approved", why="the disk was full")
    assert back.state == "approved" and back.history[-1]["why"] == "the disk was full"


@pytest.mark.parametrize("state", training_requests.NEXT_STATES)
def test_every_step_that_is_not_allowed_is_refused_in_one_line_and_changes_nothing(folder, one, state):
    path = folder / f"{one.id}.json"
    raw = json.loads(path.read_text())
    for wanted in training_requests.NEXT_STATES:
        if wanted in training_requests.NEXT_STATES[state]:
            continue
        path.write_text(json.dumps({**raw, "state": state}))
        before = path.read_bytes()
        with pytest.raises(BadParameters) as stopped:
            training_requests.advance(folder, one.id, wanted, run="r", measured="m")
        assert f"is {state}: after that comes" in str(stopped.value) and "\n" not in str(stopped.value)
        assert path.read_bytes() == before


def test_nothing_is_trained_or_delivered_without_approval(folder, one):
    for state in ("running", "delivered", "measured"):
        with pytest.raises(BadParameters, match="is open"):
            training_requests.advance(folder, one.id, state, run="r", measured="m")


def test_an_approval_has_a_person_and_a_rejection_a_reason(folder, one):
    with pytest.raises(BadParameters, match="name of the person"):
        training_requests.approve(folder, one.id, " ")
    with pytest.raises(BadParameters, match="says why"):
        training_requests.reject(folder, one.id, "")
    assert training_requests.reject(folder, one.id, "too dear").history[-1]["why"] == "too dear"
    with pytest.raises(BadParameters, match="is rejected: after that comes nothing, not approved"):
        training_requests.approve(folder, one.id, "Ada")


def test_delivered_and_measured_name_their_run(folder, one):
    training_requests.approve(folder, one.id, "Ada")
    training_requests.advance(folder, one.id, "running")
    with pytest.raises(BadParameters, match="delivered needs the run"):
        training_requests.advance(folder, one.id, "delivered")


@pytest.mark.parametrize(
    "changes, kind, said",
    [
        ({"method": "dpo"}, BadParameters, "method is 'dpo'"),
        ({"data": {"pairs": 1}}, BadData, "data pairs is 1"),
        ({"model": "smollm9"}, NoModel, "smollm9"),
        ({"model": "claude-haiku-4-5"}, BadParameters, "no weights to train"),
        ({"data": {"source": "elsewhere"}}, BadData, "elsewhere"),
        ({"mehtod": "sft"}, BadParameters, "mehtod"),
        ({"settings": {"rnak": 1}}, BadParameters, "rnak"),
    ],
)
def test_what_cannot_be_trained_is_not_asked_for(folder, changes, kind, said):
    with pytest.raises(kind, match=said):
        training_requests.open_request(folder, SMALL | changes, "why not", 0.0)
    assert training_requests.requests(folder) == []


def test_a_request_with_the_ruler_in_its_data_is_refused(folder, tmp_path):
    task = Ruler.load().gate("dev")[0].task
    rows = [{"task": t, "title": "T", "questions": [f"{w}?" for w in "abcdefg"]} for t in (task, "u v", "w x", "y z")]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(Leak, match="of the ruler"):
        training_requests.open_request(folder, SMALL | {"data": {"source": "file", "path": str(path)}}, "why", 0.0)
    assert training_requests.requests(folder) == []


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    monkeypatch.setenv("NOTCH_TRAIN", str(tmp_path / "work"))
    with Loopback(lambda n, body, headers: {"text": SET}) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "no-key-needed-here")
        yield server


WORDS = ("day", "cost", "place", "tool", "part", "risk", "rule")
SET = json.dumps({"title": "Plan the thing well", "questions": [f"Which {w} matters to you here?" for w in WORDS]})
BOUGHT = SMALL | {"data": {"source": "claude", "pairs": 6, "batch": False}}


def test_pairs_by_claude_are_not_bought_before_the_training(folder, cloud, tmp_path):
    made = training_requests.open_request(folder, BOUGHT, "why", 0.0)
    assert cloud.requests == [] and not (tmp_path / "work").exists()
    assert made.data == "" and "bought when it is trained, for $2.00 at most" in made.unchecked
    assert training_requests.get(folder, "1") == made
    training_requests.approve(folder, made.id, "Ada")
    assert cloud.requests == []
    assert len(made.training(folder).check().data_hash) == 64 and cloud.replies == 54  # 6 to train on, 48 to validate


def test_many_pairs_are_not_made_before_the_training(folder):
    began = time.monotonic()
    made = training_requests.open_request(folder, SMALL | {"data": {"pairs": 10**8}}, "why", 0.0)
    assert time.monotonic() - began < 2 and made.data == "" and "made when it is trained" in made.unchecked


def test_what_is_no_file_is_not_read(folder):
    with pytest.raises(BadData, match="/dev/zero: expected a file of pairs"):
        training_requests.open_request(folder, SMALL | {"data": {"source": "file", "path": "/dev/zero"}}, "why", 0.0)


def test_a_request_of_before_says_nothing_about_what_is_unchecked(folder, one):
    path = folder / f"{one.id}.json"
    told = json.loads(path.read_text())
    del told["unchecked"]
    path.write_text(json.dumps(told))
    assert training_requests.get(folder, one.id) == one


def test_a_request_without_a_reason_is_refused(folder):
    with pytest.raises(BadParameters, match="says why"):
        training_requests.open_request(folder, SMALL, "  ", 0.1)


def test_ids_go_up_and_nothing_half_written_stays(folder, one):
    two = training_requests.open_request(folder, SMALL, "again", 0.0, name="Another One!")
    assert two.id == "0002-another-one"
    assert sorted(os.listdir(folder)) == [".lock", f"{one.id}.json", f"{two.id}.json"]


def test_an_unknown_or_broken_request_is_named(folder, one):
    with pytest.raises(BadParameters, match=f"there are: {FIRST}"):
        training_requests.get(folder, "9")
    (folder / "0002-odd.json").write_text("{}")
    with pytest.raises(BadParameters, match="0002-odd.json: not a request"):
        training_requests.requests(folder)


def test_a_folder_that_is_not_there_has_no_requests(tmp_path):
    assert training_requests.requests(tmp_path / "none") == []
    with pytest.raises(BadParameters, match="there are: none"):
        training_requests.approve(tmp_path / "none", "1", "Ada")
    assert not (tmp_path / "none").exists()


def test_requests_lie_beside_the_runs(tmp_path):
    assert training_requests.default_folder(tmp_path / "runs") == tmp_path / "steer" / "requests"
