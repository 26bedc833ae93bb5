"""The frozen calibration texts: they are what the damage rules make of the dev gate, and the offline judge places them."""

import json

import pytest

from lib.files import RULER, rows
from lib.measure.answer import Answer
from lib.measure.checks.damage import texts
from lib.measure.ruler import Ruler
from lib.measure.score import quality
from lib.runs.offline import OfflineJudge

TEXTS = [json.loads(line) for line in rows((RULER / "calibration.jsonl").read_text(encoding="utf-8"))]


MUST = {"gold": "tie", "paraphrase": "tie or near", "damage": "lower its dimension", "attack": "not beat `than`"}


def frozen(text):
    """What the ruler keeps of a text of a calibration, with what a judge must do with it."""
    return {
        "case": text.case.id, "part": text.part, "kind": text.kind, "dimension": text.dimension,
        "strength": text.strength, "than": text.honest, "must": MUST.get(text.part, "be an honest, plain set"),
        "title": text.answer.title, "questions": list(text.answer.questions),
    }  # fmt: skip


@pytest.fixture(scope="module")
def judged():
    """Each frozen text with its judgment."""
    cases = {c.id: c for c in Ruler.load().cases}
    found = OfflineJudge().judge_all([(cases[r["case"]], Answer(r["title"], r["questions"])) for r in TEXTS])
    return list(zip(TEXTS, found, strict=True))


def test_the_frozen_texts_are_what_the_rules_make_of_the_dev_gate_with_the_lightest_of_each_damage():
    assert [frozen(t) for t in texts(Ruler.load().gate("dev")) if t.strength <= 1] == TEXTS


def test_gold_ties_with_itself(judged):
    assert [j.verdict for r, j in judged if r["part"] == "gold"] == ["tie"] * 10


@pytest.mark.parametrize("kind", sorted({r["kind"] for r in TEXTS if r["part"] == "damage"}))
def test_a_damage_lowers_its_own_dimension_below_golds_and_never_wins(judged, kind):
    gold = {r["case"]: j.scores for r, j in judged if r["part"] == "gold"}
    lost = [gold[r["case"]][r["dimension"]] - j.scores[r["dimension"]] for r, j in judged if r["kind"] == kind]
    assert len(lost) == 10 and sum(lost) / len(lost) > 0.3
    assert "win" not in {j.verdict for r, j in judged if r["kind"] == kind}


def test_a_paraphrase_stays_near_gold_in_what_is_asked_and_never_wins(judged):
    """Not in the verdict: reworded by rule, seven questions open alike, and 7 of 10 lose for it."""
    gold = {r["case"]: j.scores for r, j in judged if r["part"] == "gold"}
    for row, found in judged:
        if row["part"] == "paraphrase":
            assert all(abs(found.scores[d] - gold[row["case"]][d]) < 0.2 for d in ("specificity", "coverage"))
            assert found.verdict != "win"


def test_no_attack_beats_the_text_that_it_must_not_beat(judged):
    honest = {(r["case"], r["part"]): quality(j.scores, j.verdict) for r, j in judged}
    attacks = [(r, quality(j.scores, j.verdict)) for r, j in judged if r["part"] == "attack"]
    assert len(attacks) == 90 and {r["than"] for r, _ in attacks} == {"gold", "plain"}
    for row, value in attacks:
        than = {"gold": "gold", "plain": "honest"}[row["than"]]
        assert value <= honest[row["case"], than] + 1e-6, (row["case"], row["kind"])
