"""The model that runs here: what it refuses, and that a row's text does not depend on its batch."""

import json
import sys

import pytest

from lib import weights
from lib.files import ROOT
from lib.models.mlx import MLXModel, context, folder_of
from lib.models.model import Decoding, NoModel
from tests.models.conftest import write_llama

START = {"role": "system", "content": "Ask what the plan depends on."}
TASKS = ("swim", "buy a used car for my daughter", "renovate the bathroom and the hallway of a rented flat before march",
         "plan a surprise party for the oldest of my colleagues", "learn the accordion", "knit a scarf")  # fmt: skip
# Six prompts of clearly different length: a batch has to pad them.
PROMPTS = [[START, {"role": "user", "content": t * (1 + i % 2)}] for i, t in enumerate(TASKS)]


@pytest.fixture(scope="module")
def tiny(llama):
    return MLXModel(llama)


def texts(model, prompts, decodings):
    return [c.text for c in model.generate(prompts, decodings)]


def sampled(*seeds, **values):
    return [Decoding(temp=1.0, max_tokens=40, seed=s, **values) for s in seeds]


def test_greedy_text_of_a_batch_is_that_of_one_by_one(tiny):
    greedy = Decoding(max_tokens=60)
    together = texts(tiny, PROMPTS, [greedy] * 6)
    assert len({len(tiny.encode(p)) for p in PROMPTS}) == 6
    assert together == [texts(tiny, [p], [greedy])[0] for p in PROMPTS]
    assert len(set(together)) == 6 and all(together)


def test_a_greedy_row_ignores_its_seed_and_repeats(tiny):
    a, b = (texts(tiny, PROMPTS[:2], [Decoding(max_tokens=30, seed=s)] * 2) for s in (0, 99))
    assert a == b


def test_a_sampled_row_repeats_with_its_seed_and_differs_with_another(tiny):
    same = texts(tiny, [PROMPTS[1]] * 4, sampled(1, 1, 2, 3))
    assert same[0] == same[1] and len(set(same)) == 3
    assert texts(tiny, [PROMPTS[1]] * 4, sampled(1, 1, 2, 3)) == same


@pytest.mark.parametrize("values", [{}, {"top_p": 0.9}, {"min_p": 0.05}, {"top_k": 20}], ids=str)
def test_a_sampled_row_does_not_depend_on_the_make_up_of_its_batch(tiny, values):
    alone = texts(tiny, [PROMPTS[1]], sampled(7, **values))[0]
    mixed = [*sampled(1, 7, 2, **values), Decoding(max_tokens=10), *sampled(3, 4)]
    assert texts(tiny, PROMPTS, mixed)[1] == alone
    assert texts(tiny, [PROMPTS[5], PROMPTS[1]], sampled(5, 7, **values))[1] == alone


def test_a_batch_that_is_wider_than_the_engine_keeps_every_row_and_its_order(llama, tiny):
    narrow = MLXModel(llama, batch=2)
    greedy = [Decoding(max_tokens=25)] * 6
    assert texts(narrow, PROMPTS, greedy) == texts(tiny, PROMPTS, greedy)


def test_token_limits_are_kept_row_by_row_and_counted(tiny):
    before = tiny.cost
    limits = [1, 5, 9, 13, 17, 21]
    done = tiny.generate(PROMPTS, [Decoding(max_tokens=n) for n in limits])
    for c, n, p in zip(done, limits, PROMPTS, strict=True):
        assert c.prompt_tokens == len(tiny.encode(p))
        assert c.generation_tokens == n if c.finish_reason == "length" else c.generation_tokens <= n
        assert c.finish_reason in ("stop", "length") and "<|" not in c.text
    assert {c.finish_reason for c in done} >= {"length"}
    assert tiny.cost.calls - before.calls == 6
    assert tiny.cost.generation_tokens - before.generation_tokens == sum(c.generation_tokens for c in done)
    assert tiny.cost.seconds > before.seconds


def test_a_reply_that_ends_by_itself_says_stop(tiny):
    done = tiny.generate([PROMPTS[0]] * 8, [Decoding(temp=5, max_tokens=3000, seed=s) for s in range(8)])
    ended = [c for c in done if c.finish_reason == "stop"]
    assert ended and all(c.generation_tokens < 3000 and c.tokens[-1] == 256 for c in ended)


def test_no_prompts_cost_nothing(tiny):
    before = tiny.cost
    assert tiny.generate([], []) == [] and tiny.cost == before


@pytest.mark.parametrize("adapter", ["no/such/adapter", str(ROOT / "ruler")])
def test_a_missing_adapter_is_no_model(llama, adapter):
    assert refusal(llama, adapter).startswith(f"adapter {adapter!r}")


def test_a_folder_without_weights_is_no_model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert "cannot be loaded" in refusal(str(tmp_path))


def refusal(name, adapter=""):
    """The one line with which a model is refused."""
    with pytest.raises(NoModel) as caught:
        MLXModel(name, adapter)
    said = str(caught.value)
    assert said and "\n" not in said and len(said) < 400
    return said


@pytest.mark.parametrize(
    "name", ["smol-xl", "Toy", "/no/such/folder", "./nowhere", "a/b/c", "mlx:nowhere", "two\nlines"]
)
def test_an_unknown_name_or_a_missing_folder_is_no_model(name):
    said = refusal(name)
    assert repr(name) in said and "smollm2" in said and "hub id" in said


def test_a_model_is_found_by_its_shipped_name_and_by_its_folder(tmp_path, monkeypatch):
    assert folder_of("smollm2").parent.parent == weights.cache() and folder_of("mlx:smollm2") == folder_of("smollm2")
    assert folder_of(str(tmp_path)) == folder_of(f"mlx:{tmp_path}") == tmp_path
    monkeypatch.chdir(tmp_path)
    assert folder_of("lib/models") == ROOT / "lib" / "models"


def test_a_prompt_that_leaves_no_room_in_the_context_is_an_error_of_its_own_reply(tmp_path):
    model = MLXModel(write_llama(tmp_path, max_position_embeddings=64))
    short, long = [START, {"role": "user", "content": "sail"}], [START, {"role": "user", "content": "sail on " * 9}]
    fits, over = model.generate([short, long], [Decoding(max_tokens=200)] * 2)
    assert fits.prompt_tokens + fits.generation_tokens == 64 and fits.finish_reason == "length"
    assert over.finish_reason == "error" and over.generation_tokens == 0
    assert over.text == f"the prompt has {len(model.encode(long))} tokens, and the context of the model is 64"
    with pytest.raises(ValueError, match="ends at token .* and the context of the model is 64"):
        model.score([short], ["x" * 60])


def test_where_the_configuration_names_no_context_there_is_no_bound(tiny):
    assert tiny.context == sys.maxsize
    assert context({"text_config": {"max_position_embeddings": 32}}) == context({"n_positions": 32}) == 32


@pytest.mark.parametrize("told", [{}, {"attention_bias": True, "rope_traditional": True}], ids=["ragged", "mlx-lm"])
def test_a_model_whose_logits_are_no_numbers_is_no_model(tmp_path, told):
    import mlx.core as mx

    folder = write_llama(tmp_path, **told)
    weights = mx.load(f"{folder}/model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * float("nan")
    mx.save_safetensors(f"{folder}/model.safetensors", weights, metadata={"format": "mlx"})
    with pytest.raises(NoModel, match="logits are not numbers"):
        MLXModel(folder).generate(PROMPTS[:2], [Decoding(max_tokens=5)] * 2)
