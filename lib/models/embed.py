"""Texts as vectors: all-MiniLM-L6-v2, pinned, so that what it says does not depend on what is installed.

Knows a BERT forward on MLX. Does not know what the vectors are for. No cosine is a safe line between "same" and
"other": rank with them. Model: Reimers and Gurevych 2019 (arXiv 1908.10084), Wang et al. 2020 (arXiv 2002.10957).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lib.files import canonical, sha256, write_atomic
from lib.models.blas import fast_blas
from lib.models.mlx import pinned
from lib.models.model import NoModel
from lib.weights import PINNED, cache

if TYPE_CHECKING:
    import numpy as np

MOST_TOKENS = 256  # as the model was trained; longer texts are cut
# What a ruler or the bank asks for comes again in every process.
MANY = 30  # texts from which their vectors are kept on disk


@lru_cache(maxsize=1)
def embedder() -> MiniLM:
    """The one embedder, loaded once. Raises NoModel."""
    return MiniLM()


def vectors(texts: Sequence[str]) -> Any:
    """One row a text; MiniLM is loaded at the first call. What a ruler or the bank asks for is embedded once for all processes."""
    import numpy as np

    if len(texts) < MANY:
        return embedder().vectors(texts)
    path = cache() / "vectors" / f"{sha256(canonical([PINNED['minilm'].sha256, list(texts)]))[:24]}.npy"
    with contextlib.suppress(OSError, ValueError):
        digest, data = (kept := path.read_bytes())[:64], kept[64:]
        # A flipped bit would be another score, and nobody would see it.
        if sha256(data).encode() == digest:
            return np.load(io.BytesIO(data))
    array = embedder().vectors(texts)
    with contextlib.suppress(OSError):  # without a cache it is only slower
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, array)
        write_atomic(path, sha256(buffer.getvalue()).encode() + buffer.getvalue())
    return array


class MiniLM:
    """all-MiniLM-L6-v2: a BERT of 6 layers, the mean over tokens, length 1."""

    name = "minilm"

    def __init__(self) -> None:
        """Fetches the weights where they are not here yet. Raises NoModel."""
        folder = pinned(self.name)
        fast_blas()
        try:
            import mlx.core as mx
            from tokenizers import Tokenizer
        except ImportError as error:
            raise NoModel(f"sentence vectors need mlx and tokenizers ({error}); run `make setup`") from error
        self.weights: Any = mx.load(str(folder / "model.safetensors"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # The file pads every text to 128 tokens; rows are padded here, to the longest of their batch.
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MOST_TOKENS)

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """One row of 384 numbers a text, of length 1."""
        import numpy as np

        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        vectors = np.zeros((len(ids), 384), dtype=np.float32)
        # Texts of like length share a forward, so that little of it is padding.
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for at in range(0, len(order), 64):
            rows = order[at : at + 64]
            vectors[rows] = np.array(self._forward([ids[i] for i in rows]))
        return vectors

    def _forward(self, rows: list[list[int]]) -> Any:
        """Token ids of B texts -> (B, 384). T is the longest text, 384 are 12 heads of 32."""
        import mlx.core as mx
        import mlx.nn as nn

        w, width = self.weights, max(map(len, rows))
        tokens = mx.array([row + [0] * (width - len(row)) for row in rows])  # (B, T)
        real = (mx.arange(width) < mx.array([[len(row)] for row in rows])).astype(mx.float32)  # (B, T), 0 at padding

        def linear(x: Any, name: str) -> Any:
            return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

        def norm(x: Any, name: str) -> Any:
            # BERT's own epsilon, and not mlx's usual 1e-5.
            return mx.fast.layer_norm(x, w[f"{name}.LayerNorm.weight"], w[f"{name}.LayerNorm.bias"], 1e-12)

        def heads(x: Any) -> Any:  # (B, T, 384) -> (B, 12, T, 32)
            return x.reshape(len(rows), width, 12, 32).transpose(0, 2, 1, 3)

        # BERT (arXiv 1810.04805): norms come after each residual sum. All texts are of segment 0.
        e = "embeddings"
        x = w[f"{e}.word_embeddings.weight"][tokens] + w[f"{e}.position_embeddings.weight"][:width]
        x = norm(x + w[f"{e}.token_type_embeddings.weight"][0], e)
        mask = ((real - 1) * 1e9)[:, None, None, :]  # no token sees padding
        for n in range(6):
            layer = f"encoder.layer.{n}"
            q, k, v = (heads(linear(x, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value"))
            attended = mx.fast.scaled_dot_product_attention(q, k, v, scale=32**-0.5, mask=mask)
            attended = attended.transpose(0, 2, 1, 3).reshape(len(rows), width, 384)
            x = norm(x + linear(attended, f"{layer}.attention.output.dense"), f"{layer}.attention.output")
            # The exact GELU and not its tanh approximation, as BERT has it.
            wide = nn.gelu(linear(x, f"{layer}.intermediate.dense"))
            x = norm(x + linear(wide, f"{layer}.output.dense"), f"{layer}.output")
        # The mean over real tokens, then length 1, as the model was trained: a product of two is their cosine.
        mean = (x * real[..., None]).sum(1) / real.sum(1, keepdims=True)
        return mean / mx.maximum(mx.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
