"""The ledger as tables and sentences.

Knows records. Does not know how a run is executed or drawn. Every function is a pure function of a ledger.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.files import Tampered, canonical
from lib.lab.experiment import Experiment, Markdown
from lib.lab.ledger import READINGS, Ledger, sealed_folders
from lib.lab.models import SAME, named
from lib.measure.judge import DIMENSIONS
from lib.measure.ruler import GATES, RULER, BadRuler, Ruler
from lib.measure.score import score

if TYPE_CHECKING:
    import pandas as pd

SMALL = "SmolLM2 has 135 million parameters: results on it say nothing about 3B models."
OFFLINE = "The offline judge is a stand-in: it reads words, not meaning. Its agreement with a real judge is measured, not assumed."


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
    told = [
        f"{len(ruler.cases)} tasks with a gold answer each, in three disjoint gates: {gates}. The first decides what is "
        "kept, the second screens, the third is sealed: only `notch confirm` scores on it, and every look is counted.",
        f"A rubric of {len(ruler.rubric)} dimensions, 1 to 5 each: {dims}.",
        f"A protocol: exactly {p.questions} questions; quality is {p.blend[0]:g} times the rubric plus {p.blend[1]:g} "
        "times the verdict against gold; a case without a valid answer scores 0.",
        f"Seal `{ruler.seal[:12]}`. Results of another ruler or judge are never compared with these.",
    ]
    return Markdown("\n".join(f"- {t}" for t in told))


def caveats(ledger: Ledger) -> Markdown:
    """What the numbers on a page do not mean, from what the runs used."""
    told = []
    if any(r["model"] == "smollm2" for r in ledger.records):
        told.append(SMALL)
    if any(r["judge"] == "offline" for r in ledger.records):
        told.append(OFFLINE)
    if len(eras(ledger)) > 1:
        told.append(f"There are {len(eras(ledger))} eras (ruler or judge changed); only runs of one era are compared.")
    return Markdown("\n".join(f"- {t}" for t in told) or "No runs yet: `make study` makes some.")


def runs(ledger: Ledger, fingerprint: str | None = None) -> pd.DataFrame:
    """A row a run, oldest first, discards and crashes included."""
    import pandas as pd

    rows = []
    for r in ledger.records:
        if fingerprint in (None, r["fingerprint"]):
            s, d = r["scores"], r["decision"]
            rows.append(
                {
                    "run": r["id"], "lever": r["lever"], "gate": r["gate"], "status": r["status"],
                    "quality": s.get("quality"), "low": s.get("low"), "high": s.get("high"),
                    "W/T/L": f"{s['wins']}/{s['ties']}/{s['losses']}" if s else "", "no answer": s.get("no_answer"),
                    "useful": ((r.get("found") or {}).get("useful") or {}).get("mean"), "predicted": r["predicted"], "delta": d.get("delta"), "p": d.get("p"), "against": d.get("against", "").partition("-")[0],
                    "calls": r["cost"].get("calls"), "seconds": r["seconds"],
                }
            )  # fmt: skip
    table = pd.DataFrame(rows)
    return table.drop(columns="useful") if rows and table["useful"].isna().all() else table


def climb(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """The competing runs of the full gate, with the lucky running best and the confirmed best.

    `running` is the largest quality so far, as the published study drew it; `champion` is the last kept run's;
    `confirmed` is the full-gate quality of the last champion that also won on the sealed gate, with its interval.
    """
    import pandas as pd

    confirmed_at = _confirmations(ledger, fingerprint)
    rows: list[dict[str, Any]] = []
    best, champion, proven = 0.0, None, None
    for number, r in enumerate(ledger.records, 1):
        if r["kind"] == "confirm" and r["fingerprint"] == fingerprint and r["id"] in confirmed_at and rows:
            proven = next((x for x in ledger.records if x["id"] == r["of"]), proven)
            rows[-1] |= _proven(proven)
        if r["fingerprint"] != fingerprint or r["gate"] != "full" or r["kind"] != "experiment" or not r["scores"]:
            continue
        if r["lever"] in ("anchor", "a/a") or r["status"] == "invalid":
            continue
        best = max(best, r["scores"]["quality"])
        champion = r if r["status"] == "kept" else champion
        row = {
            "n": number,
            "run": r["id"],
            "lever": r["lever"],
            "status": r["status"],
            "quality": r["scores"]["quality"],
        }
        rows.append(
            row | {"running": best, "champion": champion["scores"]["quality"] if champion else None} | _proven(proven)
        )
    columns = ["n", "run", "lever", "status", "quality", "running", "champion", "confirmed", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _proven(record: dict[str, Any] | None) -> dict[str, Any]:
    s = record["scores"] if record else {}
    return {"confirmed": s.get("quality"), "low": s.get("low"), "high": s.get("high")}


def _confirmations(ledger: Ledger, fingerprint: str) -> set[str]:
    return {r["id"] for r in ledger.looks(fingerprint) if r["status"] == "kept" and r["decision"].get("against")}


def anchors(ledger: Ledger, fingerprint: str) -> dict[str, float]:
    """Qualities to read the chart against: anchor runs, and gold judged against itself by the offline judge."""
    found = {}
    for r in measured_beside(ledger, fingerprint):
        steps = "" if r["pipeline"] == [{"step": "ask"}] else f", {' '.join(s['step'] for s in r['pipeline'])}"
        name = re.sub(r"\+ .*?(\d{4,})-.*", r"+ \1", named(r)) + steps  # an adapter by its run's number
        found[f"{name} ({r['id'][:4]})" if name in found else name] = r["scores"]["quality"]
    if fingerprint == Experiment().fingerprint:
        found["gold against itself"] = gold_against_itself()
    return found


def measured_beside(ledger: Ledger, fingerprint: str) -> list[dict[str, Any]]:
    """The anchors of an era on the full gate; of the same thing measured again for another comparison, the newest."""
    mine = [r for r in ledger.records if r["lever"] == "anchor" and r["fingerprint"] == fingerprint]
    scored = [r for r in mine if r["kind"] == "experiment" and r["scores"] and r["gate"] == "full"]
    return list({_harness(r): r for r in scored}.values())


def _harness(record: dict[str, Any]) -> str:
    """What a run was but for its lever and its words."""
    return canonical([record[k] for k in (*SAME, "model", "adapter")])


def gold_against_itself() -> float:
    """Parity on this ruler: every gold answer judged as a candidate, a tie everywhere."""
    from lib.measure.answer import Answer
    from lib.measure.offline_judge import OfflineJudge

    cases = Ruler.load().gate("full")
    return score(
        OfflineJudge().judge_all([(c, Answer(c.gold.title, c.gold.questions)) for c in cases if c.gold])
    ).quality


def dimensions(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """The five dimensions, unrounded means of the judged cases, for baseline, champion and anchors."""
    import pandas as pd

    kept = [r for r in ledger.climb(fingerprint) if r["status"] == "kept"]
    chosen = kept[:1] + kept[-1:] * (len(kept) > 1)
    have = {_harness(r) for r in chosen}
    chosen += [r for r in measured_beside(ledger, fingerprint) if _harness(r) not in have]
    rows = [
        {"run": r["id"], "model": r["model"], **{d.replace("_", "-"): r["scores"]["dims"].get(d) for d in DIMENSIONS}}
        for r in chosen
        if r["scores"]
    ]
    return pd.DataFrame(rows)


def parameters(ledger: Ledger) -> pd.DataFrame:
    """Every run with only those parameters that differ between runs."""
    import pandas as pd

    names = (
        "lever",
        "model",
        "adapter",
        "pipeline",
        "decoding",
        "judge",
        "gate",
        "seed",
        "predicted",
        "min_effect",
        "of",
    )
    rows = [{"run": r["id"], "status": r["status"], **{n: _plain(r[n]) for n in names}} for r in ledger.records]
    table = pd.DataFrame(rows)
    same = [n for n in names if len(table) > 1 and table[n].nunique() == 1]
    return table.drop(columns=same)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return " → ".join(_plain(v) for v in value)
    if isinstance(value, dict):
        head = str(value.get("step", ""))
        rest = ", ".join(f"{k}={v}" for k, v in value.items() if k != "step")
        return f"{head}({rest})" if head and rest else head or rest
    return value


def confirmations(ledger: Ledger) -> pd.DataFrame:
    """Every look at the sealed gate, in order: which run, and what came of it. No case and no text of that gate."""
    import pandas as pd

    rows = [
        {
            "look": i, "run": r["of"], "quality": r["scores"].get("quality"), "against": r["decision"].get("against", ""),
            "delta": r["decision"].get("delta"), "p": r["decision"].get("p"), "low": r["decision"].get("low"),
            "high": r["decision"].get("high"), "confirmed": _won(r),
        }
        for i, r in enumerate(ledger.looks(), 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _won(look: dict[str, Any]) -> str:
    if look["status"] != "kept":
        return "no"
    return "yes" if look["decision"].get("against") else "first look: nothing to beat yet"


def show(table: pd.DataFrame) -> Markdown:
    """A table for a notebook: numbers short, no index, readable where it is rendered."""
    if table.empty:
        return Markdown("Nothing here yet.")
    head = "| " + " | ".join(map(str, table.columns)) + " |\n|" + "---|" * len(table.columns)
    rows = ["| " + " | ".join(_number(v, str(c)) for c, v in zip(table.columns, row, strict=True)) + " |"
            for row in table.itertuples(index=False)]  # fmt: skip
    return Markdown("\n".join([head, *rows]))


def _number(value: Any, column: str) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        if value == int(value) and column in ("no answer", "calls", "n", "seed"):
            return str(int(value))
        if column in ("seconds", "calls a case"):
            return f"{value:.1f}"
        if column == "new tokens a case":
            return f"{value:.0f}"
        return (
            f"{value:+.3f}" if column in ("delta", "predicted") else f"{value:.3g}" if column == "p" else f"{value:.3f}"
        )
    return str(value).replace("|", "\\|")


def fold(content: pd.DataFrame | Markdown, summary: str) -> Markdown:
    """A long table or text behind one line that opens it: the page stays readable, and nothing is left out."""
    text = content.text if isinstance(content, Markdown) else show(content).text
    return Markdown(f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>")


def useful(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """The runs whose judge was also asked how useful each set is, beside their quality and never blended with it."""
    import pandas as pd

    rows = []
    for r in ledger.records:
        u = (r.get("found") or {}).get("useful") if r["kind"] in ("experiment", "confirm") else None
        if u and r["fingerprint"] == fingerprint:
            rows.append(
                {
                    "run": r["id"], "model": r["model"], "gate": r["gate"], "useful of 5": u["mean"], "low": u["low"],
                    "high": u["high"], "cases": u["cases"], "no answer": u["no_answer"], "unscored": u["unscored"],
                    "quality": r["scores"].get("quality"),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def hypotheses(ledger: Ledger) -> Markdown:
    """What each run was expected to do, and what it did."""
    rows = []
    for r in ledger.records:
        d = r["decision"]
        came = f"{d['delta']:+.3f}" if d.get("delta") is not None else "–"
        rows.append(
            f"- **{r['id']}** ({r['status']}; predicted {r['predicted']:+.3f}, came {came}): {' '.join(r['hypothesis'].split())}"
        )
    return Markdown("\n".join(rows) or "Nothing here yet.")


def verdict(ledger: Ledger) -> Markdown:
    """What the newest era supports, in sentences made from its numbers."""
    fingerprint = latest(ledger)
    climbing = [r for r in ledger.climb(fingerprint) if r["scores"]]
    if not climbing:
        return Markdown("There are no runs on the full gate yet, so there is nothing to say.")
    champion, first = ledger.champion(fingerprint), climbing[0]
    if champion is None:
        return Markdown(
            f"- No run was kept yet, so there is no champion; the first run is {first['id']}, {first['status']}."
        )
    lines = anchors(ledger, fingerprint)
    ceiling = lines.get("gold against itself")
    kept = [r for r in climbing[1:] if r["status"] == "kept"]
    lucky = max(climbing, key=lambda r: r["scores"]["quality"])
    s = champion["scores"]
    told = [
        f"The champion is **{champion['id']}** at {s['quality']:.3f} (95 % {s['low']:.3f} to {s['high']:.3f}): {s['wins']} wins, "
        f"{s['ties']} ties, {s['losses']} losses against gold, {s['no_answer']} cases without an answer.",
        f"Of {changes(climbing)} changes tried after {first['id']}, the paired rule kept {len(kept)}"
        + (f" ({', '.join(r['id'] for r in kept)})." if kept else "."),
    ]
    if lucky["id"] != champion["id"]:
        told.append(
            f"The highest single score is {lucky['scores']['quality']:.3f} ({lucky['id']}, {lucky['status']}); a rule that keeps whatever "
            "looks better would have called it the best."
        )
    if ceiling is not None:
        told.append(
            f"Gold judged against itself gets {ceiling:.3f}, a tie everywhere: that is parity; more takes wins."
        )
    proven = ledger.confirmed(fingerprint)
    if proven:
        won = "is confirmed at" if proven["decision"].get("against") else "was looked at, with nothing to beat yet:"
        told.append(
            f"On the sealed gate {proven['of']} {won} {proven['scores']['quality']:.3f}; looks so far: {len(ledger.looks(fingerprint))}."
        )
    compared = widest(ledger, fingerprint)
    if compared:
        told.append(f"With only the model changed ({compared['id']}), {compared['decision']['reason']}.")
    rated = (champion.get("found") or {}).get("useful")
    if rated and rated["mean"] is not None:
        told.append(f"Asked without gold in sight, the judge rates its sets {rated['mean']:.2f} of 5 for usefulness.")
    weakest = min(s["dims"].items(), key=lambda d: d[1]) if s["dims"] else None
    if weakest:
        told.append(f"Its lowest dimension is {weakest[0].replace('_', '-')} at {weakest[1]:.2f} of 5.")
    return Markdown("\n".join(f"- {t}" for t in told))


def changes(climbing: list[dict[str, Any]]) -> int:
    """How many different things were tried after the first run; what was run again counts once."""
    weights = ((r["identity"].get("model") or {}).get("adapter", r["adapter"]) for r in climbing)
    return len({canonical([r[k] for k in (*SAME, "model")] + [w]) for r, w in zip(climbing, weights, strict=True)}) - 1


def widest(ledger: Ledger, fingerprint: str, base: bool = False) -> dict[str, Any] | None:
    """The comparison of models with the most candidates, of equals the newest; `base`: of a new base with an old one."""
    made = [r for r in ledger.records if r["kind"] == "models" and r["fingerprint"] == fingerprint and r["found"]]
    mine = [r for r in made if any(g["group"] == "stock" for g in r["found"]["groups"]) == base]
    return max(reversed(mine), key=lambda r: sum(len(g["runs"]) for g in r["found"]["groups"]), default=None)


def headlines(ledger: Ledger) -> list[str]:
    """Three lines: the climb, what is confirmed, and what the numbers are not."""
    fingerprint = latest(ledger)
    climbing = [r for r in ledger.climb(fingerprint) if r["scores"]]
    if not climbing:
        return ["no run on the full gate yet", "nothing confirmed", "run `make study`"]
    first, champion = climbing[0], ledger.champion(fingerprint)
    top = max(climbing, key=lambda r: r["scores"]["quality"])
    kept = sum(r["status"] == "kept" for r in climbing[1:])
    best = f"{champion['scores']['quality']:.3f} ({champion['id']})" if champion else "nothing kept"
    looks = ledger.looks(fingerprint)
    proven = ledger.confirmed(fingerprint)
    won = proven and proven["decision"].get("against")
    told = f"{proven['of']} ({proven['scores']['quality']:.3f} there)" if won else "nothing"
    return [
        f"quality {first['scores']['quality']:.3f} ({first['id']}) to {best}: "
        f"{kept} of {changes(climbing)} changes kept by the paired rule; the luckiest run shows {top['scores']['quality']:.3f}",
        f"confirmed on the sealed gate: {told}; looks so far: {len(looks)}",
        " ".join([SMALL if first["model"] == "smollm2" else f"Model: {first['model']}.", f"Judge: {first['judge']}."]),
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


def doctor(folder: Path) -> dict[str, Any]:
    """What this machine has. `ok` is false when something that notch cannot do without is missing."""
    from lib import weights
    from lib.models.mlx import BLAS_HINT, engine, fast_blas

    checks: list[dict[str, Any]] = []

    def add(what: str, ok: bool, found: str, needed: bool = True) -> None:
        checks.append({"what": what, "ok": ok, "found": found, "needed": needed})

    add("python", sys.version_info >= (3, 10), sys.version.split()[0])
    try:
        ruler = Ruler.load(RULER)
        add("ruler", True, f"{len(ruler.cases)} cases, seal {ruler.seal[:12]}")
    except (BadRuler, Tampered) as error:
        add("ruler", False, str(error))
    for name, pinned in weights.PINNED.items():
        here = weights.there(pinned)
        missing = f"not fetched yet: {pinned.about}, {pinned.size / 1e6:.0f} MB; `make setup` fetches it"
        add(name, here, f"{pinned.about}, in {weights.folder(pinned)}" if here else missing)
    blas = fast_blas()
    add(
        "matrix library",
        blas != "reference",
        blas if blas != "reference" else f"reference BLAS: {BLAS_HINT}",
        needed=False,
    )
    add("mlx", *engine())
    key = bool(os.environ.get("ANTHROPIC_API_KEY"))
    add("ANTHROPIC_API_KEY", key, "set" if key else "not set; everything but judge=claude works without", needed=False)
    free = shutil.disk_usage(folder if folder.exists() else RULER.parent).free / 1e9
    add("disk", free > 1, f"{free:.1f} GB free")
    count = len(sealed_folders(folder)) if folder.exists() else 0
    add("runs", True, f"{count} sealed in {folder}")
    return {"ok": all(c["ok"] for c in checks if c["needed"]), "checks": checks}
