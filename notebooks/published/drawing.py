"""A table of the published study in, a figure out.

Knows how its climb, its steps and its luck are drawn, in the house style of `lib.report.figures`. Does not know where
the numbers come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib.report.drawing import ANCHOR, FAINT, INK, KEPT, PROVEN, Picture, canvas, picture

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def draw_climb(table: pd.DataFrame, ax: Axes) -> Axes:
    """Every run over all its tasks as a dot; three running bests, each begun anew where the gate changes."""
    for keep, colour, size in ((False, FAINT, 12), (True, KEPT, 30)):
        at = table[(table.kept == keep) & ~table.invalid]
        ax.scatter(at.n, at.over_all, s=size, color=colour, zorder=3 + keep)
    struck = table[table.invalid]
    ax.scatter(struck.n, struck.over_all, marker="x", s=28, color=ANCHOR, zorder=3)
    for row in struck.itertuples():
        ax.annotate("struck: a leak", (row.n, row.over_all), xytext=(6, -3), textcoords="offset points", color=ANCHOR)
    for _, part in table.groupby("gate", sort=False):
        ax.step(part.n, part.running, where="post", color=ANCHOR, linewidth=1.0, linestyle="--")
        ax.step(part.n, part.running_all, where="post", color=KEPT, linewidth=1.2)
        ax.step(part.n, part.supported, where="post", color=PROVEN, linewidth=2.4)
        ax.text(part.n.iloc[0], 0.535, f"{part.tasks.iloc[0]} tasks", color=INK)
    ax.axvline(float(table.n[table.gate == "full"].iloc[0]) - 0.5, color=INK, linewidth=0.6)
    last = table.iloc[-1]
    ends = (("as logged", last.running, ANCHOR, 0.012), ("all tasks", last.running_all, KEPT, -0.012),
            ("supported\nby a paired test", last.supported, PROVEN, 0.0))  # fmt: skip
    for name, value, colour, shift in ends:
        ax.text(last.n + 1.5, value + shift, f"{value:.3f} {name}", va="center", color=colour, clip_on=False)
    ax.set_xlim(0, last.n + 1)
    ax.set_ylim(0.15, 0.56)
    ax.set_xlabel("run, in the order of the log")
    ax.set_ylabel("quality")
    return ax


def climb(table: pd.DataFrame) -> Picture:
    """The published climb, read three ways."""
    figure, ax = canvas(5.6, 4.0)
    draw_climb(table, ax)
    last, gates = table.iloc[-1], [g for _, g in table.groupby("gate", sort=False)]
    spans = "; ".join(
        f"on {g.tasks.iloc[0]} tasks the best goes from {g.running.iloc[0]:.3f} to {g.running.iloc[-1]:.3f} as logged"
        for g in gates
    )
    return picture(
        figure,
        f"The published climb over {len(table)} runs: {spans}. Over all tasks it ends at {last.running_all:.3f}; what a "
        f"paired test supports ends at {last.supported:.3f}.",
    )


def draw_steps(table: pd.DataFrame, ax: Axes) -> Axes:
    """A row a new best: its difference to the best before it with its interval, or that it had none to beat."""
    for y, row in enumerate(table.itertuples()):
        if row.delta != row.delta or row.delta is None:
            ax.text(0.004, y, "first on its gate: nothing to beat", va="center", color=ANCHOR)
            continue
        colour = PROVEN if row.reading == "supported" else FAINT
        ax.plot([row.low, row.high], [y, y], color=colour, linewidth=2.4, solid_capstyle="butt")
        ax.plot([row.delta], [y], "o", color=colour if row.reading == "supported" else ANCHOR, markersize=6)
        ax.text(0.265, y, f"p = {row.p:.3f}" if row.p < 0.01 else f"p = {row.p:.2f}", va="center", color=INK)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(table)))
    ax.set_yticklabels(list(table.run))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(table) - 0.5, -0.6)
    ax.set_xlim(-0.09, 0.345)
    ax.set_xlabel("gain over the best before it, all tasks, 95 % interval")
    return ax


def steps(table: pd.DataFrame) -> Picture:
    """The nine new bests as differences with their intervals."""
    figure, ax = canvas(5.6, 3.4)
    draw_steps(table, ax)
    gains = "; ".join(
        f"{r.run} {r.delta:+.3f}, {r.low:+.3f} to {r.high:+.3f}, p {r.p:.3f}" if r.delta == r.delta
        else f"{r.run} is the first on its gate"
        for r in table.itertuples()
    )  # fmt: skip
    return picture(figure, f"{len(table)} new bests and their gain over the one before: {gains}.")


def draw_luck(table: pd.DataFrame, ax: Axes) -> Axes:
    """Gain over the first run when nothing works, under each rule, and the study's own gain on the same scale."""
    ax.fill_between(table.run, table.low, table.high, color=FAINT, alpha=0.4, linewidth=0)
    ax.plot(table.run, table.luck, color=ANCHOR, linewidth=1.4, linestyle="--")
    ax.plot(table.run, table.rule, color=KEPT, linewidth=1.4)
    ax.plot(table.run, table.confirmed, color=PROVEN, linewidth=2.4)
    own = table[table.study.notna()]
    ax.step(own.run, own.study, where="post", color=INK, linewidth=1.4)
    last = table.iloc[-1]
    at = float(last.run) + 1.5
    for name, value, colour in (
        ("keep if better\n(band: 9 of 10)", last.luck, ANCHOR),
        ("paired rule", last.rule, KEPT),
        ("and confirmed", last.confirmed, PROVEN),
    ):
        ax.text(at, value, f"{value:.3f} {name}", va="center", color=colour, clip_on=False)
    end = own.iloc[-1]
    ax.text(end.run + 1.0, end.study, f"{end.study:.3f} the published study,\nall tasks", va="center", color=INK)
    ax.set_xlim(1, last.run + 1)
    ax.set_ylim(-0.006, 0.18)
    ax.set_xlabel("runs on one gate of 30 tasks")
    ax.set_ylabel("gain over the first run")
    return ax


def luck(table: pd.DataFrame) -> Picture:
    """How far a study climbs in a world where no experiment changes anything."""
    figure, ax = canvas(5.6, 4.0)
    draw_luck(table, ax)
    last, own = table.iloc[-1], table[table.study.notna()].iloc[-1]
    return picture(
        figure,
        f"Gain over the first run where nothing works, after {len(table)} runs: keep if better {last.luck:.3f} (9 in "
        f"10 studies {last.low:.3f} to {last.high:.3f}), the paired rule {last.rule:.3f}, confirmed "
        f"{last.confirmed:.3f}. The published study gained {own.study:.3f} in {own.run:.0f} runs.",
    )
