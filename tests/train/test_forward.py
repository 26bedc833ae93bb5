"""The cheap forward pass says what the model says, and its slope is the model's slope."""

import pytest

from lib.train import data, grpo, lora, orpo
from lib.train.fit import SFT
from lib.train.forward import Forward, Tokens, _Keys, plain_logprobs
from lib.train.lora import Settings
from tests.llama import write_base

CHANGES = {"layers": 2, "rank": 2}


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("deep") / "base", seed=3, num_hidden_layers=4)


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    return write_base(
        tmp_path_factory.mktemp("untied") / "base", seed=4, num_hidden_layers=3, tie_word_embeddings=False
    )


def ready(base, no_guard, **changes):
    """A model whose adapter is somewhere, not at its start where B is zero; settings and pairs."""
    import mlx.core as mx
    from mlx.utils import tree_map

    settings = Settings.of(CHANGES | changes)
    model = lora.prepare(base, "", settings, 0)
    mx.random.seed(5)
    model.model.update(tree_map(lambda v: mx.random.normal(v.shape) * 0.1, model.model.trainable_parameters()))
    return model, settings, data.build("clean", 6, 0, no_guard).train


def slopes(model, read, objective, rows):
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten

    weights = mx.array([float(objective.weight(r)) for r in rows])

    def mean():
        return (objective.losses(*read(objective.tokens(rows)), rows)["loss"] * weights).sum() / weights.sum()

    value, slope = nn.value_and_grad(model.model, mean)()
    return value.item(), dict(tree_flatten(slope))


def agree(model, objective, rows, forward=None):
    import mlx.core as mx

    forward = forward or Forward.of(model.model, objective.tokens(rows))
    for _ in range(2):  # the second time the frozen layers are not read
        value, slope = slopes(model, forward, objective, rows)
        want, exact = slopes(model, lambda batch: plain_logprobs(model.model, batch), objective, rows)
        assert value == pytest.approx(want, abs=1e-5) and not forward.plain
        assert slope.keys() == exact.keys() and any(mx.abs(v).max().item() > 1e-3 for v in exact.values())
        for name, wanted in exact.items():
            assert mx.abs(slope[name] - wanted).max().item() < 1e-5, name
    return forward


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_loss_and_slope_of_imitation_are_those_of_the_plain_model(deep, no_guard, layers):
    model, settings, pairs = ready(deep, no_guard, layers=layers)
    forward = agree(model, SFT, lora.sft_rows(model, pairs, settings))
    assert len(forward.frozen) == 4 - layers and len(forward.prefix) > 50
    assert len(forward.cache) == (6 if layers < 4 else 0)  # with an adapter on every layer nothing is kept


@pytest.mark.parametrize("layers", [2, 4])
def test_also_where_layers_are_made_again_on_the_way_back(deep, no_guard, layers):
    model, settings, pairs = ready(deep, no_guard, layers=layers, grad_checkpoint=True)
    rows = lora.sft_rows(model, pairs, settings)
    forward = agree(model, SFT, rows, Forward.of(model.model, SFT.tokens(rows), settings.grad_checkpoint))
    assert len(forward.prefix) > 50  # its keys get their slope too


@pytest.mark.slow
def test_what_is_made_again_is_not_kept(deep, no_guard):
    import mlx.core as mx
    import mlx.nn as nn

    model, _, _ = ready(deep, no_guard, layers=4)
    peaks = []
    for made_again in (False, True):
        forward = Forward(model.model, grad_checkpoint=made_again)

        def mean(forward=forward):
            state = mx.ones((8, 512, 64))
            for layer in forward.tuned * 4:  # of 16 layers
                state = forward._through(layer, state, _Keys())
            return state.mean()

        mx.reset_peak_memory()
        mx.eval(nn.value_and_grad(model.model, mean)())
        peaks.append(mx.get_peak_memory())
    assert peaks[1] < 0.6 * peaks[0], peaks


def test_layers_that_drop_or_are_read_as_a_whole_are_not_made_again(deep, no_guard):
    with pytest.raises(ValueError, match="grad_checkpoint and dropout 0.1: they cannot act together"):
        Settings.of({"grad_checkpoint": True, "dropout": 0.1})
    model, settings, pairs = ready(deep, no_guard)
    rows = SFT.tokens(lora.sft_rows(model, pairs, settings))
    model.model.model.embed_tokens.weight *= 2  # the layers one by one still agree
    model.model.layers[0].input_layernorm = None
    with pytest.raises(ValueError, match="grad_checkpoint, and this model is only read as a whole"):
        Forward.of(model.model, rows, True)


def test_also_where_the_prompt_is_learnt_and_so_nothing_can_be_shared(deep, no_guard):
    model, settings, pairs = ready(deep, no_guard, mask_prompt=False)
    assert agree(model, SFT, lora.sft_rows(model, pairs, settings)).prefix == ()


def test_also_with_a_head_of_its_own(untied, no_guard):
    model, settings, pairs = ready(untied, no_guard)
    agree(model, SFT, lora.sft_rows(model, pairs, settings))


def test_also_of_a_preference(deep, no_guard):
    model, settings, pairs = ready(deep, no_guard)
    ids = lora.sft_rows(model, pairs, settings)
    rows = [orpo.Preference(a, b) for a, b in zip(ids[:3], ids[3:], strict=True)]
    agree(model, orpo.objective(0.5), rows)


def test_also_of_a_reward(deep, no_guard):
    model, settings, pairs = ready(deep, no_guard)
    ids = lora.sft_rows(model, pairs, settings)
    forward = Forward.of(model.model, ids)
    drawn = [
        grpo.Rewarded(i, s, (-1.0) ** n, [-7.0] * (len(i) - s), [-6.8] * (len(i) - s)) for n, (i, s) in enumerate(ids)
    ]
    agree(model, grpo.objective(grpo.Rules()), drawn, forward)


def test_a_row_that_begins_unlike_the_others_is_read_alone(deep, no_guard):
    model, settings, pairs = ready(deep, no_guard)
    rows = lora.sft_rows(model, pairs, settings)
    forward = Forward.of(model.model, rows)
    agree(model, SFT, [*rows[:2], Tokens([5, *rows[2].ids], rows[2].start + 1)], forward)


def test_rows_make_way_when_there_is_no_room_for_more(deep, no_guard):
    model, settings, pairs = ready(deep, no_guard)
    rows = lora.sft_rows(model, pairs, settings)
    forward = Forward.of(model.model, rows)
    forward.max_bytes = 2 * 4 * 64 * (max(len(ids) for ids, _ in rows) - len(forward.prefix))
    agree(model, SFT, rows, forward)
    assert 1 <= len(forward.cache) <= 3 and forward.cached_bytes == sum(v.nbytes for v in forward.cache.values())
    assert forward.cached_bytes <= forward.max_bytes


def test_a_model_of_another_kind_is_read_plainly(deep, no_guard):
    import mlx.core as mx

    model, settings, pairs = ready(deep, no_guard)
    rows = lora.sft_rows(model, pairs, settings)
    embed = model.model.model.embed_tokens
    inner = type(model.model.model)

    class Scaled(inner):
        def __call__(self, ids, cache=None, input_embeddings=None):
            return super().__call__(ids, cache, embed(ids) * 8)

    model.model.model.__class__ = Scaled
    forward = Forward.of(model.model, rows)
    logprobs, mask = forward(rows)
    assert forward.plain and mx.array_equal(logprobs, plain_logprobs(model.model, rows)[0])
    assert mask.sum(1).tolist() == [len(ids) - start for ids, start in rows]


def test_work_is_dear_where_a_row_is_new_and_where_it_is_learnt_from(deep, no_guard):
    model, settings, pairs = ready(deep, no_guard)
    rows = lora.sft_rows(model, pairs, settings)
    forward = Forward.of(model.model, rows)
    new = forward.work(rows, False)
    forward(rows)
    assert forward.work(rows, True) > new > forward.work(rows, False) > 0
