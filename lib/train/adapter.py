"""An adapter as files: weights, mlx-lm's config, and where it comes from; and two adapters merged into one.

Knows the folder that `mlx_lm.load(adapter_path=...)` reads, which needs a config that its Python API does not write.
Does not know how the weights were found. Whether an adapter fits a base is asked where models are loaded
(`lib.models.provenance`). Adapters are stored in float16: half the size, and nothing that a score would show.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib.files import sha256
from lib.log import Row
from lib.models.blas import fast_blas
from lib.models.mlx import adapter_folder
from lib.models.provenance import CONFIG, NAME, WEIGHTS, read
from lib.train.fit import tensors
from lib.train.forward import Array
from lib.train.lora import shape

FORMAT = 1


@dataclass(frozen=True)
class Provenance:
    """How an adapter was made: what stands in the file beside its weights, with the hashes of its files."""

    method: str
    base: Mapping[str, str]  # name and content hash
    data: Row  # the card of its pairs
    code: str
    seed: int
    parameters: Row
    parents: Sequence[Row] = ()  # adapters that it goes on from, or is merged of
    epoch: int | None = None  # of a training

    def as_dict(self) -> Row:
        plain = asdict(self) | {"parents": list(self.parents)}
        if self.epoch is None:
            del plain["epoch"]
        return plain


@dataclass(frozen=True)
class Adapter:
    """An adapter before it is written."""

    weights: bytes
    layers: int  # how many of the last ones it changes
    lora: Mapping[str, float]  # rank, scale, dropout
    provenance: Provenance

    def files(self) -> dict[str, bytes]:
        """The files of its folder by name."""
        config = {"fine_tune_type": "lora", "num_layers": self.layers, "lora_parameters": dict(self.lora)}
        files = {WEIGHTS: self.weights, CONFIG: _json(config)}
        # Over the config too: the same weights with another scale say something else.
        hashes = {WEIGHTS: sha256(files[WEIGHTS]), CONFIG: sha256(files[CONFIG])}
        return {**files, NAME: _json({"format": FORMAT, **self.provenance.as_dict(), "files": hashes})}


def _json(value: Row) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def parent(adapter: str, name: str, runs: Path | None = None) -> Row:
    """What a child keeps of a parent: its name, the hash of its weights, its data and method. Raises NoModel."""
    folder = Path(adapter_folder(adapter, name, runs))
    about = read(folder) or {}
    weights = about.get("files", {}).get(WEIGHTS) or sha256((folder / WEIGHTS).read_bytes())
    kept: Row = {"adapter": adapter, "weights": weights, "data": about.get("data", {}).get("hash", "unknown")}
    for field in about.keys() & {"method", "seed"}:
        kept[field] = about[field]
    return kept


def merge(
    adapters: Sequence[str], weights: Sequence[float], name: str, provenance: Provenance, runs: Path | None = None
) -> Adapter:
    """One adapter whose update is the weighted sum of the updates of two or more.

    Ranks are put side by side: A = [A1 A2], B = [w1 s1 B1; w2 s2 B2], scale 1, so that A B = sum of w s A B exactly
    (in float32; storing rounds to float16; PEFT calls this way `cat`). Averaging A and B themselves would not give the average of the updates.
    Shapes, with D in and E out: A (D, rank), B (rank, E).
    Raises NoModel on an adapter of another base, ValueError where the numbers do not pair up.
    """
    fast_blas()
    import mlx.core as mx

    if len(adapters) < 2 or len(weights) != len(adapters):
        raise ValueError(f"{len(adapters)} adapters and {len(weights)} weights: expected two or more, one weight each")
    folders = [Path(adapter_folder(a, name, runs)) for a in adapters]
    shapes = [shape(folder)[0] for folder in folders]
    parts: list[Any] = [mx.load(str(folder / WEIGHTS)) for folder in folders]
    merged: dict[str, Array] = {}
    # By name and not by place: adapters of other layers have other modules.
    for module in sorted({key.rpartition(".")[0] for part in parts for key in part}):
        key_a, key_b = f"{module}.lora_a", f"{module}.lora_b"
        like = next(part for part in parts if key_a in part)
        a, b = [], []
        for part, has, weight in zip(parts, shapes, weights, strict=True):
            rank = int(has["rank"])
            # An adapter without this module adds nothing to it.
            a.append(part.get(key_a, mx.zeros((like[key_a].shape[0], rank))).astype(mx.float32))
            b.append(part.get(key_b, mx.zeros((rank, like[key_b].shape[1]))).astype(mx.float32))
            b[-1] *= weight * has["alpha"] / rank
        merged[key_a], merged[key_b] = mx.concatenate(a, 1), mx.concatenate(b, 0)
    # The scales are in B already.
    rank = sum(int(has["rank"]) for has in shapes)
    layers = max(int(has["layers"]) for has in shapes)
    return Adapter(tensors(merged, half=True), layers, {"rank": rank, "scale": 1.0, "dropout": 0.0}, provenance)
