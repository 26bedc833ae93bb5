"""What each change did: its paired effect, what it costs, whether it was foreseen, and on which tasks.

Knows the runs of one era on the full gate. Each function is a figure whose marks are links to runs, or a sentence that
says what the figure shows. Does not know how a run is judged.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pandas as pd

from lib.measure import calibrate
from lib.measure.offline_judge import FAULTS
from lib.report import levers
from lib.report.drawing import (
    ANCHOR,
    FAINT,
    INK,
    KEPT,
    Picture,
    canvas,
    captions,
    dots_by_status,
    empty,
    picture,
    squares,
    url,
)
from lib.report.era import Era, latest
from lib.runs.ledger import Ledger
from lib.show import Markdown, bullets, plural

if TYPE_CHECKING:
    from lib.report.drawing import Axes

# From light to dark, so that the order survives a print in grey. The cuts lie where answers of small models and of
# frontier models do.
LEVELS = ((0.1, "#e3ddd0"), (0.2, "#c3c9b4"), (0.3, "#8fb0a0"), (0.5, "#4d8a7c"), (1.01, "#1d4f45"))
SMALL_LETTERS = 6


# --- by lever ------------------------------------------------------------------------------------


def _compared(ledger: Ledger) -> pd.DataFrame:
    """The experiments of the newest era that were compared with a champion on the full gate."""
    f = levers.experiments(ledger, latest(ledger))
    return f[(f.gate == "full") & f.delta.notna()]


def forest(ledger: Ledger) -> Picture:
    """A row for each change, by lever: its paired difference to the champion of that moment with its interval."""
    f = _compared(ledger)
    if f.empty:
        return empty("no change was compared with a champion yet")
    # The lever of the best change first; within a lever the best change first.
    f = f.assign(best=f.groupby("lever").delta.transform("max"))
    f = f.sort_values(["best", "lever", "delta"], ascending=[False, True, False], kind="stable")
    first = ~f.lever.duplicated()
    f = f.assign(y=pd.RangeIndex(len(f)) + 0.7 * first.cumsum())
    figure, ax = canvas(8, 0.8 + 0.17 * f.y.max())
    draw_forest(f, ax)
    ax.set_yticks(f.y[first], f.lever[first])
    ahead, behind = f[(f.delta_low > 0)], f[(f.delta_high < 0)]
    return picture(
        figure,
        f"Paired effects of {plural(len(f), 'change')} by lever: {len(ahead)} with an interval above zero, {len(behind)} below. "
        f"Largest {f.delta.max():+.3f} ({f.id[f.delta.idxmax()]}), smallest {f.delta.min():+.3f} ({f.id[f.delta.idxmin()]}).",
        captions(ledger),
    )


def draw_forest(f: pd.DataFrame, ax: Axes) -> None:
    """Intervals and marks at the height `y` of each run, with the number of the run beside its interval."""
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.hlines(f.y, f.delta_low, f.delta_high, color=FAINT, linewidth=1.6)
    dots_by_status(ax, f, "delta", "y")
    for run in f.itertuples():
        name = run.id.partition("-")[0].lstrip("0")
        ax.text(run.delta_high, run.y, f"  {name}", va="center", fontsize=SMALL_LETTERS, color=ANCHOR, url=url(run.id))
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("paired difference to the champion of that moment, 95 % interval")
    ax.legend(loc="best")


def predicted(ledger: Ledger) -> Picture:
    """What a hypothesis promised against what came, the diagonal where both are equal."""
    f = _compared(ledger)
    if f.empty:
        return empty("no prediction was tested yet")
    figure, ax = canvas(8, 3.6)
    ends = [min(f.predicted.min(), f.delta.min()), max(f.predicted.max(), f.delta.max())]
    ax.plot(ends, ends, "--", color=ANCHOR, linewidth=0.8)
    ax.annotate("as predicted", (ends[1], ends[1]), fontsize=7, color=ANCHOR, ha="right", va="bottom")
    ax.axhline(0, color=FAINT, linewidth=0.6)
    ax.vlines(f.predicted, f.delta_low, f.delta_high, color=FAINT, linewidth=0.8)
    dots_by_status(ax, f, "predicted", "delta")
    ax.set(xlabel="predicted difference", ylabel="measured, 95 % interval")
    ax.legend(loc="upper left")
    hits = ((f.delta_low <= f.predicted) & (f.predicted <= f.delta_high)).sum()
    low = (f.delta < f.predicted).sum()
    return picture(
        figure,
        f"Predicted against measured difference of {plural(len(f), 'change')}: {hits} predictions lie within the interval of "
        f"what was measured; {low} promised more than came.",
        captions(ledger),
    )


def cost(ledger: Ledger) -> Picture:
    """Quality against what an answer costs: model calls on the left, written tokens on the right."""
    f = Era.latest(ledger).climb
    f = f[f.calls_a_case > 0]
    if f.empty:
        return empty("no run on the full gate asked a model yet")
    figure, axes = canvas(8, 3.2, ncols=2, sharey=True)
    names = {"calls_a_case": "model calls for a task", "new_tokens_a_case": "tokens written for a task"}
    for ax, (column, name) in zip(axes, names.items(), strict=True):
        by_cost = f.sort_values([column, "quality"], ascending=[True, False], kind="stable")
        ax.step(by_cost[column], by_cost.quality.cummax(), where="post", color=FAINT, linewidth=1)
        dots_by_status(ax, f, column, "quality")
        ax.set_xlabel(name)
    axes[0].set_ylabel("quality, mean of all cases")
    axes[0].legend(loc="best")
    best = f.loc[f.quality.idxmax()]
    return picture(
        figure,
        f"Quality of {plural(len(f), 'run')} against calls and written tokens. The best, {best.id} at {best.quality:.3f}, makes "
        f"{plural(round(best.calls_a_case), 'call')} for a task and writes {best.new_tokens_a_case:.0f} tokens.",
        captions(ledger),
    )


# --- by task -------------------------------------------------------------------------------------


def by_case(ledger: Ledger) -> pd.DataFrame:
    """Quality by task and run of the newest era's full gate, a column each run; tasks on which more was reached first."""
    era = Era.latest(ledger)
    columns = {run: pd.Series(ledger.qualities(run), dtype="float64") for run in era.climb.id}
    f = pd.DataFrame(columns)
    return f.loc[f.max(axis=1).sort_values(ascending=False, kind="stable").index]


def untouched(ledger: Ledger) -> list[str]:
    """The tasks on which no run came past a set that fits any task, or past the first run where that is not measured."""
    f, era = by_case(ledger), Era.latest(ledger)
    if len(f.columns) < 2:
        return []
    bar = f.iloc[:, 0]
    plain = pd.Series(era.control(calibrate.PLAIN), dtype="float64").reindex(f.index).fillna(bar)
    return list(f.index[f.max(axis=1) <= plain])


def heatmap(ledger: Ledger) -> Picture:
    """A row for each task, a column for each run in order: the darker, the better; a cross where no answer was valid."""
    f = by_case(ledger)
    if f.empty:
        return empty("no run on the full gate yet")
    figure, ax = canvas(min(11.3, max(8, 2.4 + 0.12 * len(f.columns))), 1.0 + 0.15 * len(f))
    ax.autoscale(False)  # else each column looks at all that were drawn before it
    for x, run in enumerate(f):
        _draw_column(ax, x, run, f[run])
    ax.set_yticks(range(len(f)), f.index, fontsize=SMALL_LETTERS)
    # More than some forty numbers beside each other run together.
    for x in range(0, len(f.columns), 1 + len(f.columns) // 45):
        run = f.columns[x]
        name = run.partition("-")[0].lstrip("0")
        ax.text(x, len(f), name, ha="center", va="top", fontsize=SMALL_LETTERS, color=ANCHOR, url=url(run))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlim=(-0.6, len(f.columns) - 0.4), ylim=(len(f) + 0.6, -0.6), xticks=[])
    ax.set_xlabel("runs on the full gate in order (number in the ledger)")
    low = 0.0
    for high, colour in LEVELS:
        ax.bar([0], [0], color=colour, label=f"{low:g} to {min(high, 1):g}")
        low = high
    ax.scatter([], [], marker="x", s=9, linewidths=0.6, color=ANCHOR, label="no valid answer")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=6)
    last = f.max(axis=1)
    return picture(
        figure,
        f"Quality of {plural(len(f), 'task')} in {plural(len(f.columns), 'run')}. The task on which most was reached is {f.index[0]} "
        f"({last.iloc[0]:.3f}), the one on which least was, {f.index[-1]} ({last.iloc[-1]:.3f}).",
        captions(ledger),
    )


def _draw_column(ax: Axes, x: int, run: str, qualities: pd.Series) -> None:
    """The tasks of one run as one shape for each level, which is a link: a shape for each task would be a megabyte."""
    y = pd.Series(range(len(qualities)), qualities.index)
    low = 0.0
    for high, colour in LEVELS:
        squares(ax, x, list(y[(qualities > low) & (qualities <= high)]), colour, run)
        low = high
    silent = y[qualities == 0]
    ax.scatter([x] * len(silent), silent, marker="x", s=6, linewidths=0.5, color=ANCHOR)


def tasks(ledger: Ledger) -> Markdown:
    """Which tasks no change moved, and which decisive unknowns no valid answer asked for, by the judge's notes."""
    f = by_case(ledger)
    if len(f.columns) < 2:
        return bullets([], "With fewer than two runs there is nothing to say about tasks.")
    stuck, unknowns = untouched(ledger), unasked(ledger)
    lines = ["On every task some run came past a set that fits any task."]
    if stuck:
        lines = [f"On {plural(len(stuck), 'task')} no run came past a set that fits any task: {', '.join(stuck)}."]
    if unknowns:
        names = "; ".join(f"{name} ({case})" for case, name in list(unknowns.items())[:5])
        lines.append(
            f"By the judge's notes, on {plural(len(unknowns), 'task')} no valid answer of any run asked for the decisive unknown, "
            f"the one on which the plan turns most: {names}{', and more' if len(unknowns) > 5 else ''}."
        )
    return bullets(lines)


def unasked(ledger: Ledger) -> dict[str, str]:
    """By task, the decisive unknown that every valid answer of an era was faulted for not asking."""
    answers: Counter[str] = Counter()
    faults: dict[str, list[str]] = {}
    for run in Era.latest(ledger).climb.id:
        for row in ledger.cases(run):
            if row.judgment is None:
                continue
            answers[row.case] += 1
            name = _named(row.judgment.notes.get("coverage", ""))
            if name:
                faults.setdefault(row.case, []).append(name)
    # By every valid answer: a single one that asked for it shows that some lever can.
    return {case: names[0] for case, names in faults.items() if len(names) == answers[case]}


def _named(note: str) -> str:
    """The decisive unknown that a note of the offline judge names, "" where it names none."""
    _, head, rest = note.partition(f"{FAULTS['uncritical']} (")
    return rest.partition(")")[0] if head else ""


# --- how one experiment runs ---------------------------------------------------------------------


STATIONS = (
    ("read", "all runs\nso far", 0, 1),
    ("propose", "one hypothesis,\none prediction", 1, 1),
    ("answer", "30 tasks through\nthe pipeline", 2, 1),
    ("judge", "against gold, by\nthe frozen ruler", 3, 1),
    ("decide", "paired test with\nthe champion", 3, 0),
    ("seal", "kept or not, it\nstays on record", 2, 0),
)


def loop() -> Picture:
    """How one experiment runs: the stations in a ring, and where a person comes in."""
    figure, ax = canvas(8, 2.5)
    ax.set_axis_off()
    ax.set(xlim=(-0.55, 3.55), ylim=(-0.6, 1.4))
    for number, (name, what, x, y) in enumerate(STATIONS, 1):
        _station(ax, f"{number} {name}", what, x, y, INK)
    _station(ax, "a person", "sets the direction,\napproves trainings", 1, 0, KEPT)
    for x in (0, 1, 2):
        _arrow(ax, (x + 0.4, 1), (x + 0.6, 1), INK)
    _arrow(ax, (3, 0.66), (3, 0.34), INK)
    _arrow(ax, (2.6, 0), (2.4, 0), INK)
    _arrow(ax, (1, 0.34), (1, 0.66), KEPT)
    # Back to the beginning, below the person, who is no station of the ring.
    ax.plot([2, 2, 0, 0], [-0.34, -0.52, -0.52, 0.5], color=INK, linewidth=0.9)
    _arrow(ax, (0, 0.4), (0, 0.66), INK)
    steps = "; ".join(f"{name}: {' '.join(what.split())}" for name, what, _, _ in STATIONS)
    return picture(
        figure, f"One experiment as a ring. {steps}; then again. A person sets the direction and approves trainings."
    )


def _station(ax: Axes, name: str, what: str, x: float, y: float, colour: str) -> None:
    ax.bar(x, 0.64, 0.78, y - 0.32, facecolor="white", edgecolor=colour, linewidth=0.9)
    ax.text(x, y + 0.17, name, ha="center", va="center", fontweight="bold", color=colour)
    ax.text(x, y - 0.1, what, ha="center", va="center", fontsize=7.5, color=INK)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 0.9})
