"""The judge by Claude: asks, stores, asks once more, and says Unscored where nothing came of it.

Knows how a case becomes calls, in which order paid things reach the disk, and how batches resume. Does not know HTTP,
prices or prompts, nor which model or lever answered. A reply that is in the store is never asked for again; a fault
is (it answers nothing, and a run with something unscored cannot be kept).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lib.files import canonical, sha256
from lib.measure import judge_calls as calls
from lib.measure import store as stored
from lib.measure.answer import Answer
from lib.measure.claude import API_VERSION, Claude, NotAnswered, Reply, WrongModel, check_key, schema
from lib.measure.judge import Judgment, Unscored
from lib.measure.judge_calls import Call, Fault
from lib.measure.ruler import Case, Ruler
from lib.measure.spend import CloudError, Request, Spent, listed, worst
from lib.measure.store import Store

ASKS = 2  # the first ask and one more, after a reply that cannot be used
Outcome = Judgment | Unscored


@dataclass(frozen=True)
class Ask:
    """One call about one answer."""

    call: Call
    case: Case
    answer: Answer
    key: str


class ClaudeJudge:
    """A Judge. `submit` and `collect` overlap judging with other work; `judge_all` is both at once.

    `protocol` is "balanced" (a rubric call, two pairwise calls with the order swapped) or "seed" (one call, gold
    first). Model, effort, thinking and max_tokens come from the ruler unless given; an effort or thinking of "" is
    not sent. `dollars` is a hard cap for this object. `replicate` asks the same things afresh. `batch` is half the
    price and takes up to a day; a batch that was sent is picked up again after a kill.
    """

    def __init__(
        self,
        ruler: Ruler | None = None,
        protocol: str = "balanced",
        *,
        model: str | None = None,
        effort: str | None = None,
        thinking: str | None = None,
        max_tokens: int | None = None,
        store: Store | Path | str | None = None,
        dollars: float = 5.0,
        concurrency: int = 10,
        replicate: int = 0,
        batch: bool = False,
        timeout: float = 120.0,
        poll: float = 60.0,
    ) -> None:
        self.ruler = ruler or Ruler.load()
        said = self.ruler.protocol.judge
        if protocol not in calls.PROTOCOLS:
            raise ValueError(f"protocol {protocol!r}: expected one of {', '.join(calls.PROTOCOLS)}")
        if not dollars > 0 or concurrency < 1 or replicate < 0:
            raise ValueError("dollars is above 0, concurrency from 1, replicate from 0")
        self.protocol, self.calls = protocol, calls.PROTOCOLS[protocol]
        self.model = str(said.get("model", "") if model is None else model)
        takes = listed(self.model)
        # What a model does not take is not sent, and what is not sent does not stand in the identity.
        self.effort = str((said.get("effort") if effort is None else effort) or "") if takes.effort else ""
        self.thinking = str((said.get("thinking") if thinking is None else thinking) or "") if takes.thinking else ""
        self.max_tokens = int(said.get("max_tokens", 2000) if max_tokens is None else max_tokens)
        self.store = store if isinstance(store, Store) else Store(store or stored.default_path())
        self.dollars, self.concurrency, self.replicate = float(dollars), int(concurrency), int(replicate)
        self.batch, self.timeout, self.poll = batch, timeout, poll
        self.dimensions = calls.names(self.ruler)
        self.identity: dict[str, Any] = {
            "kind": "claude", "protocol": protocol, "model": self.model, "effort": self.effort,
            "thinking": self.thinking, "max_tokens": self.max_tokens, "api": API_VERSION,
            "wording": sha256(canonical(calls.wording(self.ruler, self.calls))),
        }  # fmt: skip
        self.fingerprint = self.ruler.fingerprint(self.identity)
        self.cost = Spent()
        self._own = {c.id: c for c in self.ruler.cases}
        self._flying: dict[str, asyncio.Task[Any]] = {}
        self._queue: list[tuple[Case, Answer, Future[Outcome]]] = []
        self._client: Claude | None = None
        self._made: dict[Call, tuple[str, dict[str, Any]]] = {}
        self._arrived: list[tuple[stored.Row, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    # --- the interface

    def judge(self, case: Case, answer: Answer) -> Outcome:
        """One judgment. Raises what `collect` raises, and ValueError on a case without gold."""
        return self.judge_all([(case, answer)])[0]

    def judge_all(self, pairs: Iterable[tuple[Case, Answer]]) -> list[Outcome]:
        """Judgments in the order of the pairs."""
        return self.collect([self.submit(case, answer) for case, answer in pairs])

    def submit(self, case: Case, answer: Answer) -> Future[Outcome]:
        """Begin to judge and return at once; in batch mode nothing is sent before `collect`."""
        calls.gold_of(case)
        if self.batch:
            future: Future[Outcome] = Future()
            self._queue.append((case, answer, future))
            return future
        return self.claude.submit(self._judge(case, answer))

    def collect(self, futures: Sequence[Future[Outcome]]) -> list[Outcome]:
        """Wait for judgments. Raises BudgetSpent, NoKey, WrongModel, CloudError or Tampered; what was paid is stored."""
        if self._queue:
            queue, self._queue = self._queue, []
            futures = [*futures, self.claude.submit(self._judge_batch(queue))]
        try:
            wait(futures)
        except KeyboardInterrupt:
            self.claude.stop = CloudError("stopped")
            for future in futures if self.batch else ():
                future.cancel()
            wait(futures, timeout=10)  # what is in flight is paid for, so it may still arrive
            raise
        finally:
            stop, self.claude.stop = self.claude.stop, None
        if stop:
            raise stop
        found = [f.result() for f in futures]
        return [o for o in found if o is not None]

    def ask_all(self, call: Call, pairs: Iterable[tuple[Case, Answer]]) -> list[stored.Row | Fault]:
        """One more call about each answer, stored and paid from the cap as any other. Raises what `collect` raises."""
        asks = [Ask(call, case, answer, self.key(call, case, answer)) for case, answer in pairs]
        [found] = self.collect([self.claude.submit(self._answer_all(asks))])
        return found  # type: ignore[return-value]

    def check(self) -> None:
        """Refuse to start without a key, unless the store can answer for this judge. Raises NoKey."""
        if not self.store.has(self.fingerprint, self.replicate):
            check_key()

    def close(self) -> None:
        """Let calls in flight end and close the connections; the judge can be used again."""
        if self._client:
            self._client.close()

    @property
    def claude(self) -> Claude:
        """The client; it spends from this judge's cap, also when it is opened again."""
        if self._client is None or not self._client.close.alive:
            spent = self._client.budget.spent if self._client else 0.0
            self._client = Claude(self.model, self.dollars, self.concurrency, self.timeout)
            self._client.budget.spent = spent
        return self._client

    # --- a request

    def key(self, call: Call, case: Case, answer: Answer) -> str:
        """The store's key of a call. A case that is not the ruler's own is named by its content.

        What a call outside of the protocol says is no part of the judge's identity, so it is part of its key.
        """
        name, kind = case.id, call.kind
        if call.kind == calls.USEFUL:
            name += "@" + sha256(calls.data(case.task))[:16]  # gold is not shown, so it may change
            kind += "@" + sha256(canonical(calls.wording(self.ruler, [call])))[:16]
        elif self._own.get(case.id) != case:
            gold = calls.gold_of(case)
            content = [case.task, gold.title, list(gold.questions), gold.critical]
            name += "@" + sha256(calls.data(content))[:16]
        return stored.key_of(self.fingerprint, name, answer.text, kind, call.order, self.replicate)

    def request(self, call: Call, case: Case, answer: Answer) -> Request:
        """The parameters of one call, as the API gets them."""
        nonce, content = calls.fresh(call, case, answer)
        text, form = self._fixed(call)
        instructions = {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
        made: Request = {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "system": [instructions, {"type": "text", "text": calls.tags(call, nonce)}],
            "messages": [{"role": "user", "content": content}],
            "output_config": {"format": {"type": "json_schema", "schema": form}},
        }
        if self.effort:
            made["output_config"]["effort"] = self.effort
        if self.thinking:
            made["thinking"] = {"type": self.thinking}
        return made

    def _fixed(self, call: Call) -> tuple[str, dict[str, Any]]:
        if call not in self._made:
            self._made[call] = calls.system(call, self.ruler), schema(calls.form(call.kind, self.dimensions))
        return self._made[call]

    # --- one case, live

    async def _judge(self, case: Case, answer: Answer) -> Outcome:
        asks = [Ask(c, case, answer, self.key(c, case, answer)) for c in self.calls]
        return self._outcome(dict(zip(asks, await self._answer_live(asks), strict=True)))

    async def _answer_live(self, asks: Sequence[Ask]) -> list[stored.Row | Fault]:
        # All of them run to their end, so that no paid reply is dropped because another call failed.
        found = await asyncio.gather(*map(self._once, asks), return_exceptions=True)
        for failed in found:
            if isinstance(failed, BaseException):
                raise failed
        return found  # type: ignore[return-value]

    async def _answer_all(self, asks: Sequence[Ask]) -> list[stored.Row | Fault]:
        """Rows or faults of any asks, live or as a batch."""
        if not self.batch:
            return await self._answer_live(asks)
        wanted = {ask.key: ask for ask in asks}
        self.cost += Spent(stored=sum(self.store.reply(key) is not None for key in wanted))
        faults = await self._answer_batch(wanted)
        return [self.store.reply(a.key) or faults.get(a.key, Fault("no reply in its batch")) for a in asks]

    async def _once(self, ask: Ask) -> stored.Row | Fault:
        """The stored row of an ask, or its fault; the same ask twice at a time is one call."""
        if ask.key not in self._flying:
            task = self._flying[ask.key] = asyncio.ensure_future(self._ask(ask))
            task.add_done_callback(lambda _: self._flying.pop(ask.key, None))
        return await self._flying[ask.key]

    async def _ask(self, ask: Ask) -> stored.Row | Fault:
        row = self._from_store(ask)
        if row:
            return row
        fault = Fault("never asked")
        for attempt in range(ASKS):
            try:
                reply = await self.claude.ask(self.request(ask.call, ask.case, ask.answer))
            except NotAnswered as error:
                return Fault(f"no reply ({error})")
            except Exception as error:
                self._halt(error)
                raise
            got = await self._keep(ask.key, self._about(ask), reply, attempt)
            if not isinstance(got, Fault):
                return got
            fault = got
            if not fault.again:
                break
        return fault

    def _halt(self, error: Exception) -> None:
        """Stop what is not in flight yet: a run that cannot end well must not go on paying."""
        self.claude.stop = self.claude.stop or error

    def _from_store(self, ask: Ask) -> stored.Row | None:
        row = self.store.reply(ask.key)
        if row:
            self.cost += Spent(stored=1)
        return row

    async def _keep(
        self, key: str, about: stored.Row, reply: Reply, attempt: int, batch: str = ""
    ) -> stored.Row | Fault:
        """Put a reply on disk, then say what it is worth. Raises WrongModel."""
        call = Call(about["kind"], about["order"] == "gold_first")
        wrong = reply.model != self.model
        value: Any = calls.read(call, self.dimensions, reply.stop_reason, reply.text)
        if wrong:
            value = Fault(f"answered by {reply.model}, asked was {self.model}")
        said = {"fault": value.reason} if isinstance(value, Fault) else {"value": value}
        row = {
            "type": stored.REPLY, "key": key, **about, "fingerprint": self.fingerprint, "attempt": attempt,
            "model": reply.model, "message_id": reply.message_id, "request_id": reply.request_id, "batch": batch,
            "stop_reason": reply.stop_reason, "usage": reply.usage, "dollars": reply.dollars, "text": reply.text,
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds"), **said,
        }  # fmt: skip
        self.cost += reply.spent
        error = WrongModel(
            f"case {about['case']!r}: {said.get('fault')}; the run is invalid, its judgments are not used"
        )
        if wrong:
            self._halt(error)  # before the disk is waited for: the next call would start meanwhile
        await self._write(row)
        if wrong:
            raise error
        return value if isinstance(value, Fault) else row

    async def _write(self, row: stored.Row) -> None:
        """Wait until a row is on disk. Replies that come while the disk is busy share the next wait for it."""
        done = asyncio.get_running_loop().create_future()
        self._arrived.append((row, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write_arrived())
        await done

    async def _write_arrived(self) -> None:
        while self._arrived:
            now, self._arrived = self._arrived, []
            try:
                await asyncio.to_thread(self.store.append, *(row for row, _ in now))
            except Exception as error:
                self._halt(error)  # what cannot be kept must not be bought
                for done in (d for _, d in now if not d.done()):
                    done.set_exception(error)
            else:
                for done in (d for _, d in now if not d.done()):
                    done.set_result(None)

    def _about(self, ask: Ask) -> stored.Row:
        return {
            "case": ask.case.id, "kind": ask.call.kind, "order": ask.call.order, "replicate": self.replicate,
        }  # fmt: skip

    def _outcome(self, found: dict[Ask, stored.Row | Fault]) -> Outcome:
        for ask, row in found.items():
            if isinstance(row, Fault):
                return Unscored(f"{ask.call.kind} call, {ask.call.order.replace('_', ' ')}: {row.reason}")
        rows = {ask.call: row for ask, row in found.items() if not isinstance(row, Fault)}
        paid = sum(row["dollars"] for row in rows.values())
        return calls.judgment({c: row["value"] for c, row in rows.items()}, self.dimensions, paid)

    # --- many cases, as message batches

    async def _judge_batch(self, queue: list[tuple[Case, Answer, Future[Outcome]]]) -> None:
        """Judge everything queued and fulfil its futures, with what the judgments are or with what went wrong."""
        try:
            asks = {
                (i, c): Ask(c, case, a, self.key(c, case, a))
                for i, (case, a, _) in enumerate(queue)
                for c in self.calls
            }
            wanted = {ask.key: ask for ask in asks.values()}
            self.cost += Spent(stored=sum(self.store.reply(key) is not None for key in wanted))
            faults = await self._answer_batch(wanted)
            for i, (_, _, future) in enumerate(queue):
                mine = [asks[i, c] for c in self.calls]
                found = {a: self.store.reply(a.key) or faults.get(a.key, Fault("no reply in its batch")) for a in mine}
                future.set_result(self._outcome(found))
        except BaseException as error:
            for _, _, future in queue:
                if not future.done():
                    future.set_exception(error)

    async def _answer_batch(self, wanted: dict[str, Ask]) -> dict[str, Fault]:
        """Bring a usable reply for every key into the store, as far as it goes; returns what is wrong with the rest."""
        for sent in self.store.pending():
            if any(about["key"] in wanted for about in sent["calls"]):
                await self._finish(sent)
        faults: dict[str, Fault] = {}
        for attempt in range(ASKS):
            missing = [a for k, a in wanted.items() if not self.store.reply(k) and faults.get(k, Fault("")).again]
            if not missing:
                break
            requests = {a.key: self.request(a.call, a.case, a.answer) for a in missing}
            most = sum(worst(request, batch=True) for request in requests.values())
            await self.claude.budget.hold(most)
            before = self.cost.dollars
            try:
                # The id is on disk before anything else happens: from here on a kill loses nothing.
                about = [{"key": a.key, **self._about(a)} for a in missing]
                batch = await self.claude.start_batch(requests)
                sent = {"type": stored.BATCH, "batch": batch, "model": self.model, "attempt": attempt, "calls": about}
                await self._write(sent)
                faults |= await self._finish(sent)
            finally:
                await self.claude.budget.settle(most, self.cost.dollars - before)
        return faults

    async def _finish(self, sent: stored.Row) -> dict[str, Fault]:
        """Wait for a sent batch, store its replies and close it; returns the faults by key."""
        batch, pause = sent["batch"], min(1.0, self.poll)
        faults: dict[str, Fault] = {}
        try:
            while not await self.claude.batch_ended(batch):
                await asyncio.sleep(pause)
                pause = min(self.poll, pause * 2)
            results = await self.claude.batch_results(batch)
        except CloudError as error:
            if type(error) is not CloudError:
                raise
            results = []  # the API no longer knows it: its calls are asked again
        about = {a["key"]: {k: v for k, v in a.items() if k != "key"} for a in sent["calls"]}
        have = {r["key"] for r in self.store if r["batch"] == batch}  # a kill can come between two results
        for key, reply in results:
            if isinstance(reply, str):
                faults[key] = Fault(reply, again=False)
            elif key in about and key not in have:
                got = await self._keep(key, about[key], reply, sent["attempt"], batch)
                if isinstance(got, Fault):
                    faults[key] = got
        await self._write({"type": stored.ENDED, "batch": batch})
        return faults
