"""What training gave: every measured adapter beside the bare base and beside imitation.

Knows sealed trainings and the experiments that used them. Differences are paired on the cases of the full gate, anew
from sealed judgments: an experiment's own decision compares it with the champion of its moment. Trains nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any

from lib.files import canonical
from lib.lab.experiment import Markdown
from lib.lab.ledger import REFERENCE, Ledger
from lib.measure.keep import ALPHA
from lib.measure.stats import Paired, paired

if TYPE_CHECKING:
    import pandas as pd

Record = dict[str, Any]
PLAIN = [{"step": "ask"}]


@dataclass(frozen=True)
class Measured:
    """An experiment on an adapter, the training of that adapter, and what both are compared with."""

    run: Record
    training: Record
    epoch: int
    base: Record  # the same pipeline, decoding and seed on the bare model
    imitation: Record | None  # the adapter that the training began from, else SFT of about as many sets

    @property
    def method(self) -> str:
        return self.training["found"]["method"]

    @property
    def kind(self) -> str:
        """What the sets were: clean, coverage, styles, on-policy; of a merge and of rewarded drafts, nothing."""
        return self.training["found"]["data"].get("kind", "")

    @property
    def pairs(self) -> int:
        return self.training["found"]["data"].get("train", 0)

    @property
    def plain(self) -> bool:
        return self.run["pipeline"] == PLAIN


def measured(ledger: Ledger, fingerprint: str) -> list[Measured]:
    """Every whole experiment of an era's full gate on a sealed adapter with a base to compare with, in their order."""
    mine = [
        r for r in ledger.records
        if r["kind"] == "experiment" and r["fingerprint"] == fingerprint and r["gate"] == "full"
        and r["scores"] and not r["scores"]["unscored"] and r["status"] != "invalid"
    ]  # fmt: skip
    used = [
        (r, *found) for r in mine if r["adapter"] and r["lever"] not in REFERENCE and (found := _trained(ledger, r))
    ]
    made, seen = [], set()
    for r, training, epoch in used:
        weights = (r["identity"].get("model") or {}).get("adapter") or (training["id"], epoch)
        if (weights, canonical(_harness(r))) in seen:  # the same weights in the same pipeline, measured again
            continue
        seen.add((weights, canonical(_harness(r))))
        base = next((b for b in mine if not b["adapter"] and _harness(b) == _harness(r)), None)
        if base:
            made.append(Measured(r, training, epoch, base, _imitation(r, training, used)))
    return made


def _trained(ledger: Ledger, record: Record) -> tuple[Record, int] | None:
    """The sealed training of a run's adapter and the epoch whose weights it wears."""
    name = re.search(r"(\d{4,}-[a-z0-9-]+)(?:.*epoch-(\d+))?", record["adapter"])
    made = name and next((t for t in ledger.records if t["id"] == name[1] and t["kind"] == "train"), None)
    if not made or not made["found"]:
        return None
    return made, int(name[2] or made["found"]["epoch"])  # type: ignore[index]


def _harness(record: Record) -> dict[str, Any]:
    return {k: record[k] for k in ("model", "pipeline", "decoding", "judge", "seed")}


def _imitation(run: Record, training: Record, used: list[tuple[Record, Record, int]]) -> Record | None:
    told = training["found"]["parameters"]
    if training["found"]["method"] == "sft" and not told.get("adapter"):
        return None
    sft = [
        (r, t) for r, t, epoch in used
        if t["found"]["method"] == "sft" and t["found"]["data"]["kind"] == "clean" and _harness(r) == _harness(run)
        and epoch == t["found"]["epoch"]
    ]  # fmt: skip
    asked = told.get("data", {}).get("pairs")
    parents = [a for a in (told.get("adapter"), *told.get("merge", ())) if a]
    start = [r for r, t in sft if any(a.startswith(t["id"]) for a in parents)]

    def far(t: Record) -> float:
        pairs = t["found"]["parameters"]["data"].get("pairs") or 1
        return abs(log(pairs / asked)) if asked else -pairs  # what asked for none stands beside the most

    near = [r for r, _ in sorted(sft, key=lambda x: far(x[1]))]
    return (start or near or [None])[0]


def against(ledger: Ledger, run: Record, other: Record | None) -> Paired | None:
    """The paired difference of two runs of one gate, None without another."""
    return paired(ledger.qualities(run["id"]), ledger.qualities(other["id"])) if other else None


def table(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """A row a measured adapter: how it was trained, its quality, and its paired difference to base and to imitation."""
    import pandas as pd

    return pd.DataFrame([_row(ledger, m) for m in measured(ledger, fingerprint)])


def _row(ledger: Ledger, m: Measured) -> dict[str, Any]:
    to_base, to_sft = against(ledger, m.run, m.base), against(ledger, m.run, m.imitation)
    steps = "" if m.plain else ", ".join(s["step"] for s in m.run["pipeline"])
    return {
        "run": m.run["id"], "method": m.method.upper() if m.method != "merge" else "merge", "sets": m.kind,
        "pairs": m.pairs or None, "epoch": m.epoch or None, "pipeline": steps,
        "quality": m.run["scores"]["quality"], "no answer": m.run["scores"]["no_answer"],
        **_difference("base", to_base), **_difference("SFT", to_sft),
        "beside": m.imitation["id"] if m.imitation else "", "seconds to train": round(m.training["seconds"]),
    }  # fmt: skip


def _difference(name: str, test: Paired | None) -> dict[str, Any]:
    if test is None:
        return {f"to {name}": None, f"95 % to {name}": "", f"p to {name}": None}
    return {
        f"to {name}": test.delta, f"95 % to {name}": f"{test.low:+.3f}\u00a0to\u00a0{test.high:+.3f}",
        f"p to {name}": test.p,
    }  # fmt: skip


def summary(ledger: Ledger, fingerprint: str) -> Markdown:
    """In sentences: which adapters beat the bare base beyond chance, and which beat imitation."""
    some = measured(ledger, fingerprint)
    if not some:
        return Markdown("No adapter was measured on the full gate yet. `notch study train` trains and measures them.")
    tests = [(m, against(ledger, m.run, m.base)) for m in some]
    better = [(m, t) for m, t in tests if t and t.p < ALPHA and t.delta > 0]
    worse = [(m, t) for m, t in tests if t and t.p < ALPHA and t.delta < 0]
    adapters = len({(m.training["id"], m.epoch) for m in some})
    told = [f"{adapters} adapters in {len(some)} measurements; beyond chance, {len(better)} beat the bare base in the same pipeline and "
            f"{len(worse)} fall behind it." + _names(better) + _names(worse)]  # fmt: skip
    rewarded = [(m, against(ledger, m.run, m.imitation)) for m in some if m.imitation]
    above = [(m, t) for m, t in rewarded if t and t.p < ALPHA and t.delta > 0]
    if rewarded:
        told.append(f"Of {len(rewarded)} that can be compared with imitation, {len(above)} beat it beyond chance."
                    + _names(above))  # fmt: skip
    if len(tests) > 5:
        told.append(f"With {len(tests)} tests at {ALPHA:g}, about {len(tests) * ALPHA:.1f} come out so by luck alone; a "
                    "run is kept by the keep rule, not by this table.")  # fmt: skip
    return Markdown("\n".join(f"- {t}" for t in told))


def _names(some: list[tuple[Measured, Paired]]) -> str:
    return "".join(f" {m.run['id']} {t.delta:+.3f} (p = {t.p:.2g})." for m, t in some)
