"""One question at a time."""

import json

from lib.agent import prompt
from lib.agent.pipeline import run
from lib.agent.steps import build
from lib.models.model import Decoding

TASK = ("boat", "buy a sailing boat")


def finish(args, model):
    [state] = run(build([{"step": "one_by_one", **args}]), [TASK], model, Decoding())
    return state


def test_each_call_sees_the_questions_before_it(able):
    model = able()
    state = finish({"n": 3}, model)
    shown = [m[-1]["content"].split("\n") for m in model.seen if prompt.NEXT in m[0]["content"]]
    assert [len(s) for s in shown] == [2, 3, 4]
    assert shown[2][2:] == [f"{i}. {q}" for i, q in enumerate(state.draft.questions[:2], 1)]
    assert state.draft.title == "Buy a sailing boat" and len(state.draft.questions) == 3 and len(state.calls) == 4


def stuck(messages):
    """A model that says the same first question until two are shown to it in another order."""
    if prompt.TITLE in messages[0]["content"]:
        return '{"title": "Buy a boat"}'
    asked = [line[3:] for line in messages[-1]["content"].split("\n") if line[:1].isdigit()]
    return json.dumps({"question": "Where will you moor?" if asked[-1:] != ["Where will you moor?"] else "Who steers?"})


def test_a_repeat_is_asked_again_within_its_bound(able):
    loops = lambda m: '{"title": "Boat"}' if prompt.TITLE in m[0]["content"] else '{"question": "Why now?"}'  # noqa: E731
    state = finish({"n": 3, "again": 2}, able(loops))
    assert state.draft.questions == ("Why now?",) * 3  # the spec gate refuses it; nothing is repaired silently
    assert len(state.calls) == 1 + 3 + 2 and len(state.notes) == 2
    assert finish({"n": 2, "again": 3}, able(stuck)).draft.questions == ("Where will you moor?", "Who steers?")


def test_an_empty_title_fails_the_case(able):
    state = finish({}, able(lambda m: '{"title": " ", "question": "Why?"}'))
    assert state.failed.reason == "one_by_one: the title is empty"
