"""The teacher's sets as they are shipped, their split, and the choice of the nearest."""

import pytest

from lib.agent.bank import AREAS, SHOWN, Example, bank, nearest, split
from lib.agent.guard import content
from lib.agent.prompt import Draft
from lib.measure.answer import Answer, spec_gate
from scripts import check_teacher


@pytest.mark.slow  # a minute where the vectors of all sets are not kept yet
def test_the_shipped_sets_pass_their_own_check(capsys):
    assert check_teacher.main() == 0, capsys.readouterr().out


def test_there_are_a_thousand_sets_in_ten_areas_and_each_could_be_an_answer():
    examples = bank()
    assert len(examples) >= 1000 and len({e.id for e in examples}) == len(examples)
    assert {e.area for e in examples} == set(AREAS)
    for e in examples:
        assert isinstance(spec_gate(e.draft.title, e.draft.questions), Answer)
        assert len(e.further) == 5 and e.critical in e.draft.questions
    assert sum(e.second is not None for e in examples) >= 280


def test_no_family_is_in_both_parts_and_a_new_set_moves_no_other():
    train, valid = split(bank())
    assert not {e.family for e in train} & {e.family for e in valid} and len(valid) >= 48
    assert split(bank()[::2])[1] == [e for e in bank()[::2] if e in valid]


def test_a_set_is_shown_in_the_schemas_that_it_has_the_parts_for():
    e = bank()[0]
    assert all(e.shown(schema) is e.draft for schema in SHOWN)
    with pytest.raises(ValueError, match="no slots to show"):
        e.shown("slots")


def example(task):
    return Example(task, "toy", "home", task, Draft(task, ("Why?",)))


def test_nearest_prefers_shared_rare_words_and_goes_from_near_to_far():
    examples = [example(t) for t in ("buy a red kite", "repair a garden fence", "repair a roof", "repair a bicycle")]
    assert [e.task for e in nearest("repair my garden shed", examples, 3)] == [
        "repair a garden fence",
        "repair a roof",
        "repair a bicycle",
    ]


def test_nearest_by_meaning_finds_what_shares_no_word():
    examples = [example(t) for t in ("adopt a puppy", "insulate the attic", "sell a violin")]
    assert [e.task for e in nearest("get a young dog from the shelter", examples, 1, "embedding")] == ["adopt a puppy"]


def test_one_rare_word_counts_more_than_two_frequent_ones():
    often = [example(f"old garden {x}") for x in ("wall", "gate", "path", "pond")]
    rare = example("glass harmonica lessons")
    assert nearest("old garden harmonica", [*often, rare], 1) == [rare]


def test_nearest_leaves_out_the_same_task_in_other_words():
    examples = [example("Buy a red kite!"), example("I want to buy a red kite"), example("buy a kite for the beach")]
    assert [e.task for e in nearest("buy a red kite", examples, 3)] == ["buy a kite for the beach"]


def test_no_bank_task_is_its_own_neighbour():
    examples = bank()
    for e in examples[::97]:
        found = nearest(e.task, examples, 5)
        assert len(found) == 5 and e not in found
        assert all(content(f.task) != content(e.task) for f in found)


def test_nearest_repeats_exactly_and_breaks_ties_by_place():
    examples = [example(f"mend the {x}") for x in ("gate", "door", "wall", "path")]
    assert nearest("bake bread", examples, 2) == examples[:2]
    assert nearest("mend a hat", bank(), 4) == nearest("mend a hat", bank(), 4)
    assert nearest("mend a hat", examples, 9) == examples
