"""Self-critique and verification: how much a model may change in its own draft."""

import json

import pytest

from lib.agent import prompt
from lib.agent.pipeline import run
from lib.agent.prompt import Draft
from lib.agent.steps import build
from lib.models.model import Decoding

TASK = ("boat", "buy a sailing boat")
QUESTIONS = ("Where will you moor?", "What do you need?", "Who steers and who cooks?", "How deep is the lake?")


def finish(pipeline, reply, able):
    first = prompt.write_set(Draft("Buy a boat", QUESTIONS))
    model = able(lambda m: reply(m) if prompt.ASK not in m[0]["content"] or "Draft:" in m[-1]["content"] else first)
    [state] = run(build([{"step": "ask"}, *pipeline]), [TASK], model, Decoding(max_tokens=1000))
    return state, model


def scripted(**said):
    """A reply function by the name of the paragraph."""
    return lambda m: next(r(m) if callable(r) else r for n, r in said.items() if getattr(prompt, n) in m[0]["content"])


MENDED = '{"question": "Which sails come with it?"}'


def test_a_critique_swaps_one_question_and_leaves_the_rest(able):
    reply = scripted(CRITIQUE='{"worst": 2, "fault": "vague"}', REPAIR=MENDED)
    state, model = finish([{"step": "critique"}], reply, able)
    assert state.draft.questions == (QUESTIONS[0], "Which sails come with it?", *QUESTIONS[2:])
    assert "Fault: vague" in model.seen[2][-1]["content"] and len(state.calls) == 3
    assert state.notes == ("swapped (vague): What do you need? > Which sails come with it?",)


def test_a_critique_stops_where_no_fault_is_named(able):
    state, _ = finish([{"step": "critique", "swaps": 5}], scripted(CRITIQUE='{"worst": 0, "fault": "none"}'), able)
    assert state.draft.questions == QUESTIONS and len(state.calls) == 2 and state.notes == ("no fault found",)


def test_a_critique_never_swaps_more_often_than_it_may(able):
    count = iter(range(100))
    fresh = lambda m: json.dumps({"question": f"Which {'xyzuvw'[next(count)] * 9} is it?"})  # noqa: E731
    reply = scripted(CRITIQUE='{"worst": 1, "fault": "vague"}', REPAIR=fresh)
    state, _ = finish([{"step": "critique", "swaps": 3}], reply, able)
    assert len(state.calls) == 1 + 6 and len(state.notes) == 3 and state.draft.questions[1:] == QUESTIONS[1:]


@pytest.mark.parametrize("new", ["How deep is the lake?", "How deep is your lake?", "A bigger boat", ""])
def test_a_swap_for_a_repeat_or_no_question_is_not_made_and_noted(new, able):
    reply = scripted(CRITIQUE='{"worst": 2, "fault": "vague"}', REPAIR=json.dumps({"question": new}))
    state, _ = finish([{"step": "critique"}], reply, able)
    assert state.draft.questions == QUESTIONS and state.notes[0].startswith("kept 'What do you need?' (vague)")


@pytest.mark.parametrize("bad", ["no", '{"worst": 9, "fault": "vague"}', '{"worst": 1, "fault": "dull"}'])
def test_a_critique_that_cannot_be_read_keeps_the_draft_and_says_so(bad, able):
    state, _ = finish([{"step": "critique"}], scripted(CRITIQUE=bad), able)
    assert state.failed is None and state.draft.questions == QUESTIONS
    assert state.notes[0].startswith("draft kept as it is: ")


def test_revise_replaces_the_draft_and_a_bad_revision_fails_the_case(able):
    better = prompt.write_set(Draft("Buy a boat", ("Who steers?",)))
    state, model = finish([{"step": "revise", "rounds": 2}], lambda m: better, able)
    assert state.draft.questions == ("Who steers?",) and len(state.pool) == 2
    assert "1. Who steers?" in model.seen[2][-1]["content"]
    assert finish([{"step": "revise"}], lambda m: "no", able)[0].failed.reason.startswith(
        "revise: the reply is no JSON"
    )


def checks(faulty):
    """A check reply: the faults planted by question, none in the others."""

    def reply(m):
        question = next(line[10:] for line in m[-1]["content"].split("\n") if line.startswith("Question: "))
        good = {"one_thing": True, "given": False, "specific": True, "duplicate": False}
        return json.dumps(good | faulty.get(question, {}))

    return reply


def test_verify_mends_what_fails_the_worst_first_and_no_more_than_it_may(able):
    faulty = {QUESTIONS[1]: {"specific": False}, QUESTIONS[2]: {"one_thing": False, "given": True}}
    state, model = finish([{"step": "verify", "repairs": 1}], scripted(CHECK=checks(faulty), REPAIR=MENDED), able)
    assert state.draft.questions == (*QUESTIONS[:2], "Which sails come with it?", QUESTIONS[3])
    assert "Fault: given" in model.seen[-1][-1]["content"] and len(state.calls) == 1 + 4 + 1


def test_verify_drops_what_fails_and_then_the_last(able):
    faulty = {QUESTIONS[1]: {"specific": False}}
    state, _ = finish([{"step": "verify", "then": "drop", "to": 2}], scripted(CHECK=checks(faulty)), able)
    assert state.draft.questions == (QUESTIONS[0], QUESTIONS[2])
    assert state.notes == (f"dropped: {QUESTIONS[1]} | {QUESTIONS[3]}",)


def test_verify_sees_a_repeat_that_the_model_does_not(able):
    twice = prompt.write_set(Draft("Buy a boat", (*QUESTIONS, "WHO steers, and who cooks?")))
    said = scripted(CHECK=checks({}), REPAIR=MENDED)
    model = able(lambda m: twice if prompt.ASK in m[0]["content"] else said(m))
    [state] = run(build([{"step": "ask"}, {"step": "verify"}]), [TASK], model, Decoding(max_tokens=1000))
    assert state.draft.questions == (*QUESTIONS, "Which sails come with it?")
    assert "Fault: duplicate" in model.seen[-1][-1]["content"]


def test_a_check_that_cannot_be_read_passes_its_question_and_is_noted(able):
    state, _ = finish([{"step": "verify"}], scripted(CHECK="yes"), able)
    assert state.draft.questions == QUESTIONS and len(state.calls) == 5
    assert state.notes[0].startswith("4 of 4 checks left out: the reply is no JSON")
