"""A comparison of models as tables: the confirmation experiment as a reader wants it.

Knows the readings of `lib.measure.compare`. Does not know how they were made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lib.lab.experiment import Markdown
from lib.lab.ledger import Ledger
from lib.lab.models import moved
from lib.measure.judge import DIMENSIONS
from lib.report import tables

if TYPE_CHECKING:
    import pandas as pd

Found = dict[str, Any]
TO = "\u00a0to\u00a0"  # an interval stays on one line


def each(found: Found) -> list[tuple[str, Found]]:
    """Every run of a comparison with the name of its group, in order."""
    return [(group["group"], run) for group in found["groups"] for run in group["runs"]]


def models(found: Found) -> pd.DataFrame:
    """A row a candidate: quality with its interval, W/T/L over all cases, and the difference to the first of its group."""
    import pandas as pd

    rows = [_row(g, found["candidates"][v["run"]], v) for g, v in each(found)]
    if found["ceiling"]:
        gold = {"candidate": "gold against itself", "model": ""}
        rows.append(_row("ceiling", gold, {"scores": found["ceiling"]}))
    table = pd.DataFrame(rows)
    idle = {
        "pipeline": len(found["groups"]) == 1,
        "where": len(set(table["where"]) - {""}) == 1,
        "useful": table["useful"].isna().all(),
    }
    return table.drop(columns=[c for c, told in idle.items() if told])


def _row(group: str, told: Found, v: Found) -> Found:
    s, d = v["scores"], v.get("difference") or {}
    n = s["wins"] + s["ties"] + s["losses"] + s["no_answer"] + s["unscored"]
    where = ("cloud" if told["model"].startswith("claude-") else "on-device") if told["model"] else ""
    return {
        "pipeline": group, "candidate": told["candidate"], "where": where, "quality": s["quality"],
        "95 %": f"{s['low']:.3f}{TO}{s['high']:.3f}", "coverage": s["dims"].get("coverage"),
        "W/T/L": f"{s['wins']}/{s['ties']}/{s['losses']}", "no answer": s["no_answer"], "cases": n,
        "delta": d.get("delta"), "p": d.get("p"),
        "95 % of delta": f"{d['low']:+.3f}{TO}{d['high']:+.3f}" if d.get("delta") is not None else "",
        "useful": (told.get("useful") or {}).get("mean"),
        "calls a case": told["calls"] / n if "calls" in told else None,
        "new tokens a case": told["generation_tokens"] / n if "generation_tokens" in told else None,
    }  # fmt: skip


def dimensions(found: Found) -> pd.DataFrame:
    """The five dimensions of every candidate, unrounded means of the judged cases, gold below them."""
    import pandas as pd

    rows = [
        {"pipeline": g, "candidate": found["candidates"][v["run"]]["candidate"]} | _dims(v["scores"])
        for g, v in each(found)
    ]
    if found["ceiling"]:
        rows.append({"pipeline": "ceiling", "candidate": "gold against itself"} | _dims(found["ceiling"]))
    table = pd.DataFrame(rows)
    return table.drop(columns="pipeline") if len(found["groups"]) == 1 else table


def _dims(scores: Found) -> Found:
    return {d.replace("_", "-"): scores["dims"].get(d) for d in DIMENSIONS}


def differences(found: Found) -> pd.DataFrame:
    """Of every candidate and dimension the paired difference to the first of its group, with p and interval."""
    import pandas as pd

    rows = []
    for group, v in each(found):
        if "difference" in v:
            for name, t in {"quality": v["difference"], **{d: v["dims"][d] for d in DIMENSIONS}}.items():
                rows.append(
                    {
                        "pipeline": group, "candidate": found["candidates"][v["run"]]["candidate"], "of": name.replace("_", "-"),
                        "delta": t["delta"], "p": t["p"], "low": t["low"], "high": t["high"], "cases": t["n"],
                    }
                )  # fmt: skip
    table = pd.DataFrame(rows)
    return table.drop(columns="pipeline") if len(found["groups"]) == 1 and rows else table


# --- in the report -------------------------------------------------------------------------------


def comparisons(ledger: Ledger, fingerprint: str) -> list[Found]:
    """The sealed comparisons of one ruler and judge, oldest first."""
    return [r for r in ledger.records if r["kind"] == "models" and r["fingerprint"] == fingerprint and r["found"]]


def shown(ledger: Ledger, fingerprint: str, which: str = "models") -> Found | None:
    """The comparison with the most candidates in one harness, or ("base") of a new base with an old one in several.

    Of equals the newest.
    """
    return tables.widest(ledger, fingerprint, which == "base")


def section(ledger: Ledger, fingerprint: str) -> Markdown:
    """The confirmation experiment of the report: table, dimensions and sentences of one comparison."""
    made = shown(ledger, fingerprint)
    if made is None:
        return Markdown("Not run yet: `notch confirm --models smollm2,stored:claude`.")
    found = made["found"]
    said = "\n".join(f"- {text}" for text in moved(found))
    return Markdown(
        f"From {made['id']}; every candidate is a sealed run of its own, and none of this is part of the climb.\n\n"
        f"{tables.show(models(found)).text}\n\n{said}\n\nThe dimensions, unrounded:\n\n{tables.show(dimensions(found)).text}"
    )


def regression(ledger: Ledger, fingerprint: str) -> Markdown:
    """The newest base beside the old one, a row a pipeline and base."""
    made = shown(ledger, fingerprint, "base")
    if made is None:
        return Markdown("No other base was tried yet: `notch confirm --base MODEL`.")
    found = made["found"]
    return Markdown(f"From {made['id']}: {made['decision']['reason']}.\n\n{tables.show(models(found)).text}")
