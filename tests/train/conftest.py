"""A base that is a real llama with random weights, so small that training it takes no time; plain and 8 bit."""

import json
import shutil

import pytest

from lib.agent.bank import LeakGuard
from lib.models.mlx import SHIPPED, fast_blas

CONFIG = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 64,
    "num_attention_heads": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "vocab_size": 3072, "tie_word_embeddings": True, "max_position_embeddings": 640,
}  # fmt: skip


def write_base(folder, seed=0, quantised=False):
    """A folder with a model of random weights and the tiny planner's tokenizer."""
    fast_blas()
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.models.llama import Model, ModelArgs
    from mlx_lm.utils import quantize_model

    shutil.copytree(SHIPPED["tiny-s"], folder, ignore=shutil.ignore_patterns("*.safetensors", "training.json"))
    mx.random.seed(seed)
    model, told = Model(ModelArgs.from_dict(CONFIG)), dict(CONFIG)
    if quantised:
        model, told = quantize_model(model, told, group_size=32, bits=8)
    ends = json.loads((SHIPPED["tiny-s"] / "config.json").read_text())["eos_token_id"]
    (folder / "config.json").write_text(json.dumps(told | {"eos_token_id": ends}))
    mx.save_safetensors(
        str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())), metadata={"format": "mlx"}
    )
    return str(folder)


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "micro")


@pytest.fixture(scope="session")
def other_base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "other", seed=1)


@pytest.fixture(scope="session")
def base_8bit(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "micro-8bit", quantised=True)


@pytest.fixture
def no_guard():
    return LeakGuard([])
