"""The explore page's menus: pick a task, build a pipeline, choose a model, read what comes out.

Knows menus and where the answer is shown; everything that a menu offers and all that happens on "Answer" lives in
`lib.desk.explore`. Writes nothing.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lib.agent.pipeline import STEPS, Argument
from lib.desk import explore
from lib.desk.explore import Choice
from lib.files import OneLine
from lib.log import Row
from lib.runs.record import candidate_of
from lib.show import candidate_name

TYPED = "type a task of your own"
WIDE = {"description_width": "7rem"}


def shown(text: str) -> tuple[dict[str, Any], ...]:
    """Markdown as the whole content of an Output; display() inside one depends on which cell is running."""
    return ({"output_type": "display_data", "data": {"text/markdown": text, "text/plain": text}, "metadata": {}},)


def show(task: str = "", model: str = "") -> Any:
    """The panel as one widget; without a model's name it begins with the champion, where one is sealed.

    It answers the first task at once, so that there is something to read.
    """
    return Panel(task, model).box


class Panel:
    """The menus and the answer below them."""

    def __init__(self, task: str = "", model: str = "") -> None:
        import ipywidgets as w

        cases = explore.cases()
        options = [(TYPED, ""), *((f"{c.gate} · {c.task}", c.task) for c in cases)]
        picked = task or cases[0].task
        if not any(picked == c.task for c in cases):
            picked = ""  # typed by hand
        self.models, begin = explore.models(), Choice("")
        if not model:
            begin = explore.champion()
            model = candidate_name(candidate_of(begin.model, begin.adapter))
            self.models |= {model: (begin.model, begin.adapter)}

        def plain(name: str) -> dict[str, Any]:
            # A layout each: widgets that share one are hidden together.
            return {"description": name, "style": WIDE, "layout": w.Layout(width="42rem", max_width="100%")}

        self.case = w.Dropdown(options=options, value=picked, **plain("task"))
        self.task = w.Text(value=task, placeholder="plan a trip to Paris", **plain("your task"))
        self.model = w.Dropdown(options=list(self.models), value=model, **plain("model"))
        self.temp = w.FloatSlider(value=0.0, min=0.0, max=1.5, step=0.1, readout_format=".1f", **plain("temperature"))
        self.decoding = w.Text(value=explore.spelled(begin.decoding), **plain("decoding"))
        self.seed = w.BoundedIntText(value=begin.seed, min=0, max=max(9999, begin.seed), description="seed", style=WIDE)
        self.stages = w.VBox([])
        self.add = w.Button(description="add a step")
        self.go = w.Button(description="Answer", button_style="primary")
        self.plain, self.message = w.HTML(), w.HTML()
        self.out = {name: w.Output() for name in ("Answer", "Judgment", "Calls")}
        self.rows: list[Stage] = []
        for row in begin.pipeline:
            self._insert(row)
        self.add.on_click(lambda _: self._insert({"step": "prune"}))
        self.go.on_click(lambda _: self.answer())
        menus = [self.case, self.task, self.model, self.temp, self.decoding, self.seed]
        for menu in menus:
            menu.observe(lambda _: self._changed(), names="value")
        self.begun = self.pipeline
        self.model.observe(lambda _: self._begin_anew(), names="value")
        tabs = w.Tab(children=list(self.out.values()), titles=list(self.out))
        self.box = w.VBox([*menus, self.stages, w.HBox([self.add, self.go]), self.plain, self.message, tabs])
        self._changed()
        self.answer()

    # --- the pipeline

    @property
    def pipeline(self) -> list[dict[str, Any]]:
        """The pipeline as the parameters cell of an experiment would hold it."""
        return [stage.row for stage in self.rows]

    def _begin_anew(self) -> None:
        """The plain call for another model: what suits the champion, which stands there untouched, may be too much for it."""
        if self.pipeline != self.begun:
            return
        plain = Choice("")
        self.rows, self.decoding.value = [], explore.spelled(plain.decoding)
        for row in plain.pipeline:
            self._insert(row)
        self.begun = []  # from now on what stands there is the person's

    def _insert(self, row: Row) -> None:
        self.rows.append(Stage(row, self._changed, self._remove))
        self._redraw()

    def _remove(self, stage: Stage) -> None:
        self.rows.remove(stage)
        self._redraw()

    def _redraw(self) -> None:
        self.stages.children = [stage.box for stage in self.rows]
        self._changed()

    # --- what comes out

    @property
    def choice(self) -> Choice:
        """What the menus say now. Raises ValueError on a text that is not what its menu takes."""
        model, adapter = self.models[self.model.value]
        decoding = explore.read("decoding", self.decoding.value)
        if not isinstance(decoding, dict):
            raise ValueError(
                f"decoding is {decoding!r:.60}, expected values by name such as {{repetition_penalty: 1.1}}"
            )
        if self.temp.value:
            decoding["temp"] = round(self.temp.value, 2)
        task = self.case.value or self.task.value
        return Choice(task, self.pipeline, model, adapter, decoding, self.seed.value)

    def _changed(self) -> None:
        self.task.layout.display = "none" if self.case.value else ""
        try:
            text = json.dumps(self.pipeline, ensure_ascii=False)
            self.plain.value = f"<code>pipeline = {html.escape(text)}</code>"
            self.message.value = "<i>Changed: press Answer.</i>"
        except (ValueError, OneLine) as error:
            self.message.value = f"<b>{html.escape(str(error))}</b>"

    def answer(self) -> None:
        """Try the choice and show it; what cannot run is said in one line."""
        self.message.value = "<i>Working …</i>"
        try:
            tried = self.choice.attempt()
        except (OneLine, ValueError, KeyError) as error:
            self.message.value = f"<b>{html.escape(str(error))}</b>"
            for out in self.out.values():
                out.outputs = ()
            return
        self.message.value = f"Answered by {html.escape(self.model.value)}. {explore.BY_HAND}"
        for name, text in tried.parts.items():
            self.out[name].outputs = shown(text)


class Stage:
    """One step of the pipeline with a menu for each of its arguments, and a text for the words of its call."""

    def __init__(self, row: Row, changed: Callable[[], None], remove: Callable[[Stage], None]) -> None:
        import ipywidgets as w

        self.changed = changed
        self.step = w.Dropdown(options=explore.steps(), value=row["step"], description="step", style=WIDE)
        self.about = w.HTML()
        self.arguments = w.HBox([], layout=w.Layout(flex_flow="row wrap"))
        drop = w.Button(description="remove", layout=w.Layout(width="5rem"))
        drop.on_click(lambda _: remove(self))
        self.menus: dict[str, tuple[Argument, Any]] = {}
        self.box = w.VBox([w.HBox([self.step, drop]), self.about, self.arguments])
        self.step.observe(lambda _: self._fill({}), names="value")
        self._fill(row)

    def _fill(self, row: Row) -> None:
        lever = STEPS[self.step.value]
        self.about.value = f"<i>{html.escape(lever.about)}</i>"
        wording = row.get("wording", "")
        if not isinstance(wording, str):
            wording = explore.spelled(wording)
        row = {**lever.defaults, **row, "wording": wording}
        arguments = {**lever.arguments, "wording": Argument(str, "")}
        self.menus = {name: (a, _menu(name, replace(a, default=row[name]))) for name, a in arguments.items()}
        self.menus["wording"][1].placeholder = "other words for its call"
        self.arguments.children = [menu for _, menu in self.menus.values()]
        for menu in self.arguments.children:
            menu.observe(lambda _: self.changed(), names="value")
        self.changed()

    @property
    def row(self) -> dict[str, Any]:
        """This step as a row of a pipeline. Raises ValueError on an argument that is no YAML."""
        values = {name: _value(name, a, menu.value) for name, (a, menu) in self.menus.items()}
        wording = values.pop("wording").strip()
        row = explore.row(self.step.value, values)
        if wording.startswith("{"):  # texts by the names of calls; a plain text may hold a colon and is no YAML
            wording = explore.read("wording", wording)
        if wording:
            row["wording"] = wording
        return row


PLAIN = (bool, int, float, str)  # what a widget holds as it is; texts stand in one line, other data is YAML


def _menu(name: str, a: Argument) -> Any:
    """The menu for one argument, by its type."""
    import ipywidgets as w

    look = {"description": name, "style": WIDE}
    if a.options:
        return w.Dropdown(options=a.options, value=a.default, **look)
    widgets = {bool: w.Checkbox, int: w.IntText, float: w.FloatText, str: w.Text}
    if a.hint in widgets:
        return widgets[a.hint](value=a.default, **look)
    if a.hint == list[str]:
        return w.Text(value="; ".join(a.default), placeholder="one; two", **look)
    return w.Text(value=explore.spelled(a.default), **look)


def _value(name: str, a: Argument, value: Any) -> Any:
    """What a menu says, as the step wants it."""
    if a.options or a.hint in PLAIN:
        return value
    if a.hint == list[str]:
        return [part.strip() for part in value.split(";") if part.strip()]
    return explore.read(name, value)
