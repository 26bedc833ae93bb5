"""A model of the shape of a 3B one in 4 bit, its weights random: it loads, answers and learns within a laptop's memory."""

import json
import os
import resource
import sys
import time

import pytest

from lib.models.blas import fast_blas
from lib.models.mlx import peak_memory
from lib.models.model import Decoding
from lib.train import lora
from lib.train.fit import SFT, Fit
from lib.train.forward import Tokens
from lib.train.lora import Settings
from tests.llama import CONFIG, write_tokenizer

NEEDED = 8.0  # GB; the weights alone are 2
SHAPE = {  # of Llama 3.2 3B
    "hidden_size": 3072, "num_hidden_layers": 28, "intermediate_size": 8192, "num_attention_heads": 24,
    "num_key_value_heads": 8, "vocab_size": 128_256, "quantization": {"group_size": 64, "bits": 4},
    # So short that a batch is not compared with its rows, which alone is ten minutes of mlx's 4-bit kernels on a CPU.
    "max_position_embeddings": 48,
}  # fmt: skip


def free():
    """Gigabytes that this machine could give now."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (ValueError, OSError):  # macOS does not say
        return float("inf")


def write_quantised(folder):
    """Random 4-bit weights as they lie in a file: 3 billion numbers in full precision, to be quantised, are 13 GB."""
    fast_blas()
    import mlx.core as mx
    import mlx.nn as nn
    import numpy as np
    from mlx.utils import tree_flatten
    from mlx_lm.models.llama import Model, ModelArgs

    told = CONFIG | {"eos_token_id": 0} | SHAPE
    model, random, weights = Model(ModelArgs.from_dict(told)), np.random.default_rng(0), {}
    nn.quantize(model, **told["quantization"])
    for name, lazy in tree_flatten(model.parameters()):  # never computed: their shapes are enough
        if lazy.dtype == mx.uint32:
            weights[name] = mx.array(random.integers(0, 2**32, lazy.shape, dtype=np.uint32))
        elif name.endswith(
            (".scales", ".biases")
        ):  # steps of 0.004 around zero: a deviation of 0.018, as 1 / sqrt(3072)
            weights[name] = mx.full(lazy.shape, 0.004 if name.endswith(".scales") else -0.03, mx.bfloat16)
        else:
            weights[name] = mx.ones(lazy.shape, mx.bfloat16)
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(told))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return str(folder)


@pytest.mark.slow
@pytest.mark.skipif(free() < NEEDED, reason=f"needs {NEEDED:.0f} GB of free memory, here are {free():.1f}")
def test_it_answers_and_learns_in_4_bit_within_8_gigabytes(tmp_path):
    def say(what):
        whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0) / 1e9
        passed, used = time.perf_counter() - began, time.process_time() - worked
        print(f"{what}: {passed:.0f} s ({used:.0f} s of work), {peak_memory():.1f} GB in mlx, {whole:.1f} GB in all")

    began, worked = time.perf_counter(), time.process_time()
    name = write_quantised(tmp_path / "model")
    say("\nwritten")
    settings = Settings(quantised=True, batch=1, epochs=2, learning_rate=3e-5)
    model = lora.prepare(name, "", settings, 0)
    assert sum(type(m).__name__ == "QuantizedLinear" for m in model.model.modules()) == 28 * 7
    say("loaded")
    [reply] = model.generate([[{"role": "user", "content": "Hello."}]], [Decoding(max_tokens=4)])
    assert reply.generation_tokens == 4 and reply.finish_reason == "length"
    say("answered with four tokens")
    row = Tokens(list(range(10, 26)), 12)
    curve = Fit(model, SFT, settings, lambda _: [row], [row], tmp_path / "work", 0, lambda _: None).run()
    say(f"learnt in two steps, loss {curve[0]['valid_loss']:.3f} -> {curve[-1]['valid_loss']:.3f}")
    assert curve[-1]["valid_loss"] < curve[0]["valid_loss"] and peak_memory() < NEEDED
