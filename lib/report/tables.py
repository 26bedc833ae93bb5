"""The ledger as tables and sentences.

Knows records. Does not know how a run is executed or drawn. Every function is a pure function of a ledger.
"""

from __future__ import annotations

import re
from functools import partial

import pandas as pd

from lib.files import check_sums
from lib.measure.judge import DIMENSIONS, DIMS
from lib.measure.ruler import RULER, Ruler
from lib.report.era import Era, eras
from lib.report.era import latest as latest
from lib.runs.ledger import Ledger
from lib.runs.record import candidate_of
from lib.runs.seal import SEAL, sealed_folders
from lib.show import Markdown, bullets, candidate_name, cell, chance, interval, plural, spelled, table
from lib.show import fold as fold

show = table  # `tables.show`, `tables.fold`: what notebooks display tables with
SMALL = "SmolLM2 has 135 million parameters: about 3B models the question stays open until somebody runs one."
OFFLINE = (
    "The offline judge is a stand-in, fitted to verdicts of Claude: on tasks that shaped nothing its rank correlation with "
    "Claude per case is 0.91 (0.89 to 0.92), 0.82 among answers of small models. "
    "Nonsense on the topic looks like sense to it. Gold was written by Claude as well, so what is measured is agreement with "
    "Claude and not with people."
)
DIFFER = ("lever", "model", "adapter", "pipeline", "decoding", "judge", "gate", "seed", "predicted", "min_effect", "of")


def frozen() -> Markdown:
    """What the ruler holds still, after a check of its seal. Raises Tampered."""
    ruler = Ruler.load(RULER)
    dims = ", ".join(d.name.replace("_", "-") for d in ruler.rubric)
    p = ruler.protocol
    return bullets([
        f"{len(ruler.cases)} tasks with a gold answer each, in three disjoint gates: {ruler.counts}. The first decides what is "
        "kept, the second screens, the third is sealed: only `notch confirm` scores on it, and every look is counted.",
        f"A rubric of {len(ruler.rubric)} dimensions, 1 to 5 each: {dims}.",
        f"A protocol: exactly {p.questions} questions; quality is half the rubric and half the verdict "
        "against gold; a case without a valid answer scores 0.",
        f"Seal `{ruler.seal[:12]}`. Results of another ruler or judge are never compared with these.",
    ])  # fmt: skip


def caveats(ledger: Ledger) -> Markdown:
    """What the numbers on a page do not mean and what it does not answer, from what the runs used."""
    f, count = ledger.frame(), len(eras(ledger))
    lines = [f"**{text}**" for text in broken(ledger)]
    lines += [text for name, text in (("smollm2", SMALL), ("offline", OFFLINE)) if name in {*f.model, *f.judge}]
    models = sorted({*f.model[f.competes]} - {""})
    if models:
        lines.append(
            f"{plural(len(models), 'model')} ({', '.join(models)}), one job: nothing here says how another job would go."
        )
    if count > 1:
        lines.append(f"There are {count} eras (ruler or judge changed).")
    return bullets(lines, "No runs yet: `make study` makes some.")


def broken(ledger: Ledger) -> list[str]:
    """That sealed runs were changed, naming the first; empty while all are as they were written. Every file is hashed."""
    wrong = []
    for run in sealed_folders(ledger.folder):
        wrong += check_sums(run, (run / SEAL).read_text(encoding="utf-8", errors="replace"), SEAL)
    if not wrong:
        return []
    first = cell(wrong[0].replace(f"{ledger.folder}/", ""))
    return [f"Broken seal, so what stands here cannot be trusted: {first}. {plural(len(wrong), 'fault')} in all; "
            "`notch verify` names each."]  # fmt: skip


def runs(ledger: Ledger) -> pd.DataFrame:
    """A row a run, oldest first, discards and crashes included."""
    f = ledger.frame()
    around = list(map(partial(interval, sign=""), f.low, f.high))
    f = f.assign(interval=around, against=[run.partition("-")[0] for run in f.against])
    names = "id lever gate status quality interval wtl no_answer useful predicted delta p against calls seconds"
    return f[[n for n in names.split() if n != "useful" or f.useful.notna().any()]]


def climb(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """The competing runs of the full gate, with the lucky running best and the confirmed best.

    `running` is the largest quality so far, as the published study drew it; `champion` is the last kept run's;
    `confirmed` is what the last champion that won on the sealed gate got there, with its interval.
    """
    f, looks = Era(ledger, fingerprint).climb, ledger.frame()
    # With something to beat: the first look only says what later ones are compared with.
    won = looks[(looks.kind == "confirm") & (looks.status == "kept") & (looks.against != "") & looks.of.isin(f.id)]
    there = won[["quality", "low", "high"]].set_axis(["confirmed", "low", "high"], axis=1)
    # A look counts from the last run before it on.
    before = f.index[f.index.searchsorted(won.index) - 1]
    proven = there.set_axis(before).groupby(level=0).last().reindex(f.index).ffill()
    champion = f.quality.where(f.status == "kept").ffill()
    f = f.assign(n=f.index + 1, running=f.quality.cummax(), champion=champion, **proven)
    return f[["n", "id", "lever", "status", "quality", "running", "champion", "confirmed", "low", "high"]]


def anchors(ledger: Ledger, fingerprint: str) -> dict[str, float]:
    """Qualities to read the chart against: anchor runs, the stronger frontier, and gold against itself."""
    era = Era(ledger, fingerprint)
    lines: dict[str, float] = {}
    for run in era.anchors.itertuples():
        name = re.sub(r"\+ .*?(\d{4,})-.*", r"+ \1", candidate_of(run.model, run.adapter))  # by its training's number
        steps = " ".join(s["step"] for s in run.pipeline)
        if steps != "ask":
            name = f"{name}, {steps}"
        if name in lines:
            name = f"{name} ({run.id[:4]})"
        lines[name] = run.quality
    if era.frontier:
        lines[era.frontier[0]] = era.frontier[1]
    if era.gold is not None:
        lines["gold against itself"] = era.gold
    return lines


# --- the two ends of the scale -------------------------------------------------------------------


def unbeaten(era: Era) -> str:
    """That the champion is no better than a template, unless the paired rule puts it above every control; then ""."""
    level = era.bottom[~era.bottom.above.astype(bool)]
    if level.empty or era.champion is None:
        return ""
    tests = [f"{t.delta:+.3f}, {chance(t.p)}, to the {t.Index}" for t in level.itertuples()]
    return f"{era.champion.id} is no better than a template: {'; '.join(tests)}"


def headline(era: Era) -> str:
    """How far the champion has come from a set that fits any task to the frontier's own answers, in a sentence."""
    if era.plain is None:
        return (
            "how far the champion has come from a set that fits any task to the frontier's own answers is not known: "
            "`notch calibrate` measures it"
        )
    if era.frontier is None:
        return f"a set that fits any task gets {era.plain:.3f}; this ruler stores no frontier's answers"
    name, best = era.frontier
    if era.share is None:
        return f"a set that fits any task gets {era.plain:.3f}, the frontier's own answers {best:.3f} ({name})"
    return (f"the champion has come {100 * era.share:.0f} % of the way from a set that fits any task ({era.plain:.3f}) to the "
            f"frontier's own answers ({best:.3f}, {name})")  # fmt: skip


def standing(era: Era) -> str:
    """The headline as a sentence of its own, and that the champion is no better than a template where it is not."""
    far, level = headline(era), unbeaten(era)
    sentence = f"{far[:1].upper()}{far[1:]}."
    return f"{sentence} **{level}.**" if level else sentence


def dimensions(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """The five dimensions, unrounded means of the judged cases, for baseline, champion and anchors."""
    era = Era(ledger, fingerprint)
    f = pd.concat([era.kept.head(1), era.kept.tail(1), era.anchors])
    f = f.assign(model=f.id.map(lambda run: candidate_name(ledger.get(run).candidate)))
    return f.drop_duplicates(["harness", "adapter"])[["id", "model", *DIMENSIONS]].rename(columns=DIMS)


def parameters(ledger: Ledger) -> pd.DataFrame:
    """Every run with only those parameters that differ between runs."""
    f = ledger.frame()
    # Of a single run all are shown: nothing can differ yet.
    table = f.assign(pipeline=f.pipeline.map(spelled), decoding=f.decoding.map(spelled))
    return table[["id", "status", *(n for n in DIFFER if len(f) < 2 or table[n].nunique() != 1)]]


def confirmations(ledger: Ledger) -> pd.DataFrame:
    """Every look at the sealed gate, in order: which run, and what came of it. No case and no text of that gate."""
    f = ledger.frame()
    f = f[f.kind == "confirm"]
    won = f.against.map({"": "first look: nothing to beat yet"}).fillna("yes").where(f.status == "kept", "no")
    around = list(map(interval, f.delta_low, f.delta_high))
    f = f.assign(look=range(1, len(f) + 1), id=f.of, interval=around, confirmed=won)
    return f[["look", "id", "quality", "against", "delta", "p", "interval", "confirmed"]]


def headlines(ledger: Ledger) -> list[str]:
    """Lines: the climb, where it stands between both ends of the scale, what is confirmed, what the numbers are not."""
    era = Era.latest(ledger)
    if era.climb.empty:
        advice = "what screened well goes on with `-p gate full`" if ledger.records else "run `make study`"
        return ["no run on the full gate yet, which alone keeps", "nothing confirmed", advice]
    first, best, confirmed = era.climb.iloc[0], "nothing kept", "nothing"
    if len(era.kept):
        best = f"{era.kept.quality.iloc[-1]:.3f} ({era.kept.id.iloc[-1]})"
    look = ledger.confirmed(era.fingerprint)
    if look and look.decision.against:
        confirmed = f"{look.of} ({look.scored.quality:.3f} there)"
    judged = SMALL if first.model == "smollm2" else f"Model: {first.model}."
    return [
        f"quality {first.quality:.3f} ({first.id}) to {best}: {sum(era.kept.id != first.id)} of {plural(era.changes, 'change')} "
        f"kept by the paired rule; the luckiest run shows {era.climb.quality.max():.3f}",
        "; ".join(filter(None, [headline(era), unbeaten(era)])),
        f"confirmed on the sealed gate: {confirmed}; looks so far: {len(ledger.looks())}",
        f"{judged} Judge: {first.judge}.",
    ]


def reproduction(ledger: Ledger, reference: Ledger) -> str:
    """How a folder of runs compares with the reference runs of the same experiments, "" if they share none."""
    gaps = {}
    for run in ledger.records:
        # By key: the same experiment by the same ruler and judge, whatever it is called in either folder.
        same = reference.by_key(run.key)
        if same is not None and run.scores and same.scores:
            gaps[run.id] = abs(run.scores.quality - same.scores.quality)
    if not gaps:
        return ""
    exact = sum(gap == 0 for gap in gaps.values())
    if exact == len(gaps):
        return f"reproduced: all {exact} runs score what the reference in runs/ scores, to the digit"
    worst = max(gaps, key=lambda run: gaps[run])
    here, there = ledger.records[0].machine, reference.records[0].machine
    other = ", ".join(f"{k} {there.get(k)} there, {v} here" for k, v in here.items() if there.get(k) != v)
    return (
        f"reproduced: {exact} of {len(gaps)} runs score what the reference in runs/ scores; the largest difference is "
        f"{gaps[worst]:.4f} ({worst}); {other or 'the processors may differ'}"
    )
