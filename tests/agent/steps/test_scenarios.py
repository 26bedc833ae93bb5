"""Info-gain and answer simulation: which questions tell situations and plans apart."""

import json

import pytest

from lib.agent import prompt
from lib.agent.pipeline import run
from lib.agent.prompt import Draft
from lib.agent.steps import build
from lib.models.model import Decoding

TASK = ("boat", "buy a sailing boat")
QUESTIONS = ("What colour is it?", "Who sails with you?", "Where will you moor?")
PEOPLE = ("a family of five", "a lonely racer", "an old couple")


def part(messages, name):
    return next((x[len(name) + 2 :] for x in messages[-1]["content"].split("\n") if x.startswith(f"{name}: ")), "")


def reply(messages, told=PEOPLE):
    """People differ in who sails and where, and never in the colour."""
    kind = messages[0]["content"]
    if prompt.ASK in kind:
        return prompt.write_set(Draft("Buy a boat", QUESTIONS))
    if prompt.SCENARIOS in kind:
        return json.dumps({"scenarios": told})
    if prompt.PLAN in kind:
        where = "tow it home" if "on land" in part(messages, "Task") else "pay the harbour"
        return json.dumps({"steps": ["look at boats", where if "Where" in part(messages, "Task") else "go on"]})
    if prompt.ANSWERS in kind:
        answers = {
            "Who": ["all of us", "alone", "two"],
            "Wha": ["white", "white", "white"],
            "Whe": ["on land", "x", "at sea"],
        }
        return json.dumps({"answers": answers[part(messages, "Question")[:3]]})
    asked = part(messages, "Question")
    return json.dumps({"answer": "white" if "colour" in asked else f"{asked[:3]} {part(messages, 'Situation')}"})


def finish(pipeline, model):
    [state] = run(build([{"step": "ask"}, *pipeline]), [TASK], model, Decoding(max_tokens=1000))
    return state


def test_discriminate_drops_the_question_that_everybody_answers_alike(able):
    state = finish([{"step": "discriminate", "to": 2}], able(reply))
    assert state.draft.questions == QUESTIONS[1:] and len(state.calls) == 1 + 1 + 3 * 3
    assert state.notes[0] == "situations: " + " | ".join(PEOPLE) and state.notes[1].startswith(
        "worth by question: 0.00, "
    )


def test_discriminate_looks_at_no_more_questions_and_situations_than_it_may(able):
    state = finish([{"step": "discriminate", "to": 2, "situations": 2, "most": 2}], able(reply))
    assert len(state.calls) == 1 + 1 + 4
    assert state.draft.questions == QUESTIONS[:2]  # the third was not looked at, so it has no worth


@pytest.mark.parametrize("told", [[], ["one"], ["", " "]])
def test_fewer_than_two_situations_tell_nothing_apart(told, able):
    state = finish([{"step": "discriminate"}], able(lambda m: reply(m, told)))
    assert "situations listed, at least 2 are needed" in state.failed.reason


def test_an_answer_that_cannot_be_read_is_left_out_and_all_of_them_fail_the_case(able):
    lost = lambda m: "no" if "racer" in m[-1]["content"] else reply(m)  # noqa: E731
    state = finish([{"step": "discriminate", "to": 2}], able(lost))
    assert state.draft.questions == QUESTIONS[1:] and state.notes[1].startswith(
        "3 of 9 answers left out: the reply is no JSON"
    )
    none = lambda m: "no" if prompt.ANSWER in m[0]["content"] else reply(m)  # noqa: E731
    assert "no answer could be read" in finish([{"step": "discriminate"}], able(none)).failed.reason


def test_simulate_drops_the_question_whose_answers_are_one(able):
    state = finish([{"step": "simulate", "to": 2}], able(reply))
    assert state.draft.questions == QUESTIONS[1:] and len(state.calls) == 1 + 3


def test_simulate_by_plan_keeps_the_question_whose_answers_change_the_plan(able):
    state = finish([{"step": "simulate", "to": 1, "by": "plan"}], able(reply))
    assert state.draft.questions == ("Where will you moor?",) and len(state.calls) == 1 + 3 + 6


def test_a_question_said_again_is_never_kept(able):
    again = prompt.write_set(Draft("Buy a boat", (QUESTIONS[1], "who sails, with you?", QUESTIONS[0])))
    model = able(lambda m: again if prompt.ASK in m[0]["content"] else reply(m))
    assert finish([{"step": "discriminate", "to": 2}], model).draft.questions == (QUESTIONS[1], QUESTIONS[0])


def test_simulate_without_one_readable_answer_fails_the_case(able):
    state = finish([{"step": "simulate"}], able(lambda m: "no" if prompt.ANSWERS in m[0]["content"] else reply(m)))
    assert "no answer could be read" in state.failed.reason
