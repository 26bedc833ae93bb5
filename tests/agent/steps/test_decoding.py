"""One question at a time."""

from lib.agent import prompt
from lib.agent.pipeline import run
from lib.agent.steps import build
from lib.agent.steps.decoding import HEAT
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


def test_a_repeat_is_asked_again_with_heat_and_within_its_bound(able):
    seen, model = [], able(lambda m: '{"title": "Boat", "question": "Why now?"}')
    plain = model.generate
    model.generate = lambda prompts, decodings: (seen.extend(decodings), plain(prompts, decodings))[1]
    state = finish({"n": 3, "again": 2}, model)
    assert state.draft.questions == ("Why now?",) * 3  # the spec gate refuses it; nothing is repaired silently
    assert len(state.calls) == 1 + 3 + 2 and state.notes == ("asked again instead of: Why now?",) * 2
    assert [d.temp for d in seen] == [0, 0, 0, HEAT, HEAT, 0] and len({d.seed for d in seen}) == 6


def test_an_empty_title_fails_the_case(able):
    state = finish({}, able(lambda m: '{"title": " ", "question": "Why?"}'))
    assert state.failed.reason == "one_by_one: the title is empty"
