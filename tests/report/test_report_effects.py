"""What each change did, drawn and said: links lead to runs, and the words follow the numbers of a made-up ledger."""

import json
import re

import pytest

from lib.report import effects
from tests.report.test_tables import ERA, ledger_of, made, scores

TASKS = ("a", "b", "c")


def decided(delta, low, high, p=0.01):
    return {"reason": "r", "delta": delta, "low": low, "high": high, "p": p, "against": "0001-stock"}


def row(case, quality, note=""):
    scored = {
        "scores": dict.fromkeys(("atomicity",), 3.0),
        "verdict": "loss",
        "notes": {"coverage": note} if note else {},
    }
    return {
        "case": case,
        "quality": quality,
        "judgment": scored if quality else None,
        "no_answer": None if quality else "x",
    }


def sealed(tmp_path, runs):
    """A ledger of records with their cases: pairs of a record and its rows."""
    for record, rows in runs:
        (tmp_path / record["id"]).mkdir()
        (tmp_path / record["id"] / "cases.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return ledger_of(tmp_path, *(record for record, _ in runs))


@pytest.fixture
def ledger(tmp_path):
    stock = made(1, "kept", 0.1, "stock", lever="baseline")
    up = made(2, "kept", 0.3, "up", seed=1, lever="decoding", predicted=0.2, decision=decided(0.2, 0.1, 0.3))
    down = made(3, "discarded", 0.05, "down", seed=2, predicted=0.3, decision=decided(-0.05, -0.1, -0.01))
    unasked = "unknowns not asked for (budget, dates); the decisive unknown not asked for (budget)"
    return sealed(
        tmp_path,
        [
            (stock, [row("a", 0.1, unasked), row("b", 0.2), row("c", 0.0)]),
            (up, [row("a", 0.5, unasked), row("b", 0.2, unasked), row("c", 0.2)]),
            (down, [row("a", 0.0), row("b", 0.1), row("c", 0.0)]),
        ],
    )


def links(picture):
    return {*re.findall(r'href="(\d{4}-[a-z]+)\.html"', picture.svg)}


def test_the_forest_links_every_compared_run_and_counts_intervals_beside_zero(ledger):
    drawn = effects.forest(ledger)
    assert links(drawn) == {"0002-up", "0003-down"}
    assert "2 changes by lever: 1 with an interval above zero, 1 below" in drawn.alt
    assert "Largest +0.200 (0002-up), smallest -0.050 (0003-down)" in drawn.alt


def test_a_prediction_is_a_hit_within_the_interval_of_what_was_measured(ledger):
    drawn = effects.predicted(ledger)
    assert "1 predictions lie within" in drawn.alt and "1 promised more than came" in drawn.alt
    assert links(drawn) == {"0002-up", "0003-down"}


def test_cost_names_the_best_run_and_what_it_takes(ledger):
    drawn = effects.cost(ledger)
    assert "The best, 0002-up at 0.300, makes 2 calls for a task and writes 100 tokens" in drawn.alt
    assert links(drawn) == {"0001-stock", "0002-up", "0003-down"}


def test_the_heatmap_orders_tasks_by_what_was_reached_and_links_its_columns(ledger):
    f = effects.by_case(ledger)
    assert list(f.index) == ["a", "b", "c"] and list(f.columns) == ["0001-stock", "0002-up", "0003-down"]
    drawn = effects.heatmap(ledger)
    assert "3 tasks in 3 runs" in drawn.alt and "a (0.500)" in drawn.alt and "c (0.200)" in drawn.alt
    assert links(drawn) == {"0001-stock", "0002-up", "0003-down"}


def test_a_task_is_untouched_when_no_run_came_past_the_bar(ledger):
    assert effects.untouched(ledger) == ["b"]  # 0.2 in the first run, and never more
    assert "On 1 task no run came past" in effects.tasks(ledger).text


def test_where_it_is_measured_the_bar_is_the_set_that_fits_any_task(tmp_path, ledger):
    control = made(
        4, "reference", None, "calibrate", kind="calibrate", found={"controls": [scores(0.4, name="any-task set")]}
    )
    (tmp_path / "0004-calibrate").mkdir()
    rows = [
        {"part": "control", "kind": "any-task set", "case": c, "quality": q}
        for c, q in zip(TASKS, (0.6, 0.1, 0.1), strict=True)
    ]
    (tmp_path / "0004-calibrate" / "cases.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert effects.untouched(ledger_of(tmp_path, *ledger.records, control)) == ["a"]


def test_an_unknown_is_unasked_when_every_valid_answer_was_faulted_for_it(ledger):
    assert effects.unasked(ledger) == {"a": "budget"}  # on b the first run asked for it
    assert "on 1 task no valid answer of any run asked for the decisive unknown" in effects.tasks(ledger).text


@pytest.mark.parametrize("records", [[], [made(1, "crashed", None)], [made(1, "kept", 0.2)]])
def test_an_empty_a_crashed_and_a_one_run_ledger_say_what_is_missing(tmp_path, records):
    ledger = sealed(tmp_path, [(r, []) for r in records])
    for draw in (effects.forest, effects.predicted):
        assert draw(ledger).alt.startswith("An empty chart: no ")
    for draw in (effects.cost, effects.heatmap):
        assert "nan" not in draw(ledger).alt
    assert "fewer than two runs" in effects.tasks(ledger).text


def test_only_the_newest_era_is_drawn(tmp_path, ledger):
    later = made(4, "kept", 0.2, "later", fingerprint="e" * 64)
    (tmp_path / "0004-later").mkdir()
    (tmp_path / "0004-later" / "cases.jsonl").write_text(json.dumps(row("a", 0.2)) + "\n")
    both = ledger_of(tmp_path, *ledger.records, later)
    assert links(effects.heatmap(both)) == {"0004-later"} and ERA != "e" * 64


def test_one_experiment_is_drawn_as_a_ring_with_the_person_beside_it():
    drawn = effects.loop()
    assert "1 read" in drawn.svg and "6 seal" in drawn.svg and "A person sets the direction" in drawn.alt
