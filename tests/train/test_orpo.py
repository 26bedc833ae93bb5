"""ORPO: the value is that of the formula, the gradient is not zero, the margin rises."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lib.agent.prompt import Draft
from lib.train import data, lora, orpo
from lib.train.data import BadData, Card, Pairs
from lib.train.fit import Fit
from lib.train.forward import plain_logprobs
from lib.train.lora import Settings

QUICK = {"rank": 4, "epochs": 4, "batch": 4, "learning_rate": 0.01, "warmup": 0, "patience": 0}


@pytest.fixture(scope="module")
def pairs():
    from lib.agent.guard import LeakGuard

    made = data.build("clean", 8, 0, LeakGuard([]))
    backwards = [[replace(p, rejected=reverse(p.chosen)) for p in part] for part in (made.train, made.valid)]
    return Pairs.of(*backwards, made.card)


def reverse(draft):
    """The same words in the other order: as likely as the set itself, before anything is learnt."""
    return Draft(draft.title, tuple(" ".join(reversed(q[:-1].split())) + "?" for q in draft.questions))


@pytest.fixture
def ready(base, pairs):
    settings = Settings.of(QUICK)
    model = lora.prepare(base, "", settings, 0)
    return (
        model,
        settings,
        orpo.orpo_rows(model, pairs.train, settings),
        orpo.orpo_rows(model, pairs.valid[:6], settings),
    )


def reference(model, rows, beta):
    """The formula in float64, one row at a time, from nothing but the logits of the model."""
    import mlx.core as mx

    def mean(ids, start):
        logits = np.array(model.model(mx.array([ids[:-1]]))[0].astype(mx.float32), dtype=np.float64)
        logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return float(np.mean([logp[t - 1, ids[t]] for t in range(start, len(ids))]))

    def odds(x):
        return x - math.log(1 - math.exp(x))

    means = [(mean(*row.chosen), mean(*row.rejected)) for row in rows]
    return [-c - beta * -math.log(1 + math.exp(-(odds(c) - odds(r)))) for c, r in means], means


@pytest.mark.parametrize("beta", [0.0, 0.2, 1.0])
def test_the_value_is_that_of_the_formula(ready, beta):
    model, _, rows, _ = ready
    each, means = reference(model, rows[:4], beta)
    objective = orpo.objective(beta)
    found = objective.losses(*plain_logprobs(model.model, objective.tokens(rows[:4])), rows[:4])
    assert found["loss"].tolist() == pytest.approx(each, rel=1e-4)
    assert found["chosen"].tolist() == pytest.approx([c for c, _ in means], rel=1e-4)
    assert found["margin"].tolist() == pytest.approx([c - r for c, r in means], abs=1e-4)


def test_the_gradient_is_not_zero_also_without_imitation(ready):
    """The odds-ratio term alone must move the adapter: a published trainer had a gradient of exactly zero there."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten

    model, _, rows, _ = ready
    objective = orpo.objective(1.0)

    def loss():
        return objective.losses(*plain_logprobs(model.model, objective.tokens(rows[:4])), rows[:4])["loss"].mean()

    def term():
        each = objective.losses(*plain_logprobs(model.model, objective.tokens(rows[:4])), rows[:4])
        return (each["loss"] + each["chosen"]).mean()

    for one in (loss, term):
        _, gradient = nn.value_and_grad(model.model, one)()
        sizes = {k: mx.abs(v).max().item() for k, v in tree_flatten(gradient)}
        assert all(v > 0 for k, v in sizes.items() if k.endswith("lora_b")) and sizes


def test_training_raises_the_margin_and_the_curve_shows_the_chosen_side_beside_it(ready, tmp_path):
    model, settings, rows, valid = ready
    curve = Fit(model, orpo.objective(1.0), settings, lambda _: rows, rows, tmp_path).run()
    assert curve[-1]["valid_margin"] > curve[0]["valid_margin"] + 0.01
    assert curve[-1]["valid_loss"] < curve[0]["valid_loss"] and all("valid_chosen" in row for row in curve)


def test_a_batch_holds_both_sides_of_its_pairs(ready):
    _, _, rows, _ = ready
    tokens = orpo.both_sides(rows[:3])
    assert tokens == [row.chosen for row in rows[:3]] + [row.rejected for row in rows[:3]]


def test_a_certain_reply_has_finite_odds():
    import mlx.core as mx

    assert math.isfinite(orpo.log_odds(mx.array(orpo.CEILING)).item())


def test_pairs_without_a_rejected_side_are_refused(ready, pairs):
    model, settings, _, _ = ready
    plain = Pairs.of([p.__class__(p.task, p.family, p.chosen) for p in pairs.train], pairs.valid, Card("clean", "t", 0))
    with pytest.raises(BadData, match="pair 1 has no rejected side"):
        orpo.orpo_rows(model, plain.train, settings)
