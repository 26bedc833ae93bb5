"""The one door to a model: a name from the parameters cell in, a Model out.

Knows which backend a name belongs to and what that backend can do. Does not know what the model is for.
"""

from __future__ import annotations

from pathlib import Path

from lib.models import apple, cloud, grammar, mlx, provenance, stored
from lib.models.mlx import MLXModel, adapter_folder
from lib.models.model import Capabilities, Decoding, Json, Model, NoModel, ToyModel

SAMPLING = ("temp", "top_p", "min_p", "top_k", "seed", "repetition_penalty", "repetition_context")


def load(name: str, adapter: str = "", runs: Path | None = None) -> Model:
    """A model by name: `smollm2`, `toy`, `apple`, a Claude model's id, answers that were written before
    (`stored:claude`), an MLX folder, a GGUF file, a hub id (`mlx:` before it if you like). Raises NoModel."""
    check(name, adapter, runs)
    if name == "toy":
        return ToyModel()
    if name == "apple":
        return apple.AppleModel()
    if stored.named(name):
        return stored.StoredModel(name)
    return cloud.CloudModel(name) if _in_cloud(name) else MLXModel(name, adapter, runs=runs)


def check(name: str, adapter: str = "", runs: Path | None = None) -> None:
    """Refuse an unknown model or adapter, or a model that cannot be spoken to, without loading weights. Raises NoModel,
    or NoKey for a Claude model."""
    if adapter and not capabilities(name).adapters:
        raise NoModel(f"model {name!r:.60} takes no adapter; use smollm2 or another MLX model")
    if name == "apple":
        apple.check()
    elif _in_cloud(name):
        cloud.check(name)
    elif stored.named(name):
        stored.read(name)
    elif name != "toy":
        mlx.check(name)
    if adapter:
        adapter_folder(adapter, name, runs)


def identity(name: str) -> str:
    """What a model is by content, cheap to ask again: a run is repeated where this is another. Raises NoModel.

    Of a model that runs on MLX the hash of its weights, tokenizer, template and configuration, of stored answers that
    of their file. Nobody can hash what a server or a system serves, so a Claude model is its id and Apple's model the
    version of the system that it came with; the toy is its name.
    """
    if name == "apple":
        return apple.identity()
    if stored.named(name):
        return stored.content_hash(name)
    return name if name == "toy" or _in_cloud(name) else mlx.identity(name)


def placed(name: str) -> bool:
    """Whether a name only says where a model lies, so that what lies there may be another tomorrow."""
    return name not in ("toy", "apple", mlx.DEFAULT) and not stored.named(name) and not _in_cloud(name)


def adapter_identity(adapter: str, runs: Path | None = None) -> str:
    """What an adapter is by content, weights and the configuration that scales them; "" for none. Raises NoModel."""
    return provenance.content_hash(provenance.find(adapter, runs), provenance.ADAPTER) if adapter else ""


def capabilities(name: str) -> Capabilities:
    """What the model of this name can do; nothing is loaded, and the name is not checked."""
    if name == "toy":
        return ToyModel().capabilities
    if stored.named(name):
        return stored.CAN
    if name == "apple":
        return apple.CAN
    return cloud.CAN if _in_cloud(name) else mlx.CAN


def check_decoding(name: str, values: Json) -> None:
    """Refuse decoding that the model of this name does not take, and a bad grammar. Raises NoModel or ValueError."""
    can, decoding = capabilities(name), Decoding.of(values)
    if not can.greedy:
        for key in SAMPLING:
            if key in values:
                raise NoModel(
                    f"decoding has {key}, which model {name!r} does not take: it samples as it likes, and greedy is "
                    "not available; leave decoding empty but for max_tokens and grammar"
                )
    if decoding.grammar:
        if not can.grammar:
            raise NoModel(f"decoding has a grammar, which model {name!r} does not offer; leave it out")
        grammar.check(decoding.grammar)


def _in_cloud(name: str) -> bool:
    return name.startswith("claude-")
