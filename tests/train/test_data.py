"""Pairs: what builders make of the knowledge base, a model's drafts and files, and what they refuse."""

import json
import lzma

import pytest

from lib.agent.bank import bank, split
from lib.agent.guard import Leak, LeakGuard
from lib.agent.prompt import Draft, parse_set, write_set
from lib.measure.ruler import Ruler
from lib.models.model import ToyModel
from lib.train import data
from lib.train.data import BadData, Card, Pair, Pairs

RULER = Ruler.load()
GUARD = LeakGuard([c.task for c in RULER.cases], [q for c in RULER.cases if c.gold for q in c.gold.questions])


def draft(*words, title="Build a kite"):
    return Draft(title, tuple(f"How {w} must the kite be?" for w in words))


SEVEN = draft("soon", "often", "big", "far", "old", "cheap", "heavy")
OTHER = draft("tall", "wide", "bright", "light", "loud", "dear", "fast")


def pair(task="build a kite", family="kites", chosen=SEVEN, rejected=None):
    return Pair(task, family, chosen, rejected)


def pairs(train, valid):
    return Pairs.of(train, valid, Card("clean", "a test", 0))


@pytest.fixture(scope="module")
def clean():
    return data.build("clean", 60, 0, GUARD).check(GUARD)


def test_no_family_is_in_train_and_in_valid(clean):
    train, valid = ({p.family for p in part} for part in (clean.train, clean.valid))
    assert train and valid and not train & valid
    assert (clean.card.train, clean.card.valid, clean.card.families) == (60, data.VALID, (len(train), len(valid)))


def test_the_same_seed_makes_the_same_bytes_and_another_one_other_ones(clean):
    assert data.build("clean", 60, 0, GUARD).card.hash == clean.card.hash
    assert data.build("clean", 60, 1, GUARD).card.hash != clean.card.hash


def test_a_larger_set_begins_with_the_smaller_one_and_is_validated_on_the_same_pairs(clean):
    small = data.build("clean", 12, 0, GUARD)
    assert small.train == clean.train[:12] and small.valid == clean.valid


def test_no_task_comes_twice_and_every_set_passes_the_gate(clean):
    assert len({p.task for p in clean.train}) == 60
    for p in clean.train:
        assert parse_set(write_set(p.chosen)) == p.chosen and len(set(p.chosen.questions)) == 7


def test_a_clean_set_is_the_teachers_own(clean):
    own = {e.task: e.draft for e in bank()}
    assert all(p.chosen == own[p.task] and p.rejected is None for p in clean.train)


def test_a_coverage_set_keeps_the_critical_question_and_spreads_the_others():
    from lib.models.embed import embedder

    def nearness(draft):
        close = embedder().vectors(draft.questions) @ embedder().vectors(draft.questions).T
        return float((close.sum() - 7) / 42)

    examples = bank()[::60]
    made = [data.spanning(e) for e in examples]
    for example, draft in zip(examples, made, strict=True):
        assert example.critical in draft.questions and len(set(draft.questions)) == 7
        assert set(draft.questions) <= {*example.draft.questions, *example.further}
    mean = sum(nearness(d) for d in made) / len(made)
    assert mean < sum(nearness(e.draft) for e in examples) / len(examples) - 0.02


def test_more_pairs_than_there_are_is_refused_with_the_number():
    train, _ = split(bank())
    with pytest.raises(BadData, match=f"5000 pairs were asked for and there are {len(train)}"):
        data.build("clean", 5000, 0, GUARD)


def test_style_pairs_have_two_different_good_sets_of_one_task():
    made = data.build("styles", 20, 0, GUARD).check(GUARD)
    assert all(p.rejected and not data.same(p.chosen, p.rejected) for p in made.train)
    assert len(made.train) + made.card.skipped.get("identical", 0) <= 20 + data.VALID


# --- the ruler


def test_a_task_of_the_ruler_among_the_pairs_is_refused_by_name(clean):
    case = RULER.gate("full")[0]
    with pytest.raises(Leak) as stopped:
        Pairs.of((*clean.train, pair(task=case.task)), clean.valid, clean.card).check(GUARD)
    assert case.task in str(stopped.value) and "\n" not in str(stopped.value)


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_a_gold_question_on_either_side_is_refused(clean, side):
    gold = RULER.gate("confirm")[0].gold
    told = {"chosen": SEVEN, "rejected": OTHER} | {
        side: Draft("Build a kite", (*SEVEN.questions[:6], gold.questions[0]))
    }
    with pytest.raises(Leak, match="training pair 1"):
        Pairs.of((pair(**told), pair(task="fly a kite")), clean.valid, clean.card).check(GUARD)


def test_a_builder_leaves_out_what_comes_near_the_ruler_and_counts_it():
    near = data.build("clean", 12, 0, LeakGuard([])).train[3].task
    made = data.build("clean", 12, 0, LeakGuard([near]))
    assert near not in {p.task for p in made.train} and len(made.train) == 12
    assert made.card.skipped["near the ruler"] >= 1


def test_the_card_says_what_was_compared(clean):
    assert clean.card.guard == f"clean, {(60 + data.VALID) * 9} texts compared with the ruler"
    assert data.build("clean", 2, 0, GUARD).card.guard == "not checked"
    told = clean.card._repr_markdown_()
    assert "| pairs | 60 |" in told and clean.card.hashes["train"][:12] in told


# --- own drafts


def toy(*replies):
    told = iter(replies)
    return ToyModel(lambda _: next(told))


def test_own_drafts_become_the_rejected_side_and_identical_or_malformed_ones_are_counted():
    train = [pair(task=f"build kite {i}") for i in range(4)]
    six = Draft("Build a kite", OTHER.questions[:6])
    replies = [write_set(OTHER), write_set(SEVEN), "no JSON", write_set(six)]
    made = data.drafted(pairs(train, [pair(task="v")]), toy(*replies, write_set(OTHER)), LeakGuard([]))
    assert [p.task for p in made.train] == ["build kite 0"] and made.train[0].rejected == OTHER
    assert made.card.skipped == {"identical": 1, "malformed": 2} and made.card.kind == "on-policy"
    assert made.valid[0].rejected == OTHER


def test_a_draft_that_comes_near_the_ruler_by_chance_is_left_out_and_the_training_goes_on():
    asked = "How many weeks are left until the race?"
    near = Draft("Have a baby", ("How many weeks are left until the birth?", *OTHER.questions[1:]))
    train, guard = [pair(task="have a baby"), pair(task="build kite 1")], LeakGuard([], [asked])
    made = data.drafted(pairs(train, [pair(task="v")]), toy(write_set(near), write_set(OTHER), write_set(OTHER)), guard)
    assert [p.task for p in made.train] == ["build kite 1"] and made.card.skipped == {"near the ruler": 1}
    assert next(guard.leaks(made.train[0].texts), None) is None


def test_capitals_and_punctuation_make_no_other_draft():
    assert data.same(SEVEN, Draft("build a KITE", tuple(q.upper() for q in SEVEN.questions)))
    assert not data.same(SEVEN, OTHER)


# --- files


def row(i, **changes):
    return {"task": f"task number {i} of many", "title": "T", "questions": list(SEVEN.questions), **changes}


def write(tmp_path, *rows):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def test_a_file_of_pairs_is_split_by_family(tmp_path):
    made = data.from_file(write(tmp_path, *(row(i, family=f"f{i % 3}") for i in range(12))), False)
    assert not {p.family for p in made.train} & {p.family for p in made.valid}
    assert (len(made.train), len(made.valid)) == (8, 4)


def test_a_file_may_say_its_own_split(tmp_path):
    split = ["train"] * 3 + ["valid"] * 2
    made = data.from_file(write(tmp_path, *(row(i, split=s) for i, s in enumerate(split))), False)
    assert (len(made.train), len(made.valid)) == (3, 2)


REFUSED = {
    "empty": ((), False, "no pairs in it"),
    "one pair": ((row(0),), False, "1 pairs, 0 to train on and 1"),
    "no JSON": (("{",), False, "pairs.jsonl:1: not a JSON object"),
    "no questions": ((row(0), {"task": "x", "title": "T"}), False, "pairs.jsonl:2"),
    "questions are no list": ((row(0, questions="why?"),), False, "questions is 'why?': expected a list"),
    "a list": (("[1]",), False, "pairs.jsonl:1"),
    "no rejected side": ((row(0),), True, "pairs.jsonl:1: rejected is missing"),
    "a task that is no text": ((row(0, task=3),), False, "pairs.jsonl:1: task is 3: expected text"),
    "an empty task": ((row(0, task=" "),), False, "pairs.jsonl:1: task"),
    "half a rejected side": ((row(0, rejected={"title": "t"}),), True, "pairs.jsonl:1: rejected questions is missing"),
    "odd split": ((row(0, split="test"),), False, "pairs.jsonl:1: split is 'test': expected one of train, valid"),
    "family in both": ((row(0, family="a", split="train"), row(1, family="a", split="valid")), False, "'a' is in train"),
}  # fmt: skip


@pytest.mark.parametrize("rows, preference, said", REFUSED.values(), ids=REFUSED)
def test_a_file_that_cannot_be_trained_on_is_refused_in_one_line(rows, preference, said, tmp_path):
    with pytest.raises(BadData) as stopped:
        data.from_file(write(tmp_path, *rows), preference)
    assert said in str(stopped.value) and "\n" not in str(stopped.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BadData, match="nothing.jsonl: cannot be read"):
        data.from_file(tmp_path / "nothing.jsonl", False)


def test_identical_sides_are_refused_however_they_came_in(clean):
    with pytest.raises(BadData, match="training pair 1 .* identical"):
        Pairs.of((pair(rejected=SEVEN), pair(rejected=OTHER)), clean.valid, clean.card).check(GUARD)


def test_a_packed_set_unpacks_to_the_pairs(clean):
    rows = [json.loads(line) for line in lzma.decompress(clean.packed).decode().splitlines()]
    assert [r["task"] for r in rows if r["split"] == "train"] == [p.task for p in clean.train]
    assert rows[0]["questions"] == list(clean.train[0].chosen.questions)
