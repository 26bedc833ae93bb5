"""Requests for a training: a file each, with a state, an expected effect, the hash of its data and the exact command.

    open -> approved -> running -> delivered -> measured -> closed          open, approved -> rejected

A proposal may open one; only a person approves it, and nothing is bought or built at length before that: data that
costs money or time is made when it is trained, and the request says so. Knows files and which step may follow which.
Does not know what a training does, nor who proposes. A run that failed goes back to approved, with its reason.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

from lib.files import leave_out, locked, next_number, write_atomic, write_new
from lib.forms import fill
from lib.lab.base import BadParameters
from lib.lab.training import Training
from lib.log import now
from lib.show import folder_name
from lib.train.data import BadData
from lib.train.recipe import ByClaude, FromFile

NEXT_STATES = {  # state -> the states that may follow
    "open": ("approved", "rejected"), "approved": ("running", "rejected"), "running": ("delivered", "approved"),
    "delivered": ("measured", "closed"), "measured": ("closed",), "closed": (), "rejected": (),
}  # fmt: skip
PLANNED = 1000  # pairs of the knowledge base that are made at once for their hash, in about a second
MOST_BYTES = 5_000_000  # of a file of pairs that is read at once


@dataclass(frozen=True)
class Request:
    """A training that was asked for."""

    id: str
    state: str
    why: str  # what the training is expected to teach, and from which runs that follows
    expected: float  # the effect on quality that is expected of the adapter
    parameters: dict[str, Any]  # of `11_train`
    data: str  # hash of the pairs as planned, "" where they are made later; other data needs another approval
    command: str  # what trains it, once it is approved
    unchecked: str = ""  # what only the training will check or pay for, in a sentence
    by: str = ""  # who or what asked
    run: str = ""  # the sealed training
    measured: tuple[str, ...] = ()  # runs that used the adapter
    history: tuple[dict[str, str], ...] = field(default_factory=tuple)  # state, who, why, at

    def training(self, runs: Path) -> Training:
        """The training that is asked for, whose adapters lie in that folder of runs. Raises BadParameters."""
        return fill(Training, {**self.parameters, "request": self.id, "folder": runs})


def default_folder(runs: Path) -> Path:
    """`steer/requests` beside the folder of runs."""
    return runs.resolve().parent / "steer" / "requests"


def requests(folder: Path) -> list[Request]:
    """Every request of a folder, oldest first. Raises BadParameters on a file that is none."""
    return [_read(p) for p in sorted(folder.glob("[0-9]*.json"))]


def get(folder: Path, name: str) -> Request:
    """A request by id or number. Raises BadParameters."""
    every = requests(folder)
    for request in every:
        if name == request.id or (name.isdigit() and request.id.startswith(f"{int(name):04d}-")):
            return request
    known = ", ".join(r.id for r in every) or "none"
    raise BadParameters(f"no request {name!r} in {folder}; there are: {known}")


def open_request(
    folder: Path,
    parameters: dict[str, Any],
    why: str,
    expected: float,
    by: str = "",
    name: str = "",
    runs: Path | None = None,
) -> Request:
    """Ask for a training. What can be checked for nothing is checked first: what cannot be trained is not asked for.

    Raises BadParameters, BadData, NoModel; and Leak where the data is free and small enough to be made now.
    """
    if not why.strip():
        raise BadParameters("a request says why: what the training should teach, and which runs speak for it")
    training = fill(
        Training, {"hypothesis": why, "predicted": expected, **parameters, "folder": runs}
    ).check_parameters()
    data, unchecked = _data(training)
    name = name or f"{training.method}-{Path(training.model).name}"
    folder.mkdir(parents=True, exist_ok=True)
    # Two proposals may ask at once, and a number is given once.
    with locked(folder / ".lock"):
        run = f"{next_number(folder, '[0-9]*-*.json')}-{folder_name(name)}"
        parameters = leave_out(training.parameters, "request")
        command = shlex.join(["notch", "train", "--request", run])
        history = (_step("open", by, why),)
        request = Request(run, "open", why, float(expected), parameters, data, command, unchecked, by, history=history)
        write_new(folder / f"{run}.json", _text(request), 0o644)
    return request


def _data(training: Training) -> tuple[str, str]:
    """The hash of a request's pairs, "" where nobody has made them yet; and what that leaves open, in a sentence."""
    if training.method == "merge":
        return "", ""
    origin, later = training.recipe().origin, "until then they have no hash and the leak guard has not read them."
    if isinstance(origin, ByClaude):
        return "", f"Its pairs are bought when it is trained, for ${origin.dollars:.2f} at most; {later}"
    if isinstance(origin, FromFile):
        path = Path(origin.path)
        if path.exists() and not path.is_file():
            # Whoever proposes names the path.
            raise BadData(f"{path}: expected a file of pairs")  # a device or a pipe could be read for ever
        small = not path.exists() or path.stat().st_size <= MOST_BYTES
    else:
        small = origin.pairs <= PLANNED
    return (training.check().data_hash, "") if small else ("", f"Its pairs are made when it is trained; {later}")


def approve(folder: Path, name: str, who: str) -> Request:
    """A person says yes. Raises BadParameters where the request is past that, or nobody is named."""
    if not who.strip():
        raise BadParameters("an approval needs the name of the person who gives it")
    return advance(folder, name, "approved", who)


def reject(folder: Path, name: str, why: str, who: str = "") -> Request:
    """A person says no, and why."""
    if not why.strip():
        raise BadParameters("a rejection says why, so that nobody asks the same again")
    return advance(folder, name, "rejected", who, why)


def advance(
    folder: Path, name: str, state: str, who: str = "", why: str = "", run: str = "", measured: str = ""
) -> Request:
    """Take the next step of a request. Raises BadParameters naming the steps that may follow."""
    if not folder.is_dir():
        raise BadParameters(f"no request {name!r} in {folder}; there are: none")
    with locked(folder / ".lock"):
        # Read with the lock held: two may decide about one request at once.
        before = get(folder, name)
        if state not in NEXT_STATES[before.state]:
            may = " or ".join(NEXT_STATES[before.state]) or "nothing"
            raise BadParameters(f"request {before.id} is {before.state}: after that comes {may}, not {state}")
        if state == "delivered" and not run or state == "measured" and not measured:
            raise BadParameters(f"request {before.id}: {state} needs the run that did it")
        request = changed(
            before, state=state, run=run or before.run, history=(*before.history, _step(state, who, why)),
            measured=(*before.measured, measured) if measured else before.measured,
        )  # fmt: skip
        write_atomic(folder / f"{before.id}.json", _text(request))
    return request


def _step(state: str, who: str, why: str) -> dict[str, str]:
    return {"state": state, "who": who, "why": why, "at": now()}


def _text(request: Request) -> str:
    return json.dumps(asdict(request), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _read(path: Path) -> Request:
    """A request from its file. Raises BadParameters where it is none, or one under another's name."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        request = Request(**{**raw, "measured": tuple(raw["measured"]), "history": tuple(raw["history"])})
        if request.state not in NEXT_STATES or request.id != path.stem:
            raise ValueError(f"state {request.state!r}, id {request.id!r}")
        return request
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadParameters(f"{path}: not a request for a training ({type(error).__name__}: {error})") from error
