"""The measure out of reach: what must be the same before and after every run of a loop.

Knows the ruler, the code that measures and decides, the sealed runs, the ledger, the store and the events, by their
hashes. Does not know what a run does. Does not cover somebody who may rewrite this process.
"""

from __future__ import annotations

from pathlib import Path

from lib.claude import store
from lib.files import NOTEBOOKS, ROOT, RULER, Tampered, check_sums, litter, locked, sha256, sha256_file
from lib.loop.events import Events
from lib.loop.events import verify as verify_events
from lib.measure.ruler import BadRuler, Ruler
from lib.runs import rescore
from lib.runs.record import CaseRow, Record
from lib.runs.seal import LEDGER, SEAL, sealed_folders, sync
from lib.runs.verify import verify, verify_ledger

# Without levers and training: those are what a loop, and whoever works beside it, may change.
ROOMS = ("claude", "measure", "models", "runs", "lab", "loop")  # all in them answers, measures, decides or seals
FILES = ("files.py", "forms.py", "log.py", "weights.py", "agent/guard.py")  # and these of others


def measuring(root: Path = ROOT) -> dict[str, str]:
    """Hash by file of everything in a checkout that answers, measures, decides or seals."""
    lib = root / "lib"
    rooms = (p for room in ROOMS for p in (lib / room).rglob("*"))
    files = [
        p for p in rooms if p.is_file() and "__pycache__" not in p.parts and not litter(p.relative_to(lib).as_posix())
    ]
    files += [lib / name for name in FILES]
    files += (root / NOTEBOOKS.name).glob("1*.ipynb")  # the templates: what a kernel executes
    return {p.relative_to(root).as_posix(): sha256_file(p) if p.exists() else "" for p in sorted(files)}


def differing(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Files of two such lists that differ, by name."""
    return sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))


class Watch:
    """What a folder of runs and the measure looked like; `check` raises Tampered naming what changed since."""

    def __init__(self, folder: Path, events: Events, accept: bool = False) -> None:
        """Verifies everything once. `accept` lets measuring code differ from the last call's. Raises Tampered."""
        self.folder, self.events = folder, events
        self.tampered: Tampered | None = None  # what `run_check` found
        self.seal = _ruler()
        # Before anything is read: what runs from here on is compared with the files as they are now.
        self.code = measuring()
        if folder.exists():
            with locked(folder / ".lock"):
                sync(folder)
        faults = [*verify(folder), *store.verify(folder / store.NAME), *verify_events(folder)]
        before = events.last("started")
        if before and not accept:
            changed = differing(before["measure"], self.code)
            if changed:
                faults.append(
                    f"{', '.join(changed[:4])}: changed since this loop last ran here; put it back, or call with "
                    "--accept-measure, which the events keep"
                )
        self._remember(faults)

    def _remember(self, faults: list[str]) -> None:
        _raise(faults)
        self._logs = {path: _prefix(path) for path in (self.folder / LEDGER, self.folder / store.NAME)}

    def check(self) -> None:
        """Raise Tampered where ruler, measuring code, runs, ledger, store or events are not as they were."""
        faults = []
        if _ruler() != self.seal:
            faults.append(f"{RULER}: another ruler than when the loop began")
        faults += [f"{name}: changed while the loop ran" for name in differing(self.code, measuring())]
        # Both logs only ever grow, so what was there at the last look must be their beginning.
        for path, (size, digest) in self._logs.items():
            if _prefix(path, size) != (size, digest):
                faults.append(f"{path}: changed while the loop ran")
        # Hashing every run is the slow part; where the measure itself changed there is no point in it.
        if not faults:
            faults += [*self._runs(), *store.verify(self.folder / store.NAME), *verify_events(self.folder)]
        self._remember(faults)

    def _runs(self) -> list[str]:
        """Every byte of the runs against their seals, the ledger against the runs. Scores: at the start and the end."""
        faults = []
        for run in sealed_folders(self.folder):
            faults += check_sums(run, (run / SEAL).read_text(encoding="utf-8", errors="replace"), SEAL)
        return faults or (verify_ledger(self.folder) if self.folder.exists() else [])

    def run_check(self, record: Record | None, cases: list[CaseRow]) -> Tampered | None:
        """What is wrong with a run that was executed and is not sealed yet, None if nothing is."""
        try:
            self.check()
            # In a process of its own: a step could have reached into this one's memory.
            if record:
                _raise(rescore.check(record, cases, self.folder)[:3])
        except Tampered as error:
            self.tampered = error
            return error
        return None

    def final(self) -> None:
        """Everything, scores too. Raises Tampered."""
        self.check()
        _raise(verify(self.folder))


def _raise(faults: list[str]) -> None:
    if faults:
        raise Tampered("; ".join(faults))


def _ruler() -> str:
    """The seal of the ruler on disk. Raises Tampered where it cannot be loaded as sealed."""
    try:
        return Ruler.load(RULER).seal
    except BadRuler as error:
        raise Tampered(str(error)) from error


def _prefix(path: Path, size: int | None = None) -> tuple[int, str]:
    """Size and hash of a file's first bytes; of all of it without a size."""
    data = path.read_bytes() if path.exists() else b""
    data = data if size is None else data[:size]
    return len(data), sha256(data)
