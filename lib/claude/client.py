"""Claude through the official SDK: one client that holds to a dollar cap. The one owner of `anthropic`.

Knows requests, replies and batches, how long to wait for the API, and that a key must not get into an error, a log or
a file. Does not know what is asked, nor what a reply means. Notebooks have an event loop running, so this one lives on
a thread of its own. Does not cover what retries may have cost: a call that broke off counts at its worst, once.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import Any
from urllib.request import getproxies

from lib.claude.prices import Budget, CloudError, Request, Spent, dollars, listed, spent, worst
from lib.files import Exit

# Sent by name, so that another SDK cannot change what a judge is.
API_VERSION = "2026-10-21"
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0)  # s between the tries of one call; `retry-after` may ask for more
# Nobody should look at a silent screen for longer.
WAIT = 180.0  # s that the tries of one call may wait in all
# There are no tools, so the reply comes without thinking first.
NO_THINKING = "between_tools"
SECRETS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
# An error can come with status 200, as the body of a reply; its type then says which status it means.
STATUS = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "rate_limit_error": 429, "api_error": 500, "timeout_error": 504, "overloaded_error": 529,
}  # fmt: skip


class NoAccess(CloudError):
    """Nothing can be sent from here; the message says what to set."""

    exit = Exit.MISSING


class NoKey(NoAccess):
    """No key that the API takes."""


class WrongModel(CloudError):
    """Another model answered than was asked, so the run is invalid."""


class MustWait(CloudError):
    """The API asks to wait for longer than a call waits. What was answered is stored; call again then."""


class NotFound(CloudError):
    """The API does not know what a call names, or not yet; `gone`: its results were put away for good."""

    def __init__(self, message: str, gone: bool = False) -> None:
        super().__init__(message)
        self.gone = gone


class NotAnswered(CloudError):
    """One request got no reply, after all retries. `passing`: the same request may get one later."""

    def __init__(self, message: str, paid: bool = False, passing: bool = False) -> None:
        super().__init__(message)
        self.paid, self.passing = paid, passing


class ErrorBody(Exception):
    """An error that came as the body of a reply with status 200."""

    def __init__(self, body: Any) -> None:
        """Takes the status that an error of its type has elsewhere, 500 where the type is unknown."""
        error = getattr(body, "error", None) or {}
        self.status_code = STATUS.get(error.get("type", ""), 500)
        super().__init__(f"{error.get('type', 'error')}: {error.get('message', '')}")


@dataclass(frozen=True)
class Reply:
    """One reply, as far as it is kept."""

    text: str
    model: str  # as served
    message_id: str
    request_id: str  # "" in a batch
    stop_reason: str
    usage: Request  # as the API says it
    dollars: float

    @property
    def spent(self) -> Spent:
        """Its cost, to be added to that of others."""
        return spent(self.usage, self.dollars)


def check_key() -> None:
    """Refuse to start where nothing can be sent. Raises NoKey, NoAccess; never says what the key is."""
    fault = _fault_of_key()
    if fault:
        # From a frame without the key: some tracebacks show every local.
        raise NoKey(fault)
    # The SDK says it at the first call, when the run is on and would be sealed as crashed.
    socks = [name for name, url in getproxies().items() if url.startswith("socks")]
    if socks and find_spec("socksio") is None:
        raise NoAccess(f"{socks[0]}_proxy names a SOCKS proxy, for which this Python lacks `socksio`: install it, or "
                       "unset the variable")  # fmt: skip


def _fault_of_key() -> str:
    """What is wrong with the key in the environment, "" where nothing is; it never holds the key."""
    key = os.environ.get(SECRETS[0]) or os.environ.get(SECRETS[1]) or ""
    if not key.strip():
        return "no key for Claude: set the environment variable ANTHROPIC_API_KEY, or use judge=offline"
    if not key.isascii() or not key.isprintable() or " " in key:
        return "ANTHROPIC_API_KEY holds a space, a line break or another sign that no key has; set it again"
    return ""


def request(
    model: str,
    max_tokens: int,
    system: list[Request],
    content: str,
    form: Request,
    effort: str,
    thinking: str = NO_THINKING,
) -> Request:
    """The parameters of a call that answers in JSON of a form. Settings that the model does not take are not sent."""
    takes = listed(model)
    # No temperature and no forced tool: the form alone holds the reply, and every listed model takes that.
    messages = [{"role": "user", "content": content}]
    parameters: Request = {"model": model, "max_tokens": max_tokens, "system": system, "messages": messages}
    if thinking and takes.thinking:
        parameters["thinking"] = {"type": thinking}
    parameters["output_config"] = {"format": {"type": "json_schema", "schema": form}}
    if effort and takes.effort:
        parameters["output_config"]["effort"] = effort
    return parameters


def schema(form: Any) -> Request:
    """The JSON schema of a pydantic model, or of a schema, as the API takes it."""
    import anthropic

    return anthropic.transform_schema(form)


def scrub(text: str) -> str:
    """Text without the values of the key variables: a server may send back what it was sent."""
    for name in SECRETS:
        value = os.environ.get(name, "")
        # A shorter one is no key, and would stand in ordinary words.
        if len(value) >= 8:
            text = text.replace(value, f"[{name}]")
    return text


class Claude:
    """A client with a cap. `submit` runs a coroutine of this object on its own loop; `close` is optional."""

    def __init__(self, model: str, cap: float, concurrency: int = 10, timeout: float = 120.0) -> None:
        """`cap` in dollars, `timeout` in seconds for a call. Raises UnknownModel for a model without a price."""
        listed(model)
        self.model, self.timeout = model, timeout
        self.budget = Budget(cap)
        self.stop: BaseException | None = None  # once set, every call that is not in flight yet raises it
        self._room = asyncio.Semaphore(concurrency)
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name="claude", daemon=True)
        thread.start()
        # The SDK's client once there is one; in a list, since the finalizer must not hold this object.
        self._open: list[Any] = []
        self.close = weakref.finalize(self, _close, self._loop, thread, self._open)

    def submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Start a coroutine on the loop's thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    @property
    def sdk(self) -> Any:
        """The SDK's client, made at the first call. Raises NoKey."""
        if not self._open:
            check_key()
            import anthropic

            version = {"anthropic-version": API_VERSION}
            # Retries are `_tried`'s: the SDK would wait for as long as the API asks, in silence.
            self._open.append(anthropic.AsyncAnthropic(max_retries=0, timeout=self.timeout, default_headers=version))
        return self._open[0]

    async def ask(self, request: Request) -> Reply:
        """One call. Raises NotAnswered after all retries, BudgetSpent, NoKey, MustWait, or CloudError for what will
        not pass."""
        most = worst(request)
        async with self._room:
            if self.stop:
                raise self.stop
            # Before money is held: where there is no key, nothing would give it back.
            sdk = self.sdk
            await self.budget.hold(most)
            paid = most  # also where this is cancelled: the API may have answered
            try:
                reply = self._reply(await self._tried(lambda: sdk.messages.create(**request)))
                paid = reply.dollars
            except CloudError as error:
                paid = most if error.paid else 0.0
                raise
            finally:
                await self.budget.settle(most, paid)
        return reply

    async def _tried(self, call: Callable[[], Awaitable[Any]], may_be_taken_twice: bool = True) -> Any:
        """What a call of the SDK gives, after as many tries as can help. Raises CloudError."""
        waited = 0.0
        for pause in (*PAUSES, None):
            try:
                answer = await call()
                if getattr(answer, "type", None) == "error":
                    raise ErrorBody(answer)
                return answer
            except Exception as error:
                failed, asked = _failure(error), _retry_after(error)
            if pause is None or not isinstance(failed, NotAnswered) or not failed.passing:
                break
            if failed.paid and not may_be_taken_twice:
                break
            # An hour's limit is no pause but an answer: whoever called decides whether to come back.
            if waited + asked > WAIT:
                until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time.time() + asked))
                failed = MustWait(f"the API asks to wait until {until} ({failed}): nothing more is sent; what was "
                                  "answered is stored, so call again then")  # fmt: skip
                break
            pause = asked or pause
            waited += pause
            await asyncio.sleep(pause)
        # Outside of the except: the SDK's error, its request and headers stay behind.
        raise failed

    # --- batches

    async def start_batch(self, requests: Mapping[str, Request], most: float) -> str:
        """Send requests, by custom id, as one batch; returns its id. Its money, `most`, stays held until it is settled."""
        rows = [{"custom_id": key, "params": request} for key, request in requests.items()]
        sdk = self.sdk
        await self.budget.hold(most)
        try:
            # A batch that broke off may have been taken, and would be paid for twice.
            sent = await self._tried(lambda: sdk.messages.batches.create(requests=rows), may_be_taken_twice=False)
        except CloudError as error:
            await self.budget.settle(most, most if error.paid else 0.0)
            raise
        return scrub(sent.id)

    async def batch_results(self, batch: str) -> list[tuple[str, Reply | str]] | None:
        """Custom id and reply, or why there is none, in the order that the API gives; None while the batch runs.

        Raises NotFound where the API does not know it, or has nothing to read.
        """
        sdk = self.sdk

        async def read() -> list[Any]:
            return [entry async for entry in await sdk.messages.batches.results(batch)]

        # Looked at first: of results that are not there the SDK only says an error without a type of its own.
        state = await self._tried(lambda: sdk.messages.batches.retrieve(batch))
        if state.processing_status != "ended":
            return None
        if not state.results_url:
            raise NotFound(f"batch {batch} has ended and names no results", gone=bool(state.archived_at))
        entries = await self._tried(read)
        return [(entry.custom_id, self._entry(entry.result)) for entry in entries]

    def _entry(self, result: Any) -> Reply | str:
        """The reply of one entry of a batch, or why there is none."""
        if result.type == "succeeded":
            try:
                return self._reply(result.message, batch=True)
            except NotAnswered as failed:
                return str(failed)
        text = f"its batch entry {result.type}"
        if error := getattr(getattr(result, "error", None), "error", None):
            text += f": {getattr(error, 'type', '')} {getattr(error, 'message', '')}"
        return scrub(text)[:300]

    def _reply(self, message: Any, batch: bool = False) -> Reply:
        """What is kept of a message. Raises NotAnswered on one of another form: it was paid for, at its worst."""
        try:
            # As JSON and not by attribute: a count that a later API adds is kept too, and may be billed.
            usage = json.loads(scrub(message.usage.to_json(indent=None)))
            usage = {k: v for k, v in usage.items() if v is not None}
            return Reply(
                # Thinking may precede it.
                text=scrub("".join(b.text for b in message.content if b.type == "text")),
                model=scrub(str(message.model)),
                message_id=scrub(str(message.id)),
                request_id=scrub(str(getattr(message, "_request_id", None) or "")),
                stop_reason=scrub(str(message.stop_reason)),
                usage=usage,
                dollars=dollars(self.model, usage, batch),
            )
        except (AttributeError, TypeError, ValueError) as error:
            fault = scrub(f"the reply is not a message ({type(error).__name__}: {error})")[:300]
        raise NotAnswered(fault, paid=True)


def _failure(error: Exception) -> CloudError:
    """An SDK's error as ours, without key, request or headers."""
    name, status = type(error).__name__, getattr(error, "status_code", None)
    message = " ".join(str(getattr(error, "api_message", None) or error).split()) or "no reason was given"
    if status:
        name = f"{name} {status}"
    text = scrub(f"{name}: {message}")[:300]
    # By status and never by wording, which is the server's to change.
    if status in (401, 403):
        return NoKey(f"the API refused the key ({text})")
    # Not tried again here: of a batch that was just sent it may pass, of a model's name never. Whoever asks knows.
    if status == 404:
        return NotFound(f"the API will not answer ({text})")
    if status == 402:
        return CloudError(f"the API will not answer ({text})")
    if status is None:  # the connection broke, unless it is a defect of ours
        passing = not isinstance(error, (TypeError, ValueError, AttributeError, ImportError))
    else:
        passing = status in (408, 409, 429) or status >= 500
    # A status says that nothing was answered, but for those that come after the work or while it goes on.
    return NotAnswered(text, paid=status in (None, 200, 408, 504), passing=passing)


def _retry_after(error: Exception) -> float:
    """Seconds that the API asks to wait before the next try, 0 where it asks for none."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    if milliseconds := headers.get("retry-after-ms"):
        return float(milliseconds) / 1000
    asked = headers.get("retry-after", "0")
    # Seconds, or a date (RFC 9110, section 10.2.3).
    if asked.replace(".", "", 1).isdigit():
        return float(asked)
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except ValueError:
        return 0.0


def _close(loop: asyncio.AbstractEventLoop, thread: threading.Thread, opened: list[Any]) -> None:
    """Let calls in flight end (their replies are paid for), then close connections, loop and thread."""

    async def end() -> None:
        """What is in flight gets 10 s and is cancelled then; the loop stops whatever happens."""
        try:
            # All but this one, which would wait for itself.
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if others:
                _, late = await asyncio.wait(others, timeout=10)
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)
            for sdk in opened:
                await sdk.close()
            await loop.shutdown_default_executor()
        except RuntimeError:
            pass  # the interpreter is going down and starts no more threads
        finally:
            loop.stop()

    asyncio.run_coroutine_threadsafe(end(), loop)
    if threading.current_thread() is thread:
        return  # collected on the loop's own thread: it cannot wait for itself
    thread.join(timeout=15)
    if not thread.is_alive():
        loop.close()
