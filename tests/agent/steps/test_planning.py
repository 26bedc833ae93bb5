"""Thinking first: which calls feed which, and what a bad one among many costs."""

import itertools
import json

import pytest

from lib.agent import prompt
from lib.agent.pipeline import run
from lib.agent.prompt import Draft
from lib.agent.steps import build
from lib.agent.steps.planning import GENERAL
from lib.models.model import Decoding

TASK = ("boat", "buy a sailing boat")


def finish(pipeline, model):
    [state] = run(build(pipeline), [TASK], model, Decoding(max_tokens=1000))
    return state


def listed(messages):
    """The numbered lines that a call shows."""
    return [line.split(". ", 1)[1] for line in messages[-1]["content"].split("\n") if line[:1].isdigit()]


def saying(paragraph, reply, otherwise):
    """A reply function that differs from another for one kind of call."""
    return lambda m: (reply(m) if callable(reply) else reply) if paragraph in m[0]["content"] else otherwise(m)


def test_brainstorm_asks_about_the_first_different_unknowns(able):
    told = json.dumps({"unknowns": ["hull", "berth", "the hull", "", "crew", "season"]})
    base = able()
    model = able(saying(prompt.BRAINSTORM, told, base._reply))
    state = finish([{"step": "brainstorm", "n": 3}], model)
    assert listed(model.seen[1]) == ["hull", "berth", "crew"]
    assert state.notes == ("unknowns: hull | berth | crew",) and len(state.draft.questions) == 3


@pytest.mark.parametrize("told", ['{"unknowns": []}', '{"unknowns": ["", " "]}'])
@pytest.mark.parametrize("step", ["brainstorm", "diverge"])
def test_an_empty_list_of_unknowns_fails_the_case(step, told, able):
    state = finish([{"step": step}], able(lambda m: told))
    assert state.failed.reason.startswith(f"{step}: no")


def test_assumptions_are_asked_about_without_their_values(able):
    told = json.dumps({"assumptions": ["budget: 500 euros", "You can sail", "berth : in the harbour"]})
    base = able()
    model = able(saying(prompt.ASSUME, told, base._reply))
    finish([{"step": "assume"}], model)
    assert listed(model.seen[2])[:3] == ["budget", "You can sail", "berth"]
    assert listed(model.seen[1]) == ["measure the berth", "visit boats", "take a test sail"]


def test_a_short_list_is_filled_up_with_what_every_plan_depends_on_and_noted(able):
    base = able()
    model = able(saying(prompt.BRAINSTORM, '{"unknowns": ["crew", "location"]}', base._reply))
    state = finish([{"step": "brainstorm"}], model)
    assert listed(model.seen[1]) == ["crew", "location", *GENERAL[:5]]
    assert state.notes[0] == "only 2 different unknowns listed; filled up with: " + " | ".join(GENERAL[:5])
    assert len(finish([{"step": "brainstorm", "n": 2}], able(model._reply)).draft.questions) == 2


def test_diverge_pools_hot_lists_in_turn_and_leaves_out_a_bad_one(able):
    lists = itertools.cycle(['{"unknowns": ["hull", "berth"]}', "no", '{"unknowns": ["crew", "hull", "season"]}'])
    base = able()
    model = able(saying(prompt.BRAINSTORM, lambda m: next(lists), base._reply))
    state = finish([{"step": "diverge", "ways": 3, "n": 3}], model)
    assert listed(model.seen[3]) == ["hull", "crew", "berth"]
    assert state.notes[0].startswith("1 of 3 brainstorms left out: the reply is no JSON")


def test_diverge_draws_with_its_own_heat_and_a_seed_a_call(able):
    seen = []
    model = able()
    plain = model.generate
    model.generate = lambda prompts, decodings: (seen.append(decodings), plain(prompts, decodings))[1]
    finish([{"step": "diverge", "ways": 3, "temp": 0.9}], model)
    assert {d.temp for d in seen[0]} == {0.9} and len({d.seed for d in seen[0]}) == 3 and seen[1][0].temp == 0


def test_select_keeps_what_the_model_chose_and_asks_nothing_of_a_short_draft(able):
    model = able()
    state = finish([{"step": "ask", "n": 9}, {"step": "select"}], model)
    assert state.draft.questions == tuple(listed(model.seen[1])[1:8])
    assert len(finish([{"step": "ask", "n": 7}, {"step": "select"}], able()).calls) == 1


def test_select_does_not_offer_a_question_twice(able):
    pool = [f"Which part number {i} is it?" for i in range(8)]
    model = able(
        saying(prompt.ASK, prompt.write_set(Draft("Boat", (*pool[:3], pool[0].upper(), *pool[3:]))), able()._reply)
    )
    finish([{"step": "ask"}, {"step": "select"}], model)
    assert listed(model.seen[1]) == pool
    few = prompt.write_set(Draft("Boat", (*pool[:4], *pool[:4])))
    assert finish([{"step": "ask"}, {"step": "select"}], able(lambda m: few)).draft.questions == tuple(pool[:4])


def test_a_choice_that_cannot_be_read_fails_the_case(able):
    nine = prompt.write_set(Draft("Boat", tuple(f"Which part {i}?" for i in range(9))))
    state = finish([{"step": "ask"}, {"step": "select"}], able(saying(prompt.SELECT, '{"keep": [1]}', lambda m: nine)))
    assert state.failed.reason.startswith('select: "keep" should hold 7')
