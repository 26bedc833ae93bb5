"""What training gave: every measured adapter beside the bare base, beside imitation or the adapter it began from, and
beside the best that was reached without one.

Knows sealed trainings and the experiments that used them. Differences are paired on the cases of the full gate, anew
from sealed judgments: an experiment's own decision compares it with the champion of its moment. Trains nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from lib.measure.keep import ALPHA
from lib.measure.stats import paired
from lib.report.era import Era
from lib.runs.ledger import REFERENCE, Ledger
from lib.runs.record import TrainingRecord
from lib.show import Markdown, attempt, bullets, chance, interval, plural

# What a run is compared with, by its name in a heading: the column that holds the other run's id.
OTHERS = {"base": "base", "it": "beside", "prompting": "prompting"}


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
    # An adapter is named by a run, by a folder of it, or by the folder of one of its epochs.
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
    # A mean over fewer cases is another measurement: a run counts only when every case was judged.
    whole = f.quality.notna() & f.unscored.eq(0).fillna(False) & (f.status != "invalid")
    f = f[whole & (f.kind == "experiment") & (f.fingerprint == fingerprint) & (f.gate == "full")]
    # Greedy repeats of one harness score alike, so the first of them stands for all.
    bare = f[f.adapter == ""].drop_duplicates("harness").set_index("harness").id
    f = f[(f.adapter != "") & ~f.lever.isin(REFERENCE)]
    weights = pd.DataFrame([source(adapter, known) for adapter in f.adapter], f.index, ["training", "epoch"])
    base = f.harness.map(bare).astype(object).fillna("")
    f = f.assign(training=weights.training.astype(object), epoch=weights.epoch, base=base)
    f = f.drop(columns="method").join(known, on="training", how="inner")
    # The same weights in the same pipeline were measured again: once is enough for a table.
    f = f.drop_duplicates(["weights", "harness"])
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


def called(ledger: Ledger, fingerprint: str) -> str:
    """What `stock` is called: stock where it is a plain call and nothing else, the first run where it is more."""
    run = stock(ledger, fingerprint)
    if run:
        record = ledger.get(run)
        if record.adapter or attempt(record.pipeline, record.decoding) != "ask":
            return "first run"
    return "stock"


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
    if pd.isna(run.asked):  # what asked for no number of sets stands beside the most
        return sft.id[sft.asked.idxmax()]
    # By ratio and not by difference: 96 pairs are nearer to 72 than to 288 as training goes.
    return sft.id[np.log(sft.asked / run.asked).abs().idxmin()]


@lru_cache(maxsize=1)  # the dear part of a report, which shows it in sentences and as a table
def tested(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """`adapted` with each run's paired difference to its base, to what stands beside it, to the best prompting.

    Missing where there is no such run. `prompting` is that run's id, "" without one.
    """
    f = adapted(ledger, fingerprint).assign(prompting=best(ledger, fingerprint, adapter=False))
    for name, column in OTHERS.items():
        tests = []
        for run, other in zip(f.id, f[column], strict=True):
            test = paired(ledger.qualities(run), ledger.qualities(other)) if other else None
            tests.append([getattr(test, name, None) for name in ("delta", "low", "high", "p")])
        t = pd.DataFrame(tests, f.index, ["delta", "low", "high", "p"], "float64")
        f[f"to {name}"], f[f"95 % to {name}"], f[f"p to {name}"] = t.delta, list(map(interval, t.low, t.high)), t.p
    return f


def table(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """A row an adapter run: how it was trained, its quality, and its paired difference to base, `beside`, best prompting."""
    f = tested(ledger, fingerprint)
    f = f.assign(training=f.label, pipeline=f.what.mask(f.plain, ""))
    return f[["id", "training", "pairs", "epoch", "pipeline", "quality", "no_answer", "to prompting", "95 % to prompting",
              "p to prompting", "to base", "95 % to base", "p to base", "beside", "to it", "95 % to it", "p to it",
              "seconds_to_train"]]  # fmt: skip


def summary(ledger: Ledger, fingerprint: str) -> Markdown:
    """In sentences: which adapters beat the bare base, where they began or imitation, and the best prompting."""
    every = tested(ledger, fingerprint)
    if every.empty:
        return Markdown("No adapter was measured on the full gate yet. `notch study train` trains and measures them.")
    fresh, more = every[~every.goes_on & (every.base != "")], every[every.goes_on & (every.beside != "")]
    prompting, imitation = every[every.prompting != ""], fresh[fresh.beside != ""]
    adapters = plural(len(fresh.drop_duplicates(["training", "epoch"])), "adapter")
    of_fresh, of_more, of_imitation = (plural(len(f), "measurement") for f in (fresh, more, imitation))
    lines = [
        *_beyond(fresh, "base", f"{adapters} trained from the bare base or merged, in {of_fresh}",
                 "the bare base in the same pipeline"),
        *_beyond(more, "it", f"{of_more} of adapters that go on from another one, compared with that one"),
        *_beyond(imitation, "it", f"{of_imitation} can be compared with imitation"),
        *_beyond(prompting, "prompting", f"{plural(len(every), 'adapter run')} beside {every.prompting.iloc[0]}"),
    ]  # fmt: skip
    tests = len(fresh) + len(more) + len(imitation) + len(prompting)
    if tests > 5:
        lines.append(f"With {tests} tests at {ALPHA:g}, about {tests * ALPHA:.1f} come out so by luck alone; a run is kept by "
                     "the keep rule, not by this table.")  # fmt: skip
    return bullets(
        lines, "No run stands beside an adapter yet: neither its bare base nor any other without an adapter."
    )


def _beyond(f: pd.DataFrame, name: str, head: str, other: str = "it") -> list[str]:
    """How many runs beat what they are compared with and how many fall behind, with both ends of them; [] for no run."""
    if f.empty:
        return []
    t = pd.DataFrame({"id": f.id, "delta": f[f"to {name}"], "p": f[f"p to {name}"]})
    t = t[t.p < ALPHA].sort_values("delta", ascending=False, kind="stable")
    ends = t.iloc[[0, -1]] if len(t) > 2 else t  # the others stand in the table
    names = "".join(f" {r.id} {r.delta:+.3f} ({chance(r.p)})." for r in ends.itertuples())
    return [f"{head}: beyond chance, {sum(t.delta > 0)} beat {other} and {sum(t.delta < 0)} fell behind it.{names}"]


def duel(ledger: Ledger, fingerprint: str) -> list[str]:
    """Whether the best adapter run beats the best run without an adapter, in a sentence either way; [] without both."""
    adapter, prompting = best(ledger, fingerprint, adapter=True), best(ledger, fingerprint, adapter=False)
    if not adapter or not prompting:
        return []
    test = paired(ledger.qualities(adapter), ledger.qualities(prompting))
    verb = "is not told from"
    if test.p < ALPHA:
        verb = "beats" if test.delta > 0 else "falls behind"
    quality = Era(ledger, fingerprint).climb.set_index("id").quality
    return [
        f"Training against prompting: the best adapter run, {adapter} ({quality[adapter]:.3f}), **{verb}** the best run without "
        f"one, {prompting} ({quality[prompting]:.3f}): {test.delta:+.3f} (95 % {interval(test.low, test.high)}, "
        f"{chance(test.p)}). Each is the highest of several, so a part of both is luck."
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
