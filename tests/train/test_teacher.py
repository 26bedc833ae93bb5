"""Chosen sets by Claude, against a loopback server: one call a task, nothing paid twice, a cap that holds."""

import json

import pytest

from lib.agent.guard import LeakGuard
from lib.claude.client import NoKey, WrongModel
from lib.claude.prices import BudgetSpent
from lib.claude.store import BATCH, Store
from lib.train import data, teacher
from tests.claude.loopback import Loopback

SETTINGS = {"model": "claude-sonnet-5-5", "dollars": 2.0, "batch": False}


def honest(n, body, headers):
    task = body["messages"][0]["content"].split("\n")[0].removeprefix("Task: ")
    asked = [f"Which {w} matters most when you {task[:60]}?" for w in "place day cost person tool risk size".split()]
    return {"text": json.dumps({"title": f"Plan: {task}"[:100], "questions": asked})}


@pytest.fixture
def server(monkeypatch):
    with Loopback(honest, polls=0) as loopback:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-loopback-0000")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", loopback.url)
        monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
        yield loopback


def build(path, n=5, guard=None, kind="clean", **changes):
    settings = SETTINGS | changes
    writer = teacher.teacher(settings, path, 0, poll=0.01)
    return data.build(kind, n, 0, guard or LeakGuard([]), writer, settings["model"])


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(data, "VALID", 3)


@pytest.mark.parametrize("batch", [False, True])
def test_claude_writes_the_sets_and_the_card_names_it(server, tmp_path, batch):
    made = build(tmp_path / "t.jsonl", batch=batch)
    assert (len(made.train), len(made.valid), made.card.source) == (5, 3, "claude-sonnet-5-5")
    assert made.train[0].chosen.questions[0].startswith("Which place matters")
    assert len(server.messages) == (0 if batch else 8) and len(server.batches) == (2 if batch else 0)


@pytest.mark.parametrize("batch", [False, True])
def test_what_was_paid_for_is_not_asked_again_also_without_a_key(server, tmp_path, monkeypatch, batch):
    first = build(tmp_path / "t.jsonl", batch=batch)
    asked = len(server.requests)
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    assert build(tmp_path / "t.jsonl", batch=batch).card.hash == first.card.hash and len(server.requests) == asked


def test_a_batch_that_was_sent_before_a_kill_is_picked_up(server, tmp_path):
    whole, path = build(tmp_path / "t.jsonl", batch=True), tmp_path / "killed.jsonl"
    path.write_bytes((tmp_path / "t.jsonl").read_bytes().splitlines(keepends=True)[0])  # what a kill would leave
    [sent] = Store(path).rows
    assert sent["type"] == BATCH and [len(key) for key in sent["calls"]] == [64] * 5
    assert build(path, batch=True).card.hash == whole.card.hash
    assert len(server.batches) == 3  # one for each part and the second part again: the first was not sent again


def test_a_line_says_what_it_always_said(server, tmp_path):
    build(tmp_path / "t.jsonl")
    row = next(iter(Store(tmp_path / "t.jsonl")))
    assert set(row) == {"type", "key", "batch", "fingerprint", "replicate", "model", "message_id", "request_id",
                        "stop_reason", "usage", "dollars", "text", "at", "value"}  # fmt: skip
    assert (row["type"], row["fingerprint"], row["replicate"]) == ("reply", "teacher", 0)
    assert set(row["value"]) == {"title", "questions"} and row["model"] == SETTINGS["model"]


def test_the_cap_holds_and_what_was_answered_stays(server, tmp_path):
    with pytest.raises(BudgetSpent):
        build(tmp_path / "t.jsonl", n=40, dollars=0.05)
    paid = sum(r["dollars"] for r in Store(tmp_path / "t.jsonl"))
    assert paid <= 0.05 and len(server.messages) < 40


def test_without_a_key_nothing_is_asked(server, tmp_path, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(NoKey):
        build(tmp_path / "t.jsonl")
    assert server.requests == []


def test_a_set_of_another_form_is_left_out_and_counted(server, tmp_path):
    def odd(n, body, headers):
        return {"text": '{"title": "T", "questions": ["Why?"]}'} if n == 1 else honest(n, body, headers)

    server.rule = odd
    made = build(tmp_path / "t.jsonl")
    assert made.card.train + made.card.valid == 7 and made.card.skipped["without a set"] == 1


def test_a_set_that_comes_near_the_ruler_is_left_out(server, tmp_path):
    gold = "Which gold question of the ruler is this one exactly?"

    def leak(n, body, headers):
        told = json.loads(honest(n, body, headers)["text"])
        return (
            {"text": json.dumps(told | {"questions": [gold, *told["questions"][1:]]})}
            if n == 2
            else honest(n, body, headers)
        )

    server.rule = leak
    made = build(tmp_path / "t.jsonl", guard=LeakGuard([], [gold]))
    assert made.card.skipped["near the ruler"] >= 1 and all(gold not in p.texts for p in made.train)


def test_another_model_than_asked_makes_no_set(server, tmp_path):
    server.rule = lambda n, body, headers: honest(n, body, headers) | {"model": "claude-haiku-4-5"}
    with pytest.raises(WrongModel):
        build(tmp_path / "t.jsonl")


def test_coverage_is_asked_for_in_words(server, tmp_path):
    assert "must span" in json.dumps(teacher.request("claude-sonnet-5-5", "x", "coverage"))
    assert "must span" not in json.dumps(teacher.request("claude-sonnet-5-5", "x", "clean"))
