"""The model that runs here, on MLX. The one owner of `mlx_lm`.

Knows how to load weights (a folder or a hub id, with or without an adapter), and how to run all prompts of a stage
as one batch, each row with its own sampler and seed. Does not know prompts, cases or scores.
On Linux it loads OpenBLAS before mlx: the wheel brings reference BLAS, 15 to 40 times slower. On a CPU it dequantises
to float32, which decodes about 5 times faster than 4 or 8 bit there; on Apple silicon the weights stay as they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib.files import ROOT, sha256
from lib.models import provenance
from lib.models.model import Capabilities, Completion, Cost, Decoding, Message, NoModel

SHIPPED = {name: Path(__file__).parent / "tiny" / name for name in ("tiny-s", "tiny-m")}
BLAS_HINT = "install OpenBLAS (Debian, Ubuntu: apt-get install libopenblas0-pthread) to be 15 to 40 times faster"


@lru_cache(maxsize=1)
def fast_blas() -> str:
    """Load OpenBLAS ahead of mlx where that helps. Returns "openblas", "accelerate" or "reference"."""
    if sys.platform != "linux":
        return "accelerate"
    # With two threads a busy neighbour makes them spin: 118 s against 12 s was measured for the same work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        ctypes.CDLL("libopenblas.so.0", mode=ctypes.RTLD_GLOBAL)
        return "openblas"
    except OSError:
        return "reference"


def engine() -> tuple[bool, str]:
    """Whether mlx can be imported, and its version and device, or why not."""
    fast_blas()
    try:
        import mlx.core as mx
    except ImportError as error:
        return False, f"cannot be imported ({error}); run `make setup`"
    from importlib.metadata import version

    return True, f"{version('mlx')}, {'Metal' if mx.metal.is_available() else 'CPU'}"


def resolve(name: str) -> str:
    """The folder or hub id behind a model's name. Raises NoModel for a name that is neither."""
    if name in SHIPPED:
        return str(SHIPPED[name])
    where = name.removeprefix("mlx:")
    if not where or len(where) > 200:
        raise NoModel(f"model {name[:40]!r}: expected {', '.join(SHIPPED)}, toy, a folder or a hub id")
    if Path(where).is_dir() or (ROOT / where).is_dir():
        return str(Path(where) if Path(where).is_dir() else ROOT / where)
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", where):
        return where
    raise NoModel(
        f"model {name!r}: not one of {', '.join(SHIPPED)}, toy, and neither a folder nor a hub id such as "
        "mlx-community/Llama-3.2-3B-Instruct-4bit"
    )


def adapter_folder(adapter: str, name: str = "") -> str:
    """The folder of an adapter: a path, or a sealed run by id or slug. Raises NoModel, also where model `name` is not
    the base that it was trained on."""
    folder = provenance.find(adapter)
    if name:
        provenance.check(folder, name, weights_hash(resolve(name)))
    return str(folder)


class MLXModel:
    """A language model in this process. Raises NoModel when the weights or mlx cannot be loaded."""

    def __init__(self, name: str, adapter: str = "", batch: int = 64, quantised: bool = False) -> None:
        self.blas = fast_blas()
        where = resolve(name)
        try:
            import mlx.core as mx
            from mlx_lm import load
            from mlx_lm.utils import dequantize_model
        except ImportError as error:
            raise NoModel(f"mlx-lm cannot be imported ({error}); run `make setup`") from error
        adapter = adapter_folder(adapter, name) if adapter else ""
        try:
            with quiet():
                self.model, self.tokenizer = load(where, adapter_path=adapter or None)
        except Exception as error:
            raise NoModel(
                f"model {name!r} cannot be loaded from {where}: {(str(error).splitlines() or [type(error).__name__])[0][:200]}"
            ) from error
        self.on_gpu = mx.metal.is_available()
        if not self.on_gpu:
            if not quantised:  # training can ask to keep the base as it is
                dequantize_model(self.model)
            self.model.set_dtype(mx.float32)
        self.name = name
        self.identity: dict[str, Any] = {"name": name, "weights": weights_hash(where)}
        if adapter:
            self.identity["adapter"] = weights_hash(adapter)
        self.capabilities = Capabilities(logprobs=True, grammar=True, adapters=True)
        self.cost = Cost()
        self.batch = batch

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation, ready for the reply."""
        return self.tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, return_dict=False, tokenize=True
        )

    def generate(self, prompts: Sequence[Sequence[Message]], decodings: Sequence[Decoding]) -> list[Completion]:
        """Complete every conversation, all of them in one continuous batch. Order of the replies is that of the prompts."""
        import mlx.core as mx
        from mlx_lm.generate import BatchGenerator

        if not prompts:
            return []
        began = time.perf_counter()
        ids = [self.encode(p) for p in prompts]
        ends = [[t] for t in sorted(self.tokenizer.eos_token_ids)]
        # A short prefill batch on a CPU wastes cores; the widths bound memory, not the result.
        generator = BatchGenerator(
            self.model, stop_tokens=ends, completion_batch_size=self.batch, prefill_batch_size=min(16, self.batch)
        )
        samplers = [sampler(d) for d in decodings]
        made: dict[int, list[int]] = {}
        reasons: dict[int, str] = {}
        try:
            uids = generator.insert(ids, [d.max_tokens for d in decodings], samplers=samplers)
            made = {uid: [] for uid in uids}
            while len(reasons) < len(uids):
                for r in generator.next_generated():
                    if r.finish_reason != "stop":
                        made[r.uid].append(r.token)
                    if r.finish_reason:
                        reasons[r.uid] = r.finish_reason
        finally:
            generator.close()
        texts = [self.tokenizer.decode(made[uid], skip_special_tokens=True) for uid in uids]
        done = [
            Completion(text, len(x), len(made[uid]) + (reasons[uid] == "stop"), reasons[uid])
            for text, x, uid in zip(texts, ids, uids, strict=True)
        ]
        self.cost += Cost(
            calls=len(done),
            prompt_tokens=sum(c.prompt_tokens for c in done),
            generation_tokens=sum(c.generation_tokens for c in done),
            seconds=time.perf_counter() - began,
            peak_memory=mx.get_peak_memory() / 1e9,
        )
        return done


@lru_cache(maxsize=1)
def _greedy() -> Callable:
    import mlx.core as mx

    # One object for every greedy row: mlx-lm then samples the whole batch in one call.
    return lambda logprobs: mx.argmax(logprobs, axis=-1)


def sampler(decoding: Decoding) -> Callable:
    """A row's sampler. Sampled rows carry their own random key, so a row's text does not depend on its neighbours."""
    if decoding.temp == 0:
        return _greedy()
    import mlx.core as mx
    from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

    key = mx.random.key(decoding.seed)

    def draw(logprobs):
        nonlocal key
        key, now = mx.random.split(key)
        if decoding.top_p < 1:
            logprobs = apply_top_p(logprobs, decoding.top_p)
        if decoding.min_p > 0:
            logprobs = apply_min_p(logprobs, decoding.min_p)
        if decoding.top_k > 0:
            logprobs = apply_top_k(logprobs, decoding.top_k)
        return mx.random.categorical(logprobs / decoding.temp, key=now)

    return draw


def weights_hash(where: str) -> str:
    """A short hash of what is in a model's or adapter's folder; the hub id itself when it is not a folder."""
    folder = Path(where)
    if not folder.is_dir():
        return where
    parts = []
    for path in sorted(folder.glob("*.safetensors")):
        # Large checkpoints are named by size and head: hashing gigabytes would cost more than the run.
        with open(path, "rb") as f:
            parts.append([path.name, path.stat().st_size, sha256(f.read(4_000_000))])
    config = folder / "config.json"
    parts.append(json.loads(config.read_text()) if config.exists() else {})
    return sha256(json.dumps(parts, sort_keys=True))[:16]


@contextlib.contextmanager
def quiet():
    """Keep the progress bars and notices of the hub out of notebooks."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    yield
