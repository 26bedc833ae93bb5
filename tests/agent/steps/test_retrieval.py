"""Worked examples: how they are found, shown, taken as a checklist and made over."""

import pytest

from lib.agent import prompt
from lib.agent.bank import SAME_TASK, bank, content, nearest, overlap
from lib.agent.pipeline import run
from lib.agent.steps import build
from lib.models.embed import embedder
from lib.models.model import Decoding

TASK = ("boat", "plan a birthday party for my daughter")
WAYS = ("words", "tfidf", "embedding", "diverse", "fixed")


def finish(pipeline, model, task=TASK):
    [state] = run(build(pipeline), [task], model, Decoding(max_tokens=1000))
    return state


@pytest.mark.parametrize("by", WAYS)
def test_every_way_finds_k_examples_and_never_the_task_itself(by, able):
    for own in bank()[3], bank()[90]:
        state = finish([{"step": "demos", "k": 4, "by": by}], able(), ("own", own.task.upper() + "!!"))
        assert len(set(state.demos)) == 4
        assert all(overlap(content(e.task), content(own.task)) < SAME_TASK for e in state.demos)


@pytest.mark.parametrize("by, name", [("tfidf", "tfidf"), ("embedding", embedder().name)])
def test_the_embedder_that_ran_is_noted(by, name, able):
    state = finish([{"step": "demos", "k": 1, "by": by}], able())
    assert state.notes[0].startswith(f"examples ({name}): ")
    assert not finish([{"step": "demos"}], able()).notes[0].startswith("examples (")


def test_letters_find_the_right_family_where_no_word_is_shared():
    # "birthdays" and "birthday" are two words but share their letters.
    found = nearest("birthdays", bank(), 1, "tfidf")
    assert "birthday" in found[0].task and not content("birthdays") & content(found[0].task)


def test_vectors_rank_the_same_each_time():
    assert nearest(TASK[1], bank(), 5, "tfidf") == nearest(TASK[1], bank(), 5, "tfidf")


def test_diverse_examples_come_from_different_families_nearest_first(able):
    state = finish([{"step": "demos", "k": 5, "by": "diverse"}], able())
    assert len({e.source for e in state.demos}) == 5
    assert state.demos[-1] == nearest(TASK[1], bank(), 1)[0]


def test_a_checklist_asks_about_what_most_neighbours_ask_about(able):
    model = able()
    state = finish([{"step": "checklist", "k": 3, "to": 6}], model)
    asked = [line.split(". ", 1)[1] for line in model.seen[0][-1]["content"].split("\n") if line[:1].isdigit()]
    near = nearest(TASK[1], bank(), 3)
    often = [sum(name in e.unknowns for e in near) for name in asked]
    assert len(asked) == 6 and set(asked) <= {u for e in near for u in e.unknowns}
    assert often == sorted(often, reverse=True) and often[0] > 1
    assert prompt.FROM_UNKNOWNS in model.seen[0][0]["content"] and len(state.draft.questions) == 6


def test_adapt_shows_the_questions_of_the_nearest_example(able):
    model = able()
    state = finish([{"step": "adapt"}], model)
    [near] = nearest(TASK[1], bank(), 1)
    shown = model.seen[0][-1]["content"]
    assert f"Similar task: {near.task}" in shown and all(q in shown for q in near.draft.questions)
    assert len(state.draft.questions) == 7


def test_a_bank_example_knows_what_each_schema_shows():
    for example in bank()[::7]:
        for schema in prompt.SCHEMAS:
            shown = example.shown(schema)
            assert prompt.parse_set(prompt.write_set(shown, schema), schema) == shown
    assert example.shown("slots").questions != example.draft.questions


def test_an_example_without_reasons_is_not_shown_as_if_it_had_some():
    from dataclasses import replace

    with pytest.raises(ValueError, match="cannot be shown in the schema reasons"):
        replace(bank()[0], reasons=()).shown("reasons")
