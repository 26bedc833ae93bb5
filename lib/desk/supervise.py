"""Supervising a loop from a notebook: its live state, the climb, the queue, requests to approve, and steering.

Knows how to read runs, events and steering files, and writes steering files alone: the loop never waits for this
page, and the page reads the same when no loop runs. The logic needs no browser; the widgets only call it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from lib.files import Tampered, runs_folder
from lib.lab.show import Markdown, bullets, cell, plural, table
from lib.loop import next_run as state
from lib.loop import steering as steer
from lib.loop import training_requests as requests
from lib.loop.events import Event, Events
from lib.loop.loop import REQUESTS
from lib.report import figures, memory, tables
from lib.report.figures import Picture
from lib.runs.ledger import Ledger

SHOWN = 12  # events in the list


@dataclass(frozen=True)
class Desk:
    """A folder of runs and its steering folder, read anew at every look."""

    runs: Path = field(default_factory=runs_folder)
    steering: Path | None = None

    @property
    def steer(self) -> Path:
        return self.steering or steer.default_folder(self.runs)

    @property
    def ledger(self) -> Ledger:
        return Ledger.read(self.runs)

    # --- what is seen

    def _repr_markdown_(self) -> str:
        return self.now.text

    @property
    def now(self) -> Markdown:
        """What the loop is doing, in a few lines."""
        try:
            ledger, events = self.ledger, Events(self.runs)
        except Tampered as error:
            return Markdown(f"**Something was changed that must not be:** {error}")
        era = tables.latest(ledger)
        champion, proven, end = ledger.champion(era), ledger.confirmed(era), events.last("stopped", "tampered")
        lines = [f"**{_doing(self.steer)}** Sealed: {plural(len(ledger.records), 'run')}."]
        if champion:
            quality = champion["scores"]["quality"]
            lines.append(
                f"Champion: {champion['id']} at {quality:.3f}; attempts since: {state.runs_since_keep(ledger, era)}."
            )
        lines.append(f"Confirmed on the sealed gate: {proven['of'] if proven else 'nothing'}, after "
                     f"{plural(len(ledger.looks()), 'look')}.")  # fmt: skip
        lines.append(f"Cost so far: ${state.dollars(ledger, events.rows):.2f}.")
        if end:
            lines.append(f"The last end: {end.get('why') or end.get('what')} ({end['at']}).")
        lines += [f"**{text}**" for text in steer.read(self.steer).faults]
        return bullets(map(cell, lines))

    @property
    def chart(self) -> Picture:
        """The running-best chart."""
        return figures.climb(self.ledger)

    @property
    def queue(self) -> Markdown:
        """Proposals that wait, the next one first."""
        rows = [{"file": p.name, **_waiting(p)} for p in steer.queued(self.steer)]
        return table(pd.DataFrame(rows))

    @property
    def events(self) -> Markdown:
        """The last events, newest first."""
        rows = reversed(Events(self.runs).rows[-SHOWN:])
        return bullets(f"{e['at']} **{e['kind']}** {cell(_about(e))}" for e in rows)

    @property
    def lessons(self) -> Markdown:
        return memory.lessons(self.ledger)

    @property
    def requests(self) -> Markdown:
        """Training requests and where each stands."""
        return table(pd.DataFrame([
            {"request": r.id, "state": r.state, "expected": r.expected, "by": r.by, "why": cell(r.why)[:160]}
            for r in requests.requests(self.steer / REQUESTS)
        ]))  # fmt: skip

    # --- what is done: steering files and nothing else

    def _write(self, name: str, text: str) -> None:
        steer.write(self.steer, name, text.strip() + "\n" if text.strip() else None)

    def wish(self, text: str) -> None:
        """Steer the next proposal, once."""
        self._write(steer.NEXT, text)

    def stand(self, text: str) -> None:
        """Steer every proposal from now on."""
        self._write(steer.STANDING, text)

    def ban(self, text: str) -> None:
        """Ban lever classes, families and steps, one a line."""
        self._write(steer.BANS, text)

    def budget(self, text: str) -> None:
        """Set limits, as `dollars: 5` a line."""
        self._write(steer.BUDGET, text)

    def pause(self, on: bool = True) -> None:
        """Hold the loop before its next run, or let it go on."""
        steer.write(self.steer, steer.PAUSE, "" if on else None)

    def stop(self, on: bool = True) -> None:
        """Let the loop end after the run that is on, or take that back."""
        steer.write(self.steer, steer.STOP, "" if on else None)

    def approve(self, request: str, who: str = "notebook") -> None:
        """Approve a training request."""
        requests.approve(self.steer / REQUESTS, request, who)

    def reject(self, request: str, why: str = "rejected in the notebook") -> None:
        """Reject a training request."""
        requests.reject(self.steer / REQUESTS, request, why)

    def panel(self, every: float = 5.0) -> Any:
        """The desk as widgets, read anew every few seconds where an event loop runs."""
        return _panel(self, every)


def _doing(folder: Path) -> str:
    """What live.json says, and whether the process behind it is still there."""
    try:
        live = json.loads((folder / steer.LIVE).read_text(encoding="utf-8"))
        phase, since, alive = live["phase"], live["since"], _alive(int(live["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return "No loop has run here yet."
    if phase == "stopped":
        return "No loop is running."
    if not alive:
        return f"The loop that was at {phase!r} since {since} is gone; call it again to go on."
    what = f" {live['slug']}" if live.get("slug") else ""
    return f"The loop is at {phase!r}{what} since {since}, on its way to {live.get('of')} runs."


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _waiting(path: Path) -> dict[str, str]:
    try:
        waiting = json.loads(path.read_text(encoding="utf-8"))
        by, lever, hypothesis = waiting["by"], waiting["proposal"]["lever"], waiting["proposal"]["hypothesis"]
        return {"by": str(by), "lever": str(lever), "hypothesis": cell(hypothesis)[:160]}
    except (OSError, ValueError, KeyError, TypeError):
        return {"by": "?", "lever": "?", "hypothesis": "cannot be read"}


def _about(event: Event) -> str:
    for key in ("reason", "why", "what", "said"):
        if event.get(key):
            return f"{event.get('rule', '')} {event[key]}".strip()[:160]
    if event["kind"] == "accepted":
        return f"{event['by']}: {event['proposal']['hypothesis']}"[:160]
    return f"{event.get('file', '')} {event.get('change', '')}".strip()


# --- widgets -------------------------------------------------------------------------------------


def _panel(desk: Desk, every: float) -> Any:
    import ipywidgets as w

    steering = steer.read(desk.steer)
    shown = {name: w.Output() for name in ("now", "chart", "queue", "requests", "lessons", "events")}
    refresh = _refresher(desk, shown)
    once = "the next proposal sees it, then it is archived with its run"
    bans, budget = (steering.texts.get(name, "") for name in (steer.BANS, steer.BUDGET))
    boxes = [
        _box("next wish (once)", steering.wish, desk.wish, refresh, once),
        _box("standing wish", steering.standing, desk.stand, refresh, "every proposal sees it"),
        _box("bans", bans, desk.ban, refresh, "a lever class, family or step a line"),
        _box("budget", budget, desk.budget, refresh, "dollars: 5"),
    ]
    pause = _switch("pause", steering.pause, desk.pause, refresh)
    stop = _switch("stop after this run", steering.stop, desk.stop, refresh)
    look = w.Button(description="look again")
    look.on_click(lambda _: refresh())
    refresh()
    _follow(refresh, every)

    def under(title: str, *parts: Any) -> tuple[Any, ...]:
        return (w.HTML(f"<b>{title}</b>"), *parts)

    return w.VBox([
        w.HBox([pause, stop, look]), shown["now"], shown["chart"], *boxes,
        *under("Trainings asked for", _approvals(desk, refresh), shown["requests"]), *under("Queue", shown["queue"]),
        *under("Lessons", shown["lessons"]), *under("Events", shown["events"]),
    ])  # fmt: skip


def _refresher(desk: Desk, shown: dict[str, Any]) -> Callable[[], None]:
    """Show every part anew, where it has changed."""
    before: dict[str, Any] = {}

    def refresh() -> None:
        for name, output in shown.items():
            try:
                part = getattr(desk, name)
            except Tampered as error:
                part = Markdown(f"**{cell(str(error))}**")
            if before.get(name) == part:
                continue
            before[name] = part
            picture = isinstance(part, Picture)
            data = part._repr_mimebundle_()[0] if picture else {"text/markdown": part.text, "text/plain": part.text}
            output.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)

    return refresh


def _box(label: str, text: str, act: Callable[[str], None], refresh: Callable[[], None], hint: str) -> Any:
    """A text with a button that writes it."""
    import ipywidgets as w

    wide, style = w.Layout(width="100%"), {"description_width": "8em"}
    area = w.Textarea(value=text, placeholder=hint, description=label, layout=wide, style=style)
    button = w.Button(description="write")
    button.on_click(lambda _: (act(area.value), refresh()))
    return w.HBox([area, button])


def _switch(label: str, on: bool, act: Callable[[bool], None], refresh: Callable[[], None]) -> Any:
    import ipywidgets as w

    switch = w.ToggleButton(value=on, description=label)
    switch.observe(lambda change: (act(change["new"]), refresh()), "value")
    return switch


def _approvals(desk: Desk, refresh: Callable[[], None]) -> Any:
    """Buttons for the training requests that are open now."""
    import ipywidgets as w

    rows = []
    for request in (r for r in requests.requests(desk.steer / REQUESTS) if r.state == "open"):
        name = request.id
        yes, no = w.Button(description="approve"), w.Button(description="reject")
        yes.on_click(lambda _, name=name: (desk.approve(name), refresh()))
        no.on_click(lambda _, name=name: (desk.reject(name), refresh()))
        rows.append(w.HBox([w.Label(f"{name}, expected {request.expected:+.3f}"), yes, no]))
    return w.VBox(rows)


def _follow(refresh: Callable[[], None], every: float) -> None:
    """Look again every few seconds, where an event loop runs; in a plain process or a batch run once is enough."""
    import asyncio

    async def again() -> None:
        while True:
            await asyncio.sleep(every)
            refresh()

    try:
        task = asyncio.get_running_loop().create_task(again())
    except RuntimeError:
        return
    _TASKS.append(task)  # a task that nobody holds may be collected


_TASKS: list[Any] = []
