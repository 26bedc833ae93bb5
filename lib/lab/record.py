"""What one run was and found: the record, and the result that a notebook displays and a seal keeps.

Knows plain data and provenance. Does not know how a run is executed, nor what is decided about it.
"""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from lib.files import ROOT, canonical, sha256, sha256_file

SCHEMA = 1
MIME = "application/vnd.notch.run+json"


@dataclass(frozen=True)
class Record:
    """One run as `record.json` holds it. `id` and `slug` are given when it is sealed."""

    kind: str  # experiment, confirm, calibrate, rejudge, train, models
    hypothesis: str
    fingerprint: str
    code: dict[str, Any]
    predicted: float = 0.0  # the effect on quality that the hypothesis declares
    min_effect: float = 0.02  # a run whose interval rules out this gain is discarded instead of indecisive
    lever: str = ""
    pipeline: list[dict[str, Any]] = field(default_factory=list)
    model: str = ""  # none answers
    adapter: str = ""
    decoding: dict[str, Any] = field(default_factory=dict)
    judge: str = "offline"
    gate: str = "none"
    seed: int = 0
    batch: bool = False
    judging: dict[str, Any] = field(default_factory=dict)  # protocol, replicate, dollars, as the parameters said
    identity: dict[str, Any] = field(default_factory=dict)  # the model's weights, the judge's identity
    of: str = ""  # confirm: the run that is looked at again
    status: str = ""  # kept, discarded, indecisive, incomplete, invalid, crashed, reference
    scores: dict[str, Any] = field(default_factory=dict)
    decision: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    started: str = ""
    seconds: float = 0.0
    machine: dict[str, str] = field(default_factory=dict)
    key: str = ""  # same key, same experiment: a plan runs it once
    id: str = ""
    slug: str = ""
    schema: int = SCHEMA
    leaks: list[str] = field(default_factory=list)  # cases whose answers hold gold word for word: the run is invalid
    sampled: bool | None = None  # whether any call drew its reply; None in what makes no answers
    found: dict[str, Any] = field(default_factory=dict)  # what was measured beside scores, or instead of them
    useful: bool = False  # whether the judge was also asked, without gold in sight, how useful each set is

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Result:
    """A record with its cases. Displaying it is how a notebook hands its result to the seal."""

    record: Record
    cases: list[dict[str, Any]]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        data = {"schema": SCHEMA, "record": self.record.as_dict(), "cases": self.cases}
        rows = "cases" if self.record.scores else "judgments"
        text = f"{len(self.cases)} {rows}, status {self.record.status}, fingerprint {self.record.fingerprint[:12]}"
        return {MIME: data, "text/plain": text, "text/markdown": f"Result record: {text}."}


def run_key(kind: str, parameters: dict[str, Any], fingerprint: str) -> str:
    """Names an experiment by what it does: the template, its parameters, the ruler and the judge."""
    return sha256(canonical([kind, parameters, fingerprint]))[:32]


@lru_cache(maxsize=1)
def code_state() -> dict[str, Any]:
    """Which code is running: commit, whether it differs from the commit, and the hash of `lib`'s sources."""
    files = sorted(p for p in (ROOT / "lib").rglob("*.py"))
    digest = sha256("".join(f"{p.relative_to(ROOT).as_posix()} {sha256_file(p)}\n" for p in files))
    commit = _git("rev-parse", "HEAD")
    dirty = _git("status", "--porcelain", "--", "lib", "ruler", "notebooks")
    return {"commit": commit or "unknown", "dirty": None if commit is None else bool(dirty), "sha256": digest}


def machine() -> dict[str, str]:
    """The kind of machine, without its name: what decides whether scores repeat to the last digit."""
    from importlib.metadata import PackageNotFoundError, version

    found = {
        "platform": platform.system().lower(),
        "processor": platform.machine(),
        "python": platform.python_version(),
    }
    for package in ("mlx", "mlx-lm", "anthropic"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git(*args: str) -> str | None:
    try:
        done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
