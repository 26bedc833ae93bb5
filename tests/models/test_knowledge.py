"""The knowledge base: every family file is well-formed, and what is made from it keeps its promises."""

import random
from collections import Counter
from itertools import product

import pytest

from lib.agent.bank import LeakGuard
from lib.agent.prompt import SLOTS
from lib.measure.answer import normalised
from lib.measure.ruler import AREAS, Ruler
from lib.models.knowledge import FOLDER, QUALITIES, families, fill, phrase, question_set, situation, thing

NAMES = sorted(p.stem for p in FOLDER.glob("*.yaml"))


def family(name):
    return next(f for f in families() if f.family == name)


def test_every_file_is_a_family_of_its_own_name():
    assert [f.family for f in families()] == NAMES and len(NAMES) >= 60


@pytest.mark.parametrize("name", NAMES)
def test_a_family_has_twelve_unknowns_of_all_seven_kinds(name):
    unknowns = family(name).unknowns
    assert len(unknowns) == 12 == len({u.name for u in unknowns})
    assert {u.kind for u in unknowns} == set(SLOTS)
    assert all(u.why.strip() and 1 <= len(u.name.split()) <= 4 and len(u.answers) >= 3 for u in unknowns)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_has_five_phrasings_that_are_questions_and_a_vague_one(name):
    for u in family(name).unknowns:
        assert len(u.ask) == 5, u.name
        for text in (*u.ask, u.vague):
            assert text.endswith("?") and text.count("?") == 1 and text[0] in text[0].upper() + "{", text
            assert text.replace("{x}", "").count("{") == 0, text


@pytest.mark.parametrize("name", NAMES)
def test_no_phrase_stands_under_two_unknowns(name):
    said = Counter(normalised(text) for u in family(name).unknowns for text in u.ask)
    assert [text for text, n in said.items() if n > 1] == []


@pytest.mark.parametrize("name", NAMES)
def test_what_a_line_can_state_answers_an_unknown_of_the_family(name):
    f = family(name)
    assert set(f.given) <= {u.name for u in f.unknowns} and all(f.given.values())
    # Two can be given at once and seven must still be open.
    assert len(f.unknowns) - 2 >= 7
    assert len(f.tasks) >= 5 and len(f.objects) >= 20 and len(f.steps) == 6 and len(f.scenarios) >= 4
    assert f.area in AREAS or f.family == "anything-else"


@pytest.mark.parametrize(
    "pattern, thing, text",
    [
        ("buy a {x}", "old bicycle", "buy an old bicycle"),
        ("buy a {x}", "bicycle", "buy a bicycle"),
        ("A {x} for me", "Alfa", "An Alfa for me"),
        ("buy a {x}", "used car", "buy a used car"),
        ("visit a {x}", "university", "visit a university"),
        ("visit a {x}", "European city", "visit a European city"),
        ("fly a {x}", "one-seater", "fly a one-seater"),
        ("compare {x} and a {x}", "oven", "compare oven and an oven"),
        ("extra {x}", "oven", "extra oven"),
        ("visit Papua {x}", "island", "visit Papua island"),
        ("{x} for whom?", "oven", "Oven for whom?"),
        ("{x} for two", "oven", "oven for two"),
        ("no object", "oven", "no object"),
    ],
)
def test_filling_a_pattern_mends_the_article_before_the_object(pattern, thing, text):
    assert fill(pattern, thing) == text


@pytest.mark.parametrize("quality", QUALITIES)
def test_the_same_seed_gives_the_same_situation_and_set(quality):
    def made(seed):
        rng = random.Random(seed)
        s = situation(families()[3], rng)
        return s, question_set(s, 7, quality, rng)

    assert made(5) == made(5)
    assert len({made(seed)[0].task for seed in range(20)}) > 5


@pytest.mark.parametrize("name", NAMES)
def test_a_clean_set_never_asks_what_is_given_and_never_repeats(name):
    rng, f = random.Random(name), family(name)
    for n in [7] * 30 + [10] * 10:
        s = situation(f, rng, stated=0.8)
        items = question_set(s, n, "clean", rng)
        assert len(items) == n and all(item.fault == "" for item in items)
        assert not {i.unknown.name for i in items} & set(s.given)
        assert len({i.unknown.name for i in items}) == n == len({normalised(i.text) for i in items})
        assert all(i.text.endswith("?") and "{x}" not in i.text for i in items)


def test_a_clean_set_asks_the_most_decisive_open_unknown():
    rng = random.Random(2)
    for f in families():
        s = situation(f, rng, stated=0.9)
        assert question_set(s, 7, "clean", rng)[0].unknown == s.open_unknowns()[0]


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("n", [1, 5, 12])
def test_a_set_has_as_many_questions_as_asked_for(quality, n):
    rng = random.Random(n)
    for f in families()[::9]:
        assert len(question_set(situation(f, rng), n, quality, rng)) == n


def test_faults_are_planted_in_messy_sets_and_named():
    rng, found = random.Random(4), Counter()
    for f in families():
        for _ in range(10):
            s = situation(f, rng, stated=0.8)
            for item in question_set(s, 7, "messy", rng):
                found[item.fault] += 1
                assert item.fault != "given" or item.unknown.name in s.given
                assert item.fault != "vague" or item.text == item.unknown.vague
                assert item.fault != "two things" or " and " in item.text
    assert set(found) == {"", "vague", "two things", "given", "duplicate", "telegraphic"}
    assert 0.3 < 1 - found[""] / found.total() < 0.8


def test_what_a_line_states_stands_in_the_line():
    rng = random.Random(6)
    stated = 0
    for f in families():
        for _ in range(10):
            s = situation(f, rng, stated=0.5)
            stated += bool(s.given)
            assert len(s.given) == len(s.stated) and all(text in s.task for text in s.stated)
            assert "{x}" not in s.task + s.title and s.thing
            assert not {u.name for u in s.open_unknowns()} & set(s.given)
    assert 0.3 < stated / (10 * len(families())) < 0.7


def test_a_phrasing_that_was_used_is_not_used_again_while_there_is_another():
    unknown, rng = families()[0].unknowns[0], random.Random(8)
    used = ()
    for _ in unknown.ask:
        used += (phrase(unknown, "oven", rng, used),)
    assert set(used) == {fill(text, "oven") for text in unknown.ask}
    assert phrase(unknown, "oven", rng, used) in used


def test_without_invention_every_object_is_one_of_the_family():
    rng = random.Random(9)
    for f in families()[::7]:
        for _ in range(20):
            x = thing(f, rng, invent=0.0)
            assert x in f.objects or x in {f"{a} {o}" for a, o in product(f.adjectives, f.objects)}
        assert {thing(f, rng, invent=1.0) for _ in range(20)} - set(f.objects)


def test_no_task_line_is_a_task_of_the_ruler_word_for_word():
    guard = {normalised(c.task) for c in Ruler.load().cases}
    for f in families():
        for pattern, x in product(f.tasks, f.objects):
            assert normalised(fill(pattern, x)) not in guard, f"{f.family}: {fill(pattern, x)}"


def test_no_question_repeats_a_gold_question():
    guard = LeakGuard([], [q for c in Ruler.load().cases for q in c.gold.questions])
    rng = random.Random(10)
    for f in families():
        for u in f.unknowns:
            for text in (*u.ask, u.vague):
                found = guard.find(fill(text, rng.choice(f.objects)))
                assert found is None, f"{f.family}: {text!r} repeats {found!r}"


def test_a_file_that_is_no_family_is_named(tmp_path):
    with pytest.raises(ValueError, match="no family files"):
        families.__wrapped__(tmp_path)
    (tmp_path / "odd.yaml").write_text("family: odd\nunknowns: 3\n")
    with pytest.raises(ValueError, match=r"odd\.yaml: not a family file"):
        families.__wrapped__(tmp_path)
    (tmp_path / "odd.yaml").write_text("family: [odd\n")
    with pytest.raises(ValueError, match=r"odd\.yaml: not a family file"):
        families.__wrapped__(tmp_path)
