"""The published study, read again from its own numbers: what its climb, its scores and its report hold.

Knows the two files of numbers beside it: the study's log (97 runs) and the verdicts, case by case, of twelve runs.
Does not know a text of that study, how a table is drawn, what luck alone would show, or the project's own runs.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.measure.judge import DIMENSIONS
from lib.measure.keep import passes
from lib.measure.score import VALUE, quality
from lib.measure.stats import paired
from lib.show import Markdown

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

VERDICTS = Path(__file__).with_name("verdicts.jsonl")
LOG = Path(__file__).with_name("log.jsonl")
REPORTED = 71  # runs that the report covers; the log goes on to 97
REPEATED = 0.415  # exp056 judged again with all five scores: the table of the report's section 5


# --- the data ------------------------------------------------------------------------------------


@lru_cache
def verdicts() -> dict[str, dict[str, Any]]:
    """The twelve runs with verdicts, by label, in the order of the log (the two ORPO runs last)."""
    rows = [json.loads(line) for line in VERDICTS.read_text(encoding="utf-8").splitlines()[1:]]
    return {row["run"]: row for row in rows}


def qualities(run: str, refused: float | None = 0.0) -> dict[int, float]:
    """Quality by case of a run with verdicts; a refused case is 0, or left out with `refused=None`."""
    cases = {}
    for c in verdicts()[run]["cases"]:
        if c["verdict"] is not None:
            cases[c["case"]] = quality(dict(zip(DIMENSIONS, c["scores"], strict=True)), c["verdict"])
        elif refused is not None:
            cases[c["case"]] = refused
    return cases


def log() -> pd.DataFrame:
    """A row a logged run. `over_all` is the quality over every task of the gate, whatever the log divided by.

    Up to and including the first full run the log divides by all tasks, after it by the judged ones; that follows
    from the twelve runs with verdicts, and is taken to hold for the rows between them.
    """
    import pandas as pd

    table = pd.DataFrame([json.loads(line) for line in LOG.read_text(encoding="utf-8").splitlines()[1:]])
    table["judged"] = table.wins + table.ties + table.losses
    changed = table.n > int(table.n[table.run == "adapter_e1_full"].iloc[0])
    table["over_all"] = table.quality.where(~changed, table.quality * table.judged / table.tasks)
    return table


def pools(runs: tuple[str, ...] = ()) -> np.ndarray:
    """Qualities by run (rows) and task (columns) of the full gate: what a task's outcomes have been."""
    import numpy as np

    chosen = runs or tuple(r for r, row in verdicts().items() if row["gate"] == "full")
    return np.array([[qualities(r)[c] for c in sorted(qualities(chosen[0]))] for r in chosen])


def recomputed() -> pd.DataFrame:
    """Both denominators of every run with verdicts, computed from the verdicts, beside what was logged."""
    import pandas as pd

    rows = []
    for run, row in verdicts().items():
        judged, every = qualities(run, None), qualities(run)
        rows.append(
            {
                "run": run, "judged": len(judged), "tasks": len(every),
                "over judged": sum(judged.values()) / len(judged), "over all": sum(every.values()) / len(every),
                "logged": row["logged"], "divided by": row["denominator"],
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


# --- the climb -----------------------------------------------------------------------------------


def new_bests() -> pd.DataFrame:
    """The nine logged new bests: each against the best before it on its gate, paired, over all tasks.

    `p to supported` tests it against the last run that a paired test supports, as a champion rule would.
    """
    import pandas as pd

    table, rows = log(), []
    before: dict[str, str] = {}
    supported: dict[str, str] = {}
    for r in table[table.kept & (table.n <= REPORTED)].itertuples():
        row = {"n": r.n, "run": r.run, "tasks": r.tasks, "W/T/L": f"{r.wins}/{r.ties}/{r.losses}", "logged": r.quality}
        row |= {"over all": r.over_all, "delta": None, "low": None, "high": None, "p": None, "p to supported": None}
        if r.gate not in before:
            reading = "first on its gate"
            supported[r.gate] = r.run
        else:
            test = paired(qualities(r.run), qualities(before[r.gate]))
            to = paired(qualities(r.run), qualities(supported[r.gate]))
            row |= {k: getattr(test, k) for k in ("delta", "low", "high", "p")} | {"p to supported": to.p}
            reading = "supported" if passes(test.delta, test.p) else "not supported"
            supported[r.gate] = r.run if passes(to.delta, to.p) else supported[r.gate]
        before[r.gate] = r.run
        rows.append(row | {"reading": reading})
    return pd.DataFrame(rows)


def climb() -> pd.DataFrame:
    """The 71 runs with three running bests, each begun anew on each gate: as logged, over all tasks, supported."""
    table = log()
    table = table[table.n <= REPORTED].copy()
    valid = ~table.invalid
    best = new_bests()
    held = best[best.reading != "not supported"].set_index("n")["over all"]
    table["running"] = table.quality.where(valid).groupby(table.gate).cummax().ffill()
    table["running_all"] = table.over_all.where(valid).groupby(table.gate).cummax().ffill()
    table["supported"] = table.n.map(held).ffill()
    return table


def denominators(at_least: float = 0.01) -> pd.DataFrame:
    """The reported runs whose logged quality leaves out refused tasks and so gains at least this much."""
    table = log()
    table = table[(table.n <= REPORTED) & ~table.invalid & (table.quality - table.over_all >= at_least)]
    table = table.assign(gain=table.quality - table.over_all).sort_values("gain", ascending=False)
    names = {"judged": "judged", "tasks": "tasks", "quality": "logged", "over_all": "over all", "gain": "gain"}
    return table.head(5)[["run", *names]].rename(columns=names)


def repeats() -> pd.DataFrame:
    """Three new bests that were measured a second time, and what the second time said.

    The third was judged again for the report's section 5, which does not say what it divided by.
    """
    import pandas as pd

    first, again = qualities("adapter_e1"), qualities("adapter_e1_full")
    second = sum(again[c] for c in first) / len(first)
    table = log().set_index("run")
    rows = [
        ("adapter_e1", "sampled again", sum(first.values()) / 10, second),
        ("exp056", "judged again", float(table.quality["exp056"]), REPEATED),
        ("exp078", "judged again (exp079)",
         float(table.quality["exp078"]), float(table.quality["exp079"])),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["new best", "second time", "first", "again"])
    return frame.assign(delta=frame["again"] - frame["first"])


# --- what the report says, beside its data -------------------------------------------------------


def dimensions() -> pd.DataFrame:
    """Unrounded means of the five scores over the judged cases, and what each half adds to the quality."""
    import pandas as pd

    rows = []
    for run, row in verdicts().items():
        cases = [c for c in row["cases"] if c["verdict"] is not None]
        means = [sum(c["scores"][i] for c in cases) / len(cases) for i in range(len(DIMENSIONS))]
        half = 0.5 * (sum(means) / len(means) - 1) / 4
        won = 0.5 * sum(VALUE[c["verdict"]] for c in cases) / len(cases)
        rows.append(
            {"run": run, **dict(zip(DIMENSIONS, means, strict=True)), "from scores": half, "from verdicts": won}
        )
    return pd.DataFrame(rows)


def claims() -> pd.DataFrame:
    """Five sentences of the report, each beside what the log or the verdicts give."""
    import pandas as pd

    table, dims = log(), dimensions().set_index("run")
    seen, runs = table[table.n <= REPORTED], table.set_index("run")
    cover = dims["coverage"].drop("exp078")
    single = {c["scores"][2] for r in verdicts() for c in verdicts()[r]["cases"] if c["scores"]}
    first = seen[~seen.run.str.startswith("adapter") & (seen.gate == "dev")]
    orpo = seen.run.str.contains("orpo")
    tuned = seen[(seen.n > first.n.max()) & ~orpo]
    full = tuned[tuned.gate == "full"]
    best, other = runs.loc["exp056"], runs.loc["adapter_v2a_e1"]
    both = qualities("baseline").keys() & qualities("exp056").keys()
    rows = [
        ("coverage was 3 in every run",
         f"{cover.min():.2f} to {cover.max():.2f} in the {len(cover)} reported runs with verdicts; single tasks from "
         f"{min(single)} to {max(single)}. The log rounds each mean to a whole number."),
        ("the best model: quality 0.44, wins/ties/losses 2/5/22",
         f"2/5/22 is {other.name} ({other.quality:.3f}); the run of {best.quality:.2f} has {best.wins}/{best.ties}/"
         f"{best.losses}. Either adds up to {best.judged}: one task was refused and dropped. The cloud models' add up "
         "to 30."),
        ("71 experiments: 1 + 29 + 34 + 2 + 2",
         f"That is 68. The log has {len(first)} runs of the untuned model, the baseline among them, {len(tuned)} of "
         f"fine-tuned ones ({len(tuned) - len(full)} on ten tasks, {len(full)} on thirty, {int(full.invalid.sum())} of "
         f"them struck) and {int(orpo.sum())} of ORPO: {len(seen)}. The 68 come out if the baseline is counted twice "
         "and the three on ten tasks and the struck one are left out."),
        ("stock baseline 0.28, on thirty tasks",
         f"The log has the baseline on ten tasks, at {runs.loc['baseline'].quality:.4f}, and none on thirty."),
        ("30 held-out tasks",
         f"{len(both)} of them are also the development gate, on which the first 32 runs were compared."),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["the report", "its data"])


def _scores() -> tuple[np.ndarray, np.ndarray]:
    """Every judged case of the twelve runs: five scores, and the verdict as 1, 0.5 or 0."""
    import numpy as np

    cases = [c for r in verdicts().values() for c in r["cases"] if c["verdict"] is not None]
    return np.array([c["scores"] for c in cases], float), np.array([VALUE[c["verdict"]] for c in cases])


def halo() -> pd.DataFrame:
    """Correlation of the five scores with each other and with the verdict, over all judged cases."""
    import numpy as np
    import pandas as pd

    x, y = _scores()
    names = [*DIMENSIONS, "verdict"]
    table = pd.DataFrame(np.corrcoef(np.c_[x, y].T), columns=names)
    table.insert(0, "", names)
    return table


def explained() -> dict[str, float]:
    """`cases` judged; `r2` of the verdict on the scores (least squares); `first` component's share of variance."""
    import numpy as np

    x, y = _scores()
    design = np.c_[np.ones(len(x)), x]
    rest = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    share = float(np.linalg.eigvalsh(np.corrcoef(x.T))[-1] / x.shape[1])
    return {"cases": len(y), "r2": float(1 - rest @ rest / ((y - y.mean()) ** 2).sum()), "first": share}


# --- in words ------------------------------------------------------------------------------------


def later() -> Markdown:
    """The log goes on after the report: its next new best, under both comparisons, and its repeat."""
    table = log().set_index("run")
    step = paired(qualities("exp078"), qualities("exp056"))
    rule = paired(qualities("exp078"), qualities("adapter_e1_g"))
    held = qualities("adapter_e1_g", None)
    both = paired({c: q for c, q in qualities("exp078").items() if c in held}, held)
    return Markdown(
        f"The log goes on to {len(table)} runs. One more is a new best, exp078 at {table.quality['exp078']:.3f}. "
        f"Against the best before it: {step}. Against the last supported run: {rule}, so notch's rule would have kept "
        f"it too, though only by the one task that the fine-tuned runs before it had refused (without it p = "
        f"{both.p:.3f}). Its authors then measured it a second time, as one should, and got "
        f"{table.quality['exp079']:.4f}: less than the {table.over_all['exp056']:.3f} of the run that it had replaced. "
        "A paired test did not catch this one; a confirmation did."
    )


def shared() -> Markdown:
    """The halo and the verdict in one sentence."""
    e = explained()
    return Markdown(
        f"Over {e['cases']:.0f} judged answers, one common component carries {100 * e['first']:.0f} % of the variance "
        "of the five scores (20 % would be five separate things), and the five together explain "
        f"R² = {e['r2']:.2f} of the verdict."
    )
