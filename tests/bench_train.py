"""Training beside mlx-lm's own loop: the same rows, layers, rank and batch, in one process, in turns.

`python -m tests.bench_train MODEL` names another base than SmolLM2. Measures steps after the
first epoch has read the frozen layers, and says what reading them cost. Does not cover what is learnt.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROWS, BATCH, ROUNDS = 16, 8, 2


def train_tokens(base: str = "smollm2"):
    """Tokens a second: mlx_lm.tuner.train with its default loss, and this project's step."""
    with tempfile.TemporaryDirectory(prefix="notch-") as temp:
        yield from _train_tokens(base, Path(temp))


def _train_tokens(base, folder):
    from threadpoolctl import threadpool_limits

    from lib.agent.guard import LeakGuard
    from lib.train import data, fit, lora
    from lib.train.forward import Forward

    settings = lora.Settings(batch=BATCH, epochs=1, warmup=0)
    model = lora.prepare(base, "", settings, 0)
    rows = lora.sft_rows(model, data.build("clean", ROWS, 0, LeakGuard([])).train, settings)
    tokens = sum(len(row.ids) for row in rows)
    loop = fit.Fit(model, fit.SFT, settings, lambda _: rows, rows[:2], folder)
    loop.steps, optimiser = 1, loop._optimiser(100)
    with threadpool_limits(settings.threads, user_api="blas"):
        loop.forward = Forward.of(model.model, rows)
        cut = fit.batches(rows, BATCH, 0, fit.SFT.length)
        _mlx_lm(model, rows, 1, folder), loop._step(1, cut[0], optimiser)  # compile, once
        loop.forward.cache.clear()
        began = time.perf_counter()
        for row in rows:
            loop.forward._after_frozen(row.ids)
        reading = time.perf_counter() - began
        theirs = lambda: _mlx_lm(model, rows, len(cut), folder)  # noqa: E731
        ours = lambda: [loop._step(1, part, optimiser) for part in cut]  # noqa: E731
        rounds = [(_seconds(theirs), _seconds(ours)) for _ in range(ROUNDS)]
    slow, fast = (median(t) for t in zip(*rounds, strict=True))
    first = slow / (fast + reading)
    yield (
        f"{ROWS} rows of {tokens // ROWS} tokens, last {settings.layers} layers: mlx_lm.tuner.train / ours",
        slow, fast, median(a / b for a, b in rounds),
        f"{tokens / slow:.0f} and {tokens / fast:.0f} tokens a second, {first:.1f}x in the first epoch, want 1.5x",
    )  # fmt: skip


def _mlx_lm(model, rows, steps, folder):
    import mlx.optimizers as opt
    from mlx_lm.tuner import TrainingArgs, train

    args = TrainingArgs(
        batch_size=BATCH, iters=steps, steps_per_report=10**6, steps_per_save=10**6,
        adapter_file=str(folder / "theirs.safetensors"),
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        train(model.model, opt.AdamW(learning_rate=1e-5), rows, args=args)


def _seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    for what, slow, fast, ratio, note in train_tokens(*sys.argv[1:]):
        print(f"{what}: {slow:.1f} s, {fast:.1f} s, ratio {ratio:.2f}; {note}")
