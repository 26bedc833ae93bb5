"""A small page that says how a study or a loop stands, for a browser without a kernel: it loads itself again.

Knows the ledger and what it is told: the name of the work, what runs now, how many of how many. Written beside the
report's pages after every step and at the end, which stops it from loading again. Asks nothing of a network.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from lib.files import write_atomic
from lib.lab.show import number
from lib.log import now
from lib.report.run_page import text
from lib.report.site import shell
from lib.runs.ledger import Ledger
from lib.runs.record import Record

NAME = "live.html"
AGAIN = '<meta http-equiv="refresh" content="5">'
LAST = 12  # runs in the table
WIDTH, HEIGHT, EDGE = 640, 200, 30  # of the chart, in pixels


@dataclass
class Live:
    """The page of one piece of work. Make it, call `show` after each step and `end` once."""

    runs: Path
    path: Path
    work: str  # the name of the plan, or "loop"
    total: int  # steps planned
    began: float = field(default_factory=time.monotonic)
    _ran: int = 0

    def show(self, done: int, current: str = "", ran: bool = False) -> None:
        """Write the page: `done` of all steps, what runs now, and whether the last step took its time."""
        self._ran += ran
        left = self.total - done
        said = f"{done} of {self.total} done"
        if self._ran and left > 0:
            minutes = (time.monotonic() - self.began) / self._ran * left / 60
            said += f", about {minutes:.0f} minutes left at the pace so far" if minutes >= 1 else ", nearly there"
        if current:
            said += f"; now: {current}"
        self._write(said, AGAIN)

    def end(self, said: str) -> None:
        """Write the page for the last time."""
        self._write(f"Ended: {said}", "")

    def _write(self, said: str, again: str) -> None:
        ledger = Ledger.read(self.runs)
        body = (
            f'{again}<h1>{text(self.work)}</h1><p role="status">{text(said)}</p><p>Written {text(now())}.</p>'
            f"{chart(ledger)}{table(ledger.records[-LAST:])}"
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, shell(f"notch: {self.work}", body, []))


def table(records: list[Record]) -> str:
    """The last runs, the newest first."""
    rows = ""
    for r in reversed(records):
        quality = number(r.scores.quality) if r.scores else ""
        rows += (
            f"<tr><td>{text(r.id)}</td><td>{text(r.status)}</td><td>{quality}</td><td>{text(r.hypothesis)}</td></tr>"
        )
    heads = "<tr><th>run</th><th>status</th><th>quality</th><th>hypothesis</th></tr>"
    return f"<h2>The last runs</h2><table>{heads}{rows}</table>" if rows else "<p>No run is sealed yet.</p>"


def chart(ledger: Ledger) -> str:
    """The climb of the newest era on the full gate: a dot a run, a line for the best kept so far."""
    if not ledger.records:
        return ""
    climb = [r for r in ledger.climb(ledger.records[-1].fingerprint) if r.scores]
    if not climb:
        return ""
    top = max(max(r.scores.quality for r in climb if r.scores), 0.05)
    step = (WIDTH - 2 * EDGE) / max(1, len(climb) - 1)
    dots, line, best = "", "", 0.0
    for n, r in enumerate(climb):
        assert r.scores
        x, y = EDGE + n * step, HEIGHT - EDGE - r.scores.quality / top * (HEIGHT - 2 * EDGE)
        kept = r.status == "kept"
        if kept:
            best = r.scores.quality
        level = HEIGHT - EDGE - best / top * (HEIGHT - 2 * EDGE)
        line += f"H{x:.1f}V{level:.1f}" if line else f"M{x:.1f} {level:.1f}"
        label = f"<title>{text(r.id)}: {r.scores.quality:.3f}, {text(r.status)}</title>"
        dots += (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5 if kept else 3}" opacity="{1 if kept else 0.4}">{label}</circle>'
        )
    said = f"Quality of {len(climb)} runs in order on the full gate; the best kept has {best:.3f}, the axis ends at {top:.3f}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}" style="max-width:{WIDTH}px;width:100%">'
        f'<path d="{line}" fill="none" stroke="#b5482a" stroke-width="1.5"/><g fill="#b5482a">{dots}</g></svg><p>{said}.</p>'
    )
