"""What this machine has, what is missing and what to do about it.

Knows the ruler, the weights, the engine and the disk. Runs nothing, fetches nothing and leaves nothing behind.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from lib import weights
from lib.files import Tampered
from lib.measure.ruler import RULER, BadRuler, Ruler
from lib.models.blas import BLAS_HINT, fast_blas
from lib.models.mlx import engine
from lib.runs.seal import sealed_folders

CLOUD = "judge claude, model claude-*, ruler draft --dollars and loop --proposer claude"  # what needs a key


def doctor(folder: Path) -> dict[str, Any]:
    """The checks of a machine and a folder of runs. `ok` is false when something is missing that notch cannot do without."""
    blas, key = fast_blas(), bool(os.environ.get("ANTHROPIC_API_KEY"))
    free = shutil.disk_usage(folder if folder.exists() else RULER.parent).free / 1e9
    library = f"reference BLAS: {BLAS_HINT}" if blas == "reference" else blas
    secret = "set" if key else f"not set; without it everything works but {CLOUD}"
    rows = [
        ("python", sys.version_info >= (3, 10), sys.version.split()[0], True),
        ("ruler", *_ruler(), True),
        *((name, *_weights(pinned), True) for name, pinned in weights.PINNED.items()),
        ("matrix library", blas != "reference", library, False),
        ("mlx", *engine(), True),
        ("ANTHROPIC_API_KEY", key, secret, False),
        ("disk", free > 1, f"{free:.1f} GB free", True),
        ("runs", *_runs(folder), True),
    ]
    checks = [dict(zip(("what", "ok", "found", "needed"), row, strict=True)) for row in rows]
    return {"ok": all(c["ok"] for c in checks if c["needed"]), "checks": checks}


def _ruler() -> tuple[bool, str]:
    try:
        ruler = Ruler.load(RULER)
    except (BadRuler, Tampered) as error:
        return False, str(error)
    return True, f"{len(ruler.cases)} cases, seal {ruler.seal[:12]}"


def _weights(pinned: weights.Pinned) -> tuple[bool, str]:
    if weights.there(pinned):
        return True, f"{pinned.about}, in {weights.folder(pinned)}"
    return False, f"not fetched yet: {pinned.about}, {pinned.size / 1e6:.0f} MB; `make setup` fetches it"


def _runs(folder: Path) -> tuple[bool, str]:
    """Whether a run could be sealed here. Only trying tells: a read-only mount has every permission bit."""
    # Of a folder that is yet to be made, the nearest one above it says whether it can be.
    there = next(p for p in (folder, *folder.resolve().parents) if p.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=there):
            pass
    except OSError as error:
        return False, f"{folder} cannot be written ({error.strerror} in {there}): choose another with --runs"
    if not folder.exists():
        return True, f"0 sealed in {folder}"
    return True, f"{len(sealed_folders(folder))} sealed in {folder}"
