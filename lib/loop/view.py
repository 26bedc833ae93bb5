"""What a proposer may know, rebuilt from disk every time: champion, last runs, lessons, worst dev cases, steering, menu.

Knows which texts may be shown: of cases, those of the dev gate alone, with the judge's notes; no task and no gold of
the gates that decide, wherever it may stand. Does not know who reads it, nor what they make of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lib.agent.pipeline import STEPS
from lib.agent.prompt import ADVICE
from lib.files import RULER, leave_out
from lib.loop import lessons
from lib.loop.events import Event, Events
from lib.loop.lessons import markdown
from lib.loop.proposal import PROPOSABLE, Parameters, Proposal
from lib.loop.steering import Limits, Steering
from lib.loop.validate import Base, validate
from lib.measure.ruler import Ruler
from lib.models.model import Decoding
from lib.runs.ledger import Ledger
from lib.runs.record import Record

Plain = dict[str, Any]  # JSON, as a proposer or an outside agent reads it
LAST, WORST, REFUSED = 12, 4, 8  # rows of each that are shown
SCORED = ("quality", "wins", "ties", "losses", "no_answer", "dims")
DECIDED = ("reason", "against", "delta", "p", "low", "high")
SHOWN = ("id", "status", "lever", "gate", "hypothesis", "predicted", "pipeline", "decoding", "adapter")


@dataclass(frozen=True)
class View:
    """The state of a loop, as proposers get it."""

    ledger: Ledger
    events: Events
    steering: Steering
    base: Base
    limits: Limits
    fingerprint: str
    banned_lever: str = ""  # the class that the next proposal must leave, "" for none

    def validate(self, proposal: Proposal) -> Parameters:
        """Parameters of a proposal that may run. Raises Refused."""
        return validate(proposal, self.base, self.ledger, self.steering, self.limits, self.banned_lever, self.untested)

    @cached_property
    def open(self) -> list[Event]:
        """The newest accepted proposals of this ruler, judge and model, decided or not: all that one state of the ledger
        led to."""
        events = self.events.of("accepted")
        if not events or events[-1].get("fingerprint") != self.fingerprint:
            return []
        return [e for e in events if all(e.get(k) == events[-1][k] for k in ("fingerprint", "runs"))]

    @property
    def untested(self) -> list[Event]:
        """Those, while nothing was sealed since."""
        return [e for e in self.open if e["runs"] == len(self.ledger.records)]

    @cached_property
    def champion(self) -> Record | None:
        """What the next proposal must beat, None before the first run is kept."""
        return self.ledger.champion(self.fingerprint)

    @cached_property
    def plain(self) -> Plain:
        """Everything as plain data."""
        return shown(self._all())

    def _all(self) -> Plain:
        """Everything, with the texts that must not be shown."""
        recent = self.ledger.experiments(self.fingerprint)
        return {
            "champion": self.champion and _run(self.champion),
            "last_runs": [_run(r) for r in recent[-LAST:]],
            **lessons.as_data(self.ledger, self.fingerprint),
            "worst_dev_cases": self._worst(),
            "refused": self._refused(),
            **({"open": [e["proposal"] for e in self.untested]} if self.untested else {}),
            "next": self.steering.wish,
            "standing": self.steering.standing,
            "bans": sorted(self.steering.bans),
            "must_leave": self.banned_lever,
            "limits": {"calls_a_case": self.limits.calls, "tokens_a_call": self.limits.tokens},
            "levers": list(PROPOSABLE),
            "steps": menu(),
            "advice": sorted(ADVICE),
            "decoding": leave_out(vars(Decoding()), "grammar"),
            "adapters": adapters(self.ledger),
        }

    def _refused(self) -> list[Plain]:
        """The last refused proposals, and trainings asked for that cannot be made; those have the rule `request`."""
        rows = []
        for e in self.events.of("refused", "request"):
            # A training that was opened is no refusal: it waits for a person.
            if not e.get("opened"):
                reason = e.get("reason", e.get("why", ""))
                rows.append({"by": e.get("by", "loop"), "rule": e.get("rule", "request"), "reason": reason})
        return rows[-REFUSED:]

    def _worst(self) -> list[Plain]:
        """The lowest cases of the champion's run on the dev gate, with what the judge said."""
        run = self.ledger.screened(self.fingerprint)
        if run is None or run.gate != "dev":
            return []
        judged = [row for row in self.ledger.cases(run.id) if row.quality is not None]
        # Of equals always the same, so that a proposer who asks twice sees the same cases.
        judged.sort(key=lambda row: (row.quality or 0.0, row.case))
        worst = []
        for row in judged[:WORST]:
            case = row.as_dict()
            shown = {name: case.get(name) for name in ("task", "answer", "no_answer", "quality")}
            judgment = case.get("judgment") or {}
            worst.append(shown | {"verdict": judgment.get("verdict"), "notes": judgment.get("notes", {})})
        return worst


def _hidden() -> re.Pattern[str]:
    """Tasks and gold questions of the gates that decide; one of them may stand in a judge's note on a dev case too."""
    texts: set[str] = set()
    for case in Ruler.load(RULER).cases:
        if case.gate != "dev":
            texts.add(case.task)
            texts.update(case.golden)
    # The longest first: a task within a question must not leave the rest of it readable.
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))), re.IGNORECASE)


def shown(value: Any, hidden: re.Pattern[str] | None = None) -> Any:
    """Plain data as anybody may see it: without those texts."""
    hidden = hidden or _hidden()
    if isinstance(value, str):
        return hidden.sub("[withheld]", value)
    if isinstance(value, dict):
        return {k: shown(v, hidden) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(v, hidden) for v in value]
    return value


Ask = Callable[[View], "Offer"]  # a proposer


@dataclass(frozen=True)
class Offer:
    """What a proposer answered: plain data or a text to be read as JSON; None when it has nothing left to propose."""

    value: Any
    by: str
    dollars: float = 0.0
    tokens: int = 0
    fault: str = ""  # why there is no value, where something was asked and paid for all the same


def _run(record: Record) -> Plain:
    """A run as a proposer sees it; what it does not have is left out."""
    plain = record.as_dict()
    run = {name: plain[name] for name in SHOWN}
    if plain["scores"]:
        run |= {name: plain["scores"][name] for name in SCORED}
    decision = plain["decision"]
    return run | {name: decision[name] for name in DECIDED if decision.get(name) not in (None, "")}


def menu() -> list[Plain]:
    """Every step of the registry: what it does, what it takes and gives of demos, draft and pool, its arguments."""
    rows = []
    for name, lever in sorted(STEPS.items(), key=lambda item: (item[1].family, item[0])):
        arguments = {k: {"type": a.expected, "default": a.default} for k, a in lever.arguments.items()}
        flow = {"takes": list(lever.takes), "gives": list(lever.gives)}
        rows.append({"step": name, "family": lever.family, "about": lever.about, **flow, "arguments": arguments})
    return rows


def adapters(ledger: Ledger) -> list[str]:
    """Sealed runs that hold an adapter; a proposal names one by its id."""
    return [r.id for r in ledger.records if (ledger.folder / r.id / "adapter").is_dir()]


def as_text(view: View, waiting: list[str]) -> str:
    """The same for a person or an outside agent, as Markdown, after what waits to be run: a section a field, a line a row."""
    sections = {"Before a new proposal": [f"- {line}" for line in waiting]} if waiting else {}
    for name, value in view.plain.items():
        sections[name.replace("_", " ").capitalize()] = _entries(value)
    return markdown(sections)


def _entries(value: Any) -> list[str]:
    """A field as lines of Markdown: a bullet for each row of a list or entry of a mapping."""
    if isinstance(value, dict):
        value = list(filter(None, (_words({name: inner}) for name, inner in value.items())))
    if isinstance(value, list):
        return [f"- {_words(row)}" for row in value] or ["none yet"]
    return [value or "none"]


def _words(row: Any) -> str:
    """A row on one line: what is empty is left out, what is nested stays JSON, as a proposal would spell it."""
    if not isinstance(row, dict):
        return str(row)
    parts = []
    for name, value in row.items():
        if isinstance(value, float):
            value = f"{value:.4f}"
        if value not in (None, "", [], {}):
            parts.append(
                f"{name}: {value}" if isinstance(value, str) else f"{name}: {json.dumps(value, ensure_ascii=False)}"
            )
    return "; ".join(parts)
