"""Worked examples: how they are found, shown, taken as a checklist and made over."""

import pytest

from lib.agent import prompt
from lib.agent.bank import bank, nearest
from lib.agent.guard import SAME_TASK, content, overlap
from lib.agent.pipeline import run
from lib.agent.steps import build
from lib.models.model import Decoding

TASK = ("boat", "plan a birthday party for my daughter")
WAYS = ("words", "embedding", "diverse", "fixed")


def finish(pipeline, model, task=TASK):
    [state] = run(build(pipeline), [task], model, Decoding(max_tokens=1000))
    return state


@pytest.mark.parametrize("by", WAYS)
def test_every_way_finds_k_examples_and_never_the_task_itself(by, able):
    for own in bank()[3], bank()[90]:
        state = finish([{"step": "demos", "k": 4, "by": by}], able(), ("own", own.task.upper() + "!!"))
        assert len(set(state.demos)) == 4
        assert all(overlap(content(e.task), content(own.task)) < SAME_TASK for e in state.demos)


def test_the_examples_that_were_taken_are_noted(able):
    state = finish([{"step": "demos", "k": 2}], able())
    assert state.notes[0] == "examples: " + " | ".join(e.task for e in nearest(TASK[1], bank(), 2))


def test_diverse_examples_come_from_different_families_nearest_first(able):
    state = finish([{"step": "demos", "k": 5, "by": "diverse"}], able())
    assert len({e.family for e in state.demos}) == 5
    assert state.demos[-1] == nearest(TASK[1], bank(), 1)[0]


def test_a_checklist_begins_with_what_each_neighbour_asks_first(able):
    model = able()
    state = finish([{"step": "checklist", "k": 3, "to": 6}], model)
    asked = [line.split(". ", 1)[1] for line in model.seen[0][-1]["content"].split("\n") if line[:1].isdigit()]
    near = nearest(TASK[1], bank(), 3)
    assert asked[0] == near[0].draft.questions[0] and len(asked) == 6
    assert set(asked) <= {q for e in near for q in e.draft.questions[:3]}
    assert prompt.FROM_UNKNOWNS in model.seen[0][0]["content"] and len(state.draft.questions) == 6


def test_adapt_shows_the_questions_of_the_nearest_example(able):
    model = able()
    state = finish([{"step": "adapt"}], model)
    [near] = nearest(TASK[1], bank(), 1)
    shown = model.seen[0][-1]["content"]
    assert f"Similar task: {near.task}" in shown and all(q in shown for q in near.draft.questions)
    assert len(state.draft.questions) == 7
