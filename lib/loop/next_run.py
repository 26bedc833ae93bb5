"""What a loop does next: a pure function of the sealed runs and the events. There is no other state to lose.

Knows the order: a baseline, looks at the sealed gate for a new champion, the open proposal (screen, decide, repeat),
then new ones. Does not run anything.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

from lib.agent.prompt import one_line
from lib.claude import store
from lib.claude.client import NotAnswered
from lib.files import attributes
from lib.lab.study import look
from lib.loop import steering
from lib.loop.events import Event, Events, origin
from lib.loop.lessons import outcomes
from lib.loop.proposal import Parameters, bound
from lib.loop.steering import Limits
from lib.loop.validate import Base
from lib.loop.view import View
from lib.runs.ledger import Ledger, is_kept
from lib.runs.record import Record
from lib.show import folder_name

ATTEMPTS = 3  # sealed tries of one action that a usage limit or a missing judgment left without a result
STAGES = ("screen", "decide", "repeat")  # of a proposal; those made at a time pass each together
CAP = 5.0  # dollars of a judge where `judging` names none


@dataclass(frozen=True)
class Rules:
    """How a loop works."""

    screen: bool = True  # the dev gate first
    confirm: bool = True  # look at the sealed gate for a new champion
    patience: int = 5  # attempts without a keep, after which the next proposal must leave the champion's class
    repeats: int = 2  # further looks at an indecisive run, where a repeat can differ
    at_once: int = 1  # proposals made from one state of the ledger, so that their runs can be executed at a time


@dataclass(frozen=True)
class Action:
    """One run to make."""

    purpose: str  # baseline, reference, screen, decide, repeat, confirm
    parameters: Parameters
    slug: str
    event: Event | None = None  # the accepted proposal that it tests
    template: str = "10_experiment"


def view(events: Events, folder: Path, base: Base, limits: Limits, fingerprint: str, rules: Rules) -> View:
    """The state of a loop, anew from disk; `folder` holds the steering files. Raises Tampered."""
    wishes, ledger = steering.read(folder), Ledger.read(events.path.parent)
    limits = replace(limits, **wishes.limits)
    return View(ledger, events, wishes, base, limits, fingerprint, banned_lever(ledger, fingerprint, rules))


def next_action(view: View, rules: Rules) -> Action | None:
    """The run that is due, None when a new proposal is."""
    return next(iter(due(view, rules)), None)


def due(view: View, rules: Rules) -> list[Action]:
    """The runs that are due, in their order; none of them has to know what comes of another."""
    if view.champion is None:
        return [Action("baseline", view.base.baseline, "baseline")]
    look = _look(view, rules)
    tests = [test for event in view.open if (test := _test(view, event, rules))]
    tests.sort(key=lambda test: STAGES.index(test.purpose))
    if tests and tests[0].purpose == "screen" and (reference := _reference(view, view.champion)):
        tests.insert(0, reference)
    return [look, *tests] if look else tests


def room(view: View, rules: Rules) -> bool:
    """Whether a further proposal may join those that are open: none of them has run yet, and none was refused since."""
    newest = view.events.last("accepted", "refused")
    return 0 < len(view.untested) < rules.at_once and newest is not None and newest["kind"] == "accepted"


def waiting(view: View, rules: Rules, queue: list[Path]) -> list[str]:
    """What runs before a new proposal does, a line a thing: the run that is due, then the files of the queue."""
    action = next_action(view, rules)
    due = [f"due: {action.purpose} {action.slug}: {_first(action.parameters)}"] if action else []
    return due + queued(queue)


def queued(queue: list[Path]) -> list[str]:
    """A line a file: who proposes what. One that is no proposal stays in its place, for whoever wrote it to see."""
    lines = []
    for path in queue:
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            about = f"{entry['by']}: {entry['proposal']['lever']}: {_first(entry['proposal'])}"
        except (OSError, ValueError, KeyError, TypeError):
            about = "cannot be read, and will be refused"
        lines.append(f"queued: {path.name}: {one_line(about)}")
    return lines


def _first(parameters: Parameters) -> str:
    return one_line(str(parameters.get("hypothesis", "")))[:160]


def _look(view: View, rules: Rules) -> Action | None:
    """A look at the sealed gate that a new champion still needs; the first champion's comes before, to compare with."""
    ledger = view.ledger
    kept = list(filter(is_kept, ledger.climb(view.fingerprint)))
    if not rules.confirm or len(kept) < 2:
        return None
    looks = ledger.looks(view.fingerprint)
    # The first champion's look is what every later one is compared with on the sealed gate.
    for target in (kept[0], kept[-1]):
        if _due([r for r in looks if ledger.of(r) == target.id]):
            return Action("confirm", look(target), folder_name(f"confirm-{target.slug}"), template="12_confirm")
    return None


def runs_of(view: View, event: Event, purpose: str) -> list[Record]:
    """The sealed runs that tested a proposal for a purpose, oldest first."""
    runs = []
    # Nothing that was sealed before it was accepted can have tested it.
    for record in view.ledger.records[event["runs"] :]:
        source = origin(view.ledger.folder / record.id)
        if source and (source.event, source.purpose) == (event["n"], purpose):
            runs.append(record)
    return runs


def _test(view: View, event: Event, rules: Rules) -> Action | None:
    """The run that a proposal waits for, None once it is decided."""
    parameters = event["parameters"]
    full = runs_of(view, event, "decide")
    if rules.screen and not full:
        screens = runs_of(view, event, "screen")
        # A screen costs a third of a run. It can reject, never keep: best of many on ten cases is mostly luck.
        if _due(screens):
            return Action("screen", parameters | {"gate": "dev"}, _slug(parameters, "screen"), event)
        if screens[-1].status in ("discarded", "crashed", "invalid"):
            return None
    if _due(full):
        return Action("decide", parameters, _slug(parameters), event)
    # Looks at one lever are pooled by the keep rule, whose p grows stricter with each.
    again = runs_of(view, event, "repeat")
    if (again or full)[-1].status != "indecisive" or len(again) >= rules.repeats or not repeatable(full[-1]):
        return None
    return Action("repeat", _repeat(parameters, full[-1].id, len(again) + 1), _slug(parameters, "repeat"), event)


def _due(runs: list[Record]) -> bool:
    """Whether something is still to be run: never tried, or only tries that a usage limit spoilt."""
    return not runs or (spoilt(runs[-1]) and len(runs) < ATTEMPTS)


def spoilt(record: Record) -> bool:
    """A run without a result that says nothing about its lever."""
    return record.status == "incomplete" or (record.status == "crashed" and limited(record))


def limited(record: Record) -> bool:
    """Whether a run stopped because the API would not answer now: somebody's usage limit or outage, not a defect."""
    return record.error_name == NotAnswered.__name__


def _reference(view: View, champion: Record) -> Action | None:
    """The champion's own run on the dev gate, if there is none yet."""
    # Once a champion, not once a proposal: the dev gate is compared with the same answers each time.
    there = [r for r in view.ledger.climb(view.fingerprint, "dev") if r.attempt == champion.attempt]
    if any(r.whole for r in there) or len(there) >= ATTEMPTS:
        return None
    same = champion.attempt | attributes(champion, ("lever", "judge", "batch", "judging", "min_effect"))
    why = f"The champion {champion.id} on the dev gate, for screens to be compared with."
    return Action("reference", same | {"gate": "dev", "hypothesis": why}, _slug(same, "reference"))


def repeatable(record: Record) -> bool:
    """Whether a repeat can differ: a judge that is asked afresh, or sampled decoding. Else it brings the same digits."""
    if record.judge != "offline":
        return True
    rows = [record.decoding, *map(bound, record.pipeline)]
    return any(row.get("temp") or any(row.get("temps", ())) for row in rows)


def _repeat(parameters: Parameters, first: str, number: int) -> Parameters:
    """Parameters of the `number`th repeat of the run `first`, counted from 1."""
    # Fresh draws and fresh judgments: a repeat with the old ones would bring the same digits.
    parameters = parameters | {"of": first, "seed": parameters["seed"] + 100 * number}
    if parameters["judge"] != "offline":
        parameters["judging"] = parameters["judging"] | {"replicate": number}
    return parameters


def _slug(parameters: Parameters, prefix: str = "") -> str:
    steps = "-".join(str(row["step"]) for row in parameters["pipeline"])
    return folder_name(f"{prefix} {parameters['lever']} {steps}")


def runs_since_keep(ledger: Ledger, fingerprint: str) -> int:
    """Attempts since the last keep."""
    champion = ledger.champion(fingerprint)
    attempts = outcomes(ledger, fingerprint).id
    if champion:
        attempts = attempts[attempts > champion.id]
    return len(attempts)


def banned_lever(ledger: Ledger, fingerprint: str, rules: Rules) -> str:
    """The lever class that the next proposal must leave, "" for none."""
    # Once in so many attempts, not from then on: what is proposed then must leave, the next may come back. Attempts made
    # at a time can step over that number.
    champion, count = ledger.champion(fingerprint), runs_since_keep(ledger, fingerprint)
    if not champion or not rules.patience:
        return ""
    if count // rules.patience == max(0, count - rules.at_once) // rules.patience:
        return ""
    return champion.lever


def dollars(ledger: Ledger, events: list[Event]) -> float:
    """What judge, cloud models and proposer have cost in a folder of runs. Raises Tampered.

    The record of a run that crashed holds no cost, but what it paid for was stored at once, judgments and answers.
    """
    file = ledger.folder / store.NAME
    # The larger and not the sum: of a run that came to its end both hold the same dollars.
    judged = max(sum(r.cost.judge_dollars or 0.0 for r in ledger.records), store.paid(file))
    answered = max(sum(r.cost.dollars for r in ledger.records), store.paid(file, candidates=True))
    return judged + answered + sum(e.get("dollars", 0.0) for e in events)


def cap(parameters: Parameters) -> float:
    """Dollars that the judge of a run may spend."""
    return (parameters.get("judging") or {}).get("dollars", CAP)


def capped(parameters: Parameters, remaining: float | None) -> Parameters:
    """Parameters whose judge may spend no more than what is left of the budget."""
    if remaining is None or parameters.get("judge") != "claude":
        return parameters
    # Rounded down: a cap above what is left is no cap. 0 is none either, so a millionth of a dollar stays.
    dollars = min(cap(parameters), max(1e-6, math.floor(remaining * 1e6) / 1e6))
    return parameters | {"judging": (parameters.get("judging") or {}) | {"dollars": dollars}}
