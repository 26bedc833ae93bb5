"""Supervising a loop from a notebook: its live state, the climb, the queue, requests to approve, and steering.

Knows how to read runs, events and steering files, and writes steering files alone: the loop never waits for this
page, and the page reads the same when no loop runs. The logic needs no browser; the widgets only call it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from lib.desk.panel import shown
from lib.files import Tampered, runs_folder
from lib.loop import next_run as state
from lib.loop import steering as steer
from lib.loop import training_requests as requests
from lib.loop.events import Event, Events
from lib.loop.loop import REQUESTS
from lib.report import figures, levers, live, tables
from lib.report.drawing import Picture
from lib.runs.ledger import Ledger
from lib.show import Markdown, bullets, cell, plural, table

SHOWN = 12  # events in the list
LETTERS = 160  # of a text of others in a list
# Boxes to write in, by the file that each writes: label, and what to type. Then switches, by the file that each makes.
BOXES = {
    steer.NEXT: ("next wish (once)", "the next proposal sees it, then it is archived with its run"),
    steer.STANDING: ("standing wish", "every proposal sees it"),
    steer.BANS: ("bans", "a lever class, family or step a line"),
    steer.BUDGET: ("budget", "dollars: 5"),
}
SWITCHES = {steer.PAUSE: "pause", steer.STOP: "stop after this run"}


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
        """What runs now and how far it is, as the live page says it, and how the climb stands, in a few lines."""
        try:
            ledger, events = self.ledger, Events(self.runs)
        except Tampered as error:
            return Markdown(f"**Something was changed that must not be:** {error}")
        era = tables.latest(ledger)
        champion, look, end = ledger.champion(era), ledger.confirmed(era), events.last("stopped", "tampered")
        standing, *kernels = live.standing(self.runs)
        lines = [f"**{standing}** Sealed: {plural(len(ledger.records), 'run')}.", *kernels]
        if champion:
            lines.append(
                f"Champion: {champion.id} at {champion.scored.quality:.3f}; attempts since: {state.runs_since_keep(ledger, era)}."
            )
        lines.append(f"Confirmed on the sealed gate: {look.of if look else 'nothing'}, after "
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
    def runs_so_far(self) -> Markdown:
        """The last runs, as the live page lists them."""
        f = live.last(self.ledger)
        return table(f.assign(hypothesis=f.hypothesis.map(cell)))

    @property
    def queue(self) -> Markdown:
        """Proposals that wait, the next one first."""
        return bullets(map(cell, state.queued(steer.queued(self.steer))))

    @property
    def events(self) -> Markdown:
        """The last events, newest first."""
        rows = reversed(Events(self.runs).rows[-SHOWN:])
        return bullets(f"{e['at']} **{e['kind']}** {_short(_about(e))}" for e in rows)

    @property
    def lessons(self) -> Markdown:
        return levers.lessons(self.ledger)

    @property
    def requests(self) -> Markdown:
        """Training requests and where each stands."""
        f = pd.DataFrame([vars(r) for r in requests.requests(self.steer / REQUESTS)])
        if f.empty:
            return table(f)
        f = f.assign(request=f.id, why=list(map(_short, f.why)))
        return table(f[["request", "state", "expected", "by", "why"]])

    # --- what is done: steering files and nothing else

    def write(self, name: str, text: str) -> None:
        """Write one steering file (see BOXES); an empty text takes it away."""
        text = text.strip()
        steer.write(self.steer, name, f"{text}\n" if text else None)

    def switch(self, name: str, on: bool = True) -> None:
        """Pause or stop the loop (see SWITCHES), or take that back."""
        steer.write(self.steer, name, "" if on else None)

    def approve(self, request: str, who: str = "notebook") -> None:
        """Approve a training request."""
        requests.approve(self.steer / REQUESTS, request, who)

    def reject(self, request: str, why: str = "rejected in the notebook") -> None:
        """Reject a training request."""
        requests.reject(self.steer / REQUESTS, request, why)

    def panel(self, every: float = 5.0) -> Any:
        """The desk as widgets, read anew every few seconds where an event loop runs."""
        panel = Panel(self)
        _follow(panel.refresh, every)
        return panel.box


def _short(text: str) -> str:
    """A text of others for a list, cut after a word; cut before it is escaped, for half an escape is another text."""
    return cell(textwrap.shorten(text, LETTERS, placeholder=" …"))


def _about(event: Event) -> str:
    """An event in a line: who proposed what, else whatever it says of itself."""
    if event["kind"] == "accepted":
        return f"{event['by']}: {event['proposal']['hypothesis']}"
    texts = (event.get(name) for name in ("rule", "file", "change", "reason", "why", "what", "said"))
    return " ".join(str(text) for text in texts if text)


# --- widgets -------------------------------------------------------------------------------------


class Panel:
    """What is seen of a desk, and its controls."""

    def __init__(self, desk: Desk) -> None:
        import ipywidgets as w

        self.desk = desk
        self.parts = {
            name: w.Output() for name in ("now", "chart", "runs_so_far", "requests", "queue", "lessons", "events")
        }
        self.before: dict[str, Markdown | Picture] = {}  # what each part shows now
        look = w.Button(description="look again")
        look.on_click(lambda _: self.refresh())
        steering = steer.read(desk.steer)
        switches = [self._switch(name, label, name in steering.texts) for name, label in SWITCHES.items()]
        boxes = [self._box(name, steering.texts.get(name, "").strip(), *texts) for name, texts in BOXES.items()]
        lists = []
        for name, title in (("requests", "Trainings asked for"), ("runs_so_far", "The last runs"), ("queue", "Queue"), ("lessons", "Lessons"),
                            ("events", "Events")):  # fmt: skip
            lists += [w.HTML(f"<b>{title}</b>"), self.parts[name]]
        lists.insert(1, self._approvals())
        self.refresh()
        top = [w.HBox([*switches, look]), self.parts["now"], self.parts["chart"]]
        self.box = w.VBox([*top, *boxes, *lists])

    def refresh(self) -> None:
        """Show every part anew that has changed."""
        for name, output in self.parts.items():
            try:
                part = getattr(self.desk, name)
            except Tampered as error:
                part = Markdown(f"**{cell(str(error))}**")
            if self.before.get(name) == part:
                continue  # what is set again flickers, and a selection in it is lost
            self.before[name] = part
            if isinstance(part, Picture):
                data = part._repr_mimebundle_()[0]
                output.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)
            else:
                output.outputs = shown(part.text)

    def _button(self, label: str, act: Callable[[], None]) -> Any:
        """A button that does something and shows what that changed."""
        import ipywidgets as w

        button = w.Button(description=label)

        def clicked(_: Any) -> None:
            act()
            self.refresh()

        button.on_click(clicked)
        return button

    def _box(self, name: str, text: str, label: str, hint: str) -> Any:
        import ipywidgets as w

        wide, style = w.Layout(width="100%"), {"description_width": "11em"}
        area = w.Textarea(value=text, placeholder=hint, description=label, layout=wide, style=style)
        return w.HBox([area, self._button("write", lambda: self.desk.write(name, area.value))])

    def _switch(self, name: str, label: str, on: bool) -> Any:
        import ipywidgets as w

        switch = w.ToggleButton(value=on, description=label)

        def changed(change: Any) -> None:
            self.desk.switch(name, change["new"])
            self.refresh()

        switch.observe(changed, "value")
        return switch

    def _approvals(self) -> Any:
        """Buttons for the training requests that are open now."""
        import ipywidgets as w

        rows = []
        for request in requests.requests(self.desk.steer / REQUESTS):
            if request.state == "open":
                label = w.Label(f"{request.id}, expected {request.expected:+.3f}")
                yes = self._button("approve", partial(self.desk.approve, request.id))
                no = self._button("reject", partial(self.desk.reject, request.id))
                rows.append(w.HBox([label, yes, no]))
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
