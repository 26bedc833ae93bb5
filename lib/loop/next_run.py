"""What a loop does next: a pure function of the sealed runs and the events. There is no other state to lose.

Knows the order: a baseline, looks at the sealed gate for a new champion, the open proposal (screen, decide, repeat),
then a new one. Does not run anything.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib.claude import store
from lib.lab.study import look
from lib.loop import steering
from lib.loop.events import PROPOSAL, Event, Events
from lib.loop.lessons import outcomes
from lib.loop.proposal import bound
from lib.loop.steering import Limits
from lib.loop.validate import Base
from lib.loop.view import View
from lib.runs.ledger import Ledger
from lib.runs.record import ATTEMPT

LIMITED = re.compile(r"\b(429|529)\b|RateLimit|Overloaded|rate.?limit", re.I)  # somebody's usage limit, not a defect
ATTEMPTS = 3  # sealed tries of one action that a usage limit or a missing judgment left without a result
CAP = 5.0  # dollars of a judge where `judging` names none
Record = dict[str, Any]


@dataclass(frozen=True)
class Rules:
    """How a loop works."""

    screen: bool = True  # the dev gate first
    confirm: bool = True  # look at the sealed gate for a new champion
    patience: int = 5  # attempts without a keep, after which the next proposal must leave the champion's class
    repeats: int = 2  # further looks at an indecisive run, where a repeat can differ


@dataclass(frozen=True)
class Action:
    """One run to make."""

    purpose: str  # baseline, reference, screen, decide, repeat, confirm
    parameters: dict[str, Any]
    slug: str
    event: Event | None = None  # the accepted proposal that it tests
    template: str = "10_experiment"


@lru_cache(maxsize=4096)
def made(run: Path) -> dict[str, Any]:
    """What a sealed run's proposal.json says; empty for a run that the loop did not make."""
    try:
        return json.loads((run / PROPOSAL).read_bytes())
    except FileNotFoundError:
        return {}


def view(events: Events, folder: Path, base: Base, limits: Limits, fingerprint: str, rules: Rules) -> View:
    """The state of a loop, anew from disk; `folder` holds the steering files. Raises Tampered."""
    wishes, ledger = steering.read(folder), Ledger.read(events.path.parent)
    limits = replace(limits, **wishes.limits)
    return View(ledger, events, wishes, base, limits, fingerprint, leave(ledger, fingerprint, rules))


def next_action(view: View, rules: Rules) -> Action | None:
    """The run that is due, None when a new proposal is."""
    if view.champion is None:
        return Action("baseline", view.base.baseline, "baseline")
    return _look(view, rules) or _test(view, view.champion, rules)


def waiting(view: View, rules: Rules, queue: list[Path]) -> list[str]:
    """What runs before a new proposal does, a line a thing: the run that is due, then the files of the queue."""
    action = next_action(view, rules)
    lines = [f"due: {action.purpose} {action.slug}: {_first(action.parameters)}"] if action else []
    for path in queue:
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            about = f"{entry['by']}: {entry['proposal']['lever']}: {_first(entry['proposal'])}"
        except (OSError, ValueError, KeyError, TypeError):
            about = "cannot be read, and will be refused"
        lines.append(f"queued: {path.name}: {' '.join(about.split())}")
    return lines


def _first(parameters: dict[str, Any]) -> str:
    return " ".join(str(parameters.get("hypothesis", "")).split())[:160]


def _look(view: View, rules: Rules) -> Action | None:
    """A look at the sealed gate that a new champion still needs; the first champion's comes before, to compare with."""
    ledger = view.ledger
    kept = [r for r in ledger.climb(view.fingerprint) if r["status"] == "kept"]
    if not rules.confirm or len(kept) < 2:
        return None
    for target in (kept[0], kept[-1]):
        if _due([r for r in ledger.looks(view.fingerprint) if ledger.of(r) == target["id"]]):
            return Action("confirm", look(target), f"confirm-{target['slug']}"[:40], template="12_confirm")
    return None


def open_proposal(view: View) -> Event | None:
    """The newest accepted proposal of this ruler, judge and model, whether or not it is decided."""
    event = view.events.last("accepted")
    return event if event and event["fingerprint"] == view.fingerprint else None


def runs_of(view: View, event: Event, purpose: str) -> list[Record]:
    """The sealed runs that tested a proposal for a purpose, oldest first."""
    later = ((r, made(view.ledger.folder / r["id"])) for r in view.ledger.records[event["runs"] :])
    return [r for r, m in later if m and m["event"] == event["n"] and m["purpose"] == purpose]


def _test(view: View, champion: Record, rules: Rules) -> Action | None:
    event = open_proposal(view)
    if event is None:
        return None
    parameters = event["parameters"]
    full = runs_of(view, event, "decide")
    if rules.screen and not full:
        screens = runs_of(view, event, "screen")
        if _due(screens):
            screen = Action("screen", parameters | {"gate": "dev"}, _slug(parameters, "screen"), event)
            return _reference(view, champion) or screen
        if screens[-1]["status"] in ("discarded", "crashed", "invalid"):
            return None
    if _due(full):
        return Action("decide", parameters, _slug(parameters), event)
    again = runs_of(view, event, "repeat")
    if (again or full)[-1]["status"] != "indecisive" or len(again) >= rules.repeats or not repeatable(full[-1]):
        return None
    return Action("repeat", _repeat(parameters, full[-1], len(again) + 1), _slug(parameters, "repeat"), event)


def _due(runs: list[Record]) -> bool:
    """Whether something is still to be run: never tried, or only tries that a usage limit spoilt."""
    return not runs or (spoilt(runs[-1]) and len(runs) < ATTEMPTS)


def spoilt(record: Record) -> bool:
    """A run without a result that says nothing about its lever."""
    return record["status"] == "incomplete" or (record["status"] == "crashed" and limited(record))


def limited(record: Record) -> bool:
    """Whether a usage limit stopped a run. Reads its error alone."""
    return bool(LIMITED.search(record["error"]))


def _reference(view: View, champion: Record) -> Action | None:
    """The champion's own run on the dev gate, if there is none yet."""
    there = [r for r in view.ledger.climb(view.fingerprint, "dev") if all(r[k] == champion[k] for k in ATTEMPT)]
    if any(r["scores"] and not r["scores"]["unscored"] for r in there) or len(there) >= ATTEMPTS:
        return None
    same = {k: champion[k] for k in (*ATTEMPT, "lever", "judge", "batch", "judging", "min_effect")}
    why = f"The champion {champion['id']} on the dev gate, for screens to be compared with."
    return Action("reference", same | {"gate": "dev", "hypothesis": why}, _slug(same, "reference"))


def repeatable(record: Record) -> bool:
    """Whether a repeat can differ: a judge that is asked afresh, or sampled decoding. Else it brings the same digits."""
    temps = [record["decoding"].get("temp", 0), *(bound(row).get("temp", 0) for row in record["pipeline"])]
    return record["judge"] != "offline" or any(isinstance(t, (int, float)) and t > 0 for t in temps)


def _repeat(parameters: dict[str, Any], first: Record, number: int) -> dict[str, Any]:
    parameters = parameters | {"of": first["id"], "seed": parameters["seed"] + 100 * number}
    if parameters["judge"] != "offline":
        parameters["judging"] = parameters["judging"] | {"replicate": number}
    return parameters


def _slug(parameters: dict[str, Any], prefix: str = "") -> str:
    steps = "-".join(str(row["step"]) for row in parameters["pipeline"])
    return "-".join(filter(None, (prefix, parameters["lever"], steps)))[:40]


def stale(ledger: Ledger, fingerprint: str) -> int:
    """Attempts since the last keep."""
    champion = ledger.champion(fingerprint)
    at = champion["id"] if champion else ""
    return int((outcomes(ledger, fingerprint).id > at).sum())


def leave(ledger: Ledger, fingerprint: str, rules: Rules) -> str:
    """The lever class that the next proposal must leave, "" for none."""
    champion, count = ledger.champion(fingerprint), stale(ledger, fingerprint)
    return champion["lever"] if champion and count and rules.patience and count % rules.patience == 0 else ""


def dollars(ledger: Ledger, events: list[Event]) -> float:
    """What judge, cloud models and proposer have cost in a folder of runs. Raises Tampered.

    The record of a run that crashed holds no cost, but its judgments were stored as they were paid for.
    """
    judged = sum(r["cost"].get("judge_dollars", 0.0) for r in ledger.records)
    runs = sum(r["cost"].get("dollars", 0.0) for r in ledger.records)
    stored = store.paid(ledger.folder / store.NAME)
    return max(judged, stored) + runs + sum(e.get("dollars", 0.0) for e in events)


def cap(parameters: dict[str, Any]) -> float:
    """Dollars that the judge of a run may spend."""
    return (parameters.get("judging") or {}).get("dollars", CAP)


def capped(parameters: dict[str, Any], left: float | None) -> dict[str, Any]:
    """Parameters whose judge may spend no more than what is left of the budget."""
    if left is None or parameters.get("judge") != "claude":
        return parameters
    # Rounded down: a cap above what is left is no cap. 0 is none either, so a millionth of a dollar stays.
    dollars = min(cap(parameters), max(1e-6, math.floor(left * 1e6) / 1e6))
    return parameters | {"judging": (parameters.get("judging") or {}) | {"dollars": dollars}}
