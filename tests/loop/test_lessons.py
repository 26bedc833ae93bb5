"""Lessons are a pure function of the ledger: predicted against measured, dead ends, what would revive them."""

import json

import pytest

from lib.loop import lessons

ERA = "f" * 64


def up(qualities, by):
    return {k: min(1.0, max(0.0, v + by)) for k, v in qualities.items()}


def mixed(qualities, by):
    """A change that helps some cases and hurts others by the same."""
    return {k: v + (by if i % 2 else -by) for i, (k, v) in enumerate(qualities.items())}


@pytest.mark.parametrize(
    "predicted, delta, low, high, reading",
    [
        (0.02, 0.03, 0.01, 0.05, "hit"),
        (0.02, -0.01, -0.05, 0.03, "hit"),
        (0.10, 0.02, 0.01, 0.03, "over"),
        (0.01, 0.05, 0.03, 0.07, "under"),
        (0.05, -0.03, -0.05, -0.01, "wrong sign"),
        (-0.05, -0.01, -0.02, 0.0, "under"),
    ],
)
def test_a_prediction_is_read_against_the_interval(predicted, delta, low, high, reading):
    assert lessons.reading(predicted, delta, low, high) == reading


def test_an_empty_ledger_taught_nothing(lab):
    assert lessons.lessons(lab.read(), ERA).empty and lessons.dead_ends(lab.read(), ERA).empty


def test_a_class_has_its_runs_its_keeps_and_how_its_predictions_did(lab):
    lab.seal(slug="baseline", lever="baseline")
    better = lab.seal(up(lab.full, 0.15), slug="better", lever="schema", predicted=0.15, hypothesis="a")
    lab.seal(lab.full, slug="worse", lever="schema", predicted=0.1, hypothesis="b")
    [lesson] = lessons.lessons(lab.read(), ERA).to_dict("records")
    counts = {"runs": 2, "screened_out": 0, "kept": 1, "hit": 1, "over": 0, "under": 0, "wrong sign": 1}
    assert lesson.items() >= {"lever": "schema", "best": better, **counts}.items()
    assert lesson["delta"] == pytest.approx(0.0, abs=1e-9) and lesson["predicted"] == pytest.approx(0.125)
    assert lessons.sentences(lab.read(), ERA)[0].startswith(
        "schema: 2 runs and 0 screened out, 1 kept; predicted +0.125"
    )


def demos(k):
    return [{"step": "demos", "k": k}, {"step": "ask"}]


@pytest.mark.parametrize("out, on, decided", [("out", "on", "on"), ("same", "same", "same"), ("out", "on", "reworded")])
def test_a_screened_out_run_counts_once_and_a_screened_and_decided_one_by_its_decision(lab, out, on, decided):
    """Whatever the hypotheses say: a screen belongs to the full run of the same setup."""
    lab.seal(slug="baseline", lever="baseline")
    lab.seal(gate="dev", slug="reference", lever="baseline")
    lost = {"gate": "dev", "lever": "retrieval"}
    lab.seal(up(lab.full, -0.1), slug="out", hypothesis=out, pipeline=demos(1), **lost)
    lab.seal(up(lab.full, -0.1), slug="on", hypothesis=on, pipeline=demos(2), **lost)
    lab.seal(mixed(lab.full, 0.1), slug="decided", lever="retrieval", hypothesis=decided, pipeline=demos(2))
    [lesson] = lessons.lessons(lab.read(), ERA).itertuples()
    assert (lesson.runs, lesson.screened_out) == (1, 1)
    outcomes = lessons.outcomes(lab.read(), ERA)
    assert list(zip(outcomes.gate, outcomes.id, strict=True)) == [("dev", "0003-out"), ("full", "0005-decided")]


def test_a_discarded_attempt_is_a_dead_end_with_what_would_revive_it(lab):
    lab.seal(slug="baseline", lever="baseline")
    bad = lab.seal(up(lab.full, -0.2), slug="bad", lever="schema", pipeline=[{"step": "ask", "schema": "slots"}])
    [end] = lessons.dead_ends(lab.read(), ERA).itertuples()
    assert end.run == bad and "ask(schema=slots)" in end.what and "another model or adapter than toy" in end.revive


def test_a_class_without_a_gain_is_a_dead_end_until_the_champion_changes(lab):
    first = lab.seal(slug="baseline", lever="baseline")
    for name in "abc":
        lab.seal(up(lab.full, -0.2), slug=name, lever="schema", hypothesis=name)
    whole = [e for e in lessons.dead_ends(lab.read(), ERA).itertuples() if not e.run]
    assert [e.what for e in whole] == ["the class 'schema'"] and f"other than {first}" in whole[0].revive


def test_another_ruler_taught_nothing_here(lab):
    lab.seal(slug="baseline", lever="baseline", fingerprint="e" * 64)
    lab.seal(up(lab.full, 0.2), slug="better", fingerprint="e" * 64)
    assert lessons.lessons(lab.read(), ERA).empty


def test_a_run_whose_pipeline_never_asked_the_model_taught_nothing_about_its_class(lab):
    """As 0134 to 0139 of the first study: no pool for the step to work on, no call, no answer in any case."""
    lab.seal(slug="baseline", lever="baseline")
    lab.seal(up(lab.full, 0.1), slug="worked", lever="schema")
    idle = {
        "quality": 0.0,
        "low": 0.0,
        "high": 0.0,
        "dims": {},
        "wins": 0,
        "ties": 0,
        "losses": 0,
        "no_answer": 12,
        "unscored": 0,
    }
    lab.seal(up(lab.full, -0.3), slug="idle", lever="schema", scores=idle, cost={"calls": 0, "generation_tokens": 0})
    assert list(lab.read().frame().idle) == [False, False, True]
    [lesson] = lessons.lessons(lab.read(), ERA).itertuples()
    assert lesson.runs == 1 and lesson.delta == pytest.approx(0.1)


def test_a_run_without_one_answer_failed_by_form_and_is_no_reading_of_its_prediction(lab):
    lab.seal(slug="baseline", lever="baseline")
    mute = {"quality": 0.0, "low": 0.0, "high": 0.0, "dims": {}, "wins": 0, "ties": 0, "losses": 0, "unscored": 0}
    lab.seal(up(lab.full, -0.3), slug="mute", lever="info-gain", predicted=0.05, scores=mute | {"no_answer": 12})
    one = mute | {"no_answer": 11, "losses": 1}
    lab.seal(up(lab.full, -0.2), slug="one", lever="schema", predicted=0.05, scores=one)
    by_form, read = lessons.lessons(lab.read(), ERA).to_dict("records")
    assert (by_form["failed by form"], by_form["wrong sign"]) == (1, 0)
    assert (read["failed by form"], read["wrong sign"]) == (0, 1)
    assert "(1 failed by form)" in lessons.sentences(lab.read(), ERA)[0]


def test_lessons_are_plain_data_for_a_proposer(lab):
    lab.seal(slug="baseline", lever="baseline")
    lab.seal(up(lab.full, -0.2), slug="worse", lever="schema")
    data = json.loads(json.dumps(lessons.as_data(lab.read(), ERA)))
    assert data["lessons"][0]["lever"] == "schema" and data["lessons"][0]["wrong sign"] == 0
    assert data["dead_ends"][0]["run"] == "0002-worse"


def test_a_change_that_lost_the_weights_on_the_way_says_nothing_of_its_class(lab):
    told = {"fingerprint": ERA, "lever": "adapter"}
    lab.seal(slug="champion", adapter="runs/0001-sft/adapter", status="kept", **told)
    bare = lab.seal(up(lab.full, -0.2), slug="bare", lever="schema", fingerprint=ERA, pipeline=[{"step": "lines"}])
    same = lab.seal(up(lab.full, -0.1), slug="same", lever="schema", fingerprint=ERA, adapter="runs/0001-sft/adapter",
                    pipeline=[{"step": "slots"}])  # fmt: skip
    other = lab.seal(up(lab.full, -0.1), slug="other", lever="adapter", fingerprint=ERA)
    assert lab.read().frame().set_index("id").against[bare] != ""
    assert list(lessons.outcomes(lab.read(), ERA).id) == [same, other]
