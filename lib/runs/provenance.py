"""Which code and which machine made a run, and the key that names what it does.

Knows git, the sources of `lib` and versions of packages. Does not know records.
"""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from typing import Any

from lib.files import ROOT, canonical, sha256, sha256_file


def run_key(kind: str, parameters: dict[str, Any], fingerprint: str) -> str:
    """Names an experiment by what it does: the template, its parameters, the ruler and the judge."""
    return sha256(canonical([kind, parameters, fingerprint]))[:32]


@lru_cache(maxsize=1)
def code_state() -> dict[str, Any]:
    """Which code is running: commit, whether it differs from the commit, and the hash of `lib`'s sources."""
    # Sources and not the commit: two checkouts with the same code are the same code, dirty or not.
    files = sorted(p for p in (ROOT / "lib").rglob("*.py"))
    digest = sha256("".join(f"{p.relative_to(ROOT).as_posix()} {sha256_file(p)}\n" for p in files))
    commit = _git("rev-parse", "HEAD")
    dirty = _git("status", "--porcelain", "--", "lib", "ruler", "notebooks")
    return {"commit": commit or "unknown", "dirty": None if commit is None else bool(dirty), "sha256": digest}


def machine() -> dict[str, str]:
    """The kind of machine, without its name: what decides whether scores repeat to the last digit."""
    from importlib.metadata import PackageNotFoundError, version

    kind = {"platform": platform.system().lower(), "processor": platform.machine(), "python": platform.python_version()}
    for package in ("mlx", "mlx-lm", "anthropic"):
        try:
            kind[package] = version(package)
        except PackageNotFoundError:
            continue
    return kind


def _git(*args: str) -> str | None:
    try:
        done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
