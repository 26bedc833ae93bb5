"""What the runs taught, by lever class: predicted against measured effect, and dead ends with what would revive them.

A pure function of the ledger. Does not know proposers, nor how a lesson is shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from lib.lab.ledger import REFERENCE, Ledger
from lib.lab.proposal import setup_of

READINGS = ("hit", "over", "under", "wrong sign")
MANY = 0.25  # share of cases without an answer from which a run failed by its form, not by its questions
TIRED = 3  # runs of a class without a keep and without a gain from which the class is a dead end


@dataclass(frozen=True)
class Outcome:
    """A prediction beside what came of it, on the full gate or, for a screened-out run, on the dev gate."""

    run: str
    lever: str
    gate: str
    status: str
    predicted: float
    delta: float
    low: float
    high: float

    @property
    def reading(self) -> str:
        """hit: the interval holds the prediction. over, under: the prediction lies above or below it. Else wrong sign.

        >>> Outcome("r", "prompting", "full", "discarded", 0.05, -0.02, -0.04, 0.0).reading
        'wrong sign'
        >>> Outcome("r", "prompting", "full", "kept", 0.02, 0.06, 0.03, 0.09).reading
        'under'
        """
        if self.low - 1e-9 <= self.predicted <= self.high + 1e-9:
            return "hit"
        if self.predicted * self.delta < 0:
            return "wrong sign"
        return "over" if self.predicted > self.high else "under"


@dataclass(frozen=True)
class Lesson:
    """What one lever class has shown so far."""

    lever: str
    runs: int  # on the full gate
    screened_out: int  # on the dev gate alone
    kept: int
    predicted: float  # mean over all of them
    delta: float
    best: str  # the run with the largest gain
    readings: dict[str, int]

    @property
    def sentence(self) -> str:
        told = ", ".join(f"{n} {name}" for name, n in self.readings.items() if n)
        return (
            f"{self.lever}: {self.runs} runs and {self.screened_out} screened out, {self.kept} kept; predicted "
            f"{self.predicted:+.3f}, came {self.delta:+.3f} on average ({told}); best {self.best}"
        )


@dataclass(frozen=True)
class DeadEnd:
    """What need not be tried again, and what would change that."""

    run: str  # "" for a whole class
    what: str
    why: str
    revive: str


def outcomes(ledger: Ledger, fingerprint: str) -> list[Outcome]:
    """Every prediction that was tested, oldest first."""
    found = []
    # By what was run, not by its text: proposers reuse their words, and a decision may come under other ones.
    tried = {setup_of(r, ledger) for r in ledger.climb(fingerprint) if r["decision"].get("delta") is not None}
    for r in ledger.records:
        d = r["decision"]
        if r["kind"] != "experiment" or r["fingerprint"] != fingerprint or d.get("delta") is None:
            continue
        screened_out = r["gate"] == "dev" and r["status"] == "discarded" and setup_of(r, ledger) not in tried
        if r["lever"] in (*REFERENCE, "baseline") or not (r["gate"] == "full" or screened_out):
            continue
        found.append(
            Outcome(r["id"], r["lever"], r["gate"], r["status"], r["predicted"], d["delta"], d["low"], d["high"])
        )
    return found


def lessons(ledger: Ledger, fingerprint: str) -> list[Lesson]:
    """A lesson a lever class, in the order of their first runs."""
    every = outcomes(ledger, fingerprint)
    return [_lesson(lever, [o for o in every if o.lever == lever]) for lever in dict.fromkeys(o.lever for o in every)]


def _lesson(lever: str, mine: list[Outcome]) -> Lesson:
    full = [o for o in mine if o.gate == "full"]
    return Lesson(
        lever,
        runs=len(full),
        screened_out=len(mine) - len(full),
        kept=sum(o.status == "kept" for o in full),
        predicted=_mean(o.predicted for o in mine),
        delta=_mean(o.delta for o in mine),
        best=max(mine, key=lambda o: o.delta).run,
        readings={name: sum(o.reading == name for o in mine) for name in READINGS},
    )


def _mean(values: Iterable[float]) -> float:
    told = list(values)
    return sum(told) / len(told) if told else 0.0


def dead_ends(ledger: Ledger, fingerprint: str) -> list[DeadEnd]:
    """Single attempts that are ruled out, then whole classes that gained nothing."""
    champion = ledger.champion(fingerprint)
    found = []
    for r in ledger.records:
        gone = r["status"] in ("discarded", "crashed") and r["kind"] == "experiment"
        if gone and r["fingerprint"] == fingerprint and r["lever"] not in REFERENCE:
            found.append(DeadEnd(r["id"], _what(r), r["decision"].get("reason", ""), _revive(r)))
    against = champion["id"] if champion else "no champion"
    for lesson in lessons(ledger, fingerprint):
        count = lesson.runs + lesson.screened_out
        if count >= TIRED and not lesson.kept and lesson.delta <= 0:
            why = f"{count} attempts, none kept, {lesson.delta:+.3f} on average"
            found.append(
                DeadEnd("", f"the class {lesson.lever!r}", why, f"a champion other than {against}, model or adapter")
            )
    return found


def _what(record: dict[str, Any]) -> str:
    steps = " > ".join(
        row["step"] + (f"({', '.join(f'{k}={v}' for k, v in row.items() if k != 'step')})" if len(row) > 1 else "")
        for row in record["pipeline"]
    )
    drawn = ", ".join(f"{k}={v}" for k, v in record["decoding"].items())
    return f"{steps}{f' [{drawn}]' if drawn else ''}"[:200]


def _revive(record: dict[str, Any]) -> str:
    if record["status"] == "crashed":
        return f"its error is gone ({record['error'][:100]})"
    s = record["scores"]
    cases = sum(s.get(k, 0) for k in ("wins", "ties", "losses", "no_answer"))
    if cases and s["no_answer"] / cases >= MANY:
        return f"replies that fit the form: {s['no_answer']} of {cases} cases had no answer"
    return f"another model or adapter than {record['model']}{record['adapter'] and ' + ' + record['adapter']}"


def as_text(ledger: Ledger, fingerprint: str) -> str:
    """Lessons and dead ends as Markdown lists, for a file or a prompt."""
    told = [f"- {lesson.sentence}" for lesson in lessons(ledger, fingerprint)] or ["- nothing yet"]
    ends = [f"- {e.run or 'class'}: {e.what}. {e.why}. Revive: {e.revive}." for e in dead_ends(ledger, fingerprint)]
    return "\n".join(["# Lessons", "", *told, "", "# Dead ends", "", *(ends or ["- none yet"]), ""])


def as_data(ledger: Ledger, fingerprint: str) -> dict[str, Any]:
    """Lessons and dead ends as plain data."""
    return {
        "lessons": [asdict(x) for x in lessons(ledger, fingerprint)],
        "dead_ends": [asdict(x) for x in dead_ends(ledger, fingerprint)],
    }
