"""A small page that says how a study or a loop stands, for a browser without a kernel: it loads itself again.

Knows the ledger and what it is told: the name of the work, what runs now, how many of how many, and by the kernels of
this machine how many of their cases are done. Written beside the report's pages after every step, where a kernel is
further, and at the end, which stops it from loading again; what it says is written beside it, for the supervision page
to say the same. Asks nothing of a network.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from lib.files import PROGRESS, write_atomic
from lib.log import now
from lib.report.era import Era
from lib.report.run_page import text
from lib.report.site import page_path, shell
from lib.runs.ledger import Ledger
from lib.show import number, plural

# By a script: axe calls a refresh in the head critical.
AGAIN = "setTimeout(() => location.reload(), 5000)"
EVERY = 2.0  # s between two looks at how far the kernels are
LAST = 12  # runs in the table
WIDTH, HEIGHT, EDGE = 640, 200, 30  # of the chart, in pixels


@dataclass
class Live:
    """The page of one piece of work, for a `with` block: call `show` after each step and `end` at the end.

    Work that breaks off is said to have ended too: else the page would load itself again for ever.
    """

    runs: Path
    path: Path
    work: str  # the name of the plan, or "loop"
    total: int  # steps planned
    began: float = field(default_factory=time.monotonic)
    _ran: int = 0
    _ended: bool = False
    _said: str = ""
    _below: str = ""  # chart and table, drawn when a step ends: between two nothing of them changes
    _kernels: list[str] = field(default_factory=list)  # how far each was at the last look
    _folder: str = os.devnull  # a folder once it is entered
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Live:
        self._folder = tempfile.mkdtemp(prefix="notch-")
        threading.Thread(target=self._follow, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        if not self._ended and self.path.exists():
            self.end(f"broken off ({kind.__name__})" if kind else "broken off")
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """For the kernels that shall say how far they are."""
        return {PROGRESS: self._folder}

    def show(self, done: int, current: str = "", ran: bool = False) -> None:
        """Write the page: `done` of all steps, what runs now, and whether the last step took its time."""
        self._ran += ran
        left = self.total - done
        said = f"{done} of {self.total} done"
        # By the runs that took their time alone: rows that were sealed already go by at once.
        if self._ran and left > 0:
            minutes = (time.monotonic() - self.began) / self._ran * left / 60
            said += (
                f", about {plural(round(minutes), 'minute')} left at the pace so far"
                if minutes >= 1
                else ", less than a minute left"
            )
        if current:
            said += f"; now: {current}"
        self._write(said)

    def end(self, said: str) -> None:
        """Write the page for the last time."""
        self._ended = True
        self._write(f"Ended: {said}")

    def _follow(self) -> None:
        """Write the page anew where a kernel is further."""
        while not self._over.wait(EVERY):
            with self._lock, contextlib.suppress(OSError):  # whoever watches can do without
                if self._said and not self._ended and self._far() != self._kernels:
                    self._put()

    def _far(self) -> list[str]:
        """How far each kernel of this process is, in a line."""
        lines = []
        for path in sorted(Path(self._folder).glob("[0-9]*")):
            what, _, how_far = path.read_text(encoding="utf-8").partition("\n")
            if _alive(int(path.name)):  # what a kernel said last outlives it
                lines.append(f"{how_far.strip()} · {what}")
        return lines

    def _write(self, said: str) -> None:
        ledger = Ledger.read(self.runs)
        with self._lock:
            self._said, self._below = said, f"{chart(ledger)}{table(ledger)}"
            self._put()

    def _put(self) -> None:
        if not self.runs.is_dir():  # a plan that is refused must not begin a folder of pages
            return
        self._kernels, again = [], ""
        if not self._ended:
            self._kernels, again = self._far(), AGAIN
        body = (
            f'<h1>{text(self.work)}</h1><p role="status">{text(self._said)}</p>{under_way(self._kernels)}'
            f"<p>Written {text(now())}.</p>{self._below}"
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, shell(f"notch: {self.work}", body, [], again))
        state = {"pid": os.getpid(), "work": self.work, "said": self._said, "at": now(), "ended": self._ended,
                 "kernels": self._kernels}  # fmt: skip
        write_atomic(self.path.with_suffix(".json"), json.dumps(state, ensure_ascii=False) + "\n")


def under_way(kernels: list[str]) -> str:
    """How far each run is, for the page, with bars that the browser draws."""
    items = "</li><li>".join(map(text, kernels))
    bars = r'<progress value="\1" max="\2" aria-hidden="true"></progress> \1 of \2'
    return items and re.sub("[█░]+ ([0-9]+) of ([0-9]+)", bars, f"<ul><li>{items}</li></ul>")


def standing(runs: Path) -> list[str]:
    """What the page of a folder of runs says, and whether the process behind it is still there; then a line for each
    run under way."""
    try:
        state = json.loads(page_path(runs, "live").with_suffix(".json").read_bytes())
        text = f"{state['work']}: {state['said']} ({state['at']})."
        if state["ended"] or _alive(state["pid"]):
            return [text, *state.get("kernels", ())]
        return [f"{text} Its process is gone; call it again to go on."]
    except (OSError, ValueError, KeyError, TypeError):
        return ["No study or loop runs here now."]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's process is a process
    return True


def last(ledger: Ledger) -> pd.DataFrame:
    """The last runs, the newest first."""
    f = ledger.frame().tail(LAST)[::-1]
    return f.assign(run=f.id, quality=f.quality.map(number))[["run", "status", "quality", "hypothesis"]]


def table(ledger: Ledger) -> str:
    """The same for the page."""
    f = last(ledger)
    if f.empty:
        return "<p>No run is sealed yet.</p>"
    # A hypothesis is longer than pandas shows.
    with pd.option_context("display.max_colwidth", None):
        return f"<h2>The last runs</h2>{f.to_html(index=False, border=0, table_id='last')}"


def chart(ledger: Ledger) -> str:
    """The climb of the newest era on the full gate: a dot a run, a line for the best kept so far."""
    f = Era.latest(ledger).climb
    if f.empty:
        return ""
    # Without one valid answer the axis still needs a length.
    top = max(f.quality.max(), 0.05)
    scale = (HEIGHT - 2 * EDGE) / top
    kept = f.status == "kept"
    best = f.quality.where(kept).ffill().fillna(0.0)
    f = f.assign(
        x=EDGE + (WIDTH - 2 * EDGE) / max(1, len(f) - 1) * np.arange(len(f)), y=HEIGHT - EDGE - scale * f.quality,
        level=HEIGHT - EDGE - scale * best, radius=np.where(kept, 5, 3), opacity=np.where(kept, 1, 0.4),
    )  # fmt: skip
    dots, line = "", f"M{EDGE} {f.level.iloc[0]:.1f}"
    for r in f.itertuples():
        line += f"H{r.x:.1f}V{r.level:.1f}"
        label = f"<title>{text(r.id)}: {r.quality:.3f}, {text(r.status)}</title>"
        dots += f'<circle cx="{r.x:.1f}" cy="{r.y:.1f}" r="{r.radius}" opacity="{r.opacity}">{label}</circle>'
    said = f"Quality of {len(f)} runs in order on the full gate; the best kept has {best.iloc[-1]:.3f}, the axis ends at {top:.3f}"
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}" style="max-width:{WIDTH}px;min-width:0;width:100%">'
        f'<path d="{line}" fill="none" stroke="#b5482a" stroke-width="1.5"/><g fill="#b5482a">{dots}</g></svg></figure><p>{said}.</p>'
    )
