"""A table in, a figure out: one run, the climb, dimensions, models, training.

Knows how runs are drawn: discards faint, keeps labelled, both curves, anchors as lines, alt text on every figure.
Does not know where the numbers come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from lib.lab.experiment import Experiment, Run
from lib.lab.training import Trained
from lib.log import Row
from lib.measure import calibrate
from lib.report import compared, tables, trained
from lib.report.drawing import ANCHOR, FAINT, INK, KEPT, PROVEN, Picture, canvas, captions, dots, empty, picture
from lib.report.era import Era, eras
from lib.runs.ledger import Ledger
from lib.show import plural

if TYPE_CHECKING:
    from lib.report.drawing import Axes

# --- one run -------------------------------------------------------------------------------------


def per_case(run: Run) -> Picture:
    """Quality of each case of a run, sorted, NoAnswers marked."""
    figure, ax = canvas(8, 2.6)
    rows = sorted(run.cases, key=lambda row: -(row.quality or 0))
    colours = {"win": PROVEN, "tie": "#7fa79b", "loss": FAINT}
    for x, row in enumerate(rows):
        face = colours[row.judgment.verdict] if row.judgment else "white"
        ax.bar(x, row.quality or 0.0, color=face, edgecolor=INK, linewidth=0.3)
        if not row.judgment:
            ax.text(x, 0.01, "×", ha="center", color=KEPT)
    ax.axhline(run.scores.quality, color=INK, linewidth=0.8)
    ax.set(ylim=(0, 1), xticks=[], ylabel="quality")
    ax.set_xlabel(f"{len(rows)} cases, best to worst: win (dark), tie, loss (grey), no answer (×); line: mean of all")
    ends = f"from {rows[0].quality or 0.0:.2f} down to {rows[-1].quality or 0.0:.2f}"
    return picture(figure, f"Quality of {len(rows)} cases, {ends}, mean {run.scores.quality:.3f}.")


def pipeline(experiment: Experiment) -> Picture:
    """The process diagram: task, steps, spec gate, judge; a step that calls the model is filled."""
    steps = experiment.steps
    boxes = [("task", "one line", False)]
    boxes += [(s.name, ", ".join(f"{k}={v}" for k, v in s.args.items())[:44] or "defaults", s.calls > 0) for s in steps]
    boxes += [("spec gate", "7 questions", False), ("judge", experiment.judge, False)]
    figure, ax = canvas(1.75 * len(boxes), 1.15)
    ax.set_axis_off()
    ax.set(xlim=(-0.5, len(boxes) - 0.5), ylim=(-0.55, 0.55))
    for i, (name, detail, calls) in enumerate(boxes):
        face = KEPT if calls else "white"
        style = {"boxstyle": "round,pad=0.5", "facecolor": face, "edgecolor": INK, "linewidth": 0.8}
        ax.text(i, 0.14, name, ha="center", va="center", bbox=style, color="white" if calls else INK)
        ax.text(i, -0.36, detail, ha="center", va="center", fontsize=7, color=ANCHOR, wrap=True)
        if i:
            arrow = {"arrowstyle": "->", "color": INK, "linewidth": 0.8}
            ax.annotate("", (i - 0.36, 0.14), (i - 0.64, 0.14), arrowprops=arrow)
    return picture(figure, "Pipeline: " + ", then ".join(f"{n} ({d})" for n, d, _ in boxes) + ".")


# --- the climb -----------------------------------------------------------------------------------


class Label(NamedTuple):
    """A label at a point, with the room that it takes from left to right, in the units of the x axis."""

    x: float
    y: float
    text: str
    side: str = "right"
    left: float = 0
    right: float = 1


def _label(x: float, y: float, text: str, count: int) -> Label:
    """A label centred on its point, or beside it where it would leave a chart of `count` runs."""
    # A letter of size 7 is a little under a hundredth of the chart's width.
    wide = 0.009 * len(text) * count
    if x - wide / 2 < 0.5:
        return Label(x, y, text, "left", x, x + wide)
    if x + wide / 2 > count + 0.5:
        return Label(x, y, text, "right", x - wide, x)
    return Label(x, y, text, "center", x - wide / 2, x + wide / 2)


def fitting(labels: list[Label], high: float) -> list[Label]:
    """The labels that cover no other one, `high` apart or side by side: newest first, then the first, then the rest."""
    chosen: list[Label] = []
    for label in dict.fromkeys([*labels[-1:], *labels[:1], *labels[-2:0:-1]]):  # of one label both are it
        # Above its point, else below it.
        for place in (label, label._replace(y=label.y - 1.5 * high)):
            if all(abs(place.y - c.y) >= high or place.right < c.left or c.right < place.left for c in chosen):
                chosen.append(place)
                break
    return chosen


def draw_climb(table: pd.DataFrame, anchors: dict[str, float], ax: Axes, bottom: Sequence[float] = ()) -> None:
    """Every run as a dot in run order; the running best as a faint step, the confirmed best as a strong one.

    `bottom`: qualities of the controls that any planner must beat, drawn as a band.
    """
    table = table.assign(x=range(1, len(table) + 1))
    won, count = table.status == "kept", len(table)
    kept, others = table[won], table[~won]
    dots(ax, others.x, others.quality, list(others.id), FAINT, s=22, zorder=3, label="not kept")
    dots(ax, kept.x, kept.quality, list(kept.id), KEPT, s=40, zorder=4, label="kept")
    ax.step(table.x, table.running, "--", where="post", color=FAINT, linewidth=1.2, label="running best, luck included")
    if table.champion.notna().any():
        ax.step(table.x, table.champion.astype(float), where="post", color=KEPT, linewidth=1.2,
                label="champion by the paired rule")  # fmt: skip
    if table.confirmed.notna().any():
        # Up to the edge: what was confirmed after the last run would otherwise be a point without a line.
        ends = [*table.x, count + 0.5]
        value, low, high = ([*table[c].astype(float), float(table[c].iloc[-1])] for c in ("confirmed", "low", "high"))
        ax.step(ends, value, where="post", color=PROVEN, linewidth=2.0, label="confirmed on the sealed gate")
        ax.fill_between(ends, low, high, step="post", color=PROVEN, alpha=0.15, linewidth=0)
    # From zero to gold, so that the distance that is left is seen.
    top = max(0.2, 1.45 * table.quality.max(), 1.06 * max(anchors.values(), default=0.0))
    _draw_anchors(anchors, bottom, count, top, ax)
    names = [run.partition("-")[2][:24] for run in kept.id]
    labels = [_label(*at, count) for at in zip(kept.x, kept.quality, names, strict=True)]
    for label in fitting(labels, 0.05 * top):
        ax.annotate(label.text, label[:2], xytext=(0, 7), textcoords="offset points", fontsize=7, ha=label.side)
    # More labels than thirty run together, and a tick a run takes seconds to draw.
    ticks = table[:: max(1, -(-count // 30))]
    ax.set_xticks(ticks.x, [run.partition("-")[0].lstrip("0") for run in ticks.id], fontsize=7)
    ax.set(xlim=(0.5, count + 0.5), ylim=(0, top), ylabel="quality, mean of all cases",
           xlabel="runs on the full gate, in order (number in the ledger)")  # fmt: skip
    # Below the chart: inside, lines of anchors cross it.
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2)


def _draw_anchors(anchors: dict[str, float], bottom: Sequence[float], count: int, top: float, ax: Axes) -> None:
    """Lines to read the climb against, labelled beside the chart (inside, dots stand on them)."""
    lines = [Label(0, value, f"{name[:28]} {value:.2f}") for name, value in anchors.items()]
    for label in lines:
        ax.axhline(label.y, color=ANCHOR, linewidth=0.7, linestyle=":")
    if bottom:
        low, high = min(bottom), max(bottom)
        ax.axhspan(low, high, color=ANCHOR, alpha=0.15, linewidth=0)
        lines.append(Label(0, (low + high) / 2, f"controls {low:.2f} to {high:.2f}"))
    free = 0.0  # labels of near lines are pushed apart: none may be missing
    for label in sorted(lines, key=lambda label: label.y):
        free = max(label.y, free)
        ax.text(count + 0.6, free, label.text, va="center", ha="left", fontsize=7, color=ANCHOR)
        free += 0.04 * top


def climb(ledger: Ledger) -> Picture:
    """The running-best chart of the newest era."""
    era = Era.latest(ledger)
    table = tables.climb(ledger, era.fingerprint)
    if table.empty:
        return empty("there are no runs yet")
    figure, ax = canvas(8, 4.4)
    anchors = tables.anchors(ledger, era.fingerprint)
    bottom = {name: q for name, q in era.controls.quality.items() if name in calibrate.BOTTOM}
    draw_climb(table, anchors, ax, list(bottom.values()))
    title = (
        f"The climb (era {len(eras(ledger))}, ruler and judge {era.fingerprint[:8]}; judge: {era.climb.judge.iloc[0]})"
    )
    ax.set_title(title, fontsize=9, loc="left")
    last, held, confirmed = table.iloc[-1], "nothing kept", ""
    if last.champion == last.champion:
        held = f"the champion {last.champion:.3f}"
    if last.confirmed == last.confirmed:
        confirmed = f", confirmed best {last.confirmed:.3f}"
    beside = ", ".join(f"{name} {value:.3f}" for name, value in (bottom | anchors).items()) or "nothing is measured yet"
    return picture(
        figure,
        f"Running-best chart over {plural(len(table), 'run')}: from {table.quality.iloc[0]:.3f}, the running best reaches "
        f"{last.running:.3f}, {held}{confirmed}. To read it against: {beside}.",
        captions(ledger),
    )


def dims(ledger: Ledger) -> Picture:
    """The five dimensions of baseline, champion and anchors, as dots on the 1 to 5 scale."""
    table = tables.dimensions(ledger, tables.latest(ledger))
    if table.empty:
        return empty("there are no runs yet")
    figure, ax = canvas(8, 2.8)
    names = list(table.columns[2:])
    palette = [INK, KEPT, PROVEN, ANCHOR, "#8a6d3b", "#4a6fa5"]
    # More lines than colours say nothing; the table beside the figure has every row, those without a judged case too.
    table = table.dropna(subset=names, how="all").head(len(palette))
    lines = []
    for colour, (run, model, *values) in zip(palette, table.itertuples(index=False), strict=False):
        run = f"{run.partition('-')[0]} {model}"
        ax.plot(values, range(len(names)), "o-", color=colour, linewidth=0.8, markersize=5, label=run)
        lines.append(f"{run}: " + ", ".join(f"{n} {v:.2f}" for n, v in zip(names, values, strict=True) if v == v))
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlim=(1, 5.05), xlabel="mean score of the judged cases, unrounded")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return picture(figure, f"Five dimensions. {'; '.join(lines)}.")


def comparison(ledger: Ledger) -> Picture:
    """The comparison of models that the report shows."""
    record = Era.latest(ledger).comparison()
    if record is None:
        return empty("models were not compared yet")
    return candidates(record.found.as_dict())


def candidates(readings: Row) -> Picture:
    """Quality of each candidate with its interval, a row each, grouped; gold against itself as a line."""
    f = compared.runs(readings)
    first = ~f.duplicated("group")  # of its group: what the others are compared with
    names, lines = [], []
    figure, ax = canvas(8, 0.9 + 0.32 * len(f))
    for y, (run, base) in enumerate(zip(f.itertuples(), first, strict=True)):
        colour = INK if base else KEPT
        ax.plot([run.low, run.high], [y, y], color=colour, linewidth=2.4, alpha=0.4, solid_capstyle="butt")
        dots(ax, [run.quality], [y], [run.run], colour, s=36, zorder=3)
        ax.text(run.high + 0.01, y, f"{run.quality:.3f}", va="center", fontsize=8, color=colour)
        if base and y:
            ax.axhline(y - 0.5, color=FAINT, linewidth=0.6)
        names.append(f"{run.candidate}, {run.group}" if first.sum() > 1 else run.candidate)
        lines.append(f"{run.candidate} ({run.group}) {run.quality:.3f}, {run.low:.3f} to {run.high:.3f}")
    ceiling, parity = 0.0, ""
    if readings["ceiling"]:
        ceiling = readings["ceiling"]["quality"]
        parity = f" Gold against itself {ceiling:.3f}."
        ax.axvline(ceiling, color=ANCHOR, linewidth=0.8, linestyle=":")
        ax.text(ceiling, -0.62, "gold against itself ", ha="right", fontsize=7, color=ANCHOR)
    ax.set_yticks(range(len(f)), names)
    ax.tick_params(axis="y", length=0)
    far = max(ceiling, f.high.max())
    ax.set(xlim=(0, min(1.0, far + 0.1)), ylim=(len(f) - 0.4, -0.8))
    ax.set_xlabel("quality, 95 % interval; dark: what the others are compared with")
    return picture(figure, f"Quality of {plural(len(f), 'candidate')}: {'; '.join(lines)}.{parity}")


# --- training ------------------------------------------------------------------------------------


def training(ledger: Ledger) -> Picture:
    """Quality of every adapter in the plain call: left by the number of pairs, right by epoch, beside the bare base."""
    f = trained.measured(ledger, tables.latest(ledger))
    f = f[f.plain]
    if f.empty:
        return empty("no adapter was measured yet")
    figure, (left, right) = canvas(8, 3.6, ncols=2, sharey=True, width_ratios=[3, 2])
    draw_pairs(f[f["size"].notna() & (f.epoch == f["last"])], left)
    draw_epochs(f, right)
    base = ledger.get(f.base.iloc[0]).scored
    for ax in (left, right):
        ax.axhline(base.quality, color=ANCHOR, linewidth=0.8, linestyle=":")
        ax.axhspan(base.low, base.high, color=ANCHOR, alpha=0.08, linewidth=0)
    left.set(ylim=(0, 1.45 * f.high.max()), ylabel="quality, mean of all cases, 95 % interval")  # room for the legend
    right.text(0.98, base.quality, f"bare base {base.quality:.3f}", transform=right.get_yaxis_transform(),
               ha="right", va="bottom", fontsize=7, color=ANCHOR)  # fmt: skip
    counts = [f", {n} pairs" if n else "" for n in f.pairs.fillna(0)]
    lines = [f"{m.label}{n}, epoch {m.epoch}: {m.quality:.3f}" for m, n in zip(f.itertuples(), counts, strict=True)]
    beside = f"beside the bare base at {base.quality:.3f}"
    return picture(figure, f"Quality of {plural(len(f), 'adapter')} {beside}. {'; '.join(lines)}.", captions(ledger))


def draw_pairs(f: pd.DataFrame, ax: Axes) -> None:
    """Quality against the number of pairs behind an adapter, a colour and a mark for each way of training.

    What goes on from another adapter stands at that one's number: its own few pairs are not what made it.
    """
    palette = [KEPT, PROVEN, "#4a6fa5", "#8a6d3b", "#7a4a7d", INK]
    for i, (name, mine) in enumerate(f.sort_values("size", kind="stable").groupby("label", sort=False)):
        # A little aside, so that intervals at one size stay apart.
        x = mine["size"].astype(float) * 1.03**i
        colour = palette[i % 6]
        ax.vlines(x, mine.low, mine.high, color=colour, linewidth=0.8)
        dots(ax, x, mine.quality, list(mine.id), colour, marker="osD^vP"[i % 6], s=25, zorder=3, label=name)
    sft = f[f.label == "SFT"]
    # Others of that size had another schedule, and a line through both would compare schedules.
    sft = sft[sft.epoch == sft.epoch.mode().max()]
    line = sft.sort_values("size", kind="stable").drop_duplicates("size", keep="last")
    ax.plot(line["size"].astype(float), line.quality, color=KEPT, linewidth=1.2)
    ax.set_xscale("log")
    # Of imitation alone: a number at each size would cover others.
    known = {*f["size"][f.method == "sft"]} or {*f["size"]}
    sizes = sorted(known | {n for n in f["size"] if not min(known) <= n <= max(known)})
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.minorticks_off()
    ax.set_xlabel("pairs behind the adapter (log scale); line: SFT of as many epochs")
    ax.legend(loc="upper left", ncols=2)


def draw_epochs(f: pd.DataFrame, ax: Axes) -> None:
    """Quality against the epoch whose weights are worn, a line for each training of which several were measured."""
    several = f[f.groupby("training").epoch.transform("nunique") > 1]
    palette = cycle([KEPT, PROVEN, "#4a6fa5"])
    for (_, mine), colour in zip(several.groupby("training", sort=False), palette, strict=False):
        mine = mine.sort_values("epoch", kind="stable")
        name = f"{mine.label.iloc[0]}, {mine.pairs.iloc[0]} pairs"
        ax.plot(mine.epoch, mine.quality, color=colour, linewidth=1.2, label=name)
        dots(ax, mine.epoch, mine.quality, list(mine.id), colour, s=25, zorder=3)
    ax.set(xticks=sorted({*several.epoch}) or [1], xlabel="epoch of the adapter")
    if len(several):
        ax.legend(loc="upper left")


def curves(run: Trained) -> Picture:
    """Loss of training and validation by epoch; with them, where there are any, margin, chosen log-probability, reward."""
    curve = pd.DataFrame(run.outcome.curve)
    figure, ax = canvas(8, 2.8)
    ax.set_xlabel("epoch; 0 is the start, the line marks the epoch that is kept")
    if curve.empty:
        return picture(figure, "A merge has no curve: nothing was trained.")
    others = [k for k in ("valid_margin", "valid_chosen", "reward", "auc") if k in curve]
    looks = [("train_loss", FAINT, "o-"), ("valid_loss", INK, "o-")]
    looks += [(name, colour, "s--") for name, colour in zip(others, (KEPT, PROVEN, ANCHOR), strict=False)]
    for name, colour, look in looks:
        points = curve[["epoch", name]].dropna()
        ax.plot(points.epoch, points[name], look, color=colour, markersize=3, label=name.replace("_", " "))
    ax.axvline(run.outcome.epoch, color=KEPT, linewidth=0.6)
    ax.set_xticks(curve.epoch)
    ax.legend(fontsize=8)
    ends = [(n, curve[n].iloc[0], curve[n].iloc[-1]) for n in run.outcome.curve[0] if n.startswith("valid")]
    lines = ", ".join(f"{name.replace('_', ' ')} from {first:.3f} to {last:.3f}" for name, first, last in ends)
    epochs = plural(len(curve) - 1, "epoch")
    return picture(figure, f"{epochs} of training: {lines}; epoch {run.outcome.epoch} is kept.")
