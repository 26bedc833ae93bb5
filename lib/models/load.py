"""The one door to a model: a name from the parameters cell in, a Model out.

Knows which backend a name belongs to and what that backend can do. Does not know what the model is for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lib.models import apple, cloud, mlx, provenance, stored
from lib.models.mlx import adapter_folder
from lib.models.model import Capabilities, Decoding, Json, Model, NoModel, ToyModel

SAMPLING = ("temp", "top_p", "min_p", "top_k", "seed", "repetition_penalty", "repetition_context")


@dataclass(frozen=True)
class Backend:
    """A kind of model: what it can do, and how one of it is opened, looked for and known by its name."""

    can: Capabilities
    open: Callable[[str, str, Path | None], Model]  # name, adapter, folder of sealed runs
    check: Callable[[str], object]
    # Nobody can hash what a server or a system serves: there it is the id, or the version of the system.
    identity: Callable[[str], str]


# Of the toy nothing has to be looked for, and its name is all that it is: `str` says the name.
TOY = Backend(Capabilities(), lambda *_: ToyModel(), str, str)
APPLE = Backend(apple.CAN, lambda *_: apple.AppleModel(), lambda _: apple.check(), lambda _: apple.identity())
STORED = Backend(stored.CAN, lambda name, *_: stored.StoredModel(name), stored.read, stored.content_hash)
CLOUD = Backend(cloud.CAN, lambda name, *_: cloud.CloudModel(name), cloud.check, str)
MLX = Backend(mlx.CAN, lambda name, adapter, runs: mlx.MLXModel(name, adapter, runs=runs), mlx.check, mlx.identity)


def backend(name: str) -> Backend:
    """The kind of model that a name asks for."""
    if name.startswith("claude-"):
        return CLOUD
    if stored.named(name):
        return STORED
    return {"toy": TOY, "apple": APPLE}.get(name, MLX)


def load(name: str, adapter: str = "", runs: Path | None = None) -> Model:
    """A model by name: `smollm2`, `toy`, `apple`, a Claude model's id, answers that were written before
    (`stored:claude`), an MLX folder, a GGUF file, a hub id (`mlx:` before it if you like). Raises NoModel."""
    check(name, adapter, runs)
    return backend(name).open(name, adapter, runs)


def check(name: str, adapter: str = "", runs: Path | None = None) -> None:
    """Refuse an unknown model or adapter, or a model that cannot be spoken to, without loading weights. Raises NoModel,
    or NoKey for a Claude model."""
    # First, for it needs neither disk nor network.
    if adapter and not capabilities(name).adapters:
        raise NoModel(f"model {name!r:.60} takes no adapter; use smollm2 or another MLX model")
    backend(name).check(name)
    if adapter:
        adapter_folder(adapter, name, runs)


def identity(name: str) -> str:
    """What a model is by content, cheap to ask again: a run is repeated where this is another. Raises NoModel.

    Of a model that runs on MLX the hash of its weights, tokenizer, template and configuration, of stored answers that
    of their file, of a Claude model its id.
    """
    return backend(name).identity(name)


def placed(name: str) -> bool:
    """Whether a name only says where a model lies, so that what lies there may be another tomorrow."""
    return backend(name) is MLX and name != mlx.DEFAULT


def adapter_identity(adapter: str, runs: Path | None = None) -> str:
    """What an adapter is by content, weights and the configuration that scales them; "" for none. Raises NoModel."""
    if not adapter:
        return ""
    return provenance.content_hash(provenance.find(adapter, runs), provenance.ADAPTER)


def capabilities(name: str) -> Capabilities:
    """What the model of this name can do; nothing is loaded, and the name is not checked."""
    return backend(name).can


def check_decoding(name: str, values: Json) -> None:
    """Refuse decoding that the model of this name does not take, and a grammar. Raises NoModel or ValueError."""
    Decoding.of(values)
    if "grammar" in values:
        raise ValueError(
            "decoding has a grammar, which is a step's to set; write {step: ask, grammar: questions} instead"
        )
    if not capabilities(name).greedy:
        for key in SAMPLING:
            if key in values:
                raise NoModel(
                    f"decoding has {key}, which model {name!r} does not take: it samples as it likes, and greedy is "
                    "not available; leave decoding empty but for max_tokens"
                )
