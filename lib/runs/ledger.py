"""The ledger: every sealed run in order, the champion, what is confirmed, and what becomes of a new run.

Knows typed records and what they mean to each other. Does not know how runs are made or sealed, nor the keep rule
itself (`lib.measure.keep`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from lib.files import Exit, OneLine, Tampered, attributes, runs_folder
from lib.measure import keep
from lib.measure.checks import noise
from lib.measure.judge import DIMENSIONS
from lib.measure.stats import paired
from lib.runs.record import BadRecord, CalibrationRecord, CaseRow, Decision, Json, Record, qualities, record_of
from lib.runs.seal import LEDGER, checked_lines, read_cases
from lib.show import plural

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = ("anchor", "a/a")  # levers that are measured beside the climb and never part of it
# Columns of `Ledger.frame`: texts and plain data as the record has them, whole numbers, fractions.
FIELDS = ("id", "slug", "kind", "status", "lever", "model", "adapter", "pipeline", "decoding", "judge", "gate", "of",
          "fingerprint", "hypothesis", "error")  # fmt: skip
COUNTS = ("wins", "ties", "losses", "no_answer", "unscored")
WHOLE = ("seed", *COUNTS, "cases", "calls", "new_tokens")
FRACTIONS = ("quality", "low", "high", *DIMENSIONS, "delta", "p", "delta_low", "delta_high", "predicted", "min_effect",
             "seconds", "dollars", "useful", "calls_a_case", "new_tokens_a_case")  # fmt: skip


UNFINISHED = ("crashed", "invalid", "incomplete")  # statuses after which the same experiment is worth another run


class NoRun(OneLine, LookupError):
    """No sealed run of that name."""

    exit = Exit.USAGE


@dataclass(eq=False)  # one is itself alone: what was worked out of it can be kept by it
class Ledger:
    """All sealed runs of a folder, oldest first. Make it with `Ledger.read()`."""

    folder: Path
    records: list[Record] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path | None = None) -> Ledger:
        """The runs that `ledger.jsonl` lists. Raises Tampered naming the first line that breaks the chain or is no record."""
        folder = folder or runs_folder()
        path, records = folder / LEDGER, []
        for number, row in enumerate(checked_lines(path), 1):
            try:
                records.append(record_of(row["record"]))
            except BadRecord as error:
                raise Tampered(f"{path}:{number}: {error}") from error
        return cls(folder, records)

    def frame(self) -> pd.DataFrame:
        """A row a run, oldest first, as tables want it: texts, whole numbers and fractions, all in one level.

        `quality`, `low`, `high` are the run's own, `delta`, `p`, `delta_low`, `delta_high` those of its comparison. What a
        run does not have is missing. `competes` are the scored experiments of the climb; a run whose pipeline never came
        to ask the model is `idle`, says nothing about its lever and is not among them.
        """
        # A copy: a table that adds a column must not add it for all others.
        return self._frame.copy()

    @cached_property
    def _frame(self) -> pd.DataFrame:
        import pandas as pd

        texts = [*FIELDS, "against", "reason", "wtl", "method", "weights", "harness"]
        f = pd.DataFrame([_flat(r) for r in self.records], columns=[*texts, *WHOLE, *FRACTIONS])
        # Int64 is pandas' whole number that may be missing; the plain one would become a float.
        f = f.astype(dict.fromkeys(WHOLE, "Int64") | dict.fromkeys(FRACTIONS, "float64"))
        f["cases"] = f[list(COUNTS)].sum(axis=1, skipna=False)
        f["calls_a_case"] = (f.calls / f.cases).astype("float64")
        f["new_tokens_a_case"] = (f.new_tokens / f.cases).astype("float64")
        f["idle"] = ((f.calls == 0) & (f.no_answer == f.cases)).fillna(False).astype(bool)
        climbs = (f.kind == "experiment") & ~f.lever.isin(REFERENCE) & (f.status != "invalid")
        return f.assign(competes=climbs & f.quality.notna() & ~f.idle)

    # --- looking things up

    def newest(self, fits: Callable[[Record], bool], among: Sequence[Record] | None = None) -> Record | None:
        """The last run that fits, of all or of some, None where none does."""
        return next(filter(fits, reversed(self.records if among is None else among)), None)

    @cached_property
    def by_id(self) -> dict[str, Record]:
        """The records by their ids."""
        return {r.id: r for r in self.records}

    def get(self, run: str) -> Record:
        """A record by id, number or slug (the newest with that slug). Raises NoRun."""
        record = self.newest(lambda r: r.named(run))
        if record is None:
            raise NoRun(f"no run {run!r} in {self.folder}, which holds {plural(len(self.records), 'run')}")
        return record

    def of(self, record: Record) -> str:
        """Id of the run that a record's `of` names, among those sealed before it; `of` itself where it names none."""
        # A slug may be given again later, so it means the run that bore it when this one was sealed.
        before = self.records
        if record.id:
            before = list(takewhile(lambda r: r.id != record.id, self.records))
        named = self.newest(lambda r: r.named(record.of), before)
        return named.id if named else record.of

    def first(self, record: Record) -> str:
        """Id of the run that a record repeats, where that is a repeat itself the run behind it; else what `of` gives."""
        of = self.of(record)
        while of in self.by_id and self.by_id[of].of:
            of = self.of(self.by_id[of])
        return of

    def by_key(self, key: str) -> Record | None:
        """The newest run with a key that came to an end, or None.

        A leak would come again, so it is an end. A crash is none, nor are unscored cases: their judgments are yet to come.
        """
        return self.newest(lambda r: r.key == key and (r.status not in UNFINISHED or bool(r.leaks)))

    def cases(self, run: str) -> list[CaseRow]:
        """The rows of a run's cases.jsonl."""
        return read_cases(self.folder / run)

    def qualities(self, run: str) -> dict[str, float]:
        """Quality by case id of a run, without the unscored."""
        return qualities(self.cases(run))

    def experiments(self, fingerprint: str) -> list[Record]:
        """All experiments of one ruler and judge, references and invalid ones too."""
        return [r for r in self.records if r.kind == "experiment" and r.fingerprint == fingerprint]

    def climb(self, fingerprint: str, gate: str = "full") -> list[Record]:
        """The experiments that compete with each other: one fingerprint, one gate, no references, nothing invalid."""
        on_gate = (r for r in self.experiments(fingerprint) if r.gate == gate and r.status != "invalid")
        return [r for r in on_gate if r.lever not in REFERENCE]

    def champion(self, fingerprint: str) -> Record | None:
        """The last kept run of the full gate."""
        # The last and not the highest: each kept run beat the one before it, the highest may be luck.
        return self.newest(is_kept, self.climb(fingerprint))

    def screened(self, fingerprint: str) -> Record | None:
        """What a run on the dev gate is compared with: the champion's own run there, else the first or what beat it there."""
        champion = self.champion(fingerprint)
        there = [r for r in self.climb(fingerprint, "dev") if r.scores]
        # By what was tried: it was kept on the full gate, so its run here is another one.
        same = [r for r in there if champion and r.attempt == champion.attempt]
        if same:
            return same[-1]
        # No champion has run there: the keep rule is followed on the dev gate's own runs, so that none stands by its place.
        stands = next(iter(there), None)
        for r in there:
            d = r.decision
            if stands and d.against == stands.id and keep.passes(d.delta, d.p, d.floor):
                stands = r
        return stands

    def looks(self, fingerprint: str | None = None) -> list[Record]:
        """Every look at the sealed gate, oldest first."""
        return [r for r in self.records if r.kind == "confirm" and fingerprint in (None, r.fingerprint)]

    def confirmed(self, fingerprint: str) -> Record | None:
        """The last look that confirmed its run (the first look counts: it is what later ones must beat)."""
        return self.newest(is_kept, self.looks(fingerprint))

    # --- noise

    def calibration(self, fingerprint: str) -> CalibrationRecord | None:
        """The newest sealed calibration of this ruler and judge that measured a floor."""
        for r in reversed(self.records):
            if isinstance(r, CalibrationRecord) and r.fingerprint == fingerprint and r.found.floor is not None:
                return r
        return None

    def noise(self, fingerprint: str, sampled: bool = True) -> str:
        """Floor and false-keep rate of the keep rule on this ruler and judge, in one sentence."""
        calibration = self.calibration(fingerprint)
        if calibration is None:
            return noise.sentence({})
        return f"{noise.sentence(calibration.found.as_dict(), sampled)} ({calibration.id})"

    def sees(self, fingerprint: str, sampled: bool = True) -> str:
        """The smallest gain that the keep rule finds in four of five runs, in one sentence: read it before you spend."""
        calibration = self.calibration(fingerprint)
        gain = noise.detectable_in(calibration.found.as_dict(), sampled) if calibration else None
        if calibration is None or gain is None:
            return "Which gain this comparison can see is not measured yet: `notch calibrate`."
        if not gain:
            return (
                f"In {calibration.id} repeats differed in nothing, so it cannot say which gain this comparison can see."
            )
        return (
            f"The smallest gain that this comparison sees with 80 % power is {gain:.3f} on quality ({calibration.id})."
        )

    def floor(self, fingerprint: str, sampled: bool = True) -> float | None:
        """The measured A/A floor: the newest calibration's, else the largest difference that a repeat has shown.

        `sampled`: whether one of the two runs that are compared draws its answers; two greedy ones have a floor of
        their own. None if unmeasured.
        """
        # A calibration repeats on purpose and often; single repeats only say the largest difference that was seen.
        calibration = self.calibration(fingerprint)
        if calibration:
            return noise.floor_of(calibration.found.as_dict(), sampled)
        repeats = (r for r in self.records if r.lever == "a/a" and r.fingerprint == fingerprint)
        deltas = [r.decision.delta for r in repeats if sampled or not r.drawn]
        return max((abs(d) for d in deltas if d is not None), default=None)

    def pooled(self, record: Record, qualities: dict[str, float]) -> tuple[dict[str, float], int]:
        """Mean quality by case over a run and the runs that it repeats, and how many looks that makes.

        Each look at the same hypothesis is another chance for luck, so p must be below ALPHA / looks.
        """
        first = self.first(record)  # by id, however each of them names it
        climb = [r for r in self.climb(record.fingerprint) if r.scores]
        repeats = [r for r in climb if r.id == first or (r.of and self.first(r) == first)]
        # Of the same cases alone: a look with a hole in it would move the mean by which case is missing.
        looks = [q for r in repeats if (q := self.qualities(r.id)).keys() == qualities.keys()] + [qualities]
        return {case: sum(q[case] for q in looks) / len(looks) for case in qualities}, len(looks)

    # --- the keep rule

    def rival(self, record: Record) -> tuple[Record | None, str]:
        """What a new run is compared with, and what it is where there is nothing yet."""
        fingerprint = record.fingerprint
        if record.kind == "confirm":
            # Looks with looks: only runs on the same cases can be paired.
            return self.confirmed(fingerprint), "first look at the sealed gate: the reference for later confirmations"
        if record.lever == "a/a":
            of = self.of(record)
            return self.newest(lambda r: r.id == of), "nothing to repeat: name the repeated run in `of`"
        if record.gate == "full":
            return self.champion(fingerprint), "first run on this ruler: the baseline that others must beat"
        return self.screened(fingerprint), "first run on this gate; the dev gate screens and never keeps"

    def decide(self, record: Record, qualities: dict[str, float]) -> Decision:
        """Apply the keep rule to a run that is not in the ledger yet.

        Gold in the answers makes a run invalid, whatever else it is. Keep needs p < ALPHA in a paired sign-flip test
        against the champion and a mean difference above the A/A floor: that of greedy runs when both are, else that
        of sampling. Otherwise indecisive while the interval still admits the smallest effect worth keeping, else
        discarded. A look at the sealed gate needs p < ALPHA / LOOKS. A repeat (`of` names a run of the full gate) is
        decided on the mean of all looks, with a stricter p.
        """
        # First of all: a quality that gold has helped to is no quality, however large the gain.
        if record.leaks:
            return Decision("invalid", _leak(record))
        if record.scores and record.scores.unscored:
            return Decision("incomplete", f"{record.scores.unscored} cases are unscored; judge them again first")
        climbs = record.gate == "full" and record.lever not in REFERENCE
        rival, first = self.rival(record)
        # Nothing to beat: somebody has to be first, and is what later runs are compared with.
        if rival is None:
            return Decision("kept" if climbs or record.kind == "confirm" else "reference", first)
        other = self.qualities(rival.id)
        # Paired by case, so both need the same cases, scored by the same judge against the same gold.
        if rival.fingerprint != record.fingerprint or other.keys() != qualities.keys():
            return Decision("reference", f"not comparable with {rival.id}: another ruler, judge or gate")
        looks, sampled = 1, record.drawn or rival.drawn
        # A repeat alone would be a second ticket in the lottery: all looks count together, and alpha is shared among them.
        if record.of and record.kind == "experiment" and climbs:
            qualities, looks = self.pooled(record, qualities)
        elif record.kind == "confirm":
            looks = keep.LOOKS
        # A greedy pair has a floor of its own, often 0; where one of the two draws, chance moves the difference.
        test, floor = paired(qualities, other), self.floor(record.fingerprint, sampled)
        status, reason = keep.decide(test, floor, record.min_effect, looks)
        if record.lever in REFERENCE:
            status, reason = "reference", "measured beside the climb, never part of it"
        elif status == "kept" and record.gate == "dev":
            status = "indecisive"
            reason = "better on the dev gate, which screens and never keeps; run it on the full gate"
        luck = self.noise(record.fingerprint, sampled)
        return Decision(status, reason, rival.id, test.delta, test.p, test.low, test.high, floor, luck)


def is_kept(record: Record) -> bool:
    """Whether a run was kept, or a look at the sealed gate confirmed one."""
    return record.status == "kept"


def _flat(record: Record) -> Json:
    """A record in one level, as a row of `Ledger.frame`."""
    plain, decision, cost = record.as_dict(), record.decision, record.cost.as_dict()
    row = {name: plain[name] for name in (*FIELDS, "seed", "predicted", "min_effect", "seconds")}
    row |= {"against": decision.against, "reason": decision.reason, "delta": decision.delta, "p": decision.p}
    row |= {"delta_low": decision.low, "delta_high": decision.high, "wtl": ""}
    if scores := record.scores:
        row |= scores.dims | attributes(scores, ("quality", "low", "high", *COUNTS))
        row["wtl"] = f"{scores.wins}/{scores.ties}/{scores.losses}"
    row |= {"calls": cost.get("calls"), "new_tokens": cost.get("generation_tokens")}
    row["dollars"] = record.cost.total_dollars
    # Without a real judge usefulness measures nothing: the offline one rates gold of another task above gold.
    row["useful"] = record.found.useful.mean if record.judge == "claude" else None
    row["method"] = getattr(record.found, "method", "")
    # By content where that is known: one adapter may go by several names.
    row["weights"] = record.identity.model.get("adapter") or record.adapter
    row["harness"] = record.setup.harness()
    return row


def _leak(record: Record) -> str:
    # The sealed gate names nothing: a case that is known to be in it is worn out a little.
    where = "" if record.gate == "confirm" else f" ({', '.join(record.leaks)})"
    return (
        f"gold stands word for word in the answers of {len(record.leaks)} cases{where}; find where the model saw it, "
        "then run again"
    )
