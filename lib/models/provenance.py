"""Where an adapter comes from, and that it belongs to the base it is put on.

Knows the file `provenance.json` beside an adapter's weights, and the places where an adapter may lie: a folder, or a
sealed run by id or slug. Does not know how an adapter was trained. An adapter of elsewhere, without this file, is not
refused here: mlx-lm checks its shapes when it loads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.files import ROOT, runs_folder, sha256_file
from lib.models.model import NoModel

NAME = "provenance.json"
WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"


def places(adapter: str) -> Iterator[Path]:
    """Folders that a name of an adapter may mean: a path, one below the project, a sealed run (`0005-sft`, `sft`).

    `0005-sft/epoch-02` is the adapter of an epoch that the run sealed beside its own.
    """
    yield Path(adapter)
    yield ROOT / adapter
    run, _, epoch = adapter.partition("/")
    if re.fullmatch(r"[a-z0-9][a-z0-9-]*", run) and re.fullmatch(r"(epoch-\d\d)?", epoch):
        named = [runs_folder() / run, *sorted(runs_folder().glob(f"[0-9]*-{run}"), reverse=True)]
        # The glob also finds runs whose slug merely ends like this one.
        yield from (p / "adapter" / epoch for p in named if p.name == run or p.name.partition("-")[2] == run)


def find(adapter: str) -> Path:
    """The folder of an adapter. Raises NoModel."""
    for folder in places(adapter):
        if (folder / WEIGHTS).exists():
            if not (folder / CONFIG).exists():
                raise NoModel(f"adapter {adapter!r}: {folder} has no {CONFIG}, so its rank and layers are unknown")
            return folder
    raise NoModel(
        f"adapter {adapter!r}: no {WEIGHTS} in a folder of that name, and no sealed run with an adapter is called so"
    )


def read(folder: Path | str) -> dict[str, Any] | None:
    """What the adapter's own file says; None for an adapter without one. Raises NoModel on a broken file."""
    path = Path(folder) / NAME
    if not path.exists():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        told["base"]["weights"], told["files"][WEIGHTS]  # noqa: B018  there, or not a provenance
        return told
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoModel(f"{path}: cannot be read as the provenance of an adapter ({error})") from error


def check(folder: Path | str, name: str, weights: str) -> None:
    """Refuse an adapter that was trained on another base, or changed since. Raises NoModel."""
    told = read(folder)
    if told is None:
        return
    base = told["base"]
    if base["weights"] != weights:
        raise NoModel(
            f"adapter {folder} was trained on {base.get('name')} (weights {base['weights']}), not on {name} "
            f"({weights}): use it with that base, or train one for {name}"
        )
    if sha256_file(Path(folder) / WEIGHTS) != told["files"][WEIGHTS]:
        raise NoModel(f"adapter {folder}: {WEIGHTS} is not the file that its {NAME} names; take the sealed one again")
