"""What a model and an adapter are by content, where an adapter comes from, and that it belongs to its base.

Knows the files that mlx-lm reads of a folder, the file `provenance.json` beside an adapter's weights, and the places
where an adapter may lie: a folder, or a sealed run by id or slug. Does not know how an adapter was trained. An adapter
of elsewhere, without this file, is not refused here: mlx-lm checks its shapes when it loads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lib.files import ROOT, canonical, runs_folder, sha256
from lib.models.model import Json, NoModel
from lib.weights import sum_of

NAME = "provenance.json"
WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"
PEFT = (
    "an adapter in the form of PEFT, which mlx-lm does not read: write its A and B transposed as lora_a and lora_b into "
    f"{WEIGHTS} with a {CONFIG} of mlx-lm, or train one here with `notch train`"
)
# What a model is: its weights, how it cuts text, how it is spoken to, where a reply ends, and code of its own.
MODEL = (
    "model*.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model", "*.tiktoken",
    "chat_template.json", "*.jinja", "additional_chat_templates/*.jinja", "*.py",
)  # fmt: skip
ADAPTER = (WEIGHTS, CONFIG)  # the config scales it: the same weights with another scale say something else


class Lora(BaseModel):
    """The update is scale * B A, A and B of this rank; other fields, such as which modules have one, are mlx-lm's."""

    model_config = ConfigDict(extra="allow")
    rank: int
    scale: float
    dropout: float = 0.0


class Config(BaseModel):
    """What mlx-lm's file beside the weights says."""

    fine_tune_type: str = "lora"
    num_layers: int  # the last so many have an adapter; -1 is all
    lora_parameters: Lora


def config(folder: Path) -> Config:
    """How an adapter is built. Raises NoModel, also on one in the form of another library."""
    text = (folder / CONFIG).read_bytes()
    # Before the form is looked at: that would complain of missing fields, and not of another library.
    if b'"peft_type"' in text:
        raise NoModel(f"adapter {folder}: {PEFT}")
    try:
        return Config.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise NoModel(
            f"adapter {folder}: rank, scale and layers cannot be read from {CONFIG} "
            f"({' '.join(map(str, first['loc'])) or 'the file'}: {first['msg']}); expected num_layers and "
            "lora_parameters {rank, scale}, as mlx-lm writes them"
        ) from None


def content_hash(folder: Path, parts: Sequence[str] = MODEL) -> str:
    """16 hex digits over every byte that makes a model, or an adapter, in a folder; where it lies does not count."""
    files = sorted({path for part in parts for path in folder.glob(part)})
    return sha256(canonical([[path.relative_to(folder).as_posix(), sum_of(path)] for path in files]))[:16]


def places(adapter: str, runs: Path | None = None) -> Iterator[Path]:
    """Folders that a name of an adapter may mean: a path, one below the project, a sealed run (`0005-sft`, `sft`) of that
    folder of runs or of the project's own.

    `0005-sft/epoch-02` is the adapter of an epoch that the run sealed beside its own.
    """
    yield Path(adapter)
    yield ROOT / adapter
    run, _, epoch = adapter.partition("/")
    if re.fullmatch(r"[a-z0-9][a-z0-9-]*", run) and re.fullmatch(r"(epoch-\d\d)?", epoch):
        # The project's own runs last: whoever works in another folder measures the adapters that are sealed here too.
        for folder in (runs or runs_folder(), ROOT / "runs"):
            for path in (folder / run, *sorted(folder.glob(f"[0-9]*-{run}"), reverse=True)):
                # The glob also finds a slug that merely ends like this one.
                if run in (path.name, path.name.partition("-")[2]):
                    yield path / "adapter" / epoch


def find(adapter: str, runs: Path | None = None) -> Path:
    """The folder of an adapter. Raises NoModel."""
    for folder in places(adapter, runs):
        if (folder / "adapter_model.safetensors").exists():
            raise NoModel(f"adapter {adapter!r}: {folder}: {PEFT}")
        if (folder / WEIGHTS).exists():
            if not (folder / CONFIG).exists():
                raise NoModel(f"adapter {adapter!r}: {folder} has no {CONFIG}, so its rank and layers are unknown")
            config(folder)
            return folder
    raise NoModel(
        f"adapter {adapter!r}: no {WEIGHTS} in a folder of that name, and no sealed run with an adapter is called so in "
        f"{runs or runs_folder()} or the project's own runs; give its id or slug, or the path of its folder"
    )


def read(folder: Path | str) -> Json | None:
    """What the adapter's own file says; None for an adapter without one. Raises NoModel on a broken file."""
    path = Path(folder) / NAME
    if not path.exists():
        return None
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        about["base"]["weights"], about["files"][WEIGHTS]  # noqa: B018  there, or not a provenance
        return about
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoModel(f"{path}: cannot be read as the provenance of an adapter ({error})") from error


def check(folder: Path, name: str, weights: str) -> None:
    """Refuse an adapter that was trained on another base, or changed since. Raises NoModel."""
    about = read(folder)
    if about is None:
        return
    base = about["base"]
    # By content: a base has many names and places, and another one may lie under its name.
    if base["weights"] != weights:
        raise NoModel(
            f"adapter {folder} was trained on {base.get('name')} (weights {base['weights']}), not on {name} "
            f"({weights}): use it with that base, or train one for {name}"
        )
    for part in ADAPTER:
        if part in about["files"] and sum_of(folder / part) != about["files"][part]:
            raise NoModel(f"adapter {folder}: {part} is not the file that its {NAME} names; take the sealed one again")
