"""How much texts say the same, and a set's looks without gold."""

import pytest

from lib.agent.likeness import clusters, composite, dispersion, fresh, in_form, round_robin, similarity, variety
from lib.agent.prompt import Draft
from lib.models.embed import embedder

GOOD = (
    "How long is the hull that you can moor?",
    "Who else takes the helm on longer trips?",
    "Where does it stand in winter storms?",
    "Which sailing licence do you already hold?",
    "What engine power does your lake allow?",
    "When must the first summer cruise begin?",
    "How much berth rent fits your monthly budget?",
)


def test_similarity_is_even_and_knows_what_is_the_same():
    pairs = [("Where will you moor?", "Where will you moor it?"), ("Why?", ""), ("", ""), ("日本語", "日本")]
    assert all(similarity(a, b) == similarity(b, a) and 0 <= similarity(a, b) <= 1 for a, b in pairs)
    assert similarity("Who steers?", "WHO STEERS!") == 1 and similarity("Who steers?", "How deep is it?") < 0.1


def test_a_question_that_repeats_one_is_not_fresh():
    assert not fresh("Where will you moor it?", ["Where will you moor?"]) and fresh("Who steers?", ["Why now?"])
    assert fresh("Why?", [])


@pytest.mark.parametrize("texts, value", [([], 0), (["by car"], 0), (["by car"] * 3, 0), (["by car", "on foot"], 1)])
def test_variety_is_how_much_texts_differ(texts, value):
    assert variety(texts) == value


def test_clusters_hold_every_index_once():
    made = clusters(["Where will you moor?", "Who steers?", "Where will you moor it?", ""])
    assert made == [[0, 2], [1], [3]]


def test_round_robin_of_nothing_is_nothing():
    assert round_robin([], 7) == () == round_robin([Draft("x", ())], 7)


def test_round_robin_fills_up_with_near_repeats_but_never_with_the_same_words():
    one, two = (
        Draft("x", ("Where will you moor?", "Who steers?")),
        Draft("y", ("Where will you moor it?", "WHO steers?")),
    )
    assert round_robin([one, two], 2) == ("Where will you moor?", "Who steers?")
    assert round_robin([one, two], 7) == ("Where will you moor?", "Who steers?", "Where will you moor it?")


def test_only_drafts_in_form_are_left_unless_there_are_none():
    good, bad = Draft("Buy a boat", GOOD), Draft("Buy a boat", GOOD[:2])
    assert in_form([bad, good]) == [good] and in_form([bad]) == [bad]


def test_the_composite_ruler_falls_with_each_fault():
    task = "buy a boat"
    whole = composite(Draft("Buy a boat", GOOD), task)
    assert whole > composite(Draft("Buy a boat", (*GOOD[:6], GOOD[0])), task)
    assert whole > composite(Draft("Buy a boat", (*GOOD[:6], "Which crew and which fee?")), task)
    assert whole > composite(Draft("Buy a boat", (*GOOD[:6], "Why?")), task)
    assert whole > composite(Draft("Learn to knit", GOOD), task)
    assert composite(Draft("Buy a boat", ()), task) == 0


def test_dispersion_is_nought_for_one_text_said_again():
    tool = embedder()
    assert abs(dispersion(Draft("x", (GOOD[0],) * 3), tool)) < 1e-4 < dispersion(Draft("x", GOOD), tool)
    assert dispersion(Draft("x", GOOD[:1]), tool) == 0
