"""What the runs taught, by lever class: predicted against measured effect, and dead ends with what would revive them.

Tables made from the ledger. Does not know proposers, nor how a lesson is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lib.agent.prompt import one_line
from lib.loop.proposal import setup_of
from lib.runs.ledger import REFERENCE, Ledger
from lib.show import attempt, plural

if TYPE_CHECKING:
    import pandas as pd

FORM = "failed by form"  # not one answer: nothing was measured of what the prediction is about
READINGS = ("hit", "over", "under", "wrong sign", FORM)
MANY = 0.25  # share of cases without an answer from which a run failed by its form, not by its questions
TIRED = 3  # runs of a class without a keep and without a gain from which the class is a dead end


def reading(predicted: float, delta: float, low: float, high: float) -> str:
    """hit: the interval holds the prediction. over, under: the prediction lies above or below it. Else wrong sign.

    >>> reading(0.05, -0.02, -0.04, 0.0), reading(0.02, 0.06, 0.03, 0.09)
    ('wrong sign', 'under')
    """
    # The interval and not the mean decides: a prediction within it was not refuted.
    if low - 1e-9 <= predicted <= high + 1e-9:
        return "hit"
    if predicted * delta < 0:
        return "wrong sign"
    return "over" if predicted > high else "under"


def alike(f: pd.DataFrame) -> pd.Series:
    """Of each row of a ledger whether it ran on the weights of the run that it was compared with, or weights are its class.

    Another row changed two things at once, so its difference says nothing of its class.
    """
    beside = f.set_index("id").weights.reindex(f.against)
    return (f.lever == "adapter") | (f.weights.values == beside.values) | beside.isna().values


def outcomes(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """A row a tested prediction, oldest first: what was predicted and came, on the full gate or, screened out, on dev.

    A run whose pipeline never came to ask the model tested nothing, and one on other weights than the run that it was
    compared with says nothing of its class, unless the weights are the class.
    """
    f = ledger.frame()
    f = f[alike(f)]
    f = f[
        (f.fingerprint == fingerprint) & (f.kind == "experiment") & f.delta.notna() & ~f.lever.isin(REFERENCE) & ~f.idle
    ]
    # By what was run, not by its text: proposers reuse their words, and a decision may come under other ones.
    f = f.assign(setup=[setup_of(ledger.records[i], ledger) for i in f.index])
    out = (f.gate == "dev") & (f.status == "discarded") & ~f.setup.isin(f.setup[f.gate == "full"])
    f = f[(f.lever != "baseline") & ((f.gate == "full") | out)]
    f = f.assign(reading=list(map(reading, f.predicted, f.delta, f.delta_low, f.delta_high)))
    return f.assign(reading=f.reading.mask(f.no_answer.eq(f.cases).fillna(False).astype(bool), FORM))


def lessons(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """A row a lever class, in the order of their first runs: runs, keeps, mean effects, how the predictions did."""
    o = outcomes(ledger, fingerprint)
    # A mean over both gates: what the dev gate rejected would otherwise leave only survivors.
    full = o.gate == "full"
    counts = {"runs": full, "screened_out": ~full, "kept": full & (o.status == "kept")}
    counts |= {name: o.reading == name for name in READINGS}
    by = o.groupby("lever", sort=False)
    table = by[["predicted", "delta"]].mean()
    table = table.assign(**{k: v.groupby(o.lever, sort=False).sum() for k, v in counts.items()})
    order = ["runs", "screened_out", "kept", "predicted", "delta", *READINGS]
    return table[order].assign(best=o.id.loc[by.delta.idxmax()].values).reset_index()


def sentences(ledger: Ledger, fingerprint: str) -> list[str]:
    """The lessons in words, one a class."""
    lines = []
    for row in lessons(ledger, fingerprint).to_dict("records"):
        counts = ", ".join(f"{row[name]} {name}" for name in READINGS if row[name])
        lines.append(
            f"{row['lever']}: {plural(row['runs'], 'run')} and {row['screened_out']} screened out, {row['kept']} kept; "
            f"predicted {row['predicted']:+.3f}, came {row['delta']:+.3f} on average ({counts}); best {row['best']}"
        )
    return lines


def dead_ends(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """What need not be tried again, why, and what would revive it: single runs, then classes, whose `run` is empty."""
    import pandas as pd

    f, champion = ledger.frame(), ledger.champion(fingerprint)
    f = f[
        alike(f) & (f.fingerprint == fingerprint) & (f.kind == "experiment") & f.status.isin(["discarded", "crashed"])
    ]
    f = f[~f.lever.isin(REFERENCE)]
    single = f.assign(run=f.id, what=[text[:200] for text in map(attempt, f.pipeline, f.decoding)], why=f.reason)
    single = single.assign(revive=[_revive(row) for row in f.itertuples()])
    classes = _tired(ledger, fingerprint).assign(run="")
    classes["what"] = [f"the class {lever!r}" for lever in classes.lever]
    numbers = zip(classes["count"], classes.delta, strict=True)
    classes["why"] = [f"{count} attempts, none kept, {delta:+.3f} on average" for count, delta in numbers]
    classes["revive"] = f"a champion other than {champion.id if champion else 'no champion'}, model or adapter"
    return pd.concat([single, classes])[["run", "what", "why", "revive"]]


def tired(ledger: Ledger, fingerprint: str) -> set[str]:
    """Lever classes that are dead ends."""
    return {*_tired(ledger, fingerprint).lever}


def _tired(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """Lessons of classes with TIRED attempts or more, none kept and no gain on average; `count` has the attempts."""
    table = lessons(ledger, fingerprint)
    table["count"] = table.runs + table.screened_out
    return table[(table["count"] >= TIRED) & (table.kept == 0) & (table.delta <= 0)]


def _revive(run: Any) -> str:
    """What would have to be otherwise before a discarded or crashed run is worth another try."""
    if run.status == "crashed":
        return f"its error is gone ({run.error[:100]})"
    if run.quality == run.quality and run.no_answer >= MANY * run.cases:
        return f"replies that fit the form: {run.no_answer} of {run.cases} cases had no answer"
    return f"another model or adapter than {run.model}{run.adapter and ' + ' + run.adapter}"


def markdown(sections: Mapping[str, Sequence[str]]) -> str:
    """Sections of lines as Markdown. A line stays one, whatever it quotes: a hypothesis cannot begin a section."""
    lines: list[str] = []
    for heading, entries in sections.items():
        lines += [f"# {heading}", "", *map(one_line, entries), ""]
    return "\n".join(lines)


def as_data(ledger: Ledger, fingerprint: str) -> dict[str, Any]:
    """Lessons and dead ends as plain data."""
    ends = dead_ends(ledger, fingerprint)
    return {"lessons": lessons(ledger, fingerprint).to_dict("records"), "dead_ends": ends.to_dict("records")}
