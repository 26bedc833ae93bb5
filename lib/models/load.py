"""The one door to a model: a name from the parameters cell in, a Model out.

Knows which backend a name belongs to and what that backend can do. Does not know what the model is for.
"""

from __future__ import annotations

from typing import Any

from lib.models import apple, cloud, grammar, mlx
from lib.models.mlx import MLXModel, adapter_folder, resolve
from lib.models.model import Capabilities, Decoding, Model, NoModel, ToyModel

SAMPLING = ("temp", "top_p", "min_p", "top_k", "seed")


def load(name: str, adapter: str = "") -> Model:
    """A model by name: `toy`, `tiny-s`, `tiny-m`, `apple`, a Claude model's id, a folder, a hub id (`mlx:` before it
    if you like). Raises NoModel with what to do."""
    check(name, adapter)
    if name == "toy":
        return ToyModel()
    if name == "apple":
        return apple.AppleModel()
    return cloud.CloudModel(name) if _in_cloud(name) else MLXModel(name, adapter)


def check(name: str, adapter: str = "") -> None:
    """Refuse an unknown model or adapter without loading anything. Raises NoModel, or NoKey for a Claude model."""
    if adapter and not capabilities(name).adapters:
        raise NoModel(f"model {name!r:.60} takes no adapter; use tiny-s, tiny-m or an MLX model")
    if name == "apple":
        apple.check()
    elif _in_cloud(name):
        cloud.check(name)
    elif name != "toy":
        resolve(name)
    if adapter:
        adapter_folder(adapter, name)


def capabilities(name: str) -> Capabilities:
    """What the model of this name can do; nothing is loaded, and the name is not checked."""
    if name == "toy":
        return ToyModel().capabilities
    return apple.CAN if name == "apple" else cloud.CAN if _in_cloud(name) else mlx.CAN


def check_decoding(name: str, told: dict[str, Any]) -> None:
    """Refuse decoding that the model of this name does not take, and a bad grammar. Raises NoModel or ValueError."""
    can, made = capabilities(name), Decoding.of(told)
    if not can.greedy:
        for key in SAMPLING:
            if key in told:
                raise NoModel(
                    f"decoding has {key}, which model {name!r} does not take: it samples as it likes, and greedy is "
                    "not available; leave decoding empty but for max_tokens and grammar"
                )
    if made.grammar:
        if not can.grammar:
            raise NoModel(f"decoding has a grammar, which model {name!r} does not offer; leave it out")
        grammar.check(made.grammar)


def _in_cloud(name: str) -> bool:
    return name.startswith("claude-")
