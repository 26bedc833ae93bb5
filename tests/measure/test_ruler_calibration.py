"""The frozen calibration texts: they are what the damage rules make of the dev gate, and the offline judge places them."""

import json

import pytest

from lib.files import RULER, rows
from lib.measure.answer import Answer
from lib.measure.damage import frozen
from lib.measure.offline_judge import OfflineJudge
from lib.measure.ruler import Ruler
from lib.measure.score import quality

TEXTS = [json.loads(line) for line in rows((RULER / "calibration.jsonl").read_text(encoding="utf-8"))]


def judged(row):
    case = next(c for c in Ruler.load().cases if c.id == row["case"])
    return OfflineJudge().judge(case, Answer(row["title"], row["questions"]))


def test_the_frozen_texts_are_what_the_rules_make_of_the_dev_gate():
    assert frozen(Ruler.load().gate("dev")) == TEXTS


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
