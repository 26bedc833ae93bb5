"""Steering by files, so that any editor works: a wish for the next run, standing wishes, bans, budgets, pause, stop.

Knows the folder, what stands in it and which changes the events already hold. Does not act on any of it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lib.agent.pipeline import STEPS
from lib.files import next_number, sha256, write_atomic, write_new
from lib.forms import Number, fill, form, read_yaml
from lib.lab.base import BadParameters
from lib.lab.experiment import LEVERS
from lib.loop.events import Event, Events

NEXT, STANDING, BANS, BUDGET = "next.md", "standing.md", "bans.txt", "budget.yaml"
STOP, PAUSE = "STOP", "PAUSE"
FILES = (NEXT, STANDING, BANS, BUDGET, STOP, PAUSE)
QUEUE, ARCHIVE = "queue", "archive"
MOST = 8000  # characters of a steering file that are read


Limit = Annotated[Number, Field(ge=0)]


@form(BadParameters)
class Limits:
    """Where the loop ends; 0 is no limit."""

    dollars: Limit = 0.0  # judge and proposer together, over the whole folder of runs
    minutes: Limit = 0.0  # of this call
    crashes: Limit = 3  # in a row
    refusals: Limit = 20  # in a row
    calls: Limit = 60.0  # model calls a case of one pipeline
    tokens: Limit = 4000  # new tokens of one call


@dataclass(frozen=True)
class Steering:
    """What the files say now."""

    texts: dict[str, str] = field(default_factory=dict)  # file -> text, of those that exist
    bans: frozenset[str] = frozenset()  # lever classes, families and step names
    limits: dict[str, float] = field(default_factory=dict)  # of budget.yaml
    faults: tuple[str, ...] = ()  # what could not be understood, in sentences

    @property
    def wish(self) -> str:
        """The one-shot text, "" if none."""
        return self.texts.get(NEXT, "").strip()

    @property
    def standing(self) -> str:
        """The text that every proposal sees, "" if none."""
        return self.texts.get(STANDING, "").strip()

    @property
    def stop(self) -> bool:
        """Whether the loop is to end before its next run."""
        return STOP in self.texts

    @property
    def pause(self) -> bool:
        """Whether the loop is to wait until the file is gone."""
        return PAUSE in self.texts


def default_folder(runs: Path) -> Path:
    """`steer` beside the folder of runs, so that every study has its own."""
    return runs.resolve().parent / "steer"


def read(folder: Path) -> Steering:
    """What the steering files say; one that cannot be read is a fault that is told, never an error."""
    texts, faults = {}, []
    for name in FILES:
        path = folder / name
        try:
            texts[name] = path.read_text(encoding="utf-8")[:MOST]
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            faults.append(f"{path}: cannot be read ({error})")
    bans, bad_bans = _bans(texts.get(BANS, ""), folder / BANS)
    limits, bad_limits = _limits(texts.get(BUDGET, ""), folder / BUDGET)
    return Steering(texts, bans, limits, (*faults, *bad_bans, *bad_limits))


def _bans(text: str, path: Path) -> tuple[frozenset[str], list[str]]:
    """Banned names, one a line with "#" before a comment, and a fault for each that nobody knows."""
    names = {*LEVERS, *STEPS, *(step.family for step in STEPS.values())}
    words = [line.split("#")[0].strip() for line in text.splitlines()]
    # Also what nobody knows is banned: a misspelt ban does nothing, and is told.
    bans = frozenset(filter(None, words))
    return bans, [f"{path}: {word!r} is no lever class, family or step" for word in words if word in bans - names]


def _limits(text: str, path: Path) -> tuple[dict[str, float], list[str]]:
    """The limits that can be understood, by name, and a fault for each that cannot."""
    try:
        values = read_yaml(text, str(path), BadParameters) or {}
    except BadParameters as error:
        return {}, [str(error)]
    if not isinstance(values, dict):
        return {}, [f"{path}: expected a mapping such as 'dollars: 5'"]
    limits, faults = {}, []
    # One at a time: a fault in one leaves the others in force.
    for name, value in values.items():
        try:
            fill(Limits, {name: value})
            limits[name] = value
        except BadParameters as error:
            faults.append(f"{path}: {error}")
    return limits, faults


def note_changes(events: Events, steering: Steering) -> None:
    """An event for each steering file that is new, changed or gone since the events last saw it."""
    noted = {event["file"]: event["sha256"] for event in events.of("steering")}
    for name in FILES:
        text, before, digest, change = steering.texts.get(name), noted.get(name, ""), "", "removed"
        if text is not None:
            # The text itself goes along: the file may be gone when somebody asks what steered a run.
            digest = sha256(text.encode("utf-8", "replace"))
            change = "changed" if before else "written"
        if digest != before:
            events.append("steering", file=name, change=change, sha256=digest, text=text or "")
    last = events.last("steering odd") or {"said": []}
    if list(steering.faults) != last["said"]:
        events.append("steering odd", said=list(steering.faults))


def wish_event(events: Events) -> Event | None:
    """The event of the one-shot wish that stands now, or None."""
    for event in reversed(events.of("steering")):
        if event["file"] == NEXT:
            return event if event["sha256"] else None
    return None


def archive(folder: Path, run: str) -> None:
    """Move the one-shot wish to the archive, under the run that it steered."""
    source, target = folder / NEXT, folder / ARCHIVE / f"{run}.md"
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Moved, not copied: the folder shows what stands, the archive what was done.
    os.replace(source, target)


# --- the queue of proposals ----------------------------------------------------------------------


def enqueue(folder: Path, proposal: dict[str, Any], by: str) -> Path:
    """Put a proposal behind those that wait. Returns its file."""
    queue = folder / QUEUE
    queue.mkdir(parents=True, exist_ok=True)
    data = json.dumps({"by": by, "proposal": proposal}, indent=1, ensure_ascii=False) + "\n"
    # The hash keeps two apart that took the same number at the same moment.
    path = queue / f"{next_number(queue, '[0-9]*-*')}-{sha256(data)[:8]}.json"
    write_new(path, data, 0o644)
    return path


def queued(folder: Path) -> list[Path]:
    """The files of the proposals that wait, oldest first."""
    return sorted((folder / QUEUE).glob("*.json"))


def write(folder: Path, name: str, text: str | None) -> None:
    """Write a steering file (None removes it). Raises BadParameters on another name."""
    if name not in FILES:
        raise BadParameters(f"no steering file {name!r}; there are {', '.join(FILES)}")
    if text is None:
        (folder / name).unlink(missing_ok=True)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, text)
