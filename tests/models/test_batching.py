"""Rows in one batch on the trained planner: shared prefixes, rows that join late, adapters and scores change no text."""

import json
from dataclasses import replace

import pytest

from lib.agent import prompt
from lib.agent.bank import bank
from lib.measure.ruler import Ruler
from lib.models.batching import PREFIX_BYTES, Prefixes, grouped
from lib.models.mlx import MLXModel
from lib.models.model import Decoding, NoModel

QUESTIONS = {"type": "array", "items": {"type": "string"}, "minItems": 7, "maxItems": 7}
SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}, "questions": QUESTIONS},
          "required": ["title", "questions"], "additionalProperties": False}  # fmt: skip


@pytest.fixture(scope="module")
def tiny_m():
    return MLXModel("tiny-m")


@pytest.fixture(scope="module")
def tiny():
    return MLXModel("tiny-s")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Two adapters for tiny-s with weights drawn at random, so that each of them says something else."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers

    made = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp(f"adapter-{seed}")
        model = MLXModel("tiny-s").model
        told = {"rank": 4, "dropout": 0.0, "scale": 10.0}
        linear_to_lora_layers(model, 2, told)
        mx.random.seed(seed)
        leaves = {k: v for k, v in tree_flatten(model.parameters()) if k.rsplit(".", 1)[-1] in ("lora_a", "lora_b")}
        mx.save_safetensors(
            str(folder / "adapters.safetensors"), {k: 0.1 * mx.random.normal(v.shape) for k, v in leaves.items()}
        )
        config = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": told}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        made.append(str(folder))
    return made


def texts(model, prompts, decoding):
    return [c.text for c in model.generate(prompts, [decoding] * len(prompts))]


def test_prompts_are_grouped_by_what_saves_most_tokens():
    a, b = [1] * 100, [2] * 100
    prompts = [[*a, 5], [*b, 5], [*a, 6, 7], [*b, 6], [*a, *b], [9]]
    assert sorted(grouped(prompts)) == [(0, [5]), (100, [0, 2, 4]), (100, [1, 3])]
    assert grouped([[*a, 1], [*a, 1]]) == [(100, [0, 1])]  # the last token is never shared
    assert grouped([[*a, 3]]) == [(0, [0])] and grouped([]) == []
    assert sorted(i for _, places in grouped(prompts * 20) for i in places) == list(range(120))


@pytest.mark.slow
@pytest.mark.parametrize("grammar", ["", json.dumps(SCHEMA)], ids=["free", "held"])
def test_greedy_text_of_forty_tasks_in_a_batch_is_that_of_one_by_one(tiny_m, grammar):
    demos = [(e.task, e.draft) for e in bank()[-1:]]
    tasks = [c.task for c in Ruler.load().gate("dev")] + [e.task for e in bank()[:30]]
    prompts = [prompt.ask(t, demos=demos if i % 3 == 0 else ()) for i, t in enumerate(tasks)]
    decoding = Decoding(grammar=grammar)
    tiny_m.forget()
    together = texts(tiny_m, prompts, decoding)
    tiny_m.forget()
    assert together == [texts(tiny_m, [p], decoding)[0] for p in prompts]
    assert len(set(together)) > 35


@pytest.mark.slow
def test_rows_that_join_late_say_what_they_would_have_said_at_once(tiny):
    prompts = [prompt.ask(e.task, n) for n in (3, 7) for e in bank()[:9]]
    narrow = MLXModel("tiny-s", batch=4)
    limits = [Decoding(max_tokens=5 + 4 * i) for i in range(18)]
    assert narrow.generate(prompts, limits) == tiny.generate(prompts, limits)


@pytest.mark.slow
def test_a_prefix_is_read_once_and_kept_for_the_next_call_within_its_bound(tiny):
    tiny.forget()
    demos = [(e.task, e.draft) for e in bank()[-2:]]
    prompts = [prompt.ask(e.task, demos=demos) for e in bank()[:4]]
    read = []
    inner, prefixes = tiny.model, tiny._prefixes

    def counting(tokens, cache=None):
        read.append(tokens.size)
        return inner(tokens, cache=cache)

    before = tiny.generate(prompts, [Decoding(max_tokens=8)] * 4)
    assert 0 < prefixes.nbytes <= PREFIX_BYTES
    tiny.model = prefixes.model = counting
    try:
        assert tiny.generate(prompts, [Decoding(max_tokens=8)] * 4) == before
    finally:
        tiny.model = prefixes.model = inner
    whole = sum(len(tiny.encode(p)) for p in prompts)
    assert sum(read) < whole / 3
    tiny.forget()
    assert prefixes.nbytes == 0


@pytest.mark.slow
def test_kept_prefixes_do_not_grow_without_bound(tiny):
    bound = 400_000
    small = Prefixes(tiny.model, tiny._prefixes.new_cache, most=bound)
    for e in bank()[:20]:
        cache = small.get(tiny.encode(prompt.ask(e.task)))
        assert cache[0].offset == len(tiny.encode(prompt.ask(e.task)))
        assert small.nbytes <= bound
    small.most = 10
    small.get([1, 2, 3])
    assert small.nbytes == 0


@pytest.mark.slow
def test_a_score_is_the_mean_log_probability_and_does_not_depend_on_the_batch(tiny):
    import mlx.core as mx

    asked = prompt.ask("bake bread")
    replies = ['{"title": "Bake bread", "questions": ["Which flour?"]}', "nonsense and noise", '{"title"']
    ids = tiny.encode(asked)
    for reply, scored in zip(replies, tiny.score([asked] * 3, replies), strict=True):
        said = tiny.tokenizer.encode(reply, add_special_tokens=False)
        logits = tiny.model(mx.array([ids + said]))[0]
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        by_hand = sum(logprobs[len(ids) - 1 + i, t].item() for i, t in enumerate(said)) / len(said)
        assert scored.logprob == pytest.approx(by_hand, abs=1e-3)
        assert (scored.text, scored.finish_reason, scored.generation_tokens) == (reply, "scored", 0)
    others = [prompt.ask(e.task) for e in bank()[:5]]
    mixed = tiny.score([asked, *others, asked], [replies[0], *["Why?"] * 5, replies[1]])
    alone = [tiny.score([asked], [r])[0].logprob for r in replies[:2]]
    assert [mixed[0].logprob, mixed[-1].logprob] == pytest.approx(alone, abs=1e-3)
    assert alone[0] > alone[1]
    assert tiny.score([], []) == []
    with pytest.raises(ValueError, match="empty"):
        tiny.score([asked], [""])


@pytest.mark.slow
def test_adapters_share_the_weights_of_their_base_and_its_account(tiny, adapters):
    prompts = [prompt.ask(e.task) for e in bank()[:3]]
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


@pytest.mark.slow
def test_an_adapter_swapped_in_says_what_it_says_when_it_is_loaded_at_once(tiny, adapters):
    prompts = [prompt.ask(e.task) for e in bank()[:3]]
    decoding = Decoding(max_tokens=30)
    assert texts(MLXModel("tiny-s", adapters[0]), prompts, decoding) == texts(
        tiny.with_adapter(adapters[0]), prompts, decoding
    )


@pytest.mark.slow
def test_an_adapter_that_does_not_fit_is_no_model(tiny_m, adapters):
    with pytest.raises(NoModel, match="does not fit the model") as caught:
        tiny_m.with_adapter(adapters[0])
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_mixed_batch_of_kinds_gives_every_row_what_it_gets_alone(tiny):
    prompts = [prompt.ask(e.task) for e in bank()[:6]]
    base = Decoding(max_tokens=25, seed=5)
    kinds = [base, replace(base, temp=0.7), replace(base, temp=1.2, top_k=5), replace(base, temp=0.7, min_p=0.1),
             replace(base, grammar='{"type": "array", "items": {"type": "integer"}}'), replace(base, temp=0.9, top_p=0.8)]  # fmt: skip
    together = tiny.generate(prompts, kinds)
    assert together == [tiny.generate([p], [d])[0] for p, d in zip(prompts, kinds, strict=True)]
