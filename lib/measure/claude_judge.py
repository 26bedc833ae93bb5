"""The judge by Claude: three calls a case, asked and stored once, and Unscored where nothing came of it.

Knows how a case becomes calls, what names a call in the store, and what a case's replies add up to. Does not know
HTTP, prices or prompts, how a paid reply reaches the disk (lib.claude.paid does), nor which model or lever answered.
A fault answers nothing, and a run with something unscored cannot be kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from lib.claude import client
from lib.claude.client import API_VERSION, MustWait, NotAnswered, Reply, check_key, schema
from lib.claude.paid import Ask, Fault, Paid
from lib.claude.prices import Request, Spent, listed
from lib.claude.store import NAME, Store
from lib.files import canonical, runs_folder, sha256
from lib.forms import Filled, Number, Text, fill, form
from lib.log import Row
from lib.measure import judge_calls as calls
from lib.measure.answer import Answer
from lib.measure.judge import Judgment, Unscored
from lib.measure.judge_calls import Call
from lib.measure.ruler import Case, Ruler

ASKS = 2  # the first ask and one more, after a reply that cannot be used
WRONG = "case {case!r}: {fault}; the run is invalid, its judgments are not used"
Outcome = Judgment | Unscored


@form(what="judging")
class Judging:
    """How Claude judges. Model, effort, thinking and max_tokens are the ruler's where they are None."""

    protocol: Literal["balanced", "seed"] = "balanced"  # three calls a case, or the published study's one
    model: Filled | None = None
    effort: Text | None = None  # "" is not sent, like thinking
    thinking: Text | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    dollars: Annotated[Number, Field(gt=0)] = 5.0  # a hard cap for one judge
    concurrency: Annotated[int, Field(ge=1)] | None = None  # calls in flight, 10 where nobody says
    replicate: Annotated[int, Field(ge=0)] = 0  # another one asks the same things afresh
    batch: bool = False  # half the price, up to a day; one that was sent is picked up again after a kill

    def __post_init__(self) -> None:
        if self.batch and self.concurrency is not None:
            raise ValueError("has concurrency and batch: concurrency acts on live calls alone; take one of the two out")


def key_of(fingerprint: str, case: str, text: str, kind: str, order: str, replicate: int) -> str:
    """Names one question to a judge, 64 hex characters: cache key, resume key and batch `custom_id` in one.

    `text` is the candidate's, `kind` and `order` say which call it is, `replicate` asks the same thing afresh.
    """
    # Half of a surrogate pair, which a server may send, has no UTF-8 of its own.
    plain = text.encode("utf-8", "backslashreplace").decode()
    return sha256(canonical([fingerprint, case, plain, kind, order, replicate]))


class ClaudeJudge:
    """A Judge. `submit` and `collect` overlap judging with other work; `judge_all` is both at once.

    `judging` is what a `Judging` has. Raises ValueError, UnknownModel, Tampered.
    """

    def __init__(
        self, ruler: Ruler | None = None, store: Store | Path | str | None = None, poll: float = 60.0, **judging: Any
    ) -> None:
        """`store` is one that is open or its file, else that of the folder of runs; `poll` is in seconds."""
        how = fill(Judging, judging)
        self.ruler = ruler or Ruler.load()
        ruled: Row = {"max_tokens": 2000} | self.ruler.protocol.judge
        self.model: str = how.model or ruled.get("model", "")
        self.max_tokens: int = how.max_tokens or ruled["max_tokens"]
        self.effort = self._setting("effort", how.effort, ruled)
        self.thinking = self._setting("thinking", how.thinking, ruled)
        self.protocol, self.calls, self.batch = how.protocol, calls.PROTOCOLS[how.protocol], how.batch
        self.replicate, self.dimensions = how.replicate, calls.names(self.ruler)
        self.store = store if isinstance(store, Store) else Store(store or runs_folder() / NAME)
        self.identity: Row = {
            "kind": "claude", "protocol": self.protocol, "model": self.model, "effort": self.effort,
            "thinking": self.thinking, "max_tokens": self.max_tokens, "api": API_VERSION,
            "wording": sha256(canonical(calls.wording(self.ruler, self.calls))),
        }  # fmt: skip
        self.fingerprint = self.ruler.fingerprint(self.identity)
        self.paid = Paid(
            self.store, self.model, how.dollars, partial(_read, self.dimensions), {"fingerprint": self.fingerprint},
            WRONG, ASKS, how.batch, poll, how.concurrency or 10,
        )  # fmt: skip
        self._queue: list[tuple[Case, Answer, Future[Outcome]]] = []

    def _setting(self, name: str, given: str | None, ruled: Row) -> str:
        """What a model does not take is not sent, and what is not sent does not stand in the identity."""
        takes = getattr(listed(self.model), name)
        if given and not takes:
            raise ValueError(f"judging has {name} and model {self.model!r}, which takes none; take {name} out")
        if not takes:
            return ""
        return str(ruled.get(name) or "") if given is None else given

    # --- the interface

    @property
    def cost(self) -> Spent:
        """What this judge's calls took so far."""
        return self.paid.cost

    def judge(self, case: Case, answer: Answer) -> Outcome:
        """One judgment. Raises what `collect` raises, and ValueError on a case without gold."""
        return self.judge_all([(case, answer)])[0]

    def judge_all(self, pairs: Iterable[tuple[Case, Answer]]) -> list[Outcome]:
        """Judgments in the order of the pairs."""
        return self.collect([self.submit(case, answer) for case, answer in pairs])

    def submit(self, case: Case, answer: Answer) -> Future[Outcome]:
        """Begin to judge and return at once; in batch mode nothing is sent before `collect`."""
        case.reference  # noqa: B018  without gold nothing may be sent, so it is asked for before anything is queued
        # All cases go out together when they are collected: a batch a case would take a day each.
        if self.batch:
            future: Future[Outcome] = Future()
            self._queue.append((case, answer, future))
            return future
        return self.paid.submit(self._judge(case, answer))

    def collect(self, futures: Sequence[Future[Outcome]]) -> list[Outcome]:
        """Wait for judgments. Raises BudgetSpent, NoKey, WrongModel, CloudError or Tampered; what was paid is stored.

        Where the API asks to wait for hours, or is out of reach, the cases that it did not judge are Unscored: a later
        call asks about those alone.
        """
        waiting: list[Future[Any]] = [*futures]
        if self._queue:
            # Taken off before it is sent: a judge that is used again must not send it twice.
            queue, self._queue = self._queue, []
            waiting.append(self.paid.submit(self._judge_queue(queue)))
        try:
            return self.paid.collect(waiting)[: len(futures)]
        except (MustWait, NotAnswered) as error:
            return [_outcome_of(future, str(error)) for future in futures]

    def ask_all(self, call: Call, pairs: Iterable[tuple[Case, Answer]]) -> list[Row | Fault]:
        """One more call about each answer, stored and paid from the cap as any other. Raises what `collect` raises."""
        asks = [self.ask(call, case, answer) for case, answer in pairs]
        [rows] = self.paid.collect([self.paid.submit(self.paid.answer(asks))])
        return rows

    def check(self) -> None:
        """Refuse to start without a key, unless the store can answer for this judge. Raises NoKey."""
        if not self.store.has(self.fingerprint, self.replicate):
            check_key()

    def close(self) -> None:
        """Let calls in flight end and close the connections; the judge can be used again."""
        self.paid.close()

    # --- a request

    def key(self, call: Call, case: Case, answer: Answer) -> str:
        """The store's key of a call. A case that is not the ruler's own is named by its content.

        What a call outside of the protocol says is no part of the judge's identity, so it is part of its key.
        """
        name, kind = case.id, call.kind
        if call.kind == calls.USEFUL:
            name += "@" + sha256(calls.data(case.task))[:16]  # gold is not shown, so it may change
            kind += "@" + sha256(canonical(calls.wording(self.ruler, [call])))[:16]
        elif self.ruler.by_id.get(case.id) != case:
            gold = case.reference
            content = [case.task, gold.title, list(gold.questions), gold.critical]
            name += "@" + sha256(calls.data(content))[:16]
        return key_of(self.fingerprint, name, answer.text, kind, call.order, self.replicate)

    def request(self, call: Call, case: Case, answer: Answer) -> Request:
        """The parameters of one call, as the API gets them."""
        nonce, content = calls.fresh(call, case, answer)
        form = schema(calls.form(call.kind, self.dimensions))
        # Cached up to the end of the first text: the tags change with every call, so they stand behind it.
        system: list[Request] = [
            {"type": "text", "text": calls.system(call, self.ruler), "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": calls.tags(call, nonce)},
        ]
        return client.request(self.model, self.max_tokens, system, content, form, self.effort, self.thinking)

    def asks(self, case: Case, answer: Answer) -> list[Ask]:
        """The calls of one judgment."""
        return [self.ask(call, case, answer) for call in self.calls]

    def ask(self, call: Call, case: Case, answer: Answer) -> Ask:
        """One call, to be made where the store has no reply to it."""
        about = {"case": case.id, "kind": call.kind, "order": call.order, "replicate": self.replicate}
        return Ask(self.key(call, case, answer), partial(self.request, call, case, answer), about)

    # --- what comes of it

    async def _judge(self, case: Case, answer: Answer) -> Outcome:
        return self.outcome(await self.paid.answer(self.asks(case, answer)))

    async def _judge_queue(self, queue: list[tuple[Case, Answer, Future[Outcome]]]) -> None:
        """Judge everything queued and fulfil its futures, with what the judgments are or with what went wrong."""
        try:
            rows = await self.paid.answer([ask for case, answer, _ in queue for ask in self.asks(case, answer)])
            for i, (_, _, future) in enumerate(queue):
                future.set_result(self.outcome(rows[i * len(self.calls) : (i + 1) * len(self.calls)]))
        # Also what is no Exception, such as a task that was cancelled: whoever waits would wait for ever.
        except BaseException as error:
            for _, _, future in queue:
                if not future.done():
                    future.set_exception(error)

    def outcome(self, rows: Sequence[Row | Fault]) -> Outcome:
        """What the replies to the calls of one judgment come to."""
        values, dollars = {}, 0.0
        for call, row in zip(self.calls, rows, strict=True):
            # One call without a reply leaves the whole case unscored: scores without a verdict are half a quality.
            if isinstance(row, Fault):
                return Unscored(f"{call.kind} call, {call.order.replace('_', ' ')}: {row.reason}")
            values[call] = row["value"]
            dollars += row["dollars"]
        return calls.judgment(values, self.dimensions, dollars)


def _outcome_of(future: Future[Outcome], why: str) -> Outcome:
    """What a case came to; Unscored with `why` where its calls did not end well."""
    if future.done() and not future.cancelled() and future.exception() is None:
        return future.result()
    return Unscored(why)


def _read(dimensions: tuple[str, ...], about: Row, reply: Reply) -> Row | Fault:
    call = Call(about["kind"], about["order"] == "gold_first")
    return calls.read(call, dimensions, reply.stop_reason, reply.text)
