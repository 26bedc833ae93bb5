"""GRPO and the critic: advantages within a group, the value of the loss, a gradient, an anchor that holds."""

import math

import numpy as np
import pytest

from lib.agent import prompt
from lib.agent.guard import LeakGuard
from lib.agent.prompt import Draft
from lib.models.model import Decoding
from lib.train import data, gad, grpo, lora
from lib.train.fit import SFT, Fit
from lib.train.forward import Forward, plain_logprobs
from lib.train.grpo import Rewarded, Rollout, Rules
from lib.train.lora import Settings
from tests.llama import small

QUICK = {"rank": 4, "epochs": 1, "batch": 4, "learning_rate": 0.01, "warmup": 0, "patience": 0}


@pytest.fixture
def ready(base):
    settings = Settings.of(QUICK)
    return lora.prepare(base, "", settings, 0), settings, data.build("clean", 4, 0, LeakGuard([])).train


def drawn(model, pairs, rewards=(1.0, 0.0)):
    """Two replies of each task: its clean set, and one that is cut short."""
    from lib.agent.prompt import write_set

    tasks = [p for p in pairs for _ in range(2)]
    sets = [d for p in pairs for d in (p.chosen, Draft(p.chosen.title, p.chosen.questions[:3]))]
    texts = [write_set(d) for d in sets]
    ids = [[*model.tokenizer.encode(t, add_special_tokens=False), model.tokenizer.eos_token_id] for t in texts]
    return list(map(Rollout, tasks, sets, [r for _ in pairs for r in rewards], ids))


def rows_of(model, settings, pairs):
    return made(model, drawn(model, pairs), settings)


def made(model, rollouts, settings):
    """Rows of drafts, read by a forward pass of their own."""
    forward = Forward(model.model)
    return grpo.grpo_rows(model, rollouts, settings, forward, grpo.anchor(model, forward, settings))


def test_advantages_are_taken_within_the_group_of_a_task(ready):
    _, _, pairs = ready
    tasks, rewards = list(pairs[:1]) * 2 + list(pairs[1:2]) * 2, [0.9, 0.7, 0.1, 0.3]
    rollouts = [Rollout(task, None, reward, []) for task, reward in zip(tasks, rewards, strict=True)]
    assert grpo.advantages(rollouts) == pytest.approx([1, -1, -1, 1], abs=2e-3)


def test_a_group_of_equals_teaches_nothing_and_is_left_out(ready):
    model, settings, pairs = ready
    assert made(model, drawn(model, pairs, (0.5, 0.5)), settings) == []


def test_the_value_is_that_of_the_formula(ready):
    import mlx.core as mx

    model, settings, pairs = ready
    rows = rows_of(model, settings, pairs)[:3]
    rng = np.random.default_rng(0)
    moved = [
        Rewarded(i, s, a, [x + d for x, d in zip(old, rng.normal(0, 0.3, len(old)), strict=True)],
         [x + d for x, d in zip(ref, rng.normal(0, 0.3, len(ref)), strict=True)])
        for i, s, a, old, ref in rows
    ]  # fmt: skip
    rules = Rules(kl=0.5)
    objective = grpo.objective(rules)
    each = objective.losses(*plain_logprobs(model.model, objective.tokens(moved)), moved)["loss"]
    for value, (ids, start, gain, old, ref) in zip(each.tolist(), moved, strict=True):
        logits = np.array(model.model(mx.array([ids[:-1]]))[0].astype(mx.float32), dtype=np.float64)
        logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        total = 0.0
        for t in range(start, len(ids)):
            now = logp[t - 1, ids[t]]
            q, d = math.exp(now - old[t - start]), ref[t - start] - now
            total += -min(q * gain, min(max(q, 0.8), 1.2) * gain) + 0.5 * (math.exp(d) - d - 1)
        assert value == pytest.approx(total / (len(ids) - start), rel=1e-3, abs=1e-4)


def test_the_gradient_is_not_zero_and_a_step_raises_what_was_rewarded(ready, tmp_path):
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten

    model, settings, pairs = ready
    rows = rows_of(model, settings, pairs)
    objective = grpo.objective(Rules())

    def loss():
        return objective.losses(*plain_logprobs(model.model, objective.tokens(rows[:4])), rows[:4])["loss"].mean()

    _, gradient = nn.value_and_grad(model.model, loss)()
    assert all(mx.abs(v).max().item() > 0 for k, v in tree_flatten(gradient) if k.endswith("lora_b"))
    valid = lora.sft_rows(model, pairs, settings)
    before = grpo.token_logprobs(Forward(model.model), rows, 4)
    Fit(model, objective, settings, lambda _: rows, valid, tmp_path).run()
    after = grpo.token_logprobs(Forward(model.model), rows, 4)
    gains = [np.mean(a) - np.mean(b) for a, b, r in zip(after, before, rows, strict=True)]
    assert np.mean([g for g, r in zip(gains, rows, strict=True) if r[2] > 0]) > np.mean(
        [g for g, r in zip(gains, rows, strict=True) if r[2] < 0]
    )


def test_the_anchor_keeps_the_policy_nearer_to_its_start(base, tmp_path):
    away = {}
    for kl in (0.0, 20.0):
        settings = Settings.of(QUICK | {"epochs": 3})
        model = lora.prepare(base, "", settings, 0)
        pairs = data.build("clean", 4, 0, LeakGuard([])).train
        rows, rules = rows_of(model, settings, pairs), Rules(kl=kl)
        Fit(model, grpo.objective(rules), settings, lambda _, r=rows: r,
            lora.sft_rows(model, pairs, settings), tmp_path / str(kl)).run()  # fmt: skip
        objective = grpo.objective(rules)
        logprobs, mask = plain_logprobs(model.model, objective.tokens(rows))
        away[kl] = objective.losses(logprobs, mask, rows)["kl"].mean().item()
    assert 0 < away[20.0] < away[0.0] / 2


def test_the_anchor_reads_the_start_also_after_the_adapter_moved(ready, tmp_path):
    model, settings, pairs = ready
    start = grpo.anchor(model, Forward(model.model), settings)
    rows = lora.sft_rows(model, pairs, settings)
    before = start(rows)
    Fit(model, SFT, settings, lambda _: rows, rows, tmp_path).run()
    moved = grpo.token_logprobs(Forward(model.model), rows, 4)
    assert np.allclose(np.concatenate(start(rows)), np.concatenate(before), atol=1e-5)
    assert not np.allclose(np.concatenate(moved), np.concatenate(before), atol=1e-2)


@pytest.mark.parametrize("odd", [{"drafts": 1}, {"temp": 0}, {"top_p": 1.5}, {"kl": -1}, {"clip": 0}])
def test_odd_rules_are_refused(odd):
    with pytest.raises(ValueError, match=f"objective {next(iter(odd))} is .*: expected"):
        Rules(**odd)


def flat(pair, draft):
    return 0.0


@pytest.fixture
def planner():
    """The small planner ready to train: its drafts are texts that differ when its weights do."""
    settings = Settings.of(QUICK | {"epochs": 2})
    model = lora.prepare(small(), "", settings, 0)
    return model, settings, data.build("clean", 4, 0, LeakGuard([])).train


def shaken(model):
    """The adapter moved in place, as a step of training moves it."""
    import mlx.core as mx
    from mlx.utils import tree_map

    mx.random.seed(1)
    moved = tree_map(lambda v: v + mx.random.normal(v.shape) * 0.05, model.model.trainable_parameters())
    model.model.update(moved)


def test_drafts_after_the_weights_moved_are_those_of_the_moved_weights(planner):
    model, _, pairs = planner
    before = grpo.draw(model, pairs, Rules(drafts=2), flat, 5)
    shaken(model)
    after = grpo.draw(model, pairs, Rules(drafts=2), flat, 5)
    model.clear_cache()
    assert after == grpo.draw(model, pairs, Rules(drafts=2), flat, 5) != before


def test_a_draft_is_learnt_token_by_token_as_it_was_drawn_and_one_cut_off_has_no_end(planner):
    model, settings, pairs = planner
    rules = Rules(drafts=4, temp=3.0, top_p=1.0)  # so hot that some never end
    drawn = grpo.draw(model, pairs, rules, flat, 3)
    drawn = [rollout._replace(reward=float(i % 4)) for i, rollout in enumerate(drawn)]
    rows = made(model, drawn, settings)
    ends, most = set(model.tokenizer.eos_token_ids), Decoding().max_tokens
    tokens = [list(r.tokens) for r, g in zip(drawn, grpo.advantages(drawn), strict=True) if abs(g) > 1e-6]
    assert [ids[start:] for ids, start, *_ in rows] == tokens
    cut = [ids for ids, start, *_ in rows if len(ids) - start == most and ids[-1] not in ends]
    assert 0 < len(cut) < len(rows)
    for ids, start, *_ in rows:
        assert (ids[-1] in ends) == (ids not in cut) and not ends & set(ids[start:-1])


def test_a_training_leaves_no_prefix_that_its_earlier_weights_read(planner, tmp_path):
    model, settings, pairs = planner
    rows = lora.sft_rows(model, pairs, settings)
    asked = [prompt.ask(p.task) for p in pairs] * 4

    def kept():
        return len(model._prefixes._kept)

    for resumed in (False, True):
        model.generate(asked, [Decoding(max_tokens=4)] * len(asked))
        assert kept()
        Fit(model, SFT, settings, lambda _: rows, rows, tmp_path).run()  # the second call only loads the state
        assert not kept(), resumed


# --- the critic


def generic(pair):
    return Draft(
        pair.chosen.title, tuple(f"What about the {w} of it?" for w in "cost date place goal size risk help".split())
    )


def test_the_critic_tells_drafts_from_chosen_sets_on_families_that_it_did_not_see():
    pairs = data.build("clean", 60, 0, LeakGuard([])).train
    critic = gad.critic(pairs, [generic(p) for p in pairs])
    assert critic.auc > 0.9
    of_chosen, of_drafts = ([critic(p, d) for p in pairs for d in [make(p)]] for make in (lambda p: p.chosen, generic))
    assert 1 >= max(of_chosen) and np.mean(of_chosen) > 0.5 > np.mean(of_drafts) and min(of_drafts) >= 0


def test_a_critic_of_two_sets_alike_has_nothing_to_tell():
    pairs = data.build("clean", 40, 0, LeakGuard([])).train
    critic = gad.critic(pairs, [p.chosen for p in pairs])
    assert critic.auc == pytest.approx(0.5) and np.allclose([critic(p, p.chosen) for p in pairs], 0.5)


def test_the_same_texts_give_the_same_critic():
    pairs = data.build("clean", 20, 0, LeakGuard([])).train
    a, b = (gad.critic(pairs, [generic(p) for p in pairs]) for _ in range(2))
    assert np.array_equal(a.weights, b.weights) and a.auc == b.auc
