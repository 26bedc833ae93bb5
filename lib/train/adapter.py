"""An adapter as files: weights, mlx-lm's config, and where it comes from; and two adapters merged into one.

Knows the folder that `mlx_lm.load(adapter_path=...)` reads, which needs a config that its Python API does not write.
Does not know how the weights were found. Whether an adapter fits a base is asked where models are loaded
(`lib.models.provenance`). Adapters are stored in float16: half the size, and nothing that a score would show.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.files import sha256, write_atomic
from lib.models.mlx import adapter_folder
from lib.models.provenance import CONFIG, NAME, WEIGHTS, read
from lib.train.lora import shape, tensors

FORMAT = 1


def config(layers: int, lora: Mapping[str, Any]) -> dict[str, Any]:
    """mlx-lm's description of an adapter: how many of the last layers, rank, scale, dropout."""
    return {"fine_tune_type": "lora", "num_layers": layers, "lora_parameters": dict(lora)}


def files(weights: bytes, told: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of an adapter folder by name. `told` is the provenance without the hashes, `settings` the config."""
    plain = (json.dumps(settings, indent=1, sort_keys=True) + "\n").encode()
    hashes = {WEIGHTS: sha256(weights), CONFIG: sha256(plain)}
    about = {"format": FORMAT, **told, "files": hashes}
    said = (json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    return {WEIGHTS: weights, CONFIG: plain, NAME: said}


def write(folder: Path, named: Mapping[str, bytes]) -> Path:
    """Write an adapter's files, the weights last: a folder without them is no adapter. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(named, key=lambda n: n == WEIGHTS):
        write_atomic(folder / name, named[name])
    return folder


def provenance(
    method: str,
    base: Mapping[str, Any],
    data: Mapping[str, Any],
    code: str,
    seed: int,
    parameters: Mapping[str, Any],
    parents: Sequence[Mapping[str, Any]] = (),
    **more: Any,
) -> dict[str, Any]:
    """What stands in the file: how, on which base, from which data, by which code, from which adapters."""
    return {
        "method": method, "base": dict(base), "data": dict(data), "code": code, "seed": seed,
        "parameters": dict(parameters), "parents": [dict(p) for p in parents], **more,
    }  # fmt: skip


def about(adapter: str, name: str) -> dict[str, Any]:
    """What a child keeps of a parent: its name, the hash of its weights, its data and method. Raises NoModel."""
    folder = Path(adapter_folder(adapter, name))
    told = read(folder) or {}
    weights = told.get("files", {}).get(WEIGHTS) or sha256((folder / WEIGHTS).read_bytes())
    known = {k: told[k] for k in ("method", "seed") if k in told}
    return {"adapter": adapter, "weights": weights, "data": told.get("data", {}).get("hash", "unknown"), **known}


def merge(adapters: Sequence[str], weights: Sequence[float], name: str) -> tuple[bytes, dict[str, Any]]:
    """One adapter whose update is the weighted sum of the updates of two or more; returns its weights and config.

    Ranks are put side by side: A = [A1 A2], B = [w1 s1 B1; w2 s2 B2], scale 1, so that A B = sum of w s A B exactly
    (in float32; storing rounds to float16). Averaging A and B themselves would not give the average of the updates.
    Raises NoModel on an adapter of another base, ValueError where the numbers do not pair up.
    """
    import mlx.core as mx

    if len(adapters) < 2 or len(weights) != len(adapters):
        raise ValueError(f"{len(adapters)} adapters and {len(weights)} weights: expected two or more, one weight each")
    folders = [Path(adapter_folder(a, name)) for a in adapters]
    shapes = [shape(folder)[0] for folder in folders]
    parts = [mx.load(str(folder / WEIGHTS)) for folder in folders]
    merged: dict[str, Any] = {}
    for module in sorted({key.rpartition(".")[0] for part in parts for key in part}):
        left, right = f"{module}.lora_a", f"{module}.lora_b"
        like = next(part for part in parts if left in part)
        a, b = [], []
        for part, has, weight in zip(parts, shapes, weights, strict=True):
            rank = has["rank"]
            # An adapter without this module adds nothing to it.
            a.append(part.get(left, mx.zeros((like[left].shape[0], rank))).astype(mx.float32))
            b.append(part.get(right, mx.zeros((rank, like[right].shape[1]))).astype(mx.float32))
            b[-1] *= weight * has["alpha"] / rank
        merged[left], merged[right] = mx.concatenate(a, 1), mx.concatenate(b, 0)
    lora = {"rank": sum(has["rank"] for has in shapes), "scale": 1.0, "dropout": 0.0}
    return tensors(merged, half=True), config(max(has["layers"] for has in shapes), lora)
