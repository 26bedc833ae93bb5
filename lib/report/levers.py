"""What each class of lever did: runs, best, cost, and what did not work.

Knows records. Negatives get a table of their own: a lever that was tried and failed is a result.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lib.lab.experiment import Markdown
from lib.lab.ledger import REFERENCE, Ledger
from lib.measure.keep import ALPHA

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]
METHODS = ("grpo", "orpo", "sft", "gad", "merge")  # how an adapter was trained, as its training run says


def method(ledger: Ledger, record: Record) -> str:
    """How the adapter of a run was trained, "" for a run without one or where no sealed run says."""
    if not record["adapter"]:
        return ""
    runs = re.findall(r"\d{4,}-[a-z0-9-]+", record["adapter"])
    made = next((r for run in runs for r in ledger.records if r["id"] == run), None)
    told = (
        f"{made['kind']} {made['lever']} {made['slug']} {made['found'].get('method', '')}"
        if made
        else record["adapter"]
    )
    return next((m for m in METHODS if re.search(rf"(?<![a-z]){m}", told.lower())), "")


def class_of(ledger: Ledger, record: Record) -> str:
    """The lever class of a run; adapters by the method that trained them, other levers on an adapter apart."""
    how = method(ledger, record).upper()
    if record["lever"] == "adapter":
        return f"adapter ({how})" if how else "adapter"
    return f"{record['lever']}, on an adapter" if record["adapter"] else record["lever"]


def cases(record: Record) -> int:
    """How many cases a run was scored on."""
    s = record["scores"]
    return sum(s[k] for k in ("wins", "ties", "losses", "no_answer", "unscored"))


def experiments(ledger: Ledger, fingerprint: str) -> list[Record]:
    """The scored experiments of one era on either open gate; references and invalid runs are left out."""
    mine = (r for r in ledger.records if r["fingerprint"] == fingerprint and r["kind"] == "experiment" and r["scores"])
    return [r for r in mine if r["lever"] not in REFERENCE and r["status"] != "invalid"]


def classes(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """A row a lever class and gate: how many runs, how many kept, the best of them and what it costs a case."""
    import pandas as pd

    groups: dict[tuple[str, str], list[Record]] = {}
    for r in experiments(ledger, fingerprint):
        groups.setdefault((class_of(ledger, r), r["gate"]), []).append(r)
    return pd.DataFrame([_class(name, gate, mine) for (name, gate), mine in groups.items()])


def _class(name: str, gate: str, mine: Sequence[Record]) -> dict[str, Any]:
    best = max(mine, key=lambda r: r["scores"]["quality"])
    n = cases(best)
    return {
        "lever": name, "runs": len(mine), "kept": sum(r["status"] == "kept" for r in mine),
        "best quality": best["scores"]["quality"], "coverage": best["scores"]["dims"].get("coverage"),
        "gate": f"{gate}-{n}", "delta": best["decision"].get("delta"), "p": best["decision"].get("p"),
        "calls a case": best["cost"]["calls"] / max(n, 1),
        "new tokens a case": best["cost"]["generation_tokens"] / max(n, 1), "best run": best["id"],
    }  # fmt: skip


def summary(ledger: Ledger, fingerprint: str) -> Markdown:
    """The lever table in one sentence, and how far coverage moved over all runs."""
    made = experiments(ledger, fingerprint)
    full = [r for r in made if r["gate"] == "full"]
    if not made:
        return Markdown("No experiment yet.")
    names = list(dict.fromkeys(class_of(ledger, r) for r in made))
    kept = sum(r["status"] == "kept" for r in full)
    cover = {r["id"]: r["scores"]["dims"]["coverage"] for r in made if r["scores"]["dims"].get("coverage") is not None}
    told = f"{len(made)} experiments in {len(names)} lever classes, {kept} of {len(full)} on the full gate kept."
    gone = sum(r["status"] in ("crashed", "invalid") for r in ledger.records if r["fingerprint"] == fingerprint)
    told += f" {gone} more crashed or are invalid and count nowhere." if gone else ""
    if cover:
        low, high = min(cover, key=cover.__getitem__), max(cover, key=cover.__getitem__)
        told += f" Coverage, unrounded, lay between {cover[low]:.2f} ({low}) and {cover[high]:.2f} ({high})."
    return Markdown(told)


def negatives(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """Runs of the full gate that were not kept, worst first: what was predicted, what came, and how sure that is."""
    import pandas as pd

    rows = []
    for r in experiments(ledger, fingerprint):
        d = r["decision"]
        if r["gate"] != "full" or r["status"] == "kept" or d.get("delta") is None:
            continue
        worse = d["p"] < ALPHA and d["delta"] < 0
        rows.append(
            {
                "run": r["id"], "lever": class_of(ledger, r), "predicted": r["predicted"], "delta": d["delta"],
                "low": d["low"], "high": d["high"], "p": d["p"], "calls a case": r["cost"]["calls"] / max(cases(r), 1),
                "reading": "worse beyond chance" if worse else r["status"],
            }
        )  # fmt: skip
    return pd.DataFrame(rows).sort_values("delta", kind="stable") if rows else pd.DataFrame()


def failed(ledger: Ledger, fingerprint: str) -> Markdown:
    """The classes in which nothing was kept, and what was clearly worse, in sentences."""
    full = [r for r in experiments(ledger, fingerprint) if r["gate"] == "full"]
    names = dict.fromkeys(class_of(ledger, r) for r in full)
    empty = [n for n in names if not any(r["status"] == "kept" for r in full if class_of(ledger, r) == n)]
    table = negatives(ledger, fingerprint)
    worse = 0 if table.empty else int((table.reading == "worse beyond chance").sum())
    told = [f"Nothing was kept in: {', '.join(empty)}." if empty else "In every class something was kept."]
    told.append(f"{worse} of {len(table)} runs that were not kept are worse than their champion beyond chance.")
    of = [r for r in full if r["decision"].get("delta") is not None and r["predicted"] > 0]
    over = [r for r in of if r["predicted"] > r["decision"]["delta"]]
    if of:
        told.append(f"Of {len(of)} hypotheses that promised a gain, {len(over)} promised more than came.")
    return Markdown("\n".join(f"- {t}" for t in told))
