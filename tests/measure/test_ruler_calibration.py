"""The frozen calibration texts: they are what the damage rules make of the dev gate, and the offline judge places them."""

import json

import pytest

from lib.files import RULER, rows
from lib.measure.answer import Answer
from lib.measure.damage import texts
from lib.measure.offline_judge import OfflineJudge
from lib.measure.ruler import Ruler
from lib.measure.score import quality

TEXTS = [json.loads(line) for line in rows((RULER / "calibration.jsonl").read_text(encoding="utf-8"))]


MUST = {"gold": "tie", "paraphrase": "tie or near", "damage": "lower its dimension", "attack": "not beat `than`"}


def frozen(text):
    """What the ruler keeps of a text of a calibration, with what a judge must do with it."""
    return {
        "case": text.case.id, "part": text.part, "kind": text.kind, "dimension": text.dimension,
        "strength": text.strength, "than": text.honest, "must": MUST.get(text.part, "be an honest, plain set"),
        "title": text.answer.title, "questions": list(text.answer.questions),
    }  # fmt: skip


def judged(row):
    case = next(c for c in Ruler.load().cases if c.id == row["case"])
    return OfflineJudge().judge(case, Answer(row["title"], row["questions"]))


def test_the_frozen_texts_are_what_the_rules_make_of_the_dev_gate_with_the_lightest_of_each_damage():
    assert [frozen(t) for t in texts(Ruler.load().gate("dev")) if t.strength <= 1] == TEXTS


def test_gold_ties_with_itself():
    assert {judged(r).verdict for r in TEXTS if r["part"] == "gold"} == {"tie"}


@pytest.mark.parametrize("kind", sorted({r["kind"] for r in TEXTS if r["part"] == "damage"}))
def test_a_damage_lowers_its_own_dimension_and_never_wins(kind):
    mine = [r for r in TEXTS if r["kind"] == kind]
    found = [judged(r) for r in mine]
    own = [j.scores[r["dimension"]] for j, r in zip(found, mine, strict=True)]
    assert sum(own) / len(own) < 4.7 and "win" not in {j.verdict for j in found}


def test_no_attack_beats_gold():
    gold = {r["case"]: quality(judged(r).scores, "tie") for r in TEXTS if r["part"] == "gold"}
    for row in (r for r in TEXTS if r["part"] == "attack"):
        found = judged(row)
        assert quality(found.scores, found.verdict) <= gold[row["case"]], row["kind"]
