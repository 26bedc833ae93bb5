"""What the loop remembers, as tables: lessons by lever class, dead ends, what it cost.

Knows lessons and events. Pure functions of a folder of runs. Does not know how either came about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib.lab import lessons as remembered
from lib.lab.events import Events
from lib.lab.experiment import Markdown
from lib.lab.ledger import Ledger
from lib.report import tables

if TYPE_CHECKING:
    import pandas as pd


def lessons(ledger: Ledger) -> Markdown:
    """A row a lever class of the newest era: what was predicted, what came, how the predictions did."""
    import pandas as pd

    rows = [
        {
            "lever": x.lever, "runs": x.runs, "screened out": x.screened_out, "kept": x.kept, "predicted": x.predicted,
            "delta": x.delta, **{k: x.readings[k] for k in remembered.READINGS}, "best run": x.best,
        }
        for x in remembered.lessons(ledger, tables.latest(ledger))
    ]  # fmt: skip
    return tables.show(pd.DataFrame(rows))


def predictions(ledger: Ledger) -> pd.DataFrame:
    """A row a tested prediction of the newest era: predicted, measured with its interval, and the reading."""
    import pandas as pd

    rows = [
        {"run": o.run, "lever": o.lever, "gate": o.gate, "status": o.status, "predicted": o.predicted, "delta": o.delta,
         "low": o.low, "high": o.high, "reading": o.reading}
        for o in remembered.outcomes(ledger, tables.latest(ledger))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def dead_ends(ledger: Ledger) -> Markdown:
    """What need not be tried again, why, and what would revive it."""
    import pandas as pd

    found = remembered.dead_ends(ledger, tables.latest(ledger))
    rows = [{"run": e.run or "whole class", "what": e.what, "why": e.why, "revive when": e.revive} for e in found]
    return tables.show(pd.DataFrame(rows))


def costs(ledger: Ledger) -> Markdown:
    """Seconds and dollars by run and in total, the proposer's dollars beside them."""
    import pandas as pd

    rows = [
        {"run": r["id"], "seconds": r["seconds"],
         "dollars": r["cost"].get("judge_dollars", 0.0) + r["cost"].get("dollars", 0.0)}
        for r in ledger.records
    ]  # fmt: skip
    asked = sum(e.get("dollars", 0.0) for e in Events(ledger.folder))
    if rows:
        rows.append({"run": "proposer", "seconds": None, "dollars": asked})
        rows.append({"run": "total", "seconds": sum(r["seconds"] or 0.0 for r in rows), "dollars": sum(r["dollars"] for r in rows)})  # fmt: skip
    return tables.show(pd.DataFrame(rows))


def refusals(ledger: Ledger) -> Markdown:
    """Refused proposals by rule, and how many of each."""
    from collections import Counter

    import pandas as pd

    count = Counter((e["rule"], e["by"]) for e in Events(ledger.folder).of("refused"))
    return tables.show(pd.DataFrame([{"rule": r, "by": by, "refused": n} for (r, by), n in count.most_common()]))
