"""What a calibration or a re-judge found, as tables; the controls beside the climb.

Knows the readings of `lib.measure.calibrate` and `lib.measure.checks.blind`. Does not know how they were made.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from lib.lab.show import Markdown, bullets, chance, grid, interval, plural, table
from lib.measure.checks import noise as measure
from lib.measure.checks.blind import readings as read_blind
from lib.measure.keep import ALPHA
from lib.report import tables
from lib.report.tables import DIMS, latest
from lib.runs.ledger import Ledger

Readings = dict[str, Any]


def response(readings: Readings) -> Markdown:
    """The 5 x 5 response matrix: damaged dimension by row, mean change of each score by column, own one in bold."""
    rows = []
    for damaged, changes in readings["matrix"].items():
        cells = [f"**{changes[d]:+.2f}**" if d == damaged else f"{changes[d]:+.2f}" for d in DIMS if changes]
        falls = "yes" if readings["own_falls_most"][damaged] else "**no**"
        rows.append([DIMS[damaged], *(cells or [""] * len(DIMS)), falls])
    return Markdown(grid(["damaged", *DIMS.values(), "own falls most"], rows))


def strengths(readings: Readings) -> pd.DataFrame:
    """By kind of damage the change of its own dimension for one, two and three questions, and the worst of others."""
    rows = []
    for kind, s in readings["strengths"].items():
        own, by = s["dimension"], s["change"]
        worst, name = min(((v, d) for c in by.values() for d, v in c.items() if d != own), default=(0.0, ""))
        rows.append({
            "damage": kind, "lowers": DIMS[own],
            **{plural(int(n), "question"): c.get(own) for n, c in by.items()},
            "worst other": f"{worst:+.2f} {DIMS.get(name, '')}",
        })  # fmt: skip
    return pd.DataFrame(rows)


def checks(readings: Readings) -> pd.DataFrame:
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


def attacks(readings: Readings) -> pd.DataFrame:
    """By attack: its quality beside that of the honest text, how often it is above, and who stops it before a judge."""
    rows = [
        {
            "attack": name, "honest text": a["against"], "quality": a["quality"], "honest quality": a["honest"],
            "cases above honest": a["above"], "most above": max(0.0, a["most"]),
            "flagged as leak": f"{a['leaks']}/{a['cases']}", "refused by the form": f"{a['refused']}/{a['cases']}",
        }
        for name, a in readings["attacks"].items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def controls(readings: Readings) -> pd.DataFrame:
    """Answers whose worth is known, best first: what any quality of this ruler and judge is to be read between."""
    rows = [
        {
            "control": c["name"], "quality": c["quality"], "interval": interval(c["low"], c["high"], ""),
            "wtl": f"{c['wins']}/{c['ties']}/{c['losses']}", **{DIMS[d]: c["dims"].get(d) for d in DIMS},
        }
        for c in sorted(readings.get("controls", []), key=lambda c: -c["quality"])
    ]  # fmt: skip
    return pd.DataFrame(rows)


def scale(ledger: Ledger) -> Markdown:
    """Where the climb stands between a set that fits any task and the frontier: sentences, and the controls."""
    era = latest(ledger)
    f, record = tables.climbing(ledger, era), tables.calibration(ledger, era)
    far, level = tables.headline(ledger, era), tables.unbeaten(ledger, era)
    lines = [f"{far[:1].upper()}{far[1:]}.", f"**{level}.**" if level else ""]
    judged = int(f[["wins", "ties", "losses"]].sum().sum())
    if judged:
        better = int(f.wins.sum() + f.ties.sum())
        lines.append(f"Half of quality is the verdict against gold: of {judged} judged answers of this climb {better} "
                     "won or tied" + ("." if better else ", so that half is 0 in every run."))  # fmt: skip
    text = bullets(filter(None, lines)).text
    if record is None:
        return Markdown(text)
    tests = tables.against_bottom(ledger, era)
    frame = controls(record["found"])
    for column, field in (("delta of the champion", "delta"), ("p", "p")):
        frame[column] = frame.control.map({name: getattr(test, field) for name, test in tests.items()})
    return Markdown(f"{text}\n\nFrom {record['id']}, on the same cases:\n\n{table(frame).text}")


def noise(readings: Readings) -> pd.DataFrame:
    """Same answers judged again, and answers made again: spread of a run's mean, the 95 % floor, and whose floor it is."""
    names = {"same": "the same answers judged again", "greedy": "answered again greedily, and judged",
             "fresh": "answered again with other seeds, and judged"}  # fmt: skip
    rows = [
        {"what": text, "repeats": n["repeats"], "cases": n["cases"], "SD of the mean": n["sd"], "95 % floor": n["floor"],
         "cases that moved": f"{100 * n['moved']:.0f} %"}
        for part, text in names.items()
        if (n := readings.get(part))  # older calibrations made no greedy answers
    ]  # fmt: skip
    return pd.DataFrame(rows)


def floors(readings: Readings) -> Markdown:
    """The two floors of the keep rule, in a sentence."""
    greedy, sampled = (measure.floor_of(readings, s) for s in (False, True))
    if greedy is None or sampled is None:
        return Markdown("No floor was measured.")
    return Markdown(
        f"The keep rule takes the floor that fits the two runs it compares: **{greedy:.4f}** between two greedy runs, "
        f"**{sampled:.4f}** where one of them samples."
    )


def null_world(readings: Readings) -> Markdown:
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


def _world(gain: float | None, world: Readings) -> list[str]:
    return [
        f"The smallest gain that the rule sees with 80 % power on 30 cases: **{gain or 0:.3f}**.",
        f'{world["studies"]} studies of {world["runs"]} runs in which nothing changes: "keep if better" keeps '
        f"{world['lucky_keeps']:.1f} runs a study and climbs {world['lucky_climb']:.3f} by luck alone.",
        f"The paired rule keeps something in {100 * world['false_keep']:.1f} % of those studies; the sealed gate leaves "
        f"standing something in **{100 * world['confirmed']:.1f} %** (at most 5 % is asked).",
    ]


def halo(readings: Readings) -> pd.DataFrame:
    """Correlations between the dimensions over stored judgments. Above 0.93 two dimensions are one."""
    table = readings["halo"]["correlation"]
    return pd.DataFrame([{"": DIMS[a], **{DIMS[b]: row[b] for b in DIMS}} for a, row in table.items()])


def adherence(readings: Readings) -> Markdown:
    """How much of the verdict the five scores explain, in a sentence."""
    h = readings["halo"]
    if h["r2"] is None:
        return Markdown(f"Of {h['judgments']} stored judgments the verdict never varies, so there is no R² to give.")
    return Markdown(
        f"Over {h['judgments']} stored judgments the five scores explain R² = {h['r2']:.2f} of the verdict; the mean "
        f"correlation between two dimensions is {h['mean']:.2f}."
    )


def _scored(readings: Readings) -> list[tuple[str, Readings]]:
    """The runs of a re-judge, those of which no case was scored left out."""
    return [(run, v) for run, v in readings["runs"].items() if v["cases"]]


def blind(readings: Readings) -> pd.DataFrame:
    """The published report's table of section 5: a row a run, with what it left out, the interval and the power."""
    rows = [
        {
            "candidate": run, "logged": v["stored"], "quality, 5-dim": v["placebo"],
            f"quality, {DIMS[readings['without']]}-blind": v["blind"], "delta": v["delta"],
            "interval": interval(v["low"], v["high"]), "p": v["p"],
            f"loses to gold (of {v['cases']})": f"{v['losses'][0]} → {v['losses'][1]}",
            "could have seen": v["detectable"] or "any difference",
        }
        for run, v in _scored(readings)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def candidates(readings: Readings) -> pd.DataFrame:
    """The five dimensions of each candidate as the placebo scored them, unrounded means of the judged cases."""
    rows = [{"scored as candidate": run, **{DIMS[d]: v["dims"].get(d) for d in DIMS}} for run, v in _scored(readings)]
    return pd.DataFrame(rows)


def parts(readings: Readings) -> pd.DataFrame:
    """A row a run: what leaving a score out does by arithmetic, and what the blind judge judges otherwise."""
    rows = [
        {
            "candidate": run, "delta": v["delta"], "delta by arithmetic": v["from_dropping"],
            "delta by judgment": j["delta"], "95 % by judgment": interval(j["low"], j["high"]), "p by judgment": j["p"],
            "could have seen": j["detectable"] or "any difference", "delta of other scores": v["from_scores"],
            "delta of verdicts": v["from_verdicts"], "verdicts changed": v["verdicts_changed"],
            f"loses to gold (of {v['cases']})": f"{v['losses'][0]} → {v['losses'][1]}",
        }
        for run, v in _scored(readings) for j in [v["judged"]]
    ]  # fmt: skip
    return pd.DataFrame(rows)


def dropped(ledger: Ledger, fingerprint: str) -> Markdown:
    """What the sealed re-judges of an era's runs say: is it that dimension? The newest of each dimension and judge."""
    era = {r["id"] for r in ledger.records if r["fingerprint"] == fingerprint}
    made = [r for r in ledger.records if r["kind"] == "rejudge" and era & {*r["found"].get("runs", ())}]
    newest = {(r["found"]["without"], r["judge"]): r for r in made}
    if not newest:
        return Markdown("No re-judge is sealed yet, so nothing here says that a low dimension is the reason for the losses: "
                        "`notch rejudge RUN --without coverage`.")  # fmt: skip
    return Markdown("\n\n".join(_dropped(ledger, record) for record in newest.values()))


def _dropped(ledger: Ledger, record: dict[str, Any]) -> str:
    """One re-judge: its parts as a table, then arithmetic, judgment and answer in sentences."""
    # Read anew: an older record was sealed before the parts were told apart.
    readings = {**read_blind(ledger.cases(record["id"])), "without": record["found"]["without"]}
    runs = dict(_scored(readings))
    name = DIMS[readings["without"]]
    if not runs:
        return f"{record['id']} left out {name}, and nothing was scored."
    lowest = [run for run, v in runs.items() if v["dims"] and min(v["dims"], key=v["dims"].get) == readings["without"]]
    before, after = (sum(v["losses"][i] for v in runs.values()) for i in (0, 1))
    missing = sum(v["no_answer"] for v in runs.values())
    silent = f" ({plural(missing, 'case')} without an answer count as lost in both)" if missing else ""
    eased = [run for run, v in runs.items() if v["judged"]["p"] < ALPHA and v["judged"]["delta"] > 0]
    lines = [
        f"Arithmetic: with {name} left out of the mean of the scores that the judge gave with all five, quality moves by "
        + ", ".join(f"{v['from_dropping']:+.3f} ({run})" for run, v in runs.items())
        + ". That says nothing about a reason: a mean rises wherever its lowest part goes.",
        f"Judgment: blind to it, the judge calls {after} losses instead of {before} in {plural(sum(v['cases'] for v in runs.values()), 'case')}, "
        f"and {plural(sum(v['verdicts_changed'] for v in runs.values()), 'verdict')} change{silent}; with the scores that remain that moves quality by "
        + ", ".join(f"{v['judged']['delta']:+.3f} ({run}, {chance(v['judged']['p'])})" for run, v in runs.items()) + ".",
        f"Beyond chance the judgment eases for {', '.join(eased)}: there {name} is a part of why it loses."
        if eased else f"For no run does the judgment ease beyond chance: these answers lose without {name} too.",
    ]  # fmt: skip
    if record["judge"] == "offline":
        lines.append("The offline judge gives every score by itself, so its other scores stay as they are, and its verdict is a "
                     "rule on scores: what moves here is that rule. A judge that reads meaning: `--judge claude`.")  # fmt: skip
    head = f"From {record['id']} (judge {record['judge']}): **{name}** left out. It is the lowest of the five in {len(lowest)} of {plural(len(runs), 'run')}."
    return "\n\n".join([head, table(parts(readings)).text, bullets(lines).text])


def rule(ledger: Ledger) -> Markdown:
    """How often luck passes the keep rule, in one sentence for each of its floors, for the newest era."""
    era = latest(ledger)
    lines = [ledger.noise(era)]
    if ledger.floor(era, sampled=False) != ledger.floor(era):
        lines.append(ledger.noise(era, sampled=False))
    return Markdown(" ".join(lines))
