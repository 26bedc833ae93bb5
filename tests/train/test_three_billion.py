"""A model of the shape of a 3B one in 4 bit, its weights random: it loads, answers and learns within a laptop's memory."""

import os
import time

import pytest

from lib.models.mlx import peak_memory
from lib.models.model import Decoding
from lib.train import lora
from lib.train.fit import SFT, Fit
from lib.train.forward import Tokens
from lib.train.lora import Settings
from tests.llama import write_base

NEEDED = 8.0  # GB; the weights alone are 2
SHAPE = {
    "hidden_size": 3072, "num_hidden_layers": 28, "intermediate_size": 8192, "num_attention_heads": 24,
    "num_key_value_heads": 8,
}  # fmt: skip


def free():
    """Gigabytes that this machine could give now."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (ValueError, OSError):  # macOS does not say
        return float("inf")


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("NOTCH_LARGE"), reason="takes many minutes on a CPU: set NOTCH_LARGE=1 to run it"
)
@pytest.mark.skipif(free() < NEEDED, reason=f"needs {NEEDED:.0f} GB of free memory, here are {free():.1f}")
def test_it_answers_and_learns_in_4_bit_within_8_gigabytes(tmp_path):
    name, began = write_base(tmp_path / "model", quantised=4, **SHAPE), time.perf_counter()
    settings = Settings(quantised=True, batch=1, epochs=1)
    model = lora.prepare(name, "", settings, 0)
    assert any(type(m).__name__ == "QuantizedLinear" for m in model.model.modules())
    print(f"\nloaded and probed in {time.perf_counter() - began:.0f} s, {peak_memory():.1f} GB")
    [reply] = model.generate([[{"role": "user", "content": "Hello."}]], [Decoding(max_tokens=4)])
    assert reply.generation_tokens > 0 and reply.finish_reason in ("stop", "length")
    print(f"answered after {time.perf_counter() - began:.0f} s, {peak_memory():.1f} GB")
    row = Tokens(list(range(10, 42)), 24)
    curve = Fit(model, SFT, settings, lambda _: [row], [row], tmp_path / "work", 0, lambda _: None).run()
    print(f"learnt after {time.perf_counter() - began:.0f} s, {peak_memory():.1f} GB")
    assert curve[1]["valid_loss"] < curve[0]["valid_loss"] and peak_memory() < NEEDED
