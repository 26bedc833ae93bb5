"""Whole trainings of a random llama, in miniature: its own drafts, a reward, a critic."""

import pytest

from lib.agent import prompt
from lib.agent.guard import LeakGuard
from lib.models.mlx import MLXModel
from lib.models.model import Decoding
from lib.train import data, grpo, recipe
from lib.train.data import BadData
from lib.train.lora import Settings
from lib.train.recipe import Recipe
from tests.llama import small

SHORT = data.FORM.replace("{8,110}", "{2,9}").replace("{3,80}", "{3,9}")
QUICK = {"rank": 2, "epochs": 1, "batch": 4, "learning_rate": 0.001, "warmup": 0}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(data, "VALID", 4)
    # A random model writes on until the form stops it: short questions, so that a draft ends within its tokens.
    for module in (data, grpo):
        monkeypatch.setattr(module, "FORM", SHORT)


def made(tmp_path, method, pairs, kind="clean", **changes):
    told = {"kind": kind, "pairs": pairs}
    return Recipe(
        method, small(), tmp_path, LeakGuard([]), "code", told, settings=Settings.of(QUICK | changes.pop("settings", {})),
        **changes,
    )  # fmt: skip


def length(pair, draft):
    """A reward that any reply has: shorter sets are better."""
    return 1 / (1 + sum(map(len, draft.questions)))


def test_own_drafts_are_the_rejected_side_and_every_pair_is_accounted_for(tmp_path):
    done = recipe.train(made(tmp_path, "orpo", 6, "on-policy"))
    card, model = done.card, MLXModel(small())
    assert card.train + card.valid + sum(card.skipped.values()) == 10 and card.kind == "on-policy"
    pairs = data.drafted(data.build("on-policy", 6, 0, LeakGuard([])), model, LeakGuard([]), Decoding(grammar=SHORT))
    for pair in pairs.train:
        [reply] = model.generate([prompt.ask(pair.task)], [Decoding(grammar=SHORT)])
        assert pair.rejected == prompt.parse_set(reply.text)
    assert pairs.card.hash == card.hash == done.provenance["data"]["hash"]


def test_grpo_draws_rewards_and_writes_an_adapter(tmp_path):
    rules = {"drafts": 3, "kl": 0.1}
    done = recipe.train(made(tmp_path, "grpo", 3, objective=rules, reward=length))
    assert done.curve[1]["reward"] > 0 and done.provenance["method"] == "grpo"
    assert "adapter/adapters.safetensors" in done.files and done.provenance["parameters"]["kl"] == 0.1


@pytest.mark.slow
def test_a_reward_stays_in_the_curve_of_a_training_that_was_killed_and_went_on(tmp_path):
    class Killed(Exception):
        pass

    def kill(told):
        if told["epoch"] == 3:
            raise Killed

    def one(folder, **more):
        settings = {"epochs": 3}
        return made(tmp_path / folder, "grpo", 3, objective={"drafts": 2}, reward=length,
                    settings=settings, **more)  # fmt: skip

    with pytest.raises(Killed):
        recipe.train(one("killed", progress=kill))
    resumed, whole = recipe.train(one("killed")), recipe.train(one("whole"))
    assert resumed.curve == whole.curve and all("reward" in row for row in whole.curve[1:])
    assert resumed.files["adapter/adapters.safetensors"] == whole.files["adapter/adapters.safetensors"]


def test_a_reward_that_tells_nothing_apart_is_said(tmp_path):
    with pytest.raises(BadData, match="no draft stands out in its group"):
        recipe.train(made(tmp_path, "grpo", 2, objective={"drafts": 2}, reward=lambda pair, draft: 0.0))


def test_the_critic_is_trained_on_drafts_of_the_round_and_shown(tmp_path):
    done = recipe.train(made(tmp_path, "gad", 8, objective={"drafts": 2}))
    assert 0.5 < done.curve[1]["auc"] <= 1 and 0 < done.curve[1]["reward"] < 1


def test_seeds_of_rounds_differ_by_recipe_epoch_and_use():
    every = {
        recipe.round_seed(seed, epoch, use)
        for seed in (-1, 0, 1, 2, 1000) for epoch in (1, 2, 11, 1001) for use in ("critic", "policy")
    }  # fmt: skip
    assert len(every) == 40


def test_rewarded_drafts_are_not_those_that_the_critic_learnt_from_and_both_follow_the_seed(tmp_path, monkeypatch):
    rounds, draw = [], grpo.draw

    def seen(*told):
        rounds.append(draw(*told))
        return rounds[-1]

    monkeypatch.setattr(grpo, "draw", seen)
    for seed in (0, 1):
        recipe.train(made(tmp_path, "gad", 8, objective={"drafts": 2}, seed=seed))
    critic, policy, other, last = ([tuple(r.tokens) for r in rollouts] for rollouts in rounds)

    def same(a, b):
        return sum(x == y for x, y in zip(a, b, strict=True)) / len(a)

    assert same(critic, policy) < 0.5 and same(critic, other) < 0.5 and same(policy, last) < 0.5


def test_another_base_seed_code_or_data_is_another_work_folder(tmp_path):
    one = made(tmp_path, "sft", 4)
    others = [made(tmp_path, "sft", 5), made(tmp_path, "sft", 4, seed=1), recipe.replace(one, code="other")]
    assert len({r.folder for r in (one, *others)}) == 4 and made(tmp_path, "sft", 4).folder == one.folder


def test_an_adapter_of_a_run_is_found_in_the_folder_of_runs_that_the_recipe_names(tmp_path, monkeypatch):
    monkeypatch.delenv("NOTCH_RUNS", raising=False)
    first = recipe.train(made(tmp_path / "work", "sft", 4))
    for name, content in first.files.items():
        path = tmp_path / "runs" / "0001-only-here" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    more = recipe.train(made(tmp_path / "work", "sft", 4, adapter="0001-only-here", runs=tmp_path / "runs"))
    [parent] = more.provenance["parents"]
    assert parent["adapter"] == "0001-only-here" and parent["data"] == first.card.hash
    merged = made(tmp_path / "work", "merge", 4, merge=("0001-only-here", "only-here"), runs=tmp_path / "runs")
    both = recipe.train(recipe.replace(merged, data={}, settings=Settings()))
    assert [p["weights"] for p in both.provenance["parents"]] == [parent["weights"]] * 2
