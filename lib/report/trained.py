"""What training gave: every measured adapter beside the bare base, beside imitation or the adapter it began from, and
beside the best that was reached without one.

Knows sealed trainings and the experiments that used them. Differences are paired on the cases of the full gate, anew
from sealed judgments: an experiment's own decision compares it with the champion of its moment. Trains nothing.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from lib.lab.show import Markdown, attempt, bullets, chance, interval, plural
from lib.measure.keep import ALPHA
from lib.measure.stats import paired
from lib.report.era import Era
from lib.runs.ledger import REFERENCE, Ledger
from lib.runs.record import TrainingRecord

TESTED = ("delta", "low", "high", "p")


def trainings(ledger: Ledger) -> pd.DataFrame:
    """A row a training that came to its end, by its id.

    `sets` is what kind its sets were (clean, coverage, styles, on-policy), empty for a merge; `parents` are the adapters
    that it went on from or merged, `last` is the epoch that it chose.
    """
    rows = []
    for r in ledger.records:
        if isinstance(r, TrainingRecord) and r.found:
            data, parameters = r.found.data, r.found.parameters
            parents = [p for p in (r.adapter, *parameters.get("merge", ())) if p]
            pairs = data.get("train")
            asked = parameters.get("data", {}).get("pairs", pairs)
            row = [r.id, r.found.method, r.found.epoch, data.get("kind", ""), pairs, asked, parents, round(r.seconds)]
            rows.append(row)
    names = ["training", "method", "last", "sets", "pairs", "asked", "parents", "seconds_to_train"]
    whole = dict.fromkeys(["last", "pairs", "seconds_to_train"], "Int64")
    return pd.DataFrame(rows, columns=names).set_index("training").astype(whole | {"asked": "float64"})


def source(adapter: str, known: pd.DataFrame) -> tuple[str, int]:
    """The training of an adapter and the epoch whose weights it is, ("", 0) where it is none of a sealed training."""
    name = re.search(r"(\d{4,}-[a-z0-9-]+)(?:.*epoch-(\d+))?", adapter)
    if not name or name[1] not in known.index:
        return "", 0
    return name[1], int(name[2] or known["last"][name[1]])


def adapted(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """A row a whole experiment of an era's full gate on a sealed adapter, in order.

    `base` is the same pipeline, decoding and seed on the bare model, "" where that was not run; `beside` what else a run
    is compared with (see `_beside`). What `goes_on` from another adapter owes its base to that one and is compared with
    it alone; `size` is the number of pairs behind an adapter, those of its parents included; `plain` is a greedy
    call and nothing else.
    """
    f, known = ledger.frame(), trainings(ledger)
    whole = f.quality.notna() & f.unscored.eq(0).fillna(False) & (f.status != "invalid")
    f = f[whole & (f.kind == "experiment") & (f.fingerprint == fingerprint) & (f.gate == "full")]
    bare = f[f.adapter == ""].drop_duplicates("harness").set_index("harness").id
    f = f[(f.adapter != "") & ~f.lever.isin(REFERENCE)]
    weights = pd.DataFrame([source(adapter, known) for adapter in f.adapter], f.index, ["training", "epoch"])
    base = f.harness.map(bare).astype(object).fillna("")
    f = f.assign(training=weights.training.astype(object), epoch=weights.epoch, base=base)
    f = f.drop(columns="method").join(known, on="training", how="inner")
    f = f.drop_duplicates(["weights", "harness"])  # the same weights in the same pipeline, measured again
    f = f.assign(goes_on=(f.method != "merge") & f.parents.map(bool).astype(bool))
    f = f.assign(label=[_label(t, known) for t in f.training], size=[_size(t, known) for t in f.training])
    f = f.assign(what=list(map(attempt, f.pipeline, f.decoding)))
    return f.assign(plain=f.what == "ask", beside=[_beside(run, f, known) for run in f.itertuples()])


def measured(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """Those of `adapted` that have a bare base to compare with."""
    f = adapted(ledger, fingerprint)
    return f[f.base != ""]


def stock(ledger: Ledger, fingerprint: str) -> str:
    """The first baseline of an era on the full gate, else its first run there; "" where there is none."""
    f = Era(ledger, fingerprint).climb
    return next(iter([*f.id[f.lever == "baseline"], *f.id]), "")


def best(ledger: Ledger, fingerprint: str, adapter: bool) -> str:
    """The run of the highest quality on the full gate with an adapter or without one, of equals the first; "" if none.

    The highest and not the last kept one: what training must beat is the strongest of the others, luck included.
    """
    f = Era(ledger, fingerprint).climb
    f = f[f.unscored.eq(0) & ((f.adapter != "") == adapter)]
    return "" if f.empty else f.id[f.quality.idxmax()]


def _label(training: str, known: pd.DataFrame) -> str:
    """How an adapter came about: SFT, ORPO styles, GRPO after SFT, merge."""
    t = known.loc[training]
    if t.method == "merge":
        return "merge"
    label = t.method.upper()
    if t.sets not in ("", "clean"):
        label += f" {t.sets}"
    if t.parents:
        parent = source(t.parents[0], known)[0]
        label += f" after {known.method[parent].upper() if parent else 'another'}"
    return label


def _size(training: str, known: pd.DataFrame) -> Any:
    """Pairs trained on, of a training that goes on from another those of its first beginning; missing for a merge."""
    t = known.loc[training]
    if t.parents and t.method != "merge":
        parent = source(t.parents[0], known)[0]
        if parent:
            return _size(parent, known)
    return t.pairs


def _beside(run: Any, f: pd.DataFrame, known: pd.DataFrame) -> str:
    """The run that measured the adapter from which a training began, else SFT of about as many sets.

    "" for SFT from the bare base, and where that adapter was not measured in the same harness.
    """
    same = f[f.harness == run.harness]
    for training, epoch in (source(parent, known) for parent in run.parents):
        start = same.id[(same.training == training) & (same.epoch == epoch)]
        if len(start):
            return start.iloc[0]
    sft = same[(same.label == "SFT") & (same.epoch == same["last"])]
    if run.goes_on or run.method == "sft" or sft.empty:
        return ""
    # What asked for no number of sets stands beside the most.
    far = np.log(sft.asked / run.asked).abs() if run.asked == run.asked else -sft.asked
    return sft.id[far.idxmin()]


def against(ledger: Ledger, f: pd.DataFrame, column: str) -> pd.DataFrame:
    """Each run's paired difference to the run that a column names, missing where it names none."""
    tests = [
        paired(ledger.qualities(run), ledger.qualities(other)) if other else None
        for run, other in zip(f.id, f[column], strict=True)
    ]
    return pd.DataFrame([[getattr(t, k, None) for k in TESTED] for t in tests], f.index, TESTED, "float64")


def table(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """A row an adapter run: how it was trained, its quality, and its paired difference to base, `beside`, best prompting."""
    f = adapted(ledger, fingerprint)
    prompting = best(ledger, fingerprint, adapter=False)
    f = f.assign(training=f.label, pipeline=f.what.mask(f.plain, ""), prompting=prompting)
    for name, column in (("base", "base"), ("it", "beside"), ("prompting", "prompting")):
        t = against(ledger, f, column)
        f[f"to {name}"], f[f"95 % to {name}"], f[f"p to {name}"] = t.delta, list(map(interval, t.low, t.high)), t.p
    return f[["id", "training", "pairs", "epoch", "pipeline", "quality", "no_answer", "to prompting", "95 % to prompting",
              "p to prompting", "to base", "95 % to base", "p to base", "beside", "to it", "95 % to it", "p to it",
              "seconds_to_train"]]  # fmt: skip


def summary(ledger: Ledger, fingerprint: str) -> Markdown:
    """In sentences: which adapters beat the bare base, where they began or imitation, and the best prompting."""
    every = adapted(ledger, fingerprint)
    if every.empty:
        return Markdown("No adapter was measured on the full gate yet. `notch study train` trains and measures them.")
    prompting = best(ledger, fingerprint, adapter=False)
    new = every[~every.goes_on & (every.base != "")]
    more = every[every.goes_on & (every.beside != "")]
    rest = new[new.beside != ""]
    adapters = plural(len(new.drop_duplicates(["training", "epoch"])), "adapter")
    claims = [
        (new, "base", adapters + " trained from the bare base or merged, in {}", "the bare base in the same pipeline"),
        (more, "beside", "{} of adapters that go on from another one, compared with that one", "it"),
        (rest, "beside", "{} can be compared with imitation", "it"),
    ]
    lines = [
        f"{text.format(plural(len(f), 'measurement'))}: beyond chance, {_beyond(ledger, f, column, other)}"
        for f, column, text, other in claims if len(f)
    ]  # fmt: skip
    if prompting:
        beside = _beyond(ledger, every.assign(prompting=prompting), "prompting", "it")
        lines += duel(ledger, fingerprint)
        lines.append(f"{plural(len(every), 'adapter run')} beside {prompting}: beyond chance, {beside}")
    tests = len(new) + len(more) + len(rest) + len(every) * bool(prompting)
    if tests > 5:
        lines.append(f"With {tests} tests at {ALPHA:g}, about {tests * ALPHA:.1f} come out so by luck alone; a run is kept by "
                     "the keep rule, not by this table.")  # fmt: skip
    return bullets(
        lines, "No run stands beside an adapter yet: neither its bare base nor any other without an adapter."
    )


def duel(ledger: Ledger, fingerprint: str) -> list[str]:
    """Whether the best adapter run beats the best run without an adapter, in a sentence either way; [] without both."""
    adapter, prompting = best(ledger, fingerprint, adapter=True), best(ledger, fingerprint, adapter=False)
    if not adapter or not prompting:
        return []
    test = paired(ledger.qualities(adapter), ledger.qualities(prompting))
    beyond = "beats" if test.delta > 0 else "falls behind"
    verb = f"**{beyond}**" if test.p < ALPHA else "**is not told from**"
    f = Era(ledger, fingerprint).climb.set_index("id")
    return [
        f"Training against prompting: the best adapter run, {adapter} ({f.quality[adapter]:.3f}), {verb} the best run without one, "
        f"{prompting} ({f.quality[prompting]:.3f}): {test.delta:+.3f} (95 % {interval(test.low, test.high)}, {chance(test.p)}). Each "
        "is the highest of several, so a part of both is luck."
    ]


def openings(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """How many different openings (first four words) the questions of stock, best prompting and best adapter have.

    Over all questions of the valid answers of a run; where there are few, repeats are rarer for that alone.
    """
    chosen = [stock(ledger, fingerprint), *(best(ledger, fingerprint, adapter) for adapter in (False, True))]
    rows = []
    for run in dict.fromkeys(filter(None, chosen)):
        answers = [row.answer for row in ledger.cases(run) if row.answer]
        questions = pd.Series([q for answer in answers for q in answer.questions], dtype=str)
        distinct = questions.str.casefold().str.split().str[:4].str.join(" ").nunique()
        share = f"{100 * distinct / len(questions):.0f} %" if len(questions) else "no question"
        rows.append([run, len(answers), len(questions), distinct, share])
    return pd.DataFrame(rows, columns=["id", "valid answers", "questions", "distinct openings", "share"])


def _beyond(ledger: Ledger, f: pd.DataFrame, column: str, other: str) -> str:
    """How many runs beat what a column names and how many fall behind it, by name with difference and p."""
    t = against(ledger, f, column).assign(id=f.id)
    t = t[t.p < ALPHA]
    t = t.sort_values("delta", ascending=False, kind="stable")
    names = "".join(f" {r.id} {r.delta:+.3f} ({chance(r.p)})." for r in t.itertuples())
    return f"{sum(t.delta > 0)} beat {other} and {sum(t.delta < 0)} fell behind it.{names}"
