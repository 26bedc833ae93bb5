"""Which code and which machine made a run, and the key that names what it does.

Knows git, the sources of `lib` and versions of packages. Does not know records.
"""

from __future__ import annotations

import json
import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib.files import NOTEBOOKS, ROOT, canonical, sha256, sha256_file


def run_key(kind: str, parameters: dict[str, Any], fingerprint: str) -> str:
    """Names an experiment by what it does: the template, its parameters, the ruler and the judge."""
    return sha256(canonical([kind, parameters, fingerprint]))[:32]


# Once a process: every record asks, and an answer takes several processes of git and a hash of all sources.
@lru_cache(maxsize=1)
def code_state(root: Path = ROOT) -> dict[str, Any]:
    """Which code is running: commit, whether it differs from the commit, and the hash of `lib`'s sources."""
    commit = _git(root, "rev-parse", "HEAD")
    templates = (root / NOTEBOOKS.name).glob("1*.ipynb")
    # Of what decides a run alone: an edited page makes no other code.
    dirty = bool(_git(root, "status", "--porcelain", "--", "lib", "ruler")) or any(map(_rewritten, templates))
    return {"commit": commit or "unknown", "dirty": None if commit is None else dirty, "sha256": sources(root)}


def sources(root: Path = ROOT) -> str:
    """The hash of `lib`'s sources. Of these and not the commit: two checkouts with the same code are the same code."""
    files = sorted(p for p in (root / "lib").rglob("*.py"))
    return sha256("".join(f"{p.relative_to(root).as_posix()} {sha256_file(p)}\n" for p in files))


def _rewritten(template: Path) -> bool:
    """Whether a template runs other code than the committed one. JupyterLab saves outputs, and the parameters that
    somebody tried by hand, without being asked: a record holds its own."""
    committed = _git(template.parent, "show", f"HEAD:./{template.name}")
    return _code(template.read_text(encoding="utf-8")) != _code(committed or '{"cells": []}')


def _code(notebook: str) -> list[str]:
    cells = (c for c in json.loads(notebook)["cells"] if c["cell_type"] == "code")
    return ["".join(c["source"]) for c in cells if "parameters" not in c["metadata"].get("tags", ())]


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


def _git(folder: Path, *args: str) -> str | None:
    """What a git command prints; None where there is no git, no repository, or nothing of that name."""
    try:
        done = subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
