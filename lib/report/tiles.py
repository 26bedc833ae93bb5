"""Every experiment at a glance: a tile a run, its pipeline stripped to bare structure.

Knows how a pipeline becomes shapes: a row a step, a dot a model call, a square where no model is asked, a column of
its own for the training of an adapter. Draws on the canvas of `lib.report.figures`.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from lib.agent.pipeline import BadPipeline
from lib.agent.steps import build
from lib.lab.show import plural
from lib.report.figures import ANCHOR, FAINT, INK, KEPT, PROVEN, Picture, canvas, picture
from lib.report.levers import methods
from lib.runs.ledger import Ledger

ACROSS = 12  # tiles in a row: readable at the width of a page, and 80 runs are seven rows
WIDEST = 5  # dots side by side; more calls are drawn as this many and counted in the table
COLOURS = {"": "#4a6fa5", "sft": KEPT, "orpo": PROVEN, "grpo": "#8a6d3b", "gad": "#7a4a7d", "merge": "#5b8a8a"}
KINDS = ("experiment", "train")


def tiles(ledger: Ledger) -> pd.DataFrame:
    """The experiments and trainings of a ledger in the order in which they ran, with what a tile shows of each.

    `rows` has the model calls a case of each step, 0 where no model is asked, and nothing for a training; `method` says
    how the adapter was trained; `adapted` runs answer with one and `trains` makes one.
    """
    f = ledger.frame()
    f = f.assign(method=methods(f), trains=f.kind == "train", adapted=(f.adapter != "") & (f.kind != "train"))
    f = f[f.kind.isin(KINDS)]
    return f.assign(rows=[() if run.trains else _rows(run) for run in f.itertuples()])


def _rows(run: Any) -> tuple[int, ...]:
    """Calls a case of each step; of a pipeline that this code no longer knows, one row with the calls that it made."""
    try:
        return tuple(round(s.calls) for s in build(run.pipeline))
    except BadPipeline:
        return (round(run.calls_a_case) if run.calls_a_case == run.calls_a_case else 0,)


def table(ledger: Ledger) -> pd.DataFrame:
    """The tiles in words: a row a run."""
    f = tiles(ledger)
    adapter = f.method.str.upper().replace("", "yes").where(f.adapted, "")
    f = f.assign(steps=[_steps(run) for run in f.itertuples()], adapter=adapter)
    return f[["id", "lever", "status", "steps", "adapter", "calls_a_case", "quality"]]


def _steps(run: Any) -> str:
    if run.trains:
        return f"training ({run.method.upper()})" if run.method else "training"
    calls = run.rows if len(run.rows) == len(run.pipeline) else [0] * len(run.pipeline)
    return " → ".join(s["step"] + (f" ×{c}" if c > 1 else "") for s, c in zip(run.pipeline, calls, strict=True))


def draw(f: pd.DataFrame, ax: Any) -> None:
    """A tile a run from left to right and top to bottom; kept runs have a red frame, others a faint one."""
    dots: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for i, tile in enumerate(f.itertuples()):
        x, y = i % ACROSS, -(i // ACROSS)
        left, right, low, high = x - 0.44, x + 0.44, y - 0.44, y + 0.44
        frame = (KEPT, 1.4) if tile.status == "kept" else (FAINT, 0.6)
        ax.plot([left, right, right, left, left], [low, low, high, high, low], color=frame[0], linewidth=frame[1])
        ax.text(left + 0.05, low + 0.04, tile.id.partition("-")[0].lstrip("0"), fontsize=6, color=ANCHOR)
        for shape, colour, at in _shapes(tile, x, y):
            dots.setdefault((shape, colour), []).append(at)
    for (shape, colour), places in dots.items():
        ax.scatter(
            *zip(*places, strict=True), marker=shape, s=20 if shape == "D" else 14, zorder=3, **_look(shape, colour)
        )
    ax.set_axis_off()
    ax.set(xlim=(-0.55, ACROSS - 0.45), ylim=(-((len(f) - 1) // ACROSS) - 0.5, 0.5))


def _look(shape: str, colour: str) -> dict[str, Any]:
    return {"facecolors": "white" if shape == "s" else colour, "edgecolors": colour, "linewidths": 0.8}


def _shapes(tile: Any, x: float, y: float) -> list[tuple[str, str, tuple[float, float]]]:
    """Marker, colour and place of everything in a tile."""
    colour = COLOURS[tile.method] if tile.adapted or tile.trains else INK
    if tile.trains:
        return [("D", colour, (x, y + 0.05))]
    middle = x + 0.12 if tile.adapted else x
    shapes = [("D", colour, (x - 0.26, y + 0.33))] if tile.adapted else []
    gap = min(0.17, 0.68 / max(len(tile.rows), 1))
    for step, calls in enumerate(tile.rows):
        high = y + 0.33 - step * gap
        if calls < 1:
            shapes.append(("s", ANCHOR, (middle, high)))
        count = min(calls, WIDEST)
        shapes += [("o", colour, (middle + (k - (count - 1) / 2) * 0.115, high)) for k in range(count)]
    return shapes


def at_a_glance(ledger: Ledger) -> Picture:
    """The grid of tiles with its legend."""
    f = tiles(ledger)
    figure, ax = canvas(8.8, 0.75 * max(-(-len(f) // ACROSS), 1) + 0.5)
    if f.empty:
        return picture(figure, "An empty grid: there are no runs yet.")
    draw(f, ax)
    used = f.method[f.adapted | f.trains].unique()
    names = {m: "merged" if m == "merge" else m.upper() for m in used}
    keys = [("o", INK, "model call, bare base"), ("s", ANCHOR, "step without a model")]
    keys += [("o", COLOURS[m], " ".join(f"call on {names[m]} adapter".split())) for m in used]
    keys += [("D", COLOURS[m], f"{names[m] or 'adapter'} training") for m in used]
    for shape, colour, name in keys:
        ax.scatter([], [], marker=shape, s=18, label=name, **_look(shape, colour))
    ax.plot([], [], color=KEPT, linewidth=1.4, label="kept")
    ax.legend(loc="upper left", bbox_to_anchor=(0, 0.0), ncols=4)
    return picture(figure, _alt(f))


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
