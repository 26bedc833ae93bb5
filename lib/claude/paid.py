"""Calls that are paid for once: live or as a message batch, on disk before they count, resumed after a kill.

Knows in which order paid things reach the disk, how a batch that was sent is picked up, and when to buy no more. A
reply that is in the store is never asked for again; a faulty one answers nothing. Does not know what is asked: a
request is handed in, and so is what makes a reply usable.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any

from lib.claude.client import Claude, NotAnswered, NotFound, Reply, WrongModel
from lib.claude.prices import CloudError, Request, Spent, same_model, worst
from lib.claude.store import BATCH, ENDED, REPLY, Store
from lib.files import tell
from lib.log import Row, now

# Looks at a batch in a row. One that was just sent may not be known everywhere yet; a network may be down for a while.
UNKNOWN, OUTAGE = 10, 30


@dataclass(frozen=True)
class Fault:
    """A reply that cannot be used, or none, and why."""

    reason: str
    again: bool = True  # whether asking once more can help


@dataclass(frozen=True)
class Ask:
    """One call that may have been paid for already."""

    key: str  # names it in the store and in a batch
    request: Callable[[], Request]  # made when it is sent
    about: Row = field(default_factory=dict)  # what its line says besides the reply


@dataclass
class Paid:
    """Asks, stores, and asks no second time. `submit` and `collect` overlap calls with other work."""

    store: Store
    model: str
    dollars: float  # a hard cap for this object
    read: Callable[[Row, Reply], Any]  # the value of a reply to an ask about this, or a Fault
    about: Row  # what every line says
    wrong: str  # what WrongModel says: a template that takes `fault` and what the ask is about
    asks: int = 1  # how often a call is made whose replies are faulty
    batch: bool = False  # half the price, up to a day
    poll: float = 60.0  # seconds between two looks at a batch
    concurrency: int = 10

    def __post_init__(self) -> None:
        self.cost = Spent()
        self._client: Claude | None = None
        self._flying: dict[str, asyncio.Task[Row | Fault]] = {}
        self._arrived: list[Row] = []

    @property
    def client(self) -> Claude:
        """The client; it spends from the one cap, also when it is opened again."""
        # What an earlier client spent is booked first: a cap that reopening resets would be none.
        if self._client is None or not self._client.close.alive:
            spent = self._client.budget.spent if self._client else 0.0
            self._client = Claude(self.model, self.dollars, self.concurrency)
            self._client.budget.book(spent)
            self._disk = asyncio.Lock()  # of the new client's loop
        return self._client

    def submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Start a coroutine that awaits `answer`."""
        return self.client.submit(work)

    def collect(self, futures: Sequence[Future[Any]]) -> list[Any]:
        """Wait for results. Raises BudgetSpent, NoKey, WrongModel, CloudError or Tampered; what was paid is stored."""
        try:
            wait(futures)
        except KeyboardInterrupt:
            self.client.stop = CloudError("stopped")
            # A batch may run for a day; it is picked up by its id, so nobody need wait for it now.
            for future in futures if self.batch else ():
                future.cancel()
            # What is in flight is paid for, so it may still arrive.
            wait(futures, timeout=10)
            raise
        finally:
            stop, self.client.stop = self.client.stop, None
        if stop:
            raise stop
        return [future.result() for future in futures]

    def close(self) -> None:
        """Let calls in flight end and close the connections; this object can be used again."""
        if self._client:
            self._client.close()

    async def answer(self, asks: Sequence[Ask]) -> list[Row | Fault]:
        """The stored row of every ask, or its fault."""
        if self.batch:
            return await self._answer_batch(asks)
        # All of them run to their end, so that no paid reply is dropped because another call failed.
        outcomes = await asyncio.gather(*map(self._once, asks), return_exceptions=True)
        for failed in outcomes:
            if isinstance(failed, BaseException):
                raise failed
        return outcomes  # type: ignore[return-value]

    # --- live

    async def _once(self, ask: Ask) -> Row | Fault:
        """The same ask twice at a time is one call."""
        # Two cases may have the same answer: while the first call flies, the store does not know it yet.
        if ask.key not in self._flying:
            task = self._flying[ask.key] = asyncio.ensure_future(self._answer(ask))
            task.add_done_callback(lambda _: self._flying.pop(ask.key, None))
        return await self._flying[ask.key]

    async def _answer(self, ask: Ask) -> Row | Fault:
        """A stored row, or the first usable reply of up to `asks` calls; the last Fault where there is none."""
        if row := self.store.reply(ask.key):
            self.cost += Spent(stored=1)
            return row
        # Each try is stored under the same key with its number: a faulty one was paid for too.
        outcome: Row | Fault = Fault("never asked")
        for attempt in range(self.asks):
            try:
                reply = await self.client.ask(ask.request())
            except NotAnswered as error:
                return Fault(f"no reply ({error})")
            except Exception as error:
                self._halt(error)
                raise
            outcome = await self._keep(ask.key, ask.about, reply, attempt)
            if not isinstance(outcome, Fault) or not outcome.again:
                break
        return outcome

    # --- as message batches

    async def _answer_batch(self, asks: Sequence[Ask]) -> list[Row | Fault]:
        """A row or Fault for each, in order: one batch of all that is missing, further ones of what was faulty."""
        wanted = {ask.key: ask for ask in asks}
        self.cost += Spent(stored=sum(self.store.reply(key) is not None for key in wanted))
        # Read first what was sent before a kill: its calls are paid for and must not be sent again.
        for sent in self.store.pending():
            # Only where one of its calls is wanted now: the others are read when somebody asks for theirs.
            if any(key in wanted and not self.store.reply(key) for key in _abouts(sent)):
                before = self.cost.dollars
                await self._finish(sent)
                self.client.budget.book(self.cost.dollars - before)
        faults: dict[str, Fault] = {}
        # What was faulty goes out again in a batch of its own: a batch cannot be added to.
        for attempt in range(self.asks):
            missing = {k: a for k, a in wanted.items() if not self.store.reply(k) and faults.get(k, Fault("")).again}
            if missing:
                faults |= await self._send(missing, attempt)
        return [self.store.reply(a.key) or faults.get(a.key, Fault("no reply in its batch")) for a in asks]

    async def _send(self, asks: Mapping[str, Ask], attempt: int) -> dict[str, Fault]:
        """Send one batch and store its replies; returns the faults by key."""
        requests = {key: ask.request() for key, ask in asks.items()}
        # What each call is about goes to disk too: whoever reads the batch after a kill has not asked.
        calls = [{"key": key, **ask.about} if ask.about else key for key, ask in asks.items()]
        most = sum(worst(request, batch=True) for request in requests.values())
        before = self.cost.dollars
        batch = await self.client.start_batch(requests, most)
        paid = most  # until it is read
        try:
            # The id is on disk before anything else happens: from here on a kill loses nothing.
            sent = {"type": BATCH, "batch": batch, "model": self.model, "calls": calls, "at": now(), "worst": most}
            sent |= self._attempt(attempt)
            await self._write(sent)
            faults = await self._finish(sent)
            paid = self.cost.dollars - before
        finally:
            await self.client.budget.settle(most, paid)
        return faults

    async def _finish(self, sent: Row) -> dict[str, Fault]:
        """Wait for a sent batch, store its replies and close it; returns the faults by key.

        One that cannot be read is closed too, at the most that it can have cost, and its calls are asked again.
        """
        batch = sent["batch"]
        results = await self._results(batch)
        if results is None:
            # At the most that it can have cost: a sum too high stops early, one too low would overspend the cap.
            lost = sent.get("worst", 0.0)
            self.cost += Spent(dollars=lost)
            await self._write({"type": ENDED, "batch": batch, "dollars": lost})
            return {}
        abouts, faults = _abouts(sent), {}
        # A kill can come between two results of a batch: the rest is stored now, and none of them twice.
        stored = {row["key"] for row in self.store if row["batch"] == batch}
        for key, reply in results:
            if isinstance(reply, str):
                faults[key] = Fault(reply, again=False)
            elif key in abouts and key not in stored:
                outcome = await self._keep(key, abouts[key], reply, sent.get("attempt", 0), batch)
                if isinstance(outcome, Fault):
                    faults[key] = outcome
        await self._write({"type": ENDED, "batch": batch})
        return faults

    async def _results(self, batch: str) -> list[tuple[str, Reply | str]] | None:
        """The results of a batch once it has ended; None where they can never be read, which is said.

        Raises NotAnswered where the API is out of reach for long; the batch stays pending.
        """
        pause, unknown, outage = min(1.0, self.poll), 0, 0
        while True:
            try:
                results = await self.client.batch_results(batch)
                if results is not None:
                    return results
                unknown = outage = 0
            except NotFound as error:
                unknown += 1
                if error.gone or unknown > UNKNOWN:
                    say(f"{error}: it is given up, counts at its worst, and what it asked is asked again")
                    return None
            except NotAnswered as error:
                outage += 1
                why = f"batch {batch} cannot be looked at ({error})"
                if not error.passing or outage > OUTAGE:
                    raise NotAnswered(f"{why}; it is not lost: a later call reads it") from None
                say(f"{why}: trying again, {outage} of {OUTAGE}")
            # From a second up to `poll`: a small batch is done at once, a large one takes hours.
            await asyncio.sleep(pause)
            pause = min(self.poll, pause * 2)

    # --- to the disk

    async def _keep(self, key: str, about: Row, reply: Reply, attempt: int, batch: str = "") -> Row | Fault:
        """Put a reply on disk, then say what it is worth. Raises WrongModel."""
        value, error = self.read(about, reply), None
        if not same_model(self.model, reply.model):
            value = Fault(f"answered by {reply.model}, asked was {self.model}")
            error = WrongModel(self.wrong.format(fault=value.reason, **about))
            # Before the disk is waited for: the next call would start meanwhile.
            self._halt(error)
        worth = {"fault": value.reason} if isinstance(value, Fault) else {"value": value}
        row = {"type": REPLY, "key": key, "batch": batch, **self.about, **about, **self._attempt(attempt)}
        row |= {**vars(reply), "at": now(), **worth}
        # Before the line is on disk: it is paid for, whatever becomes of the line.
        self.cost += reply.spent
        await self._write(row)
        if error:
            raise error
        return value if isinstance(value, Fault) else row

    async def _write(self, row: Row) -> None:
        """Wait until a row is on disk. Whoever gets the disk writes all rows that came while it was busy."""
        self._arrived.append(row)
        async with self._disk:
            rows, self._arrived = self._arrived, []
            try:
                if rows:
                    await asyncio.to_thread(self.store.append, *rows)
            except Exception as error:
                # What cannot be kept must not be bought; `collect` raises it for every row.
                self._halt(error)
                raise

    def _halt(self, error: Exception) -> None:
        """Stop what is not in flight yet: a run that cannot end well must not go on paying."""
        self.client.stop = self.client.stop or error

    def _attempt(self, attempt: int) -> Row:
        """Where a call is made once, no line counts attempts."""
        return {"attempt": attempt} if self.asks > 1 else {}


def say(text: str) -> None:
    """A line for whoever waits, also where a notebook has the error stream."""
    print(f"notch: {text}", file=sys.stderr, flush=True)
    tell(text, "Claude")


def _abouts(sent: Row) -> dict[str, Row]:
    """What is known of each call of a sent batch, by key; a call of which nothing is known is its key alone."""
    abouts = {}
    for call in sent["calls"]:
        about = {"key": call} if isinstance(call, str) else dict(call)
        abouts[about.pop("key")] = about
    return abouts
