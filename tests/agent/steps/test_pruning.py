"""Pruning by measures that look at the whole set; the plain ones are tested beside `ask`."""

import pytest

from lib.agent import prompt
from lib.agent.bank import bank, nearest
from lib.agent.pipeline import run
from lib.agent.prompt import Draft
from lib.agent.steps import build
from lib.models.model import Decoding

TASK = ("party", "plan a birthday party for my daughter")
WAYS = ("redundancy", "meaning", "vagueness", "given", "neighbours", "corpus", "covering", "last")


def pruned(able, questions, **args):
    good = prompt.write_set(Draft("Birthday party", tuple(questions)))
    [state] = run(
        build([{"step": "ask"}, {"step": "prune", **args}]), [TASK], able(lambda m: good), Decoding(max_tokens=999)
    )
    return list(state.draft.questions), state


@pytest.mark.parametrize("by", WAYS)
def test_a_question_said_twice_goes_first_whatever_the_measure(by, able):
    questions = ["Where will the guests sleep?", "Who bakes?", "WHERE will the guests sleep?", "How old will she be?"]
    left, state = pruned(able, questions, to=3, by=by)
    assert left == [questions[0], questions[1], questions[3]]
    assert state.notes[-1].endswith(f": {questions[2]}")


def test_given_drops_what_the_task_says(able):
    left, _ = pruned(
        able, ["Who bakes the cake?", "Is it a birthday party for your daughter?", "How many come?"], to=2, by="given"
    )
    assert left == ["Who bakes the cake?", "How many come?"]


def test_corpus_keeps_what_covers_the_questions_of_near_tasks(able):
    wanted = [q for e in nearest(TASK[1], bank(), 3) for q in e.draft.questions]
    odd = "Quo vadis, xylophone zebra?"
    left, _ = pruned(able, [odd, *dict.fromkeys(wanted[:4])], to=3, by="corpus")
    assert odd not in left and len(left) == 3


def test_covering_drops_one_of_two_that_say_nearly_the_same(able):
    questions = [
        "Where will the guests sleep?",
        "Who bakes?",
        "Where will all the guests sleep?",
        "How old will she be?",
    ]
    left, _ = pruned(able, questions, to=3, by="covering")
    assert {"Who bakes?", "How old will she be?"} < set(left)


def test_meaning_drops_the_repeat(able):
    questions = ["Who will bake the cake?", "Where is it?", "Who will be baking the cake?", "How many children come?"]
    left, state = pruned(able, questions, to=3, by="meaning")
    assert left == [questions[i] for i in (0, 1, 3)]
    assert state.notes[-1].startswith("pruned by meaning: ")
