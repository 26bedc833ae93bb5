"""The one door to a model: a name from the parameters cell in, a Model out.

Knows which backend a name belongs to. Does not know what the model is for.
"""

from __future__ import annotations

from lib.models.mlx import MLXModel, adapter_folder, resolve
from lib.models.model import Model, NoModel, ToyModel


def load(name: str, adapter: str = "") -> Model:
    """A model by name: `toy`, `tiny-s`, `tiny-m`, a folder, or a hub id. Raises NoModel with what to do."""
    check(name, adapter)
    if name == "toy":
        return ToyModel()
    return MLXModel(name, adapter)


def check(name: str, adapter: str = "") -> None:
    """Refuse an unknown model or adapter without loading anything. Raises NoModel."""
    if name != "toy":
        resolve(name)
    elif adapter:
        raise NoModel("model 'toy' takes no adapter; use tiny-s, tiny-m or an MLX model")
    if adapter:
        adapter_folder(adapter, name)
