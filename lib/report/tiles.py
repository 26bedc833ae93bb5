"""Every experiment at a glance: a tile for each run, its pipeline as a small process diagram, a link to the run.

Knows how a pipeline becomes shapes: a row for each step, a dot for each model call, a square where no model is asked, a
column of its own for the training of an adapter; the frame says what became of the run.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lib.agent.pipeline import BadPipeline
from lib.agent.steps import build
from lib.report.drawing import ANCHOR, FAINT, INK, KEPT, PROVEN, Picture, canvas, captions, picture, url
from lib.report.levers import methods
from lib.runs.ledger import Ledger
from lib.show import plural

ACROSS = 10  # tiles in a row: a name of 16 letters is as wide as a tile
LETTERS = 16
TOP = 0.34  # of the first row, above the middle of a tile
WIDEST = 5  # dots side by side; more calls are drawn as this many and counted in the table
COLOURS = {"": "#4a6fa5", "sft": KEPT, "orpo": PROVEN, "grpo": "#8a6d3b", "gad": "#7a4a7d", "merge": "#5b8a8a"}
NAMES = {"": "an unknown", "merge": "merged"}  # of methods that are no abbreviation
SIZES = {"o": 14, "s": 14, "D": 20}
KINDS = ("experiment", "train")
# Colour, width and dashes of a frame by status: the difference must survive a print in grey.
FRAMES = {"kept": (KEPT, 1.8, "-"), "indecisive": (ANCHOR, 0.8, "--"), "discarded": (FAINT, 0.8, "-"),
          "reference": (FAINT, 0.4, "-")}  # fmt: skip
BROKEN = (INK, 0.9, ":")


class Mark(NamedTuple):
    """One thing that is drawn in a tile."""

    shape: str  # as matplotlib names it: o a model call, s a step without one, D a training
    colour: str
    x: float
    y: float


def tiles(ledger: Ledger) -> pd.DataFrame:
    """The experiments and trainings of a ledger in the order in which they ran, with what a tile shows of each.

    `rows` has the model calls a case of each step, 0 where no model is asked, and nothing for a training; `method` says
    how the adapter was trained; `adapted` runs answer with one and `trains` makes one.
    """
    f = ledger.frame()
    f = f.assign(method=methods(f), trains=f.kind == "train", adapted=(f.adapter != "") & (f.kind != "train"))
    f = f[f.kind.isin(KINDS)]
    colour = f.method.map(COLOURS).where(f.adapted | f.trains, INK)
    return f.assign(colour=colour, rows=[_rows(run) for run in f.itertuples()])


def _rows(run: Any) -> tuple[int, ...]:
    """Calls a case of each step; of a pipeline that this code no longer knows, one row with the calls that it made."""
    if run.trains:
        return ()
    try:
        return tuple(round(s.calls) for s in build(run.pipeline))
    except BadPipeline:
        return (0,) if pd.isna(run.calls_a_case) else (round(run.calls_a_case),)


def table(ledger: Ledger) -> pd.DataFrame:
    """The tiles in words: a row a run."""
    f = tiles(ledger)
    adapter = f.method.str.upper().replace("", "yes").where(f.adapted, "")
    f = f.assign(steps=[_steps(run) for run in f.itertuples()], adapter=adapter)
    return f[["id", "lever", "status", "steps", "adapter", "calls_a_case", "quality"]]


def _steps(run: Any) -> str:
    if run.trains:
        return f"training ({run.method.upper()})" if run.method else "training"
    steps = []
    for n, step in enumerate(run.pipeline):
        several = len(run.rows) == len(run.pipeline) and run.rows[n] > 1
        steps.append(f"{step['step']} ×{run.rows[n]}" if several else step["step"])
    return " → ".join(steps)


def draw(f: pd.DataFrame, ax: Any) -> None:
    """A tile for each run from left to right and top to bottom, each with its number and its name."""
    place = np.arange(len(f))
    f = f.assign(x=place % ACROSS, y=-(place // ACROSS))
    marks: list[Mark] = []
    for tile in f.itertuples():
        colour, width, dashes = FRAMES.get(tile.status, BROKEN)
        frame = ax.bar(tile.x, 0.88, 0.92, tile.y - 0.44, facecolor="white", edgecolor=colour, linewidth=width)
        frame[0].set(url=url(tile.id), linestyle=dashes)
        number, _, name = tile.id.partition("-")
        name = name.removeprefix("train-")[:LETTERS].rstrip("-")
        ax.text(tile.x - 0.42, tile.y - 0.25, number.lstrip("0"), fontsize=6, color=ANCHOR)
        ax.text(tile.x - 0.42, tile.y - 0.38, name, fontsize=5.5, color=INK, url=url(tile.id))
        marks += _marks(tile, tile.x, tile.y)
        if len(tile.rows) > 1:
            lane = tile.x + (0.12 if tile.adapted else 0)
            ax.plot([lane, lane], [tile.y + TOP, tile.y + TOP - _gap(tile) * (len(tile.rows) - 1)],
                    color=FAINT, linewidth=0.7, zorder=2)  # fmt: skip
    # One call for all marks of a look: a call a mark takes minutes for a thousand runs.
    for (shape, colour), alike in pd.DataFrame(marks, columns=Mark._fields).groupby(["shape", "colour"], sort=False):
        ax.scatter(alike.x, alike.y, marker=shape, s=SIZES[shape], zorder=3, **_look(shape, colour))
    ax.set_axis_off()
    ax.set(xlim=(-0.55, ACROSS - 0.45), ylim=(-((len(f) - 1) // ACROSS) - 0.5, 0.5))


def _gap(tile: Any) -> float:
    """How far apart the rows of a tile are: many steps move closer, so that the number below stays free."""
    return min(0.16, 0.5 / max(len(tile.rows), 1))


def _look(shape: str, colour: str) -> dict[str, Any]:
    return {"facecolors": "white" if shape == "s" else colour, "edgecolors": colour, "linewidths": 0.8}


def _marks(tile: Any, x: float, y: float) -> list[Mark]:
    """Everything in a tile whose middle is at x, y: its training in a column of its own, then a row a step."""
    if tile.trains:
        return [Mark("D", tile.colour, x, y + 0.15)]
    marks, top = [], y + TOP
    if tile.adapted:
        marks.append(Mark("D", tile.colour, x - 0.26, top))
        x += 0.12
    gap = _gap(tile)
    for step, calls in enumerate(tile.rows):
        if calls < 1:
            marks.append(Mark("s", ANCHOR, x, top - step * gap))
        count = min(calls, WIDEST)
        for call in range(count):
            marks.append(Mark("o", tile.colour, x + (call - (count - 1) / 2) * 0.115, top - step * gap))
    return marks


def at_a_glance(ledger: Ledger) -> Picture:
    """The grid of tiles with its legend."""
    f = tiles(ledger)
    figure, ax = canvas(8.8, 0.85 * max(-(-len(f) // ACROSS), 1) + 0.5)
    if f.empty:
        return picture(figure, "An empty grid: there are no runs yet.")
    draw(f, ax)
    used = f.method[f.adapted | f.trains].unique()
    keys = [("o", INK, "model call, bare base"), ("s", ANCHOR, "step without a model")]
    keys += [("o", COLOURS[m], f"call on {NAMES.get(m, m.upper())} adapter") for m in used]
    keys += [("D", COLOURS[m], f"{NAMES.get(m, m.upper())} training") for m in used]
    for shape, colour, name in keys:
        ax.scatter([], [], marker=shape, s=18, label=name, **_look(shape, colour))
    for name, (colour, width, dashes) in (FRAMES | {"broke off": BROKEN}).items():
        ax.plot([], [], color=colour, linewidth=width, linestyle=dashes, label=name)
    ax.legend(loc="upper left", bbox_to_anchor=(0, 0.0), ncols=5)
    return picture(figure, _alt(f), captions(ledger))


def _alt(f: pd.DataFrame) -> str:
    single = sum(rows == (1,) for rows in f.rows)
    wide = sum(max(rows, default=0) > 1 for rows in f.rows)
    tall = sum(sum(calls > 0 for calls in rows) > 1 for rows in f.rows)
    return (
        f"{plural(len(f), 'tile')}, one a run in order: {single} with a single call and no other step, {wide} with several "
        f"calls in a step, {tall} with calls in several steps, {sum(f.adapted)} on an adapter, "
        f"{plural(sum(f.trains), 'training')}; {sum(f.status == 'kept')} are framed as kept. The table below says the same in "
        "words."
    )
