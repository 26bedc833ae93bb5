"""Every experiment at a glance: a tile a run, its pipeline stripped to bare structure.

Knows how a pipeline becomes shapes: a row a step, a dot a model call, a square where no model is asked, a column of
its own for the training of an adapter. Draws on the canvas of `lib.report.figures`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lib.agent.pipeline import BadPipeline
from lib.agent.steps import build
from lib.lab.ledger import Ledger
from lib.report.figures import ANCHOR, FAINT, INK, KEPT, PROVEN, Picture, canvas, picture
from lib.report.levers import cases, method

if TYPE_CHECKING:
    import pandas as pd

ACROSS = 12  # tiles in a row: readable at the width of a page, and 80 runs are seven rows
WIDEST = 5  # dots side by side; more calls are drawn as this many and counted in the table
COLOURS = {"": "#4a6fa5", "sft": KEPT, "orpo": PROVEN, "grpo": "#8a6d3b", "gad": "#7a4a7d", "merge": "#5b8a8a"}
KINDS = ("experiment", "train")


@dataclass(frozen=True)
class Tile:
    """One run as shapes."""

    run: str
    status: str
    rows: tuple[int, ...]  # a step each: model calls a case, 0 where no model is asked
    method: str  # how its adapter was trained, "" without one
    adapter: bool
    trains: bool  # a training run: it makes an adapter


def tiles(ledger: Ledger) -> list[Tile]:
    """The experiments and trainings of a ledger in the order in which they ran."""
    found = []
    for r in ledger.records:
        if r["kind"] in KINDS:
            trains = r["kind"] == "train"
            how = method(ledger, {**r, "adapter": r["adapter"] or r["slug"]}) if trains else method(ledger, r)
            rows = () if trains else _rows(r)
            found.append(Tile(r["id"], r["status"], rows, how, bool(r["adapter"]) and not trains, trains))
    return found


def _rows(record: dict[str, Any]) -> tuple[int, ...]:
    """Calls a case of each step; of a pipeline that this code no longer knows, one row with the calls that it made."""
    try:
        return tuple(round(s.calls) for s in build(record["pipeline"]))
    except BadPipeline:
        return (round(record["cost"].get("calls", 0) / max(cases(record), 1)) if record["scores"] else 0,)


def table(ledger: Ledger) -> pd.DataFrame:
    """The tiles in words: a row a run."""
    import pandas as pd

    made = {t.run: t for t in tiles(ledger)}
    rows = []
    for r in ledger.records:
        if r["id"] in made:
            t, n = made[r["id"]], cases(r) if r["scores"] else 0
            steps = " → ".join(s["step"] + (f" ×{c}" if c > 1 else "") for s, c in _named(r, t))
            rows.append(
                {
                    "run": r["id"], "lever": r["lever"], "status": r["status"], "steps": "training" if t.trains else steps,
                    "adapter": (t.method.upper() or "yes") if t.adapter else "",
                    "calls a case": r["cost"].get("calls", 0) / n if n else None, "quality": r["scores"].get("quality"),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _named(record: dict[str, Any], tile: Tile) -> list[tuple[dict[str, Any], int]]:
    steps = record["pipeline"]
    return list(zip(steps, tile.rows if len(tile.rows) == len(steps) else [0] * len(steps), strict=True))


def draw(made: list[Tile], ax: Any) -> Any:
    """A tile a run from left to right and top to bottom; kept runs have a red frame, others a faint one."""
    dots: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for i, tile in enumerate(made):
        x, y = i % ACROSS, -(i // ACROSS)
        kept = tile.status == "kept"
        edge = KEPT if kept else FAINT
        left, right, low, high = x - 0.44, x + 0.44, y - 0.44, y + 0.44
        ax.plot(
            [left, right, right, left, left], [low, low, high, high, low], color=edge, linewidth=1.4 if kept else 0.6
        )
        ax.text(left + 0.05, low + 0.04, tile.run.partition("-")[0].lstrip("0"), fontsize=6, color=ANCHOR)
        for shape, colour, at in _shapes(tile, x, y):
            dots.setdefault((shape, colour), []).append(at)
    for (shape, colour), at in dots.items():
        hollow = shape == "s"
        ax.scatter(
            [p[0] for p in at], [p[1] for p in at], marker=shape, s=14 if shape != "D" else 20,
            facecolors="white" if hollow else colour, edgecolors=colour, linewidths=0.8, zorder=3,
        )  # fmt: skip
    ax.set_axis_off()
    ax.set_xlim(-0.55, ACROSS - 0.45)
    ax.set_ylim(-((len(made) - 1) // ACROSS) - 0.5, 0.5)
    return ax


def _shapes(tile: Tile, x: float, y: float) -> list[tuple[str, str, tuple[float, float]]]:
    """Marker, colour and place of everything in a tile."""
    colour = COLOURS[tile.method] if tile.adapter or tile.trains else INK
    if tile.trains:
        return [("D", colour, (x, y + 0.05))]
    middle = x + 0.12 if tile.adapter else x
    found = [("D", colour, (x - 0.26, y + 0.33))] if tile.adapter else []
    gap = min(0.17, 0.68 / max(len(tile.rows), 1))
    for step, calls in enumerate(tile.rows):
        high = y + 0.33 - step * gap
        if calls < 1:
            found.append(("s", ANCHOR, (middle, high)))
        count = min(calls, WIDEST)
        found += [("o", colour, (middle + (k - (count - 1) / 2) * 0.115, high)) for k in range(count)]
    return found


def at_a_glance(ledger: Ledger) -> Picture:
    """The grid of tiles with its legend."""
    made = tiles(ledger)
    rows = (len(made) + ACROSS - 1) // ACROSS
    figure, ax = canvas(8.8, 0.75 * max(rows, 1) + 0.5)
    if not made:
        return picture(figure, "An empty grid: there are no runs yet.")
    draw(made, ax)
    used = list(dict.fromkeys(t.method for t in made if t.adapter or t.trains))
    keys: list[tuple[str, str, str]] = [("o", INK, "model call, bare base"), ("s", ANCHOR, "step without a model")]
    keys += [
        ("o", COLOURS[m], f"call on {m.upper() if m != 'merge' else 'merged'} adapter".replace("  ", " ")) for m in used
    ]
    keys += [("D", COLOURS[m], f"{'merged' if m == 'merge' else m.upper() or 'adapter'} training") for m in used]
    for shape, colour, name in keys:
        face = "white" if shape == "s" else colour
        ax.scatter([], [], marker=shape, s=18, facecolors=face, edgecolors=colour, linewidths=0.8, label=name)
    ax.plot([], [], color=KEPT, linewidth=1.4, label="kept")
    ax.legend(loc="upper left", bbox_to_anchor=(0, 0.0), ncols=4, fontsize=7, frameon=False)
    return picture(figure, _alt(made))


def _alt(made: list[Tile]) -> str:
    single = sum(t.rows == (1,) for t in made)
    wide = sum(max(t.rows, default=0) > 1 for t in made)
    tall = sum(sum(c > 0 for c in t.rows) > 1 for t in made)
    adapters, trained, kept = (
        sum(t.adapter for t in made), sum(t.trains for t in made), sum(t.status == "kept" for t in made)
    )  # fmt: skip
    return (
        f"{len(made)} tiles, one a run in order: {single} with a single call and no other step, {wide} with several calls in a step, "
        f"{tall} with calls in several steps, {adapters} on an adapter, {trained} trainings; {kept} are framed as kept. "
        "The table below says the same in words."
    )
