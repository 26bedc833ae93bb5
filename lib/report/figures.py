"""A table in, a figure out. The one owner of `matplotlib`.

Knows how runs are drawn: discards faint, keeps labelled, both curves, anchors as lines, alt text on every figure.
Does not know where the numbers come from. Only the index notebooks save.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.files import ROOT, replace, runs_folder
from lib.lab.experiment import Experiment, Run
from lib.lab.ledger import Ledger
from lib.lab.training import Trained
from lib.report import compared, tables, trained

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

INK, FAINT, KEPT, PROVEN, ANCHOR = "#1a1a1a", "#b9b4ab", "#b5482a", "#2a6f5e", "#6b6b6b"


def figures_folder() -> Path:
    """`figures` of the project for its own runs, else beside the folder of runs."""
    runs = runs_folder().resolve()
    return ROOT / "figures" if runs == (ROOT / "runs").resolve() else runs.parent / "figures"


@dataclass(frozen=True)
class Picture:
    """A drawn figure with its alt text; displays itself on a white ground."""

    png: bytes
    alt: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        import base64

        data = {"image/png": base64.b64encode(self.png).decode(), "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt}}

    def save(self, name: str) -> Picture:
        """Write the picture into the figures folder and return it."""
        folder = figures_folder()
        folder.mkdir(parents=True, exist_ok=True)
        replace(folder / f"{name}.png", self.png)
        return self


def canvas(width: float = 8.0, height: float = 4.2) -> tuple[Any, Axes]:
    """An empty figure in the house style, without pyplot (which costs half a second to import)."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["font.size"] = 9
    rcParams["svg.hashsalt"] = "notch"
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    ax = figure.add_subplot()
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return figure, ax


def picture(figure: Any, alt: str) -> Picture:
    """The figure as PNG: same drawing, same bytes."""
    import io

    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return Picture(out.getvalue(), alt)


# --- one run -------------------------------------------------------------------------------------


def per_case(run: Run) -> Picture:
    """Quality of each case of a run, sorted, NoAnswers marked."""
    figure, ax = canvas(8, 2.6)
    rows = sorted(run.cases, key=lambda r: -(r["quality"] or 0))
    values = [r["quality"] or 0.0 for r in rows]
    verdicts = [(r["judgment"] or {}).get("verdict", "none") for r in rows]
    colours = {"win": PROVEN, "tie": "#7fa79b", "loss": FAINT, "none": "white"}
    bars = ax.bar(range(len(rows)), values, color=[colours[v] for v in verdicts], edgecolor=INK, linewidth=0.3)
    for bar, verdict in zip(bars, verdicts, strict=True):
        if verdict == "none":
            ax.text(bar.get_x() + 0.4, 0.01, "×", ha="center", color=KEPT)
    ax.axhline(run.scores.quality, color=INK, linewidth=0.8)
    ax.set_ylim(0, 1)
    ax.set_xticks([])
    ax.set_ylabel("quality")
    ax.set_xlabel(f"{len(rows)} cases, best to worst: win (dark), tie, loss (grey), no answer (×); line: mean of all")
    alt = f"Quality of {len(rows)} cases, from {values[0]:.2f} down to {values[-1]:.2f}, mean {run.scores.quality:.3f}."
    return picture(figure, alt)


def pipeline(experiment: Experiment) -> Picture:
    """The process diagram: task, steps, spec gate, judge; a step that calls the model is filled."""
    steps = experiment.steps
    boxes = [("task", "one line", False)]
    boxes += [(s.name, ", ".join(f"{k}={v}" for k, v in s.args.items())[:44] or "defaults", s.calls > 0) for s in steps]
    boxes += [("spec gate", "7 questions", False), ("judge", experiment.judge, False)]
    figure, ax = canvas(1.75 * len(boxes), 1.15)
    ax.set_axis_off()
    ax.set_xlim(-0.5, len(boxes) - 0.5)
    ax.set_ylim(-0.55, 0.55)
    for i, (name, detail, calls) in enumerate(boxes):
        style = {
            "boxstyle": "round,pad=0.5",
            "facecolor": KEPT if calls else "white",
            "edgecolor": INK,
            "linewidth": 0.8,
        }
        ax.text(i, 0.14, name, ha="center", va="center", bbox=style, color="white" if calls else INK)
        ax.text(i, -0.36, detail, ha="center", va="center", fontsize=7, color=ANCHOR, wrap=True)
        if i:
            ax.annotate(
                "", (i - 0.36, 0.14), (i - 0.64, 0.14), arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 0.8}
            )
    return picture(figure, "Pipeline: " + ", then ".join(f"{n} ({d})" for n, d, _ in boxes) + ".")


# --- the climb -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Label:
    """A label at a point, with the room that it takes from left to right, in the units of the x axis."""

    x: float
    y: float
    text: str
    side: str
    left: float
    right: float


def _label(x: float, y: float, text: str, count: int) -> Label:
    wide = 0.009 * len(text) * count  # a letter of size 7 is a little under a hundredth of the chart's width
    if x - wide / 2 < 0.5:
        return Label(x, y, text, "left", x, x + wide)
    if x + wide / 2 > count + 0.5:
        return Label(x, y, text, "right", x - wide, x)
    return Label(x, y, text, "center", x - wide / 2, x + wide / 2)


def fitting(labels: list[Label], high: float) -> list[Label]:
    """The labels that cover no other one, `high` apart or side by side: newest first, then the first, then the rest."""
    chosen: list[Label] = []
    for label in [*labels[-1:], *labels[:1], *labels[-2:0:-1]]:
        if all(abs(label.y - c.y) >= high or label.right < c.left or c.right < label.left for c in chosen):
            chosen.append(label)
    return chosen


def draw_climb(table: pd.DataFrame, anchors: dict[str, float], ax: Axes) -> Axes:
    """Every run as a dot in run order; the running best as a faint step, the confirmed best as a strong one."""
    x = list(range(1, len(table) + 1))
    kept = table["status"] == "kept"
    for keep, colour, size in ((False, FAINT, 18), (True, KEPT, 34)):
        at = [i for i, k in zip(x, kept, strict=True) if k == keep]
        ax.scatter(
            at,
            table["quality"][kept == keep],
            s=size,
            color=colour,
            zorder=3 + keep,
            label="kept" if keep else "not kept",
        )
    ax.step(
        x,
        table["running"],
        where="post",
        color=FAINT,
        linewidth=1.2,
        linestyle="--",
        label="running best, luck included",
    )
    if table["champion"].notna().any():
        ax.step(
            x,
            table["champion"].astype(float),
            where="post",
            color=KEPT,
            linewidth=1.2,
            label="champion by the paired rule",
        )
    if table["confirmed"].notna().any():
        # Up to the edge: what was confirmed after the last run would otherwise be a point without a line.
        ends = [*x, len(x) + 0.5]
        value, low, high = ([*table[c].astype(float), float(table[c].iloc[-1])] for c in ("confirmed", "low", "high"))
        ax.step(ends, value, where="post", color=PROVEN, linewidth=2.0, label="confirmed on the sealed gate")
        ax.fill_between(ends, low, high, step="post", color=PROVEN, alpha=0.15, linewidth=0)
    top = max(0.2, 1.45 * table["quality"].max())  # a ceiling far above would press the climb into a corner
    far = {name: value for name, value in anchors.items() if value > top}
    anchors = {name: value for name, value in anchors.items() if value <= top}
    for k, (name, value) in enumerate(far.items()):
        ax.text(
            len(x) + 0.45, top * (0.97 - 0.05 * k), f"{name[:40]} {value:.2f}, above the chart ↑",
            fontsize=7, va="top", ha="right", color=ANCHOR,
        )  # fmt: skip
    labels = [
        _label(i, row.quality, row.run.partition("-")[2][:24], len(x))
        for i, row in zip(x, table.itertuples(), strict=True)
        if row.status == "kept"
    ]
    for label in fitting(labels, 0.05 * top):
        at = (label.x, label.y)
        ax.annotate(label.text, at, xytext=(0, 7), textcoords="offset points", fontsize=7, ha=label.side)
    told = [Label(0, value, name, "right", 0, 1) for name, value in anchors.items()]
    labelled = {label.text for label in fitting(told, 0.04 * top)}
    for name, value in anchors.items():
        ax.axhline(value, color=ANCHOR, linewidth=0.7, linestyle=":")
        if name in labelled:
            ax.text(
                len(x) + 0.6, value, f"{name[:28]} {value:.2f}", fontsize=7, va="center", ha="left", color=ANCHOR
            )  # beside the chart: inside, dots stand on it
    ax.set_xlim(0.5, len(x) + 0.5)
    every = -(-len(x) // 30)  # more labels than this run together, and a tick a run takes seconds to draw
    ax.set_xticks(x[:: max(1, every)])
    ax.set_xticklabels([r.partition("-")[0].lstrip("0") for r in table["run"]][:: max(1, every)], fontsize=7)
    ax.set_ylim(0, top)
    ax.set_xlabel("runs on the full gate, in order (number in the ledger)")
    ax.set_ylabel("quality, mean of all cases")
    ax.legend(fontsize=7, frameon=False, loc="upper left", ncols=2)
    return ax


def climb(ledger: Ledger) -> Picture:
    """The running-best chart of the newest era."""
    fingerprint = tables.latest(ledger)
    table, lines = tables.climb(ledger, fingerprint), tables.anchors(ledger, fingerprint)
    figure, ax = canvas(8, 4.4)
    if table.empty:
        ax.text(0.5, 0.5, "no runs yet", ha="center", transform=ax.transAxes)
        return picture(figure, "An empty chart: there are no runs yet.")
    draw_climb(table, lines, ax)
    era = len(tables.eras(ledger))
    ax.set_title(
        f"The climb (era {era}, ruler and judge {fingerprint[:8]}; offline judge unless said)", fontsize=9, loc="left"
    )
    last = table.iloc[-1]
    proven = (
        f", confirmed best {last.confirmed:.3f}"
        if last.confirmed == last.confirmed and last.confirmed is not None
        else ""
    )
    held = (
        f"the champion {last.champion:.3f}"
        if last.champion == last.champion and last.champion is not None
        else "nothing kept"
    )
    alt = (
        f"Running-best chart over {len(table)} runs: from {table.quality.iloc[0]:.3f}, the running best reaches "
        f"{last.running:.3f}, {held}{proven}."
    )
    return picture(figure, alt)


def dims(ledger: Ledger) -> Picture:
    """The five dimensions of baseline, champion and anchors, as dots on the 1 to 5 scale."""
    table = tables.dimensions(ledger, tables.latest(ledger))
    figure, ax = canvas(8, 2.8)
    if table.empty:
        return picture(figure, "An empty chart: there are no runs yet.")
    names = list(table.columns[2:])
    palette = [INK, KEPT, PROVEN, ANCHOR, "#8a6d3b", "#4a6fa5"]
    table = table.head(6)  # more lines than colours say nothing; the table beside the figure has every row
    for i, row in enumerate(table.itertuples(index=False)):
        values = [float("nan") if v is None else v for v in row[2:]]
        ax.plot(values, range(len(names)), "o-", color=palette[i % 6], linewidth=0.8, markersize=5, label=row[0])
    ax.set_yticks(range(len(names)))
    ax.set_yticklabels(names)
    ax.set_xlim(1, 5.05)
    ax.invert_yaxis()
    ax.set_xlabel("mean score of the judged cases, unrounded")
    ax.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    told = "; ".join(f"{r[0]}: " + ", ".join(f"{n} {v:.2f}" for n, v in zip(names, r[2:], strict=True) if v is not None and v == v)
                     for r in table.itertuples(index=False))  # fmt: skip
    return picture(figure, f"Five dimensions. {told}.")


def comparison(ledger: Ledger) -> Picture:
    """The comparison of models that the report shows."""
    made = compared.shown(ledger, tables.latest(ledger))
    if made:
        return candidates(made["found"])
    figure, ax = canvas(8, 1)
    ax.set_axis_off()
    ax.text(0.5, 0.5, "no comparison of models yet", ha="center", transform=ax.transAxes)
    return picture(figure, "An empty chart: models were not compared yet.")


def candidates(found: dict[str, Any]) -> Picture:
    """Quality of each candidate with its interval, a row each, grouped; gold against itself as a line."""
    rows = [(g, found["candidates"][v["run"]]["candidate"], v["scores"]) for g, v in compared.each(found)]
    figure, ax = canvas(8, 0.9 + 0.32 * len(rows))
    several = len(found["groups"]) > 1
    for y, (group, _, s) in enumerate(rows):
        first = y == 0 or rows[y - 1][0] != group
        colour = INK if first else KEPT
        ax.plot([s["low"], s["high"]], [y, y], color=colour, linewidth=2.4, alpha=0.4, solid_capstyle="butt")
        ax.plot([s["quality"]], [y], "o", color=colour, markersize=6)
        ax.text(s["high"] + 0.01, y, f"{s['quality']:.3f}", va="center", fontsize=8, color=colour)
        if first and y:
            ax.axhline(y - 0.5, color=FAINT, linewidth=0.6)
    top = max(s["high"] for _, _, s in rows)
    if found["ceiling"]:
        top = max(top, found["ceiling"]["quality"])
        ax.axvline(found["ceiling"]["quality"], color=ANCHOR, linewidth=0.8, linestyle=":")
        ax.text(found["ceiling"]["quality"], -0.62, "gold against itself ", ha="right", fontsize=7, color=ANCHOR)
    ax.set_yticks(range(len(rows)))
    ax.set_yticklabels([f"{name}, {group}" if several else name for group, name, _ in rows])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(rows) - 0.4, -0.8)
    ax.set_xlim(0, min(1.0, top + 0.1))
    ax.set_xlabel("quality, 95 % interval; dark: what the others are compared with")
    told = "; ".join(f"{n} ({g}) {s['quality']:.3f}, {s['low']:.3f} to {s['high']:.3f}" for g, n, s in rows)
    ceiling = f" Gold against itself {found['ceiling']['quality']:.3f}." if found["ceiling"] else ""
    return picture(figure, f"Quality of {len(rows)} candidates: {told}.{ceiling}")


# --- training ------------------------------------------------------------------------------------


def training(ledger: Ledger) -> Picture:
    """Quality of every adapter in the plain call: left by the number of pairs, right by epoch, beside the bare base."""
    plain = [m for m in trained.measured(ledger, tables.latest(ledger)) if m.plain]
    if not plain:
        figure, ax = canvas(8, 1)
        ax.set_axis_off()
        ax.text(0.5, 0.5, "no adapter was measured yet", ha="center", transform=ax.transAxes)
        return picture(figure, "An empty chart: no adapter was measured yet.")
    figure, left = canvas(8, 3.6)
    left.remove()
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    draw_pairs([m for m in plain if m.pairs], left)
    draw_epochs(plain, right)
    base = plain[0].base["scores"]
    for ax in (left, right):
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        ax.axhline(base["quality"], color=ANCHOR, linewidth=0.8, linestyle=":")
        ax.axhspan(base["low"], base["high"], color=ANCHOR, alpha=0.08, linewidth=0)
    left.set_ylim(0, 1.45 * max(m.run["scores"]["high"] for m in plain))  # room for the legend
    left.set_ylabel("quality, mean of all cases, 95 % interval")
    right.text(0.98, base["quality"], f"bare base {base['quality']:.3f}", transform=right.get_yaxis_transform(),
               ha="right", va="top", fontsize=7, color=ANCHOR)  # fmt: skip
    told = "; ".join(
        f"{_trained_as(m)}, {m.pairs} pairs, epoch {m.epoch}: {m.run['scores']['quality']:.3f}" for m in plain
    )
    return picture(figure, f"Quality of {len(plain)} adapters beside the bare base at {base['quality']:.3f}. {told}.")


def _trained_as(m: trained.Measured) -> str:
    return m.method.upper() + (f" {m.kind}" if m.kind and m.kind != "clean" else "") if m.method != "merge" else "merge"


def draw_pairs(some: list[trained.Measured], ax: Axes) -> Axes:
    """Quality against the number of pairs, a colour and a mark for each way of training, the last epoch of each."""
    last = [m for m in some if m.epoch == m.training["found"]["epoch"]]
    palette = [KEPT, PROVEN, "#4a6fa5", "#8a6d3b", "#7a4a7d", INK]
    for i, name in enumerate(dict.fromkeys(map(_trained_as, last))):
        mine = sorted((m for m in last if _trained_as(m) == name), key=lambda m: m.pairs)
        x = [m.pairs * 1.03**i for m in mine]  # a little aside, so that intervals at one size stay apart
        s = [m.run["scores"] for m in mine]
        y = [v["quality"] for v in s]
        around = [[v["quality"] - v["low"] for v in s], [v["high"] - v["quality"] for v in s]]
        ax.errorbar(
            x, y, yerr=around, fmt="osD^vP"[i % 6], color=palette[i % 6], markersize=5, linewidth=0.8, label=name
        )
        if name == "SFT":
            best = {m.pairs: m for m in mine if m.training["found"]["epoch"] == 2}
            ax.plot(
                list(best), [m.run["scores"]["quality"] for m in best.values()], color=palette[i % 6], linewidth=1.2
            )
    ax.set_xscale("log")
    sizes = {m.pairs for m in last if m.method == "sft"} or {m.pairs for m in last}
    sizes = sorted(sizes | {m.pairs for m in last if not min(sizes) <= m.pairs <= max(sizes)})
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.minorticks_off()
    ax.set_xlabel("pairs trained on (log scale); line: SFT, two epochs")
    ax.legend(fontsize=7, frameon=False, loc="upper left", ncols=2)
    return ax


def draw_epochs(some: list[trained.Measured], ax: Axes) -> Axes:
    """Quality against the epoch whose weights are worn, a line for each training of which several were measured."""
    runs: dict[str, list[trained.Measured]] = {}
    for m in some:
        runs.setdefault(m.training["id"], []).append(m)
    several = [sorted(v, key=lambda m: m.epoch) for v in runs.values() if len({m.epoch for m in v}) > 1]
    for i, mine in enumerate(several):
        x, y = [m.epoch for m in mine], [m.run["scores"]["quality"] for m in mine]
        name = f"{_trained_as(mine[0])}, {mine[0].pairs} pairs"
        ax.plot(x, y, "o-", color=[KEPT, PROVEN, "#4a6fa5"][i % 3], markersize=5, linewidth=1.2, label=name)
    ax.set_xticks(sorted({m.epoch for mine in several for m in mine}) or [1])
    ax.set_xlabel("epoch of the adapter")
    if several:
        ax.legend(fontsize=7, frameon=False, loc="upper left")
    return ax


def curves(trained: Trained) -> Picture:
    """Loss of training and validation by epoch; with them, where there are any, margin, chosen log-probability, reward."""
    curve = trained.outcome.curve
    others = [k for k in ("valid_margin", "valid_chosen", "reward", "auc") if any(k in row for row in curve)]
    figure, ax = canvas(8, 2.8)
    for name, colour in (("train_loss", FAINT), ("valid_loss", INK)):
        points = [(row["epoch"], row[name]) for row in curve if row.get(name) is not None]
        ax.plot(*zip(*points, strict=True) if points else ([], []), color=colour, marker="o", markersize=3,
                label=name.replace("_", " "))  # fmt: skip
    for name, colour in zip(others, (KEPT, PROVEN, ANCHOR), strict=False):
        points = [(row["epoch"], row[name]) for row in curve if row.get(name) is not None]
        ax.plot(*zip(*points, strict=True), color=colour, marker="s", markersize=3, linestyle="--",
                label=name.replace("_", " "))  # fmt: skip
    if curve:
        ax.axvline(trained.outcome.epoch, color=KEPT, linewidth=0.6)
        ax.set_xticks([row["epoch"] for row in curve])
        ax.legend(frameon=False, fontsize=8)
    ax.set_xlabel("epoch; 0 is the start, the line marks the epoch that is kept")
    if not curve:
        return picture(figure, "A merge has no curve: nothing was trained.")
    told = [
        f"{n.replace('_', ' ')} from {curve[0][n]:.3f} to {curve[-1][n]:.3f}" for n in curve[0] if n.startswith("valid")
    ]
    return picture(
        figure, f"{len(curve) - 1} epochs of training: {', '.join(told)}; epoch {trained.outcome.epoch} is kept."
    )
