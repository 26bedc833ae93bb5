"""The verdicts that the offline judge is fitted to: how they were taken, and that each follows from its replies."""

import json
import random
from collections import Counter

import pytest

from lib.files import RULER, rows
from lib.measure.judge import DIMENSIONS
from lib.measure.judge_calls import PROTOCOLS, judgment, parse
from lib.measure.ruler import Ruler

ABOUT, *ROWS = (json.loads(line) for line in rows((RULER / "verdicts.jsonl").read_text(encoding="utf-8")))
GATE = {c.id: c.gate for c in Ruler.load().cases}
CALLS = PROTOCOLS["balanced"]
FIXED = {
    "gold",
    "damaged gold",
    "foreign gold",
    "any-task",
    "toy",
    "claude",
    "claude-briefed",
}  # sources without a lever


def text_of(row):
    return row["case"], row["title"], tuple(row["questions"])


def test_the_first_line_says_how_the_verdicts_were_taken_and_by_whom():
    assert set(ABOUT) == {"about", "how", "model", "date", "seeds", "held_out", "held_out_seed", "read"}
    assert "judge_rubric.md" in ABOUT["about"] and "judge_pairwise.md" in ABOUT["about"]
    assert "through no API" in ABOUT["about"] and ABOUT["model"].startswith("Claude")


def test_the_held_out_tasks_are_the_thirteen_that_the_seed_draws():
    ids = sorted(i for i, gate in GATE.items() if gate in ("full", "dev"))
    assert len(ids) == 40 and len(ABOUT["held_out"]) == 13
    assert sorted(random.Random("held out").sample(ids, 13)) == ABOUT["held_out"]


def test_every_verdict_is_of_a_case_and_read_once_or_afresh_a_second_time():
    assert {r["case"] for r in ROWS} <= set(GATE)
    assert Counter(r["read"] for r in ROWS) == {1: 586, 2: 60}
    assert len({text_of(r) for r in ROWS if r["read"] == 1}) == 586


def test_the_sixty_second_readings_are_of_answers_read_before_and_of_every_source():
    first = {text_of(r) for r in ROWS if r["read"] == 1}
    second = [r for r in ROWS if r["read"] == 2]
    assert len(second) == len({text_of(r) for r in second}) == 60
    assert all(text_of(r) in first for r in second)
    assert {r["source"] for r in second} == {r["source"] for r in ROWS}
    pages = {text_of(r): {c["page"] for c in r["calls"]} for r in ROWS if r["read"] == 1}
    assert not any(pages[text_of(r)] & {c["page"] for c in r["calls"]} for r in second)


def test_each_row_has_three_calls_on_different_pages():
    for row in ROWS:
        assert [(c["kind"], c["order"]) for c in row["calls"]] == [(c.kind, c.order) for c in CALLS], row["item"]
        assert len({c["page"] for c in row["calls"]}) == 3, row["item"]


def test_no_task_stands_twice_on_a_page_and_no_place_is_read_twice():
    pages = {}
    for row in ROWS:
        for call in row["calls"]:
            pages.setdefault(call["page"], []).append((row["case"], call["place"]))
    for page, prompts in pages.items():
        assert 7 <= len(prompts) <= 30, page
        assert len({case for case, _ in prompts}) == len({place for _, place in prompts}) == len(prompts), page


def test_scores_are_the_rubric_reply_and_the_verdict_that_of_the_two_orders():
    for row in ROWS:
        replies = {c: said["reply"] for c, said in zip(CALLS, row["calls"], strict=True)}
        assert row["scores"] == {d: replies[CALLS[0]][d] for d in DIMENSIONS}, row["item"]
        verdicts = [
            {"tie": "tie", "B": "win", "A": "loss"}[replies[CALLS[1]]["verdict"]],
            {"tie": "tie", "A": "win", "B": "loss"}[replies[CALLS[2]]["verdict"]],
        ]
        agreed = len(set(verdicts)) == 1
        assert (row["verdict"], row["flipped"]) == (verdicts[0] if agreed else "tie", not agreed), row["item"]
        made = judgment(replies, DIMENSIONS, 0.0)
        assert (made.scores, made.verdict, made.flipped) == (row["scores"], row["verdict"], row["flipped"])


@pytest.mark.parametrize("kind", ["rubric", "pairwise"])
def test_every_reply_is_one_that_the_cloud_judge_would_accept(kind):
    for row in ROWS:
        for call in row["calls"]:
            if call["kind"] == kind:
                assert parse(json.dumps(call["reply"]), kind, DIMENSIONS) == call["reply"], row["item"]


def test_no_verdict_on_the_sealed_gate_is_of_an_answer_that_a_lever_made():
    sealed = {r["source"] for r in ROWS if GATE[r["case"]] == "confirm"}
    assert sealed == FIXED
    assert {r["source"] for r in ROWS} - FIXED  # elsewhere levers answered


def test_gold_ties_with_itself_in_claudes_eyes_too():
    gold = [r for r in ROWS if r["source"] == "gold"]
    assert gold and {r["verdict"] for r in gold} == {"tie"}
