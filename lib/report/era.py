"""One era of a ledger: the runs that may be compared, its champion, and the two ends of the scale that it is read on.

Knows the ledger as a table. Does not know how any of it is shown. Everything is read once, when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import pandas as pd

from lib.measure import calibrate, keep
from lib.measure.judge import DIMENSIONS
from lib.measure.stats import on_both
from lib.models.stored import named as is_stored
from lib.runs.ledger import COUNTS, Ledger
from lib.runs.record import CalibrationRecord, CaseRow, ComparisonRecord, Record
from lib.runs.verify import READINGS
from lib.show import interval


def eras(ledger: Ledger) -> list[str]:
    """The fingerprints in the order in which they were first used. Runs of different eras are never compared."""
    f = ledger.frame()
    # Measuring another judge begins no era.
    f = f[~f.kind.isin(READINGS) & (f.fingerprint != "")]
    return list(f.fingerprint.unique())


def latest(ledger: Ledger) -> str:
    """The newest era's fingerprint, "" for an empty ledger."""
    return (eras(ledger) or [""])[-1]


def scored(f: pd.DataFrame) -> pd.DataFrame:
    """Normalised scores, a row each, as tables want them: dimensions one level up, interval and W/T/L as texts."""
    f = f.rename(columns={f"dims.{d}": d for d in DIMENSIONS})
    f = f.reindex(columns=dict.fromkeys([*f, "quality", "low", "high", *COUNTS, *DIMENSIONS]))
    f = f.astype(dict.fromkeys(COUNTS, "Int64"))
    wtl = f.wins.astype(str) + "/" + f.ties.astype(str) + "/" + f.losses.astype(str)
    around = list(map(partial(interval, sign=""), f.low, f.high))
    return f.assign(wtl=wtl, interval=around, cases=f[list(COUNTS)].sum(axis=1))


def controls(plain: Sequence[Any]) -> pd.DataFrame:
    """Controls as a calibration found them, by name, best first."""
    f = pd.json_normalize(list(plain))
    f = scored(f.reindex(columns=dict.fromkeys(["name", *f])))
    return f.sort_values("quality", ascending=False, kind="stable").set_index("name")


def _says_most(record: ComparisonRecord) -> tuple[bool, int]:
    stored = any(is_stored(candidate.model) for candidate in record.found.candidates.values())
    return stored, sum(len(group.runs) for group in record.found.groups)


@dataclass(frozen=True)
class Era:
    """The runs of one ruler and judge."""

    ledger: Ledger
    fingerprint: str

    @classmethod
    def latest(cls, ledger: Ledger) -> Era:
        return cls(ledger, latest(ledger))

    # --- the climb

    @cached_property
    def climb(self) -> pd.DataFrame:
        """The scored runs that compete on the full gate, one row each; the index is the place in the ledger."""
        f = self.ledger.frame()
        return f[f.competes & (f.fingerprint == self.fingerprint) & (f.gate == "full")]

    @property
    def kept(self) -> pd.DataFrame:
        """The kept runs of the climb in order: the first run, and every champion after it."""
        return self.climb[self.climb.status == "kept"]

    @property
    def changes(self) -> int:
        """How many different things were tried after the first run; what was run again counts once."""
        # The first run is where the climb starts, and no change.
        return len(self.climb.drop_duplicates(["harness", "weights"])) - 1

    @cached_property
    def champion(self) -> Record | None:
        """The last kept run of the full gate, None before there is one."""
        return self.ledger.champion(self.fingerprint)

    @cached_property
    def anchors(self) -> pd.DataFrame:
        """What was measured beside the climb; of the same thing measured again for another comparison, the newest.

        Without the trial of a new base, which has a table of its own and would crowd every chart.
        """
        f, trial = self.ledger.frame(), self.comparison(base=True)
        if trial:
            f = f[~f.id.isin([side.run for group in trial.found.groups for side in group.runs])]
        f = f[
            (f.lever == "anchor") & (f.kind == "experiment") & (f.fingerprint == self.fingerprint) & (f.gate == "full")
        ]
        return f[f.quality.notna()].drop_duplicates(["harness", "adapter"], keep="last")

    @property
    def frontiers(self) -> pd.DataFrame:
        """Those of the anchors that are a frontier model's stored answers."""
        return self.anchors[self.anchors.model.map(is_stored).astype(bool)]

    @property
    def frontier_run(self) -> str:
        """The stronger of them by its id, "" where none is sealed."""
        best_first = self.frontiers.sort_values("quality", ascending=False, kind="stable")
        return next(iter(best_first.id), "")

    def comparison(self, base: bool = False) -> ComparisonRecord | None:
        """The comparison of models that the report shows, of equals the newest; `base`: of a new base with an old one.

        One with a frontier in it says most of how far a model carries; then the one with the most candidates.
        """
        newest_first = (r for r in reversed(self.ledger.records) if isinstance(r, ComparisonRecord) and r.found.groups)
        of_era = (r for r in newest_first if r.fingerprint == self.fingerprint)
        # `lib.lab.models.harnesses` calls the stock pipeline so; other comparisons name each group by its steps.
        alike = (r for r in of_era if base == any(group.group == "stock" for group in r.found.groups))
        # Of equals max takes the first, which is the newest here.
        return max(alike, key=_says_most, default=None)

    # --- the two ends of the scale

    @cached_property
    def calibration(self) -> CalibrationRecord | None:
        """The newest calibration that judged the controls on the full gate, where the climb is."""
        for record in reversed(self.ledger.records):
            if isinstance(record, CalibrationRecord) and record.fingerprint == self.fingerprint:
                if record.gate == "full" and record.found.controls:
                    return record
        return None

    @cached_property
    def controls(self) -> pd.DataFrame:
        """The controls by name, best first. Empty where none is sealed."""
        return controls(self.calibration.found.controls if self.calibration else [])

    @property
    def plain(self) -> float | None:
        """Quality of a set that fits any task, the lower end; None where it is not measured."""
        return self.controls.quality.get(calibrate.PLAIN)

    @property
    def gold(self) -> float | None:
        """Gold against itself, a tie everywhere: of the controls, else of a comparison. That is parity."""
        comparison = self.comparison()
        ceiling = comparison.found.ceiling.quality if comparison and comparison.found.ceiling else None
        return self.controls.quality.get(calibrate.GOLD, ceiling)

    @cached_property
    def frontier(self) -> tuple[str, float] | None:
        """The stronger frontier's own answers, the upper end: a control of the calibration, else an anchor that was sealed."""
        best = self.controls.quality[self.controls.index.map(is_stored).astype(bool)]
        if best.empty:
            best = self.frontiers.set_index("model").quality
        return None if best.empty else (str(best.idxmax()), float(best.max()))

    @property
    def share(self) -> float | None:
        """(champion - any-task set) / (stronger frontier - any-task set), None where one of the three is not measured."""
        # Where the frontier is no better than questions that fit any task, there is no way between them.
        if self.champion is None or self.frontier is None or self.plain is None or self.frontier[1] <= self.plain:
            return None
        return (self.champion.scored.quality - self.plain) / (self.frontier[1] - self.plain)

    def control(self, name: str) -> dict[str, float]:
        """Quality by case of one control, of no case where none is sealed."""
        rows = map(CaseRow.as_dict, self.ledger.cases(self.calibration.id) if self.calibration else [])
        return calibrate.qualities([r for r in rows if r["part"] == "control" and r["kind"] == name])

    @cached_property
    def bottom(self) -> pd.DataFrame:
        """The champion paired with every control at the bottom, on the same cases: delta, p, whether the rule puts it above."""
        tests = {}
        if self.calibration is not None and self.champion is not None:
            floor = self.ledger.floor(self.fingerprint, self.champion.drawn)
            own = self.ledger.qualities(self.champion.id)
            for name in self.controls.index.intersection(calibrate.BOTTOM, sort=False):
                other = self.control(name)
                test = on_both(own, other)  # a judge may have failed on a case of either
                if test:
                    tests[name] = [test.delta, test.p, keep.passes(test.delta, test.p, floor)]
        return pd.DataFrame.from_dict(tests, orient="index", columns=["delta", "p", "above"])
