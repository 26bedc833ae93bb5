"""The fit of the offline judge: what it must do on toy rows, and that the committed constants are what it gives."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lib.files import RULER, rows
from lib.measure import offline_judge
from lib.measure.answer import Answer
from lib.measure.judge import DIMENSIONS
from lib.measure.offline_judge import FAULTS, Amounts, Constants, constants
from lib.measure.ruler import Ruler
from lib.measure.score import VALUE
from lib.runs.offline import vectors
from scripts import fit_offline_judge as fit

CLEAN = Amounts(dict.fromkeys(FAULTS, 0.1), 0.0, 0.0, {})


def toy(n=60, seed=1):
    """Answers whose scores fall with their own faults: joined asks, missing unknowns, telegrams, pairs, vague words."""
    draw, made = np.random.default_rng(seed), []
    own = dict(zip(DIMENSIONS, ("joined", "vague", "missing", "unformed", "pairs"), strict=True))
    for i in range(n):
        amounts = {f: float(draw.uniform(0, 0.2)) for f in FAULTS} | {
            f: float(draw.uniform(0, 1)) for f in own.values()
        }
        scores = tuple(round(5 - 4 * amounts[own[d]]) for d in DIMENSIONS)
        verdict = "win" if amounts["missing"] < 0.1 else "tie" if amounts["missing"] < 0.3 else "loss"
        found = Amounts(amounts, 0.0, 0.0, {})
        made.append(fit.Row(f"task-{i % 6}", "sft" if i % 2 else "claude", found, CLEAN, scores, verdict, 1))
    return made


def test_each_dimension_pays_most_for_the_fault_that_its_scores_fall_with():
    made = fit.fit(toy())
    for dimension, fault in zip(DIMENSIONS, ("joined", "vague", "missing", "unformed", "pairs"), strict=True):
        assert max(made.prices[dimension], key=made.prices[dimension].get) == fault
    assert max(made.lead, key=made.lead.get) == "missing"


def test_prices_are_at_least_what_is_set_and_never_below_0_even_where_a_fault_seems_to_pay():
    turned = [replace(r, scores=tuple(6 - s for s in r.scores)) for r in toy()]
    made = fit.fit(turned)
    for dimension, prices in made.prices.items():
        assert set(prices) == set(fit.PRICED[dimension])
        for fault, price in prices.items():
            assert price >= fit.LEAST.get((dimension, fault), 0.0) - 1e-4
    assert min(made.lead.values()) >= 0 and made.copies >= 0
    for knots in made.levels.values():
        at, score = zip(*knots, strict=True)
        assert list(at) == sorted(at) and list(score) == sorted(score)


def test_cuts_let_as_many_win_and_tie_as_claude_did():
    some = toy()
    made = fit.fit(some)
    found = fit.agreement(some, made)["verdicts"]
    assert all(abs(mine - its) <= 2 for mine, its in found.values()) and found["loss"][0] > 20


def test_agreement_of_what_was_fitted_is_high_and_of_shuffled_verdicts_is_none():
    some = toy()
    made = fit.fit(some)
    found = fit.agreement(some, made)
    assert found["quality"] > 0.9 and found["kappa"] > 0.8 and found["bias"] < 0.05
    assert set(found["by source"]) == {"sft", "claude"} and found["model-made"] > 0.9
    mixed = [replace(r, scores=o.scores, verdict=o.verdict) for r, o in zip(some, some[7:] + some[:7], strict=True)]
    assert abs(fit.agreement(mixed, made)["quality"]) < 0.35 and fit.agreement(mixed, made)["kappa"] < 0.3


def test_kappa_is_1_for_the_same_and_0_for_chance():
    said = ["win", "tie", "loss", "loss"]
    assert fit.kappa(said, said) == 1 and fit.kappa(["loss"] * 4, said) == 0
    assert fit.kappa(["loss", "loss", "tie", "win"], said) < 0 < fit.kappa(["win", "loss", "loss", "loss"], said)


def test_an_interval_holds_the_figure_and_draws_whole_tasks():
    some = toy()
    low, high = fit.interval(some, lambda s: float(np.mean([r.quality for r in s])))
    assert low < np.mean([r.quality for r in some]) < high
    assert fit.interval(some[:1] * 5, lambda s: float(len(s))) == (5.0, 5.0)


def test_a_second_reading_is_set_beside_the_first_of_the_same_answer():
    some = toy()
    found = fit.ceiling(some, [replace(r, read=2) for r in some[:20]])
    assert found["n"] == 20 and found["quality"] == pytest.approx(1) and found["kappa"] == 1
    assert fit.ceiling(some[:20], [replace(r, read=2) for r in some[10:30]])["n"] == 10


def test_the_committed_constants_are_what_the_fit_finds_without_held_out_tasks_and_the_sealed_gate():
    ruler = Ruler.load()
    about, *lines = (json.loads(line) for line in rows((RULER / "verdicts.jsonl").read_text(encoding="utf-8")))
    cases = {c.id: c for c in ruler.cases if c.gate != "confirm" and c.id not in about["held_out"]}
    mine = [r for r in lines if r["case"] in cases and r["read"] == 1]
    answers = [Answer(r["title"], tuple(r["questions"])) for r in mine]
    texts = list(dict.fromkeys(text for answer in answers for text in offline_judge.texts_of(answer)))
    here = dict(zip(texts, vectors(texts), strict=True))
    train = []
    for r, answer in zip(mine, answers, strict=True):
        case = cases[r["case"]]
        found = offline_judge.amounts(case, answer, vectors, here)
        gold = offline_judge._gold_amounts(case, vectors)
        train.append(
            fit.Row(case.id, r["source"], found, gold, tuple(r["scores"][d] for d in DIMENSIONS), r["verdict"], 1)
        )
    made, kept = fit.fit(train), constants()
    assert len(cases) == 27 and len(train) == 299
    assert made.best == pytest.approx(kept.best, abs=0.01)
    for dimension in DIMENSIONS:
        assert made.prices[dimension] == pytest.approx(kept.prices[dimension], abs=0.02)
        assert np.array(made.levels[dimension]) == pytest.approx(np.array(kept.levels[dimension]), abs=0.02)
    assert made.lead == pytest.approx(kept.lead, abs=0.01) and made.cuts == pytest.approx(kept.cuts, abs=0.01)
    assert isinstance(made, Constants) and {r.verdict for r in train} == set(VALUE)
