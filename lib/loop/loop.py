"""The autoresearch loop: propose, check, run, decide, record, again, until a limit or a person ends it.

Knows the order of things and what must be on disk before what. A restart reads everything from runs, events and
steering files, so calling it again is how it resumes. Does not know how proposals come about nor what a run does.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.agent.guard import Leak
from lib.agent.prompt import one_line
from lib.claude.client import MustWait, NotAnswered
from lib.claude.prices import BudgetSpent
from lib.files import Exit, OneLine, Tampered, sha256, writable
from lib.lab import execute, orders
from lib.lab.base import BadParameters, Runnable
from lib.lab.execute import Executed, RunFailed, Unfinished
from lib.lab.experiment import Experiment
from lib.lab.workers import Row
from lib.lab.workers import pool as workers_of
from lib.loop import next_run, steering, training_requests
from lib.loop.events import PROPOSAL, Event, Events, origin
from lib.loop.guard import Watch
from lib.loop.next_run import Action, Rules
from lib.loop.proposal import Parameters, Proposal, Refused
from lib.loop.steering import Limits
from lib.loop.validate import Base
from lib.loop.view import Ask, Offer, View
from lib.runs.ledger import Ledger
from lib.runs.record import Record

REQUESTS = "requests"  # of a training, in the steering folder


@dataclass(frozen=True)
class Settings:
    """What a call of the loop is asked to do."""

    total: int = 20  # sealed runs in the folder, whoever made them: calling it again goes on to the same number
    base: Base = field(default_factory=Base)
    rules: Rules = field(default_factory=Rules)
    limits: Limits = field(default_factory=Limits)
    wait: float = 60.0  # seconds of the first wait at a usage limit; each further one is twice as long
    most_wait: float = 7200.0  # seconds of waiting in a row after which the loop ends
    accept_measure: bool = False
    queue_only: bool = False  # `notch next`: no proposer is asked, and an empty queue is the end
    workers: int = 1  # notebooks executed at a time here
    scheduler: str = ""  # of the Dask cluster that executes them instead


@dataclass(frozen=True)
class Progress:
    """One thing that happened."""

    what: str  # run, refused, accepted, request, waiting, paused, steering, idle, ended
    message: str  # one line, whatever it quotes
    record: Record | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", one_line(self.message))


class Loop:
    """One loop over a folder of runs. `run()` yields as things happen; `end` says afterwards how it ended."""

    def __init__(self, folder: Path, steer_folder: Path, settings: Settings, ask: Ask | None = None) -> None:
        """`ask` is the proposer; without one only what a person queued is taken in."""
        self.folder, self.steer_folder, self.settings, self.ask = folder, steer_folder, settings, ask
        self.tell: Callable[[str], None] = lambda what: None  # hears what the loop is at, for whoever watches
        self.environment: Mapping[str, str] = {}  # of its kernels on this machine
        self.end: Exit | None = None
        self._began = time.monotonic()
        self._waited, self._waits, self._refusals = 0.0, 0, 0
        self._crashes = 0
        self._unjudged = ""  # why the judge gave the last run not one judgment
        self._idle = ""  # why there is nothing left to do
        self._faults: tuple[str, ...] = ()  # faults of steering files that were said
        self._dry = False  # the proposer gave no more beside what is open
        self._ahead: dict[str, Future[Executed] | Row | None] = {}  # by key: what is executed before its turn

    def run(self) -> Iterator[Progress]:
        """Work until the end. Raises Tampered, BadParameters, NoKey, NoWorker and what the machine itself cannot do."""
        with exclusive_lock(self.folder):
            self._start()
            # A kill may have come between an accepted proposal and its request.
            yield from self._open_requests()
            try:
                with workers_of(self.settings.workers, self.settings.scheduler, self.environment) as self._pool:
                    yield from self._on()
            except Tampered as error:
                with contextlib.suppress(Tampered):  # the events may be what was changed
                    self.events.append("tampered", what=str(error)[:2000])
                raise

    def _on(self) -> Iterator[Progress]:
        """Look at the folder and do one thing, until there is a reason to end; raises Tampered."""
        while True:
            view = yield from self._pause(self._look())
            self.end, why = self._ends(view)
            # The scores too, once: between runs only bytes were compared.
            if self.end is not None:
                self.watch.final()
                self.events.append("stopped", why=why)
                yield Progress("ended", why)
                return
            yield from self._once(view)

    def _start(self) -> None:
        """Events, watch and fingerprint of this call. Raises BadParameters at a fault in steering, Tampered."""
        writable(self.steer_folder, "choose another with --steer")
        self.events = Events(self.folder)
        # At the start a fault ends the call; later it is said and not heeded: perhaps nobody is there to mend it.
        faults = steering.read(self.steer_folder).faults
        if faults:
            raise BadParameters("; ".join(faults))
        self.watch = Watch(self.folder, self.events, self.settings.accept_measure)
        self.fingerprint = Experiment(**self.settings.base.baseline, folder=self.folder).fingerprint
        # The next call compares its measuring code with what is written here.
        self.events.append("started", total=self.settings.total, measure=self.watch.code)

    def _look(self) -> View:
        """Everything anew from disk, changes of steering noted."""
        self.events.catch_up()
        s = self.settings
        view = next_run.view(self.events, self.steer_folder, s.base, s.limits, self.fingerprint, s.rules)
        steering.note_changes(self.events, view.steering)
        return self._look() if self._archive_spent(view) else view

    def _archive_spent(self, view: View) -> bool:
        """A wish that a sealed run carries has done its work; a kill may have come before it was moved away."""
        wish = steering.wish_event(self.events)
        # A wish that was rewritten meanwhile is another one, and stays.
        if wish is None or sha256(view.steering.texts.get(steering.NEXT, "")) != wish["sha256"]:
            return False
        for record in view.ledger.records:
            source = origin(self.folder / record.id)
            if source and source.steered == wish["n"]:
                steering.archive(self.steer_folder, record.id)
                return True
        return False

    # --- the end

    def _pause(self, view: View) -> Generator[Progress, None, View]:
        """Wait while a person paused it, and say what steering cannot be understood; the state as it is then."""
        paused = False
        yield from self._misread(view)
        while view.steering.pause and not self._over(view) and not self._late(view):
            if not paused:
                paused = True
                self._live("paused")
                yield Progress("paused", f"paused by {self.steer_folder / steering.PAUSE}; remove it to go on")
            time.sleep(0.5)
            view = self._look()
            yield from self._misread(view)
        return view

    def _misread(self, view: View) -> Iterator[Progress]:
        """A line for each fault in a steering file that was not there at the last look."""
        new = [fault for fault in view.steering.faults if fault not in self._faults]
        self._faults = view.steering.faults
        for fault in new:
            yield Progress("steering", f"{one_line(fault)}; not heeded until it is corrected")

    def _over(self, view: View) -> str:
        """Why there is nothing to wait for: no work left, a stop, all runs made. "" to go on."""
        if self._idle:
            return self._idle
        # Before the count: with more runs asked for, it would still stand in the way.
        if view.steering.stop:
            return f"stopped by {self.steer_folder / steering.STOP}; remove it to go on"
        count = len(view.ledger.records)
        if count >= self.settings.total and not self.settings.queue_only:
            return f"{count} runs are sealed"
        return ""

    def _ends(self, view: View) -> tuple[Exit | None, str]:
        """How the loop ends here, and why; None to go on."""
        limits, over = view.limits, self._over(view)
        if over:
            return Exit.OK, over
        spent = next_run.dollars(view.ledger, self.events.rows)
        if limits.dollars and spent >= limits.dollars:
            return Exit.OK, f"${spent:.2f} of ${limits.dollars:.2f} are spent"
        if self._late(view):
            return Exit.OK, f"the time is over ({limits.minutes:g} minutes)"
        if limits.crashes and self._crashes >= limits.crashes:
            why = view.ledger.records[-1].error[:200]
            return Exit.RUN_FAILED, f"{self._crashes} runs in a row crashed; the last: {why}"
        if limits.refusals and self._refusals >= limits.refusals:
            return Exit.FAILED, f"{self._refusals} proposals in a row were refused"
        if self._unjudged and self._waits >= next_run.ATTEMPTS:
            return Exit.RUN_FAILED, f"the judge gave not one judgment in {self._waits} tries: {self._unjudged}"
        if self._waited > self.settings.most_wait:
            return Exit.RUN_FAILED, f"a usage limit held for {self._waited:.0f} s; call it again later"
        return None, ""

    def _late(self, view: View) -> bool:
        return bool(view.limits.minutes) and time.monotonic() - self._began >= 60 * view.limits.minutes

    # --- one thing

    def _once(self, view: View) -> Iterator[Progress]:
        """Take in a proposal where there is room for one beside what is due, a queued one first; else make a run."""
        rules, ask = self.settings.rules, None if self.settings.queue_only else self.ask
        due, path = next_run.due(view, rules), next(iter(steering.queued(self.steer_folder)), None)
        if due and not (next_run.room(view, rules) and (path or (ask and not self._dry))):
            # No more than are asked for: what is executed beyond that would never be sealed.
            self._look_ahead(due[: max(0, self.settings.total - len(view.ledger.records))])
            yield from self._run(due[0], view)
            return
        # What a person queued goes before what the proposer would say; the file goes last, so a kill judges it again.
        if path is not None:
            yield from self._judge(_queued(path), view)
            path.unlink(missing_ok=True)
        elif ask is None:
            yield self._nothing("the queue is empty: `notch propose FILE` fills it")
        else:
            yield from self._offered(ask, view, bool(due))

    def _offered(self, ask: Ask, view: View, due: bool) -> Iterator[Progress]:
        """Ask the proposer. Where it gives nothing, what is open goes on; without that the loop waits or is idle."""
        self._live("proposing")
        offer, fault = None, None
        try:
            offer = ask(view)
        except (BudgetSpent, NotAnswered, MustWait) as error:
            fault = error
        if offer and (offer.value is not None or offer.fault):
            self._waited, self._waits, self._dry = 0.0, 0, False
            yield from self._judge(offer, view)
        elif due:  # what is open can run meanwhile
            self._dry = True
        elif offer:
            yield self._nothing(f"the proposer {offer.by!r} has nothing left to propose")
        elif isinstance(fault, BudgetSpent):
            yield self._nothing(str(fault))
        else:
            yield from self._wait(str(fault))

    def _look_ahead(self, due: Sequence[Action]) -> None:
        """Begin to execute what is due, where it costs nothing but time: a budget is looked at before each run."""
        for action in due[: self._pool.ahead]:
            runnable = execute.accept(action.template, action.parameters, self.folder)
            if action.purpose != "confirm" and orders.free(runnable) and runnable.key not in self._ahead:
                self._ahead[runnable.key] = self._pool.start(action.template, action.parameters, runnable)

    def _carried(self, template: str, parameters: Parameters, runnable: Runnable) -> Executed:
        """What was executed ahead, else executed now."""
        begun = self._ahead.pop(runnable.key, None)
        return begun.result() if begun else self._pool.carry_out(template, parameters, runnable)

    def _nothing(self, why: str) -> Progress:
        """Nothing is left to do; the loop ends as it would at its number of runs."""
        self._idle = why
        return Progress("idle", why)

    def _judge(self, offer: Offer, view: View) -> list[Progress]:
        """Accept a proposal or refuse it, and put that on disk; a list, so that all is done before anybody looks."""
        by, _, name = offer.by.partition(":")
        cost = {"dollars": offer.dollars, "tokens": offer.tokens}
        about: Parameters = {"by": by, "asked": name, "fingerprint": self.fingerprint, **cost}
        try:
            if offer.fault:
                raise Refused("malformed", offer.fault)
            proposal = Proposal.read(offer.value)
            parameters = view.validate(proposal)
        except Refused as error:
            self._refusals += 1
            refused(self.events, offer.value, error, **about)
            return [Progress("refused", f"{by}: {error}")]
        self._refusals = 0
        # The proposal carries its wish from here to the run, so that it is archived under that run.
        wish = None
        if view.steering.wish:
            wish = steering.wish_event(self.events)
        self.events.append(
            "accepted", **about, proposal=proposal.as_dict(), parameters=parameters, runs=len(view.ledger.records),
            steered=wish["n"] if wish else None, wish=view.steering.wish, standing=view.steering.standing,
            leave=view.banned_lever,
        )  # fmt: skip
        about_it = f"{by}: {proposal.lever}, predicted {proposal.predicted:+.3f}: {proposal.hypothesis}"
        return [Progress("accepted", about_it), *self._open_requests()]

    def _open_requests(self) -> list[Progress]:
        """Open each training that an accepted proposal asks for, once, also where a kill came before that."""
        unanswered: dict[int, Event] = {}
        for event in self.events.of("accepted", "request"):
            if event["kind"] == "request":
                # Events of before do not say whose request they answer: it was that of the newest proposal.
                unanswered.pop(event.get("accepted", max(unanswered, default=0)), None)
            elif event["proposal"].get("request"):
                unanswered[event["n"]] = event
        return [self._request(event) for event in unanswered.values()]

    def _request(self, event: Event) -> Progress:
        """Open the training that a proposal asks for; a person approves it, the loop goes on meanwhile."""
        proposal, by = Proposal(**event["proposal"]), event.get("by", "loop")
        mark = f"event {event['n']} after {event['prev'][:12]}"
        try:
            opened, why = open_training(self.steer_folder, proposal, by, mark, self.folder), ""
        except Leak:
            opened, why = "", "leak: a pair repeats a task or a gold question of the ruler"
        # OSError: a name too long to be a file's.
        except (OneLine, ValueError, OSError) as error:
            opened, why = "", str(error)[:300]
        self.events.append("request", accepted=event["n"], by=by, opened=opened, why=why, request=proposal.request)
        if opened:
            return Progress("request", f"{by}: training opened {opened}; a person approves it")
        return Progress("request", f"{by}: training not opened: {why}")

    def _run(self, action: Action, view: View) -> Iterator[Progress]:
        """Make one run and seal it. The measure is looked at before, after, and before the ledger line."""
        self._live(f"{action.purpose} {action.slug}")
        self.watch.check()
        parameters = action.parameters
        if view.limits.dollars:
            parameters = next_run.capped(
                parameters, view.limits.dollars - next_run.dollars(view.ledger, self.events.rows)
            )
        try:
            # Looked at again before the ledger line: what ran in the kernel may have touched the measure.
            record = execute.run(
                action.template, parameters, action.slug, self.folder,
                beside={PROPOSAL: self._beside(action)}, check=self.watch.run_check, carry=self._carried,
            )  # fmt: skip
        except RunFailed as error:
            record = Ledger.read(self.folder).get(error.run)
        except Unfinished as error:
            # Nothing is sealed; the next call of the same run judges what is missing.
            self._unjudged = error.reason if error.nothing else ""
            yield from self._wait(str(error))
            return
        if self.watch.tampered:
            raise self.watch.tampered
        yield Progress("run", action.purpose, record)
        if next_run.spoilt(record):
            yield from self._wait(record.error or "the judge did not answer")
            return
        self._waited, self._waits, self._unjudged = 0.0, 0, ""
        self._crashes += 1
        if record.status not in ("crashed", "invalid"):
            self._crashes = 0
        lowered = next_run.cap(parameters) < next_run.cap(action.parameters)
        if lowered and record.error_name == BudgetSpent.__name__:
            # Less is left than one more call may cost: another run would end the same way.
            yield self._nothing(f"what is left of ${view.limits.dollars:.2f} pays no further call of the judge")

    def _beside(self, action: Action) -> bytes:
        """proposal.json: what was proposed, what steered it, and the last event before it."""
        event: Event = action.event or {}
        plain = {
            "purpose": action.purpose, "event": event.get("n"), "by": event.get("by", "loop"),
            "proposal": event.get("proposal"), "steered": event.get("steered"), "wish": event.get("wish", ""),
            "standing": event.get("standing", ""), "leave": event.get("leave", ""), "events": self.events.head,
        }  # fmt: skip
        return (json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    def _wait(self, why: str) -> Iterator[Progress]:
        """Wait at a usage limit, each time twice as long; a stop file ends the wait."""
        pause = min(self.settings.wait * 2**self._waits, max(0.0, self.settings.most_wait - self._waited) + 0.1)
        self._waits += 1
        self.events.append("waiting", seconds=round(pause, 1), why=why[:300])
        self._live("waiting")
        # Said before it begins, not after hours.
        yield Progress("waiting", f"waits {pause:.0f} s: {why[:200]}")
        # In short naps, so that a stop file does not wait for hours.
        ends = time.monotonic() + pause
        while time.monotonic() < ends and not (self.steer_folder / steering.STOP).exists():
            time.sleep(min(0.5, max(0.0, ends - time.monotonic())))
        self._waited += pause

    def _live(self, what: str) -> None:
        # Whoever watches can do without; the loop cannot stop for it.
        with contextlib.suppress(OSError):
            self.tell(what)


def refused(events: Events, value: Any, error: Refused, **about: Any) -> Event:
    """Put a refused proposal into the events, with its reason; a huge one by its beginning and hash."""
    try:
        # As it was understood, where it was; else only its beginning, since anything may have been sent.
        about["proposal"] = Proposal.read(value).as_dict()
    except Refused:
        text = str(value)
        about["text"] = text[:1000].encode("utf-8", "backslashreplace").decode()
        about["sha256"] = sha256(text.encode("utf-8", "backslashreplace"))
    return events.append("refused", rule=error.name, reason=error.reason[:600], **about)


def _queued(path: Path) -> Offer:
    """A proposal that waits in a file."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        return Offer(json.dumps(entry["proposal"]), str(entry["by"])[:60])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Offer(None, "queue", fault=f"{path.name} cannot be read ({error})")


def open_training(steer_folder: Path, proposal: Proposal, by: str, mark: str, runs: Path) -> str:
    """Open a training request in the steering folder, if none has this mark yet; returns its id. Raises what its check raises."""
    folder, wanted = steer_folder / REQUESTS, proposal.request
    for request in training_requests.requests(folder):
        # A kill came between the file and the event about it.
        if request.by.endswith(f", {mark}"):
            return request.id
    by = f"{by}, {mark}"
    expected = float(wanted["expected"])
    return training_requests.open_request(folder, wanted["parameters"], wanted["why"], expected, by, runs=runs).id


@contextlib.contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's loop lock. Raises NoFolder, and BadParameters when another loop holds it; the lock dies with the process."""
    import fcntl

    writable(folder)
    with open(folder / ".loop", "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            busy = f"another loop is at work in {folder}; wait for it or stop it with steer/STOP"
            raise BadParameters(busy) from error
        yield
