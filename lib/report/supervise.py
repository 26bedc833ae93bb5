"""Supervising a loop from a notebook: its live state, the climb, the queue, requests to approve, and steering.

Knows how to read runs, events and steering files, and writes steering files alone: the loop never waits for this
page, and the page reads the same when no loop runs. The logic needs no browser; the widgets only call it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lib.files import Tampered, runs_folder
from lib.lab import state, steer
from lib.lab.events import Event, Events
from lib.lab.experiment import Markdown
from lib.lab.ledger import Ledger
from lib.lab.loop import REQUESTS
from lib.report import figures, memory, tables
from lib.report.figures import Picture

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
        told = steer.read(self.steer)
        era = tables.latest(ledger)
        champion = ledger.champion(era)
        end = events.last("stopped", "tampered")
        lines = [f"**{_doing(self.steer)}** {len(ledger.records)} runs are sealed."]
        if champion:
            lines.append(
                f"Champion: {champion['id']} at {champion['scores']['quality']:.3f}; attempts since: {state.stale(ledger, era)}."
            )
        proven = ledger.confirmed(era)
        lines.append(
            f"Confirmed on the sealed gate: {proven['of'] if proven else 'nothing'}, after {len(ledger.looks(era))} looks."
        )
        lines.append(f"Cost so far: ${state.dollars(ledger, events.rows):.2f}.")
        if end:
            lines.append(f"The last end: {end.get('why') or end.get('what')} ({end['at']}).")
        lines += [f"**{text}**" for text in told.odd]
        return Markdown("\n".join(f"- {_cell(t)}" for t in lines))

    @property
    def chart(self) -> Picture:
        """The running-best chart."""
        return figures.climb(self.ledger)

    @property
    def queue(self) -> Markdown:
        """Proposals that wait, the next one first."""
        import pandas as pd

        rows = [{"file": p.name, **_waiting(p)} for p in steer.queued(self.steer)]
        return tables.show(pd.DataFrame(rows))

    @property
    def events(self) -> Markdown:
        """The last events, newest first."""
        rows = list(reversed(Events(self.runs).rows[-SHOWN:]))
        return Markdown(
            "\n".join(f"- {e['at']} **{e['kind']}** {_cell(_about(e))}" for e in rows) or "Nothing here yet."
        )

    @property
    def lessons(self) -> Markdown:
        return memory.lessons(self.ledger)

    @property
    def requests(self) -> Markdown:
        """Training requests and where each stands."""
        import pandas as pd

        rows = [
            {"id": r["id"], "state": r["state"], "expected": r["expected"], "by": r["by"], "why": _cell(r["why"])[:160]}
            for r in training_requests(self.steer)
        ]
        return tables.show(pd.DataFrame(rows))

    # --- what is done: steering files and nothing else

    def wish(self, text: str) -> None:
        """Steer the next proposal, once."""
        steer.write(self.steer, steer.NEXT, text.strip() + "\n" if text.strip() else None)

    def stand(self, text: str) -> None:
        """Steer every proposal from now on."""
        steer.write(self.steer, steer.STANDING, text.strip() + "\n" if text.strip() else None)

    def ban(self, text: str) -> None:
        """Ban lever classes, families and steps, one a line."""
        steer.write(self.steer, steer.BANS, text.strip() + "\n" if text.strip() else None)

    def budget(self, text: str) -> None:
        """Set limits, as `dollars: 5` a line."""
        steer.write(self.steer, steer.BUDGET, text.strip() + "\n" if text.strip() else None)

    def pause(self, on: bool = True) -> None:
        """Hold the loop before its next run, or let it go on."""
        steer.write(self.steer, steer.PAUSE, "" if on else None)

    def stop(self, on: bool = True) -> None:
        """Let the loop end after the run that is on, or take that back."""
        steer.write(self.steer, steer.STOP, "" if on else None)

    def approve(self, request: str, who: str = "notebook") -> None:
        """Approve a training request."""
        from lib.lab import requests

        requests.approve(self.steer / REQUESTS, request, who)

    def reject(self, request: str, why: str = "rejected in the notebook") -> None:
        """Reject a training request."""
        from lib.lab import requests

        requests.reject(self.steer / REQUESTS, request, why)

    def panel(self, every: float = 5.0) -> Any:
        """The desk as widgets, read anew every few seconds where an event loop runs."""
        return _panel(self, every)


def training_requests(folder: Path) -> list[dict[str, Any]]:
    """Training requests of a steering folder as plain data."""
    from lib.lab import requests

    return [asdict(r) for r in requests.requests(folder / REQUESTS)]


def _doing(folder: Path) -> str:
    """What live.json says, and whether the process behind it is still there."""
    try:
        told = json.loads((folder / steer.LIVE).read_text(encoding="utf-8"))
        phase, since, total = told["phase"], told["since"], told.get("of")
        alive = _alive(int(told["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return "No loop has run here yet."
    if phase == "stopped" or not alive:
        return (
            "No loop is running."
            if phase == "stopped"
            else f"The loop that was at {phase!r} since {since} is gone; call it again to go on."
        )
    what = f" {told['slug']}" if told.get("slug") else ""
    return f"The loop is at {phase!r}{what} since {since}, on its way to {total} runs."


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
        told = json.loads(path.read_text(encoding="utf-8"))
        return {
            "by": str(told["by"]),
            "lever": str(told["proposal"]["lever"]),
            "hypothesis": _cell(told["proposal"]["hypothesis"])[:160],
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {"by": "?", "lever": "?", "hypothesis": "cannot be read"}


def _about(event: Event) -> str:
    for key in ("reason", "why", "what", "said"):
        if event.get(key):
            return f"{event.get('rule', '')} {event[key]}".strip()[:160]
    if event["kind"] == "accepted":
        return f"{event['by']}: {event['proposal']['hypothesis']}"[:160]
    return f"{event.get('file', '')} {event.get('change', '')}".strip()


def _cell(text: str) -> str:
    """Text of others that cannot become a table, a link or HTML of this page."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return flat.replace("|", "\\|").replace("[", "\\[").replace("`", "'").replace("$", "\\$")


# --- widgets -------------------------------------------------------------------------------------


def _panel(desk: Desk, every: float) -> Any:
    import ipywidgets as w

    told = steer.read(desk.steer)
    shown = {name: w.Output() for name in ("now", "chart", "queue", "requests", "lessons", "events")}
    refresh = _refresher(desk, shown)
    boxes = [
        _box(
            "next wish (once)",
            told.wish,
            desk.wish,
            refresh,
            "the next proposal sees it, then it is archived with its run",
        ),
        _box("standing wish", told.standing, desk.stand, refresh, "every proposal sees it"),
        _box("bans", told.texts.get(steer.BANS, ""), desk.ban, refresh, "a lever class, family or step a line"),
        _box("budget", told.texts.get(steer.BUDGET, ""), desk.budget, refresh, "dollars: 5"),
    ]
    pause = _switch("pause", told.pause, desk.pause, refresh)
    stop = _switch("stop after this run", told.stop, desk.stop, refresh)
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
                part = Markdown(f"**{_cell(str(error))}**")
            if before.get(name) == part:
                continue
            before[name] = part
            data = (
                part._repr_mimebundle_()[0]
                if isinstance(part, Picture)
                else {"text/markdown": part.text, "text/plain": part.text}
            )
            output.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)

    return refresh


def _box(label: str, text: str, act: Callable[[str], None], refresh: Callable[[], None], hint: str) -> Any:
    """A text with a button that writes it."""
    import ipywidgets as w

    area = w.Textarea(
        value=text, placeholder=hint, description=label, layout=w.Layout(width="100%"), style={"description_width": "8em"}
    )  # fmt: skip
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
    for request in (r for r in training_requests(desk.steer) if r["state"] == "open"):
        name = str(request["id"])
        yes, no = w.Button(description="approve"), w.Button(description="reject")
        yes.on_click(lambda _, name=name: (desk.approve(name), refresh()))
        no.on_click(lambda _, name=name: (desk.reject(name), refresh()))
        rows.append(w.HBox([w.Label(f"{name}, expected {request['expected']:+.3f}"), yes, no]))
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
