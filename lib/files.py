"""The floor: the project's folders, canonical JSON, hashes, and files that are written once or not at all.

Knows bytes and paths. Does not know what is in them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "ruler"  # the ruler that comes with the project, and that the offline judge was fitted on
# The ruler in use. Read once: what a process imports later must not measure with another; kernels inherit the variable.
RULER = Path(os.environ.get("NOTCH_RULER") or SHIPPED).resolve()
NOTEBOOKS = ROOT / "notebooks"
PROGRESS = "NOTCH_PROGRESS"  # folder where each kernel writes how far it is, for whoever waits, by its process id
# What desktops leave behind; and the ._* files of macOS.
LITTER = (".DS_Store", ".localized", "Icon\r", ".directory", ".ipynb_checkpoints", "Thumbs.db", "desktop.ini")
# With core.autocrlf a checkout has other line ends, and then no seal fits: no attack, so it is said by name.
CRLF = "its line ends are CRLF now (git config core.autocrlf false, then check it out again as it was sealed)"


class Exit(IntEnum):
    """How a command ends."""

    OK = 0
    FAILED = 1  # a check did
    USAGE = 2
    MISSING = 3  # a prerequisite: a model, a key, weights
    RUN_FAILED = 4  # or what it needs on the way: the disk, the network, the API
    TAMPERED = 5
    STOPPED = 130  # by a person at the keyboard


class OneLine(Exception):
    """An expected error. Notebooks show its one line; the traceback would only bury it."""

    exit = Exit.FAILED  # how a command ends that meets it

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class Tampered(OneLine):
    """Something that was sealed has changed; the message names each file."""

    exit = Exit.TAMPERED


class NoFolder(OneLine, OSError):
    """A folder that this machine does not let us write to; nothing was begun."""

    exit = Exit.MISSING


def runs_folder() -> Path:
    """The folder of sealed runs: `NOTCH_RUNS` if set, as it is in every kernel, else `runs` of the project."""
    return Path(os.environ.get("NOTCH_RUNS") or ROOT / "runs")


def without_paths(text: str, model: str = "") -> str:
    """Text without the paths of this machine; of a model's own folder only the name is kept."""
    # The inner one first: a model's folder may lie in the project, and that in the home, as Python's own may.
    places = [(str(ROOT), "."), (str(Path(os.__file__).parent), "python"), (home(), "~"), (sys.prefix, "env")]
    if Path(model).is_absolute():
        places.insert(0, (str(Path(model).parent), "…"))
    for path, short in places:
        if len(path) > 3:  # "/" or "" would be everywhere
            text = text.replace(path, short)
    return text


def home() -> str:
    """The home of whoever runs this, "" for a user without one."""
    try:
        return str(Path.home())
    except RuntimeError:
        return ""


def attributes(source: Any, names: Iterable[str]) -> dict[str, Any]:
    """Some fields of an object by their names."""
    return {name: getattr(source, name) for name in names}


def leave_out(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A row without some of its fields.

    >>> leave_out({"step": "ask", "n": 8}, "step")
    {'n': 8}
    """
    return {name: value for name, value in row.items() if name not in names}


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values, equal text. Raises ValueError on NaN, which JSON does not have.

    >>> canonical({"b": 1, "a": [1.5, None]})
    '{"a":[1.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256(data: bytes | str) -> str:
    """Hex digest of bytes, or of a text's UTF-8."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    return sha256(path.read_bytes())


def write_new(path: Path, data: bytes | str, mode: int = 0o444) -> None:
    """Write a file that must not exist yet: complete or not at all. Raises FileExistsError, OSError."""
    with _complete(path.parent, data, mode) as temp:
        os.link(temp, path)  # refuses to overwrite, unlike rename


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file that may exist: readers see the old bytes or the new ones, never a part."""
    with _complete(path.parent, data, 0o644) as temp:
        os.replace(temp, path)


def tell(text: str, what: str) -> None:
    """Write how far this kernel is, and at what, where somebody waits."""
    if folder := os.environ.get(PROGRESS):
        with contextlib.suppress(OSError):  # whoever waits can do without; the run cannot fail for it
            write_atomic(Path(folder) / str(os.getpid()), f"{what}\n{text}")


def writable(folder: Path, otherwise: str = "choose another with --runs") -> None:
    """Make a folder and see that it can be written, before work costs anything. Raises NoFolder.

    `otherwise` says how another one is chosen.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Only trying tells: a read-only mount has every permission bit.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = error.strerror or error
        raise NoFolder(f"{folder} cannot be written ({why}), so nothing was begun: {otherwise}") from error


@contextlib.contextmanager
def _complete(folder: Path, data: bytes | str, mode: int) -> Iterator[str]:
    """A temporary file that holds all of `data` on disk; it is gone afterwards, whatever happened."""
    # Beside its place, since link and rename work within one file system only. What a kill leaves of it in a folder
    # of runs is cleared by its prefix (`lib.runs.seal.sync`).
    handle, temp = tempfile.mkstemp(dir=folder, prefix=".tmp-")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data.encode() if isinstance(data, str) else data)
            out.flush()
            # Before the name appears: a crash must not leave the name of an empty file.
            os.fsync(out.fileno())
        os.chmod(temp, mode)
        yield temp
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temp)


def rows(text: str) -> list[str]:
    """The lines of a JSONL text. Only a line feed ends one: a text inside may hold any other separator."""
    return text.removesuffix("\n").split("\n") if text else []


def next_number(folder: Path, pattern: str) -> str:
    """The number after the largest that a name of this pattern begins with, in four digits."""
    numbers = (int(path.name.split("-")[0]) for path in folder.glob(pattern))
    return f"{max(numbers, default=0) + 1:04d}"


def sync_folder(path: Path) -> None:
    """Wait until the folder's own entries (new names, renames) are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; waits for whoever holds it. The lock dies with the process."""
    import fcntl

    # Never deleted: whoever waits holds this file, and a new one of the same name would guard nothing.
    with open(path, "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def sums(folder: Path, names: list[str]) -> str:
    """`sha256sum` lines for files of a folder, so that `sha256sum -c` checks them.

    Names are relative to the folder, with forward slashes.
    """
    return "".join(f"{sha256_file(folder / name)}  {name}\n" for name in sorted(names))


def litter(name: str) -> bool:
    """Whether a relative name is what a desktop leaves behind where somebody only looked: it is no tampering.

    >>> litter("a/.DS_Store"), litter("._record.json"), litter(".ipynb_checkpoints/x.ipynb"), litter(".notes")
    (True, True, True, False)
    """
    return any(part in LITTER or part.startswith("._") for part in name.split("/"))


def hidden(name: str) -> bool:
    """Whether a relative name is a dot file or lies in a dot folder; seals leave those out."""
    return any(part.startswith(".") for part in name.split("/"))


def check_sums(folder: Path, text: str, seal: str) -> list[str]:
    """What differs between a folder and its `sha256sum` lines: one sentence a file, empty when all is well.

    Names changed, missing and added files. `seal` is the name of the file that holds the lines.
    """
    sealed: dict[str, str] = {}
    for line in text.splitlines():
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name:
            return [f"{folder / seal}: not a list of sha256 sums"]
        sealed[name] = digest
    # Not regular files alone: a link or a pipe that was put in is an addition too.
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    present = {name for name in names if name != seal and not hidden(name) and not litter(name)}
    differences = [f"{folder / name}: missing" for name in sorted(sealed.keys() - present)]
    for name in sorted(present - sealed.keys()):
        differences.append(f"{folder / name}: not part of the seal (added later)")
    for name in sorted(sealed.keys() & present):
        # What is no file any more is not read: of a pipe that would wait for ever.
        data = b""
        if (folder / name).is_file():
            data = (folder / name).read_bytes()
        if sha256(data) == sealed[name]:
            continue
        if sha256(data.replace(b"\r\n", b"\n")) == sealed[name]:
            differences.append(f"{folder / name}: {CRLF}")
        else:
            differences.append(f"{folder / name}: changed since it was sealed (its sum in {folder / seal} is another)")
    return differences
