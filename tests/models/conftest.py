"""Random models of a few thousand weights with a byte-level tokenizer, as folders that mlx-lm loads."""

import json
from importlib import import_module

import pytest

CHAT = "{% for m in messages %}{{ m['content'] }}<end>{% endfor %}"


def spelling():
    """A tokenizer whose every token is one byte, with an end token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    spelt = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({c: i for i, c in enumerate(spelt)} | {"<end>": len(spelt)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", chat_template=CHAT)


def write_model(folder, seed=0, **told):
    """Write a model of random weights to a folder, of an architecture that mlx-lm knows."""
    from lib.models.blas import fast_blas

    fast_blas()
    import mlx.core as mx
    from mlx.utils import tree_flatten

    architecture = import_module(f"mlx_lm.models.{told['model_type']}")
    tokenizer = spelling()
    model = architecture.Model(architecture.ModelArgs.from_dict(told))
    mx.random.seed(seed)
    # Wide weights: the logits of rows lie far enough apart that no rounding decides between two tokens.
    weights = {k: v if v.ndim == 1 else mx.random.normal(v.shape) * 0.5 for k, v in tree_flatten(model.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps({**told, "eos_token_id": tokenizer.eos_token_id}))
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_llama(folder, seed=0, **other):
    """Write a random Llama to a folder: three query heads a key head, three layers."""
    told = {"model_type": "llama", "hidden_size": 24, "num_hidden_layers": 3, "intermediate_size": 40,
            "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-5, "vocab_size": 264,
            "rope_theta": 1000.0, "tie_word_embeddings": True, **other}  # fmt: skip
    return write_model(folder, seed, **told)


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """The folder of a random Llama."""
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def other_llama(tmp_path_factory):
    """The folder of a wider one with a head of its own, a bias and llama3's rotary scaling."""
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}  # fmt: skip
    more = {"hidden_size": 48, "tie_word_embeddings": False, "attention_bias": True, "rope_scaling": scaling}
    return write_llama(tmp_path_factory.mktemp("other"), 1, **more)


@pytest.fixture(scope="session")
def adapters(llama, tmp_path_factory):
    """Two adapters for the random Llama with weights drawn at random, so that each of them says something else."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers

    from lib.models.mlx import MLXModel

    made = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp(f"adapter-{seed}")
        model = MLXModel(llama).model
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
