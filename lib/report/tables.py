"""The ledger as tables and sentences.

Knows records. Does not know how a run is executed or drawn. Every function is a pure function of a ledger.
"""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from lib.files import check_sums
from lib.lab.experiment import Experiment
from lib.lab.ledger import COUNTS, READINGS, SEAL, Ledger, samples, sealed_folders
from lib.lab.models import named
from lib.lab.show import Markdown, bullets, cell, chance, interval, number, plural, spelled, table
from lib.lab.show import fold as fold
from lib.measure import calibrate, keep
from lib.measure.judge import DIMENSIONS
from lib.measure.ruler import GATES, RULER, Ruler
from lib.measure.score import score
from lib.measure.stats import Paired, paired
from lib.models.stored import named as stored

show = table  # `tables.show`, `tables.fold`: what notebooks display tables with
SMALL = "SmolLM2 has 135 million parameters: results on it say nothing about 3B models."
OFFLINE = (
    "The offline judge is a stand-in that was fitted to verdicts of Claude: on tasks that shaped nothing its rank "
    "correlation with Claude per case is 0.91 (0.89 to 0.92), 0.82 among the answers of small models; with people, unknown."
)
DIMS = {d: d.replace("_", "-") for d in DIMENSIONS}
DIFFER = ("lever", "model", "adapter", "pipeline", "decoding", "judge", "gate", "seed", "predicted", "min_effect", "of")


def eras(ledger: Ledger) -> list[str]:
    """The fingerprints in the order in which they were first used. Runs of different eras are never compared."""
    runs = (r for r in ledger.records if r["kind"] not in READINGS)  # measuring another judge begins no era
    return list(dict.fromkeys(r["fingerprint"] for r in runs if r["fingerprint"]))


def latest(ledger: Ledger) -> str:
    """The newest era's fingerprint, "" for an empty ledger."""
    return (eras(ledger) or [""])[-1]


def frozen() -> Markdown:
    """What the ruler holds still, after a check of its seal. Raises Tampered."""
    ruler = Ruler.load(RULER)
    gates = ", ".join(f"{g} {len(ruler.gate(g))}" for g in GATES)
    dims = ", ".join(d.name.replace("_", "-") for d in ruler.rubric)
    p = ruler.protocol
    return bullets([
        f"{len(ruler.cases)} tasks with a gold answer each, in three disjoint gates: {gates}. The first decides what is "
        "kept, the second screens, the third is sealed: only `notch confirm` scores on it, and every look is counted.",
        f"A rubric of {len(ruler.rubric)} dimensions, 1 to 5 each: {dims}.",
        f"A protocol: exactly {p.questions} questions; quality is {p.blend[0]:g} times the rubric plus {p.blend[1]:g} "
        "times the verdict against gold; a case without a valid answer scores 0.",
        f"Seal `{ruler.seal[:12]}`. Results of another ruler or judge are never compared with these.",
    ])  # fmt: skip


def caveats(ledger: Ledger) -> Markdown:
    """What the numbers on a page do not mean, from what the runs used."""
    f, count = ledger.frame(), len(eras(ledger))
    lines = broken(ledger)
    lines += [text for name, text in (("smollm2", SMALL), ("offline", OFFLINE)) if name in {*f.model, *f.judge}]
    if count > 1:
        lines.append(f"There are {count} eras (ruler or judge changed); only runs of one era are compared.")
    return bullets(lines, "No runs yet: `make study` makes some.")


def broken(ledger: Ledger) -> list[str]:
    """That sealed runs were changed, naming the first; empty while all are as they were written. Every file is hashed."""
    wrong = []
    for run in sealed_folders(ledger.folder):
        wrong += check_sums(run, (run / SEAL).read_text(encoding="utf-8", errors="replace"), SEAL)
    if not wrong:
        return []
    first = cell(wrong[0].replace(f"{ledger.folder}/", ""))
    return [f"**Broken seal: what stands here cannot be trusted.** {first}. {plural(len(wrong), 'fault')} in all; "
            "`notch verify` names each."]  # fmt: skip


def runs(ledger: Ledger) -> pd.DataFrame:
    """A row a run, oldest first, discards and crashes included."""
    f = ledger.frame()
    around = [interval(low, high, "") for low, high in zip(f.low, f.high, strict=True)]
    f = f.assign(interval=around, against=[run.partition("-")[0] for run in f.against])
    names = "id lever gate status quality interval wtl no_answer useful predicted delta p against calls seconds"
    return f[[n for n in names.split() if n != "useful" or f.useful.notna().any()]]


def climbing(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """The scored runs that compete on the full gate, one row each; the index is the place in the ledger."""
    f = ledger.frame()
    return f[f.competes & (f.fingerprint == fingerprint) & (f.gate == "full")]


def climb(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """The competing runs of the full gate, with the lucky running best and the confirmed best.

    `running` is the largest quality so far, as the published study drew it; `champion` is the last kept run's;
    `confirmed` is what the last champion that won on the sealed gate got there, with its interval.
    """
    f, looks = climbing(ledger, fingerprint), ledger.frame()
    won = looks[(looks.kind == "confirm") & (looks.status == "kept") & (looks.against != "") & looks.of.isin(f.id)]
    there = won[["quality", "low", "high"]].set_axis(["confirmed", "low", "high"], axis=1)
    # A look counts from the last run before it on.
    before = f.index[f.index.searchsorted(won.index) - 1]
    proven = there.set_axis(before).groupby(level=0).last().reindex(f.index).ffill()
    champion = f.quality.where(f.status == "kept").ffill()
    f = f.assign(n=f.index + 1, running=f.quality.cummax(), champion=champion, **proven)
    return f[["n", "id", "lever", "status", "quality", "running", "champion", "confirmed", "low", "high"]]


def anchors(ledger: Ledger, fingerprint: str) -> dict[str, float]:
    """Qualities to read the chart against: anchor runs, of the frontiers the stronger, and gold against itself."""
    lines: dict[str, float] = {}
    f, best = measured_beside(ledger, fingerprint), frontier(ledger, fingerprint)
    for r in f[~f.model.map(stored).astype(bool)].to_dict("records"):
        steps = "" if r["pipeline"] == [{"step": "ask"}] else f", {' '.join(s['step'] for s in r['pipeline'])}"
        name = re.sub(r"\+ .*?(\d{4,})-.*", r"+ \1", named(r)) + steps  # an adapter by its run's number
        lines[f"{name} ({r['id'][:4]})" if name in lines else name] = r["quality"]
    if best:
        lines[best[0]] = best[1]
    gold = controls(ledger, fingerprint).get(calibrate.GOLD)
    if gold or fingerprint == Experiment().fingerprint:
        lines["gold against itself"] = gold["quality"] if gold else gold_against_itself()
    return lines


def measured_beside(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """The anchors of an era on the full gate; of the same thing measured again for another comparison, the newest."""
    f = ledger.frame()
    mine = f[(f.lever == "anchor") & (f.kind == "experiment") & (f.fingerprint == fingerprint) & (f.gate == "full")]
    return mine[mine.quality.notna()].drop_duplicates(["harness", "adapter"], keep="last")


# --- the two ends of the scale -------------------------------------------------------------------


def calibration(ledger: Ledger, fingerprint: str) -> dict[str, Any] | None:
    """The newest calibration that judged the controls on the full gate, where the climb is."""
    every = (r for r in reversed(ledger.records) if r["kind"] == "calibrate" and r["fingerprint"] == fingerprint)
    return next((r for r in every if r["gate"] == "full" and (r.get("found") or {}).get("controls")), None)


def controls(ledger: Ledger, fingerprint: str) -> dict[str, dict[str, Any]]:
    """The controls of an era by name, best first: quality, interval, counts, dimensions. Empty where none is sealed."""
    record = calibration(ledger, fingerprint)
    every = record["found"]["controls"] if record else []
    return {c["name"]: c for c in sorted(every, key=lambda c: -c["quality"])}


def scored(f: pd.DataFrame) -> pd.DataFrame:
    """Normalised scores, a row each, as a table wants them: dimensions one level up, interval and W/T/L as texts."""
    f = f.rename(columns={f"dims.{d}": d for d in DIMENSIONS})
    f = f.reindex(columns=dict.fromkeys([*f, "quality", "low", "high", *COUNTS, *DIMENSIONS]))
    f = f.astype(dict.fromkeys(COUNTS, "Int64"))
    wtl = f.wins.astype(str) + "/" + f.ties.astype(str) + "/" + f.losses.astype(str)
    around = [interval(low, high, "") for low, high in zip(f.low, f.high, strict=True)]
    return f.assign(wtl=wtl, interval=around, cases=f[list(COUNTS)].sum(axis=1))


def frontier(ledger: Ledger, fingerprint: str) -> tuple[str, float] | None:
    """The stronger frontier's own answers: a control of the calibration, else an anchor that was sealed."""
    own = [(name, c["quality"]) for name, c in controls(ledger, fingerprint).items() if stored(name)]
    f = measured_beside(ledger, fingerprint)
    runs = f[f.model.map(stored).astype(bool)]
    return max(own or zip(runs.model, runs.quality, strict=True), key=lambda line: line[1], default=None)


def against_bottom(ledger: Ledger, fingerprint: str) -> dict[str, Paired]:
    """The champion paired with every control at the bottom, on the same cases. Empty without a champion or controls."""
    record, champion = calibration(ledger, fingerprint), ledger.champion(fingerprint)
    if not record or not champion:
        return {}
    rows, own = ledger.cases(record["id"]), ledger.qualities(champion["id"])
    tests = {}
    for name in (n for n in controls(ledger, fingerprint) if n in calibrate.BOTTOM):
        other = calibrate.qualities([r for r in rows if r["part"] == "control" and r["kind"] == name])
        both = own.keys() & other.keys()  # a judge may have failed on a case of either
        if both:
            tests[name] = paired({c: own[c] for c in both}, {c: other[c] for c in both})
    return tests


def unbeaten(ledger: Ledger, fingerprint: str) -> str:
    """That the champion is no better than a template, unless the paired rule puts it above every control; then ""."""
    tests, champion = against_bottom(ledger, fingerprint), ledger.champion(fingerprint)
    floor = ledger.floor(fingerprint, samples(champion)) if champion else None
    level = [f"{t.delta:+.3f}, {chance(t.p)}, to the {name}" for name, t in tests.items()
             if not keep.passes(t.delta, t.p, floor)]  # fmt: skip
    return f"{champion['id']} is no better than a template: {'; '.join(level)}" if champion and level else ""


def way(ledger: Ledger, fingerprint: str) -> float | None:
    """(champion - any-task set) / (stronger frontier - any-task set), None where one of the three is not measured."""
    champion, best = ledger.champion(fingerprint), frontier(ledger, fingerprint)
    plain = controls(ledger, fingerprint).get(calibrate.PLAIN)
    if not champion or not best or not plain or best[1] <= plain["quality"]:
        return None
    return (champion["scores"]["quality"] - plain["quality"]) / (best[1] - plain["quality"])


def headline(ledger: Ledger, fingerprint: str) -> str:
    """How far the champion has come from a set that fits any task to the frontier's own answers, in a sentence."""
    ends, best, share = controls(ledger, fingerprint), frontier(ledger, fingerprint), way(ledger, fingerprint)
    if calibrate.PLAIN not in ends:
        return (
            "how far the champion has come from a set that fits any task to the frontier's own answers is not known: "
            "`notch calibrate` measures it"
        )
    plain = ends[calibrate.PLAIN]["quality"]
    if not best:
        return f"a set that fits any task gets {plain:.3f}; this ruler stores no frontier's answers"
    if share is None:
        return f"a set that fits any task gets {plain:.3f}, the frontier's own answers {best[1]:.3f} ({best[0]})"
    return (f"the champion has come {100 * share:.0f} % of the way from a set that fits any task ({plain:.3f}) to the "
            f"frontier's own answers ({best[1]:.3f}, {best[0]})")  # fmt: skip


def gold_against_itself() -> float:
    """Parity on this ruler: every gold answer judged as a candidate, a tie everywhere."""
    from lib.lab.offline import OfflineJudge
    from lib.measure.answer import Answer

    pairs = [(c, Answer(c.gold.title, c.gold.questions)) for c in Ruler.load().gate("full") if c.gold]
    return score(OfflineJudge().judge_all(pairs)).quality


def dimensions(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """The five dimensions, unrounded means of the judged cases, for baseline, champion and anchors."""
    f = climbing(ledger, fingerprint)
    kept = f[f.status == "kept"]
    f = pd.concat([kept.head(1), kept.tail(1), measured_beside(ledger, fingerprint)])
    return f.drop_duplicates(["harness", "adapter"])[["id", "model", *DIMENSIONS]].rename(columns=DIMS)


def parameters(ledger: Ledger) -> pd.DataFrame:
    """Every run with only those parameters that differ between runs."""
    f = ledger.frame()
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


def hypotheses(ledger: Ledger) -> Markdown:
    """What each run was expected to do, and what it did."""
    f = ledger.frame()
    f = f.assign(came=[number(delta, "delta") or "–" for delta in f.delta])
    return bullets(f"**{r.id}** ({r.status}; predicted {r.predicted:+.3f}, came {r.came}): {' '.join(r.hypothesis.split())}"
                   for r in f.itertuples())  # fmt: skip


def verdict(ledger: Ledger) -> Markdown:
    """What the newest era supports, in sentences made from its numbers."""
    fingerprint = latest(ledger)
    f = climbing(ledger, fingerprint)
    if f.empty:
        return Markdown("There are no runs on the full gate yet, so there is nothing to say.")
    first, lucky, kept = f.iloc[0], f.loc[f.quality.idxmax()], f[f.status == "kept"]
    if kept.empty:
        return bullets([f"No run was kept yet, so there is no champion; the first run is {first.id}, {first.status}."])
    champion, better = kept.iloc[-1], list(kept.id[kept.id != first.id])
    lines = [
        f"The champion is **{champion.id}** at {champion.quality:.3f} (95 % {champion.low:.3f} to {champion.high:.3f}): "
        f"{plural(champion.wins, 'win')}, {plural(champion.ties, 'tie')}, {plural(champion.losses, 'loss', 'losses')} against "
        f"gold, {plural(champion.no_answer, 'case')} without an answer.",
        f"Of {plural(changes(f), 'change')} tried after {first.id} (what was run again counts once), the paired rule kept "
        + (f"{len(better)} ({', '.join(better)})." if better else "0."),
    ]
    far, level = headline(ledger, fingerprint), unbeaten(ledger, fingerprint)
    lines.append(f"{far[:1].upper()}{far[1:]}." + (f" **{level}.**" if level else ""))
    if lucky.id != champion.id:
        lines.append(f"The highest single score is {lucky.quality:.3f} ({lucky.id}, {lucky.status}); a rule that keeps whatever "
                     "looks better would have called it the best.")  # fmt: skip
    ceiling = anchors(ledger, fingerprint).get("gold against itself")
    if ceiling is not None:
        lines.append(f"Gold against itself gets {ceiling:.3f}, a tie everywhere: that is parity; more takes wins.")
    proven = ledger.confirmed(fingerprint)
    if proven:
        won = "is confirmed at" if proven["decision"].get("against") else "was looked at, with nothing to beat yet:"
        lines.append(f"On the sealed gate {proven['of']} {won} {proven['scores']['quality']:.3f}; looks so far, all eras "
                     f"counted: {len(ledger.looks())}.")  # fmt: skip
    compared = widest(ledger, fingerprint)
    if compared:
        lines.append(f"With only the model changed ({compared['id']}), {compared['decision']['reason']}.")
    if champion.useful == champion.useful:
        lines.append(f"Asked without gold in sight, the judge rates its sets {champion.useful:.2f} of 5 as useful.")
    weakest = champion[list(DIMENSIONS)].astype(float).dropna()
    if len(weakest):
        lines.append(f"Its lowest dimension is {DIMS[weakest.idxmin()]} at {weakest.min():.2f} of 5.")
    return bullets(lines)


def changes(f: pd.DataFrame) -> int:
    """How many different things were tried after the first run; what was run again counts once."""
    return len(f.drop_duplicates(["harness", "weights"])) - 1


def widest(ledger: Ledger, fingerprint: str, base: bool = False) -> dict[str, Any] | None:
    """The comparison of models with the most candidates, of equals the newest; `base`: of a new base with an old one."""
    every = [r for r in ledger.records if r["kind"] == "models" and r["fingerprint"] == fingerprint and r["found"]]
    mine = [r for r in every if any(g["group"] == "stock" for g in r["found"]["groups"]) == base]
    return max(reversed(mine), key=lambda r: sum(len(g["runs"]) for g in r["found"]["groups"]), default=None)


def headlines(ledger: Ledger) -> list[str]:
    """Lines: the climb, where it stands between both ends of the scale, what is confirmed, what the numbers are not."""
    fingerprint = latest(ledger)
    f = climbing(ledger, fingerprint)
    if f.empty:
        return ["no run on the full gate yet", "nothing confirmed", "run `make study`"]
    first, kept = f.iloc[0], f[f.status == "kept"]
    best = f"{kept.quality.iloc[-1]:.3f} ({kept.id.iloc[-1]})" if len(kept) else "nothing kept"
    proven = ledger.confirmed(fingerprint)
    won = proven and proven["decision"].get("against")
    confirmed = f"{proven['of']} ({proven['scores']['quality']:.3f} there)" if won else "nothing"
    return [
        f"quality {first.quality:.3f} ({first.id}) to {best}: {sum(kept.id != first.id)} of {plural(changes(f), 'change')} "
        f"kept by the paired rule; the luckiest run shows {f.quality.max():.3f}",
        "; ".join(filter(None, [headline(ledger, fingerprint), unbeaten(ledger, fingerprint)])),
        f"confirmed on the sealed gate: {confirmed}; looks so far: {len(ledger.looks())}",
        " ".join([SMALL if first.model == "smollm2" else f"Model: {first.model}.", f"Judge: {first.judge}."]),
    ]


def reproduction(ledger: Ledger, reference: Ledger) -> str:
    """How a folder of runs compares with the reference runs of the same experiments, "" if they share none."""
    pairs = [(r, reference.by_key(r["key"])) for r in ledger.records if r["scores"]]
    gaps = {r["id"]: abs(r["scores"]["quality"] - o["scores"]["quality"]) for r, o in pairs if o and o["scores"]}
    if not gaps:
        return ""
    same = sum(g == 0 for g in gaps.values())
    if same == len(gaps):
        return f"reproduced: all {len(gaps)} runs score what the reference in runs/ scores, to the digit"
    worst = max(gaps, key=lambda k: gaps[k])
    mine, its = ledger.records[0]["machine"], reference.records[0]["machine"]
    other = ", ".join(f"{k} {its.get(k)} there, {v} here" for k, v in mine.items() if its.get(k) != v)
    return (
        f"reproduced: {same} of {len(gaps)} runs score what the reference in runs/ scores; the largest difference is "
        f"{gaps[worst]:.4f} ({worst}); {other or 'the processors may differ'}"
    )
