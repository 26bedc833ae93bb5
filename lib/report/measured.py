"""What a calibration or a re-judge found, as tables; the controls beside the climb.

Knows the readings of `lib.measure.calibrate` and `lib.measure.checks.blind`. Does not know how they were made.
"""

from __future__ import annotations

import json

import pandas as pd

from lib.files import RULER, rows
from lib.log import Row
from lib.measure.checks import noise as measure
from lib.measure.checks.blind import readings as read_blind
from lib.measure.judge import DIMENSIONS, DIMS
from lib.measure.keep import ALPHA
from lib.measure.offline_judge import constants, own_faults
from lib.report import tables
from lib.report.era import Era, latest
from lib.report.era import controls as known_controls
from lib.runs.ledger import Ledger
from lib.runs.record import CaseRow, RejudgeRecord
from lib.show import Markdown, bullets, grid, interval, plural, table


def response(readings: Row) -> Markdown:
    """The 5 x 5 response matrix: damaged dimension by row, mean change of each score by column, own one in bold."""
    rows = []
    for damaged, changes in readings["matrix"].items():
        cells = dict.fromkeys(DIMS, "") | {d: f"{change:+.2f}" for d, change in changes.items()}
        if changes:
            cells[damaged] = f"**{cells[damaged]}**"
        falls = "yes" if readings["own_falls_most"][damaged] else "**no**"
        rows.append([DIMS[damaged], *cells.values(), falls])
    return Markdown(grid(["damaged", *DIMS.values(), "own falls most"], rows))


def strengths(readings: Row) -> pd.DataFrame:
    """By kind of damage the change of its own dimension for one, two and three questions, and the worst of others."""
    rows = []
    for kind, damage in readings["strengths"].items():
        own = damage["dimension"]
        changes = pd.DataFrame(damage["change"], index=DIMENSIONS)  # a column a number of damaged questions
        row = {"damage": kind, "lowers": DIMS[own]}
        for count, change in changes.loc[own].items():
            row[plural(int(count), "question")] = change
        others = changes.drop(own).min(axis=1)
        row["worst other"] = f"{others.min():+.2f} {DIMS[others.idxmin()]}" if others.notna().any() else ""
        rows.append(row)
    return pd.DataFrame(rows)


def checks(readings: Row) -> pd.DataFrame:
    """Identity, paraphrase, order flips, what was left unscored: what is expected, and what came."""
    same, other = readings["identity"], readings["paraphrase"]
    flips = "" if readings["flips"] is None else f"{100 * readings['flips']:.1f} %"
    if readings.get("parameters", {}).get("judge") == "offline":
        flips = "none: this judge sees no order"
    rows = [
        ("gold against itself: ties", f"all {same['cases']}", str(same["ties"])),
        ("gold against itself: five in everything", f"all {same['cases']}", str(same["fives"])),
        ("gold in other words: same verdict as gold", f"all {other['cases']}", str(other["same_verdict"])),
        ("gold in other words: change of quality", "0", f"{other['quality']:+.3f}"),
        *((f"gold in other words: {DIMS[d]}", "0", f"{v:+.2f}") for d, v in other["dims"].items()),
        ("verdicts that flip with the order", "few", flips),
        ("judgments missing", "0", str(readings["unscored"])),
    ]
    return pd.DataFrame(rows, columns=["check", "expected", "came"])


def attacks(readings: Row) -> pd.DataFrame:
    """By attack: its quality beside that of the honest text, how often it is above, and who stops it before a judge."""
    f = pd.DataFrame([{"attack": name, **a} for name, a in readings["attacks"].items()])
    if len(f):
        of = "/" + f.cases.astype(str)
        f = f.assign(most=f.most.clip(lower=0.0), leaks=f.leaks.astype(str) + of, refused=f.refused.astype(str) + of)
    return _named(f, {
        "attack": "attack", "against": "honest text", "quality": "quality", "honest": "honest quality",
        "above": "cases above honest", "most": "most above", "leaks": "flagged as leak", "refused": "refused by the form",
    })  # fmt: skip


def controls(readings: Row) -> pd.DataFrame:
    """Answers whose worth is known, best first: what any quality of this ruler and judge is to be read between."""
    f = known_controls(readings.get("controls", [])).reset_index()
    return _named(f, {"name": "control", "quality": "quality", "interval": "interval", "wtl": "wtl", **DIMS})


def scale(ledger: Ledger) -> Markdown:
    """Where the climb stands between a set that fits any task and the frontier: sentences, and the controls."""
    era = Era.latest(ledger)
    # How far it came stands on the first screen.
    lines = []
    if era.share is None or tables.unbeaten(era):
        lines.append(tables.standing(era))
    judged = int(era.climb[["wins", "ties", "losses"]].sum().sum())
    if judged:
        better = int(era.climb[["wins", "ties"]].sum().sum())
        none = "" if better else ", so that half is 0 in every run"
        lines.append(f"Half of quality is the verdict against gold: of {judged} judged answers of this climb {better} "
                     f"won or tied{none}.")  # fmt: skip
    lines += _apart(era)
    text = bullets(lines).text
    if era.calibration is None:
        return Markdown(text)
    f = controls(era.calibration.found.as_dict())
    tests = era.bottom.reindex(f.control).reset_index(drop=True)
    f = f.assign(**{"delta of the champion": tests.delta, "p": tests.p})
    return Markdown(f"{text}\n\nFrom {era.calibration.id}, on the same cases:\n\n{table(f).text}")


def _apart(era: Era) -> list[str]:
    """The climb on those tasks of the gate that the offline judge was not fitted to; no line where none is known."""
    path = RULER / "verdicts.jsonl"
    if era.champion is None or not era.frontier_run or era.champion.judge != "offline" or not path.exists():
        return []
    apart = set(json.loads(rows(path.read_text(encoding="utf-8"))[0]).get("held_out", ()))
    runs = {"the champion": era.champion.id, "the stronger frontier": era.frontier_run}
    f = pd.DataFrame({name: pd.Series(era.ledger.qualities(run)) for name, run in runs.items()})
    inside = f.index.isin(apart)
    if not inside.any() or inside.all():
        return []
    texts = (f"{name} gets {f[name][inside].mean():.3f} ({f[name][~inside].mean():.3f} on the others)" for name in f)
    return [f"On the {plural(inside.sum(), 'task')} that the judge was not fitted to {', '.join(texts)}."]


def noise(readings: Row) -> pd.DataFrame:
    """Same answers judged again, and answers made again: spread of a run's mean, the 95 % floor, and whose floor it is."""
    names = {"same": "the same answers judged again", "greedy": "answered again greedily, and judged",
             "fresh": "answered again with other seeds, and judged"}  # fmt: skip
    rows = [{"what": text, **readings[part]} for part, text in names.items() if readings.get(part)]
    f = pd.DataFrame(rows)  # older calibrations made no greedy answers
    if len(f):
        f["moved"] = [f"{100 * share:.0f} %" for share in f.moved]
    return _named(f, {
        "what": "what", "repeats": "repeats", "cases": "cases", "sd": "SD of the mean", "floor": "95 % floor",
        "moved": "cases that moved",
    })  # fmt: skip


def floors(readings: Row) -> Markdown:
    """The two floors of the keep rule, in a sentence."""
    greedy, sampled = (measure.floor_of(readings, s) for s in (False, True))
    if greedy is None or sampled is None:
        return Markdown("No floor was measured.")
    return Markdown(
        f"The keep rule takes the floor that fits the two runs it compares: **{greedy:.4f}** between two greedy runs, "
        f"**{sampled:.4f}** where one of them samples."
    )


def null_world(readings: Row) -> Markdown:
    """What luck does in studies where nothing works, and which gain can be seen, in sentences."""
    world, same, lines = readings["null_world"], readings["same"], []
    if world is None:
        return Markdown("Not measured: there are no repeats.")
    if same and not same["sd"]:
        lines.append("Judging the same answers again changed nothing: this judge is deterministic.")
    if not readings["floor"]:
        return bullets([*lines, "No repeat differed, so these repeats say nothing about luck; use sampled decoding."])
    lines += _world(readings["detectable"], world)
    greedy = measure.world_of(readings, False)
    if greedy and greedy is not world:
        lines.append("The same with the floor of greedy runs, for changes that only reshuffle what is asked:")
        lines += _world(measure.detectable_in(readings, False), greedy)
    return bullets(lines)


def _world(gain: float | None, world: Row) -> list[str]:
    """Three lines: the smallest gain that is seen, what luck keeps without the rule, what it keeps under it."""
    return [
        f"The smallest gain that the rule sees with 80 % power on 30 cases: **{gain or 0:.3f}**.",
        f'{world["studies"]} studies of {world["runs"]} runs in which nothing changes: "keep if better" keeps '
        f"{world['lucky_keeps']:.1f} runs a study and climbs {world['lucky_climb']:.3f} by luck alone.",
        f"The paired rule keeps something in {100 * world['false_keep']:.1f} % of those studies; the sealed gate leaves "
        f"standing something in **{100 * world['confirmed']:.1f} %** (at most 5 % is asked).",
    ]


def halo(readings: Row) -> pd.DataFrame:
    """Correlations between the dimensions over stored judgments. Above 0.93, which most judges reach (arXiv 2509.20293),
    two dimensions are one."""
    f = pd.DataFrame(readings["halo"]["correlation"]).T
    f = f.reindex(columns=DIMENSIONS).rename(columns=DIMS)
    return f.set_axis(f.index.map(DIMS)).rename_axis("").reset_index()


def adherence(readings: Row) -> Markdown:
    """How much of the verdict the five scores explain, in a sentence."""
    h = readings["halo"]
    if h["r2"] is None:
        return Markdown(f"Of {h['judgments']} stored judgments the verdict never varies, so there is no R² to give.")
    return Markdown(
        f"Over {h['judgments']} stored judgments the five scores explain R² = {h['r2']:.2f} of the verdict; the mean "
        f"correlation between two dimensions is {h['mean']:.2f}."
    )


def rejudged(readings: Row) -> pd.DataFrame:
    """A row a run of a re-judge in the words of `lib.measure.checks.blind`, those of which no case was scored left out."""
    f = pd.json_normalize([{"candidate": run, **v} for run, v in readings["runs"].items() if v["cases"]])
    if f.empty:
        return f
    for part in ("", "judged."):
        f[f"{part}interval"] = list(map(interval, f[f"{part}low"], f[f"{part}high"]))
        f[f"{part}detectable"] = f[f"{part}detectable"].replace(0.0, "any difference")
    return f.assign(lost=[f"{v[0]} → {v[1]} of {n}" for v, n in zip(f.losses, f.cases, strict=True)])


def blind(readings: Row) -> pd.DataFrame:
    """The published report's table of section 5: a row a run, with what it left out, the interval and the power."""
    return _named(rejudged(readings), {
        "candidate": "candidate", "stored": "logged", "placebo": "quality, 5-dim",
        "blind": f"quality, {DIMS[readings['without']]}-blind", "delta": "delta", "interval": "interval", "p": "p",
        "lost": "loses to gold", "detectable": "could have seen",
    })  # fmt: skip


def candidates(readings: Row) -> pd.DataFrame:
    """The five dimensions of each candidate as the placebo scored them, unrounded means of the judged cases."""
    dims = {f"dims.{d}": name for d, name in DIMS.items()}
    return _named(rejudged(readings), {"candidate": "scored as candidate", **dims})


def parts(readings: Row) -> pd.DataFrame:
    """A row a run: what leaving a score out does by arithmetic, and what the blind judge judges otherwise."""
    return _named(rejudged(readings), {
        "candidate": "candidate", "delta": "delta", "from_dropping": "delta by arithmetic",
        "judged.delta": "delta by judgment", "judged.interval": "95 % by judgment", "judged.p": "p by judgment",
        "from_scores": "delta of other scores",
        "from_verdicts": "delta of verdicts", "verdicts_changed": "verdicts changed", "lost": "loses to gold",
    })  # fmt: skip


def _named(f: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Those columns alone, under the names that a reader sees."""
    return f.reindex(columns=list(names)).rename(columns=names)


def dropped(ledger: Ledger, fingerprint: str) -> Markdown:
    """What the sealed re-judges of an era's runs say: is it that dimension? The newest of each dimension and judge."""
    era = {r.id for r in ledger.records if r.fingerprint == fingerprint}
    newest = {}
    for r in ledger.records:
        if isinstance(r, RejudgeRecord) and era & {*r.found.runs}:
            newest[r.found.without, r.judge] = r
    if not newest:
        return Markdown("No re-judge is sealed yet, so nothing here says that a low dimension is the reason for the losses: "
                        "`notch rejudge RUN --without coverage`.")  # fmt: skip
    return Markdown("\n\n".join(_dropped(ledger, record) for record in newest.values()))


def _dropped(ledger: Ledger, record: RejudgeRecord) -> str:
    """One re-judge: its parts as a table, then arithmetic, judgment and answer in sentences."""
    without = record.found.without
    # Read anew: an older record was sealed before the parts were told apart.
    readings = {**read_blind(list(map(CaseRow.as_dict, ledger.cases(record.id)))), "without": without}
    f, name = rejudged(readings), DIMS[without]
    if f.empty:
        return f"{record.id} left out {name}, and nothing was scored."
    dims = f[[f"dims.{d}" for d in DIMENSIONS]].dropna(how="all").idxmin(axis=1)
    lowest = (dims == f"dims.{without}").sum()
    before, after = (sum(losses) for losses in zip(*f.losses, strict=True))
    silent = ""
    if f.no_answer.sum():
        silent = f" ({plural(f.no_answer.sum(), 'case')} without an answer count as lost in both)"
    eased = ", ".join(f.candidate[(f["judged.p"] < ALPHA) & (f["judged.delta"] > 0)])
    lines = [
        f"Arithmetic: without {name} in the mean of the five scores quality moves by {_range(f.from_dropping)}.",
    ]
    # Whether its verdict can be blind to a dimension is a fact of the judge, and no finding about the answers.
    if record.judge == "offline" and not own_faults(without, constants()):
        lines.append(f"Judgment: **this judge cannot answer**. Every fault that lowers {name} lowers another dimension too, so "
                     "its verdict is never blind to it. A judge that reads meaning: `--judge claude`.")  # fmt: skip
    else:
        verdict = f"For no run does the judgment ease beyond chance: these answers lose without {name} too."
        if eased:
            verdict = f"Beyond chance the judgment eases for {eased}: there {name} is a part of why it loses."
        lines += [
            f"Judgment: blind to it, the judge calls {after} losses instead of {before} in {plural(f.cases.sum(), 'case')}, and "
            f"{plural(f.verdicts_changed.sum(), 'verdict')} change{silent}; quality moves by {_range(f['judged.delta'])}.",
            verdict,
        ]
    of = plural(len(f), "run")
    head = f"From {record.id} (judge {record.judge}): **{name}** left out. It is the lowest of the five in {lowest} of {of}."
    return "\n\n".join([head, table(parts(readings)).text, bullets(lines).text])


def _range(deltas: pd.Series) -> str:
    """The differences of several runs, each of which stands in the table above."""
    low, high = f"{deltas.min():+.3f}", f"{deltas.max():+.3f}"
    return low if low == high else f"{low} to {high}"


def rule(ledger: Ledger) -> Markdown:
    """How often luck passes the keep rule, in one sentence for each of its floors, for the newest era."""
    era = latest(ledger)
    lines = [ledger.noise(era)]
    if ledger.floor(era, sampled=False) != ledger.floor(era):
        lines.append(ledger.noise(era, sampled=False))
    return Markdown(" ".join(lines))
