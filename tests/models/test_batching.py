"""Rows in one batch on a random Llama: shared prefixes, rows that join late, grammars, adapters, penalties and scores
change no text, on the path for a CPU and on mlx-lm's own."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lib.models import ragged
from lib.models.mlx import MLXModel
from lib.models.model import Decoding, NoModel
from lib.models.prefixes import PREFIX_BYTES
from tests.models.conftest import write_model

START = "You are a planner. Ask what the plan depends on, one thing a question, and in plain words."
TASKS = ("bake bread", "sail", "learn the accordion", "sell a caravan", "adopt a cat", "knit", "move to the sea",
         "plan a surprise party for the oldest of my colleagues", "swim", "buy a used car for my daughter")  # fmt: skip
QUESTIONS = {"type": "array", "items": {"type": "string", "maxLength": 6}, "minItems": 2, "maxItems": 2}
SCHEMA = json.dumps({"type": "object", "properties": {"title": {"type": "string", "maxLength": 5}, "questions": QUESTIONS},
          "required": ["title", "questions"], "additionalProperties": False})  # fmt: skip


def ask(task, start=START):
    return [{"role": "system", "content": start}, {"role": "user", "content": task}]


@pytest.fixture(scope="module")
def tiny(llama):
    return MLXModel(llama)


@pytest.fixture(params=["ragged", "mlx-lm"])
def path(request, monkeypatch):
    """Both ways to run rows: the one for a CPU, and mlx-lm's own forward."""
    if request.param == "mlx-lm":
        monkeypatch.setattr(ragged, "fits", lambda model: False)
    return request.param


def texts(model, prompts, decoding):
    return [c.text for c in model.generate(prompts, [decoding] * len(prompts))]


def test_the_random_llama_and_its_kin_take_the_path_for_a_cpu(tiny, other_llama, adapters):
    import mlx.core as mx

    if mx.metal.is_available():
        pytest.skip("mlx-lm's own path is right on Metal")
    other = MLXModel(other_llama)
    assert ragged.fits(tiny.model) and ragged.fits(other.model) and ragged.fits(tiny.with_adapter(adapters[0]).model)
    tiny.model.layers[1].use_sliding = True
    try:
        assert not ragged.fits(tiny.model)
    finally:
        tiny.model.layers[1].use_sliding = False
    other.model.set_dtype(mx.float16)
    assert not ragged.fits(other.model)


@pytest.mark.parametrize("which", ["llama", "other_llama", "adapter"])
def test_logits_of_ragged_rows_are_those_of_the_whole_text(which, request, adapters):
    import mlx.core as mx

    model = MLXModel(request.getfixturevalue("llama" if which == "adapter" else which))
    model = model.with_adapter(adapters[0]) if which == "adapter" else model
    draw = np.random.default_rng(0)
    start = draw.integers(0, 256, 50).tolist()
    texts = [start + draw.integers(0, 256, n).tolist() for n in (90, 3, 20, 41)]

    def same(logits, *whole):
        for mine, ids in zip(logits, whole, strict=True):
            np.testing.assert_allclose(mine, np.array(model.model(mx.array([ids])))[0, -1], rtol=1e-3, atol=1e-3)

    llama = ragged.Llama(model.model)
    rows = ragged.Rows(llama, 4, model._prefixes.get(start), 50)
    same(rows.forward([t[50:] for t in texts]), *texts)
    same(rows.forward([[1], [], [2, 3, 4], [5]]), texts[0] + [1], texts[2] + [2, 3, 4], texts[3] + [5])
    rows.keep([1, 2])
    late = ragged.Rows(llama, 1)
    late.forward([texts[0]], logits=False)
    rows.join(late)
    after = rows.forward([[7], [8], [9, 9]])
    same(after, texts[1] + [7], texts[2] + [2, 3, 4, 8], texts[0] + [9, 9])


@pytest.mark.parametrize(
    "kind", [{}, {"grammar": SCHEMA}, {"repetition_penalty": 1.3}], ids=["free", "held", "penalised"]
)
def test_greedy_text_of_a_batch_is_that_of_one_by_one_on_either_path(llama, kind, path):
    model = MLXModel(llama, batch=4)  # so that rows leave and others join
    prompts = [ask(t, START if i % 3 else "Be brief.") for i, t in enumerate(TASKS)]
    limits = [Decoding(max_tokens=8 + 9 * (i % 4) + 40 * ("grammar" in kind), **kind) for i in range(len(TASKS))]
    ended = []
    model.heard = ended.append
    together = model.generate(prompts, limits)
    model.clear_cache()
    assert ended == sorted(ended) and len({*ended}) > 2 and ended[-1] == len(TASKS)
    assert together == [model.generate([p], [d])[0] for p, d in zip(prompts, limits, strict=True)]
    assert len({c.text for c in together}) > 5 and len({c.generation_tokens for c in together}) > 3


@pytest.mark.parametrize("kind", [{}, {"grammar": SCHEMA}, {"temp": 0.9}, {"repetition_penalty": 1.5}], ids=str)
def test_both_paths_draw_the_same_tokens(llama, kind, monkeypatch):
    prompts, decodings = [ask(t) for t in TASKS], [Decoding(max_tokens=60, seed=i, **kind) for i in range(len(TASKS))]
    ours = MLXModel(llama).generate(prompts, decodings)
    monkeypatch.setattr(ragged, "fits", lambda model: False)
    assert ours == MLXModel(llama).generate(prompts, decodings)


def test_tokens_that_a_grammar_forces_cost_no_forward_of_their_own(tiny, monkeypatch):
    read = []
    inner = ragged.Rows.forward
    monkeypatch.setattr(
        ragged.Rows, "forward", lambda *a, **k: (read.append([len(f) for f in a[1]]), inner(*a, **k))[1]
    )
    word = json.dumps({"enum": ["a long word that is the only one"]})
    [done] = tiny.generate([ask("sail")], [Decoding(grammar=word)])
    assert done.text == '"a long word that is the only one"' and done.finish_reason == "stop"
    assert done.generation_tokens == len(done.text) + 1 and sum(n == [1] for n in read) <= 1
    read.clear()
    [held] = tiny.generate([ask("sail")], [Decoding(grammar=SCHEMA)])
    assert len(read) < held.generation_tokens - 20


def test_a_repetition_penalty_is_that_of_mlx_lm(tiny, path):
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.sample_utils import make_repetition_penalty

    for penalty, context in ((1.2, 64), (2.0, 5), (1.7, 4096)):
        ids = tiny.encode(ask(TASKS[0]))
        said = generate_step(
            mx.array(ids), tiny.model, max_tokens=40, logits_processors=[make_repetition_penalty(penalty, context)]
        )
        by_hand = [int(token) for token, _ in said]
        decoding = Decoding(max_tokens=40, repetition_penalty=penalty, repetition_context=context)
        mixed = tiny.generate(
            [ask(t) for t in TASKS[:3]], [decoding, Decoding(max_tokens=20), replace(decoding, temp=1.0)]
        )
        ours = list(mixed[0].tokens)
        assert ours == by_hand[: len(ours)] and len(ours) > 5
        assert mixed[0].tokens != tiny.generate([ask(TASKS[0])], [Decoding(max_tokens=40)])[0].tokens
        assert mixed[1] == tiny.generate([ask(TASKS[1])], [Decoding(max_tokens=20)])[0]


def test_a_prefix_is_read_once_and_kept_for_the_next_call_within_its_bound(tiny, path):
    tiny.clear_cache()
    prompts = [ask(t) for t in TASKS[:4]]
    read = []
    inner, prefixes = tiny.model, tiny._prefixes

    def counting(tokens, cache=None):
        read.append(tokens.size)
        return inner(tokens, cache=cache)

    before = tiny.generate(prompts, [Decoding(max_tokens=8)] * 4)
    assert 0 < prefixes.nbytes <= PREFIX_BYTES
    prefixes.model = counting
    try:
        assert tiny.generate(prompts, [Decoding(max_tokens=8)] * 4) == before
    finally:
        prefixes.model = inner
    assert not read
    tiny.clear_cache()
    assert prefixes.nbytes == 0


def test_a_score_is_the_mean_log_probability_and_does_not_depend_on_the_batch(tiny):
    import mlx.core as mx

    asked = ask("bake bread")
    replies = ['{"title": "Bake bread", "questions": ["Which flour?"]}', "nonsense and noise", '{"title"']
    ids = tiny.encode(asked)
    for reply, scored in zip(replies, tiny.score([asked] * 3, replies), strict=True):
        said = tiny.tokenizer.encode(reply, add_special_tokens=False)
        logits = tiny.model(mx.array([ids + said]))[0]
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        by_hand = sum(logprobs[len(ids) - 1 + i, t].item() for i, t in enumerate(said)) / len(said)
        assert scored.logprob == pytest.approx(by_hand, abs=1e-3)
        assert (scored.text, scored.finish_reason, scored.generation_tokens) == (reply, "scored", 0)
    others = [ask(t) for t in TASKS[1:6]]
    mixed = tiny.score([asked, *others, asked], [replies[0], *["Why?"] * 5, replies[1]])
    alone = [tiny.score([asked], [r])[0].logprob for r in replies[:2]]
    assert [mixed[0].logprob, mixed[-1].logprob] == pytest.approx(alone, abs=1e-3)
    assert tiny.score([], []) == []
    with pytest.raises(ValueError, match="empty"):
        tiny.score([asked], [""])


def test_adapters_share_the_weights_of_their_base_and_its_account(tiny, adapters):
    prompts = [ask(t) for t in TASKS[:3]]
    bare = texts(tiny, prompts, Decoding(max_tokens=30))
    first, second = (tiny.with_adapter(a) for a in adapters)
    said = [texts(m, prompts, Decoding(max_tokens=30)) for m in (first, second)]
    assert bare != said[0] != said[1] != bare
    assert texts(tiny, prompts, Decoding(max_tokens=30)) == bare  # the base is as it was
    assert (
        first.with_adapter("") is not first and texts(first.with_adapter(""), prompts, Decoding(max_tokens=30)) == bare
    )
    assert tiny.with_adapter(adapters[0]) is first and tiny.with_adapter("") is tiny
    ours, its = (m.model.model.embed_tokens.weight for m in (tiny, first))
    assert ours is its
    before = tiny.cost
    first.generate(prompts[:1], [Decoding(max_tokens=5)])
    assert tiny.cost.calls == before.calls + 1 and first.cost == tiny.cost
    assert first.identity["weights"] == tiny.identity["weights"] and "adapter" not in tiny.identity
    assert len({m.identity["adapter"] for m in (first, second)}) == 2


def test_an_adapter_swapped_in_says_what_it_says_when_it_is_loaded_at_once(llama, tiny, adapters):
    prompts = [ask(t) for t in TASKS[:3]]
    decoding = Decoding(max_tokens=30)
    assert texts(MLXModel(llama, adapters[0]), prompts, decoding) == texts(
        tiny.with_adapter(adapters[0]), prompts, decoding
    )


def test_an_adapter_that_does_not_fit_is_no_model(other_llama, adapters):
    with pytest.raises(NoModel, match="does not fit the model") as caught:
        MLXModel(other_llama).with_adapter(adapters[0])
    assert "\n" not in str(caught.value)


def test_a_mixed_batch_of_kinds_gives_every_row_what_it_gets_alone(tiny):
    prompts = [ask(t) for t in TASKS[:6]]
    base = Decoding(max_tokens=25, seed=5)
    kinds = [base, replace(base, temp=0.7), replace(base, temp=1.2, top_k=5), replace(base, temp=0.7, min_p=0.1),
             replace(base, grammar='{"type": "array", "items": {"type": "integer"}}'), replace(base, temp=0.9, top_p=0.8)]  # fmt: skip
    together = tiny.generate(prompts, kinds)
    assert together == [tiny.generate([p], [d])[0] for p, d in zip(prompts, kinds, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("grammar", ["", SCHEMA], ids=["free", "held"])
def test_smollm2_says_in_a_batch_what_it_says_alone_and_what_mlx_lm_says(grammar, monkeypatch):
    model = MLXModel("smollm2")
    assert model.identity == {"name": "smollm2", "weights": "397a1cd3c789ccd0"}  # as 44 sealed runs have it, no more
    prompts, decoding = [ask(t) for t in TASKS[:5]], Decoding(max_tokens=8, grammar=grammar)
    together = model.generate(prompts, [decoding] * 5)
    assert together == [model.generate([p], [decoding])[0] for p in prompts]
    monkeypatch.setattr(ragged, "fits", lambda model: False)
    assert together == model.generate(prompts, [decoding] * 5)


GEMMA_2 = {"model_type": "gemma2", "hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 40, "head_dim": 8,
           "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 264}  # fmt: skip
RECURRENT = {"model_type": "recurrent_gemma", "attention_bias": False, "conv1d_width": 4, "hidden_size": 24,
             "intermediate_size": 40, "logits_soft_cap": 30.0, "num_attention_heads": 2, "num_hidden_layers": 3,
             "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 1000.0, "attention_window_size": 64,
             "vocab_size": 264, "block_types": ["recurrent", "recurrent", "attention"]}  # fmt: skip
QWEN = {"model_type": "qwen2", "hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 40,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 264}  # fmt: skip


@pytest.mark.parametrize("told", [GEMMA_2, RECURRENT], ids=lambda told: told["model_type"])
def test_an_architecture_whose_batch_is_unsound_goes_row_by_row_and_the_record_says_so(told, tmp_path):
    model = MLXModel(write_model(tmp_path, **told))
    assert model.batch == 1 and model.identity["batch"].startswith("row by row")
    prompts, decoding = [ask(t) for t in TASKS], Decoding(max_tokens=12)
    together = model.generate(prompts, [decoding] * len(prompts))
    assert together == [model.generate([p], [decoding])[0] for p in prompts]
    logprobs = [scored.logprob for scored in model.score(prompts[:3], ["Why?", "Which day is it?", "No"])]
    alone = [
        model.score([p], [r])[0].logprob for p, r in zip(prompts, ["Why?", "Which day is it?", "No"], strict=False)
    ]
    assert logprobs == pytest.approx(alone, abs=1e-4)


def test_an_architecture_whose_batch_is_sound_keeps_it_and_the_record_says_nothing(tmp_path):
    model = MLXModel(write_model(tmp_path, **QWEN))
    assert model.batch == 64 and "batch" not in model.identity and not ragged.fits(model.model)
