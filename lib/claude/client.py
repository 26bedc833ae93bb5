"""Claude through the official SDK: one client that holds to a dollar cap. The one owner of `anthropic`.

Knows requests, replies and batches, and that a key must not get into an error, a log or a file. Does not know
what is asked, nor what a reply means. Notebooks have an event loop running, so this one lives on a thread of its own.
Does not cover what the SDK's own retries may have cost: a call that broke off counts at its worst, once.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import weakref
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from lib.claude.prices import Budget, CloudError, Request, Spent, dollars, input_tokens, listed, worst
from lib.files import Exit

API_VERSION = "2026-10-21"  # sent by name, so that another SDK cannot change what a judge is
RETRIES = 6  # of the SDK: 429, 529, 5xx and lost connections, with `retry-after` obeyed
NO_THINKING = "between_tools"  # there are no tools, so the reply comes without thinking first
SECRETS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")


class NoKey(CloudError):
    """No key that the API takes."""

    exit = Exit.MISSING


class WrongModel(CloudError):
    """Another model answered than was asked, so the run is invalid."""


class NotAnswered(CloudError):
    """One request got no reply, after all retries."""


@dataclass(frozen=True)
class Reply:
    """One reply, as far as it is kept."""

    text: str
    model: str  # as served
    message_id: str
    request_id: str  # "" in a batch
    stop_reason: str
    usage: dict[str, Any]
    dollars: float

    @property
    def spent(self) -> Spent:
        return Spent(1, 0, input_tokens(self.usage), int(self.usage.get("output_tokens") or 0), self.dollars)


def check_key() -> None:
    """Refuse to start without a key that can be sent. Raises NoKey; never says what the key is."""
    wrong = _wrong_key()
    if wrong:
        raise NoKey(wrong)  # from a frame without the key: some tracebacks show every local


def _wrong_key() -> str:
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
    messages = [{"role": "user", "content": content}]
    parameters: Request = {"model": model, "max_tokens": max_tokens, "system": system, "messages": messages}
    if thinking and takes.thinking:
        parameters["thinking"] = {"type": thinking}
    parameters["output_config"] = {"format": {"type": "json_schema", "schema": form}}
    if effort and takes.effort:
        parameters["output_config"]["effort"] = effort
    return parameters


def schema(form: Any) -> dict[str, Any]:
    """The JSON schema of a pydantic model, or of a schema, as the API takes it."""
    import anthropic

    return anthropic.transform_schema(form)


def scrub(text: str) -> str:
    """Text without the values of the key variables: a server may send back what it was sent."""
    for name in SECRETS:
        value = os.environ.get(name, "")
        if len(value) >= 8:
            text = text.replace(value, f"[{name}]")
    return text


class Claude:
    """A client with a cap. `submit` runs a coroutine of this object on its own loop; `close` is optional."""

    def __init__(self, model: str, cap: float, concurrency: int = 10, timeout: float = 120.0) -> None:
        listed(model)
        self.model, self.timeout = model, timeout
        self.budget = Budget(cap)
        self.stop: BaseException | None = None  # once set, every call that is not in flight yet raises it
        self._room = asyncio.Semaphore(concurrency)
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name="claude", daemon=True)
        thread.start()
        self._open: list[Any] = []  # the SDK's client once there is one: the finalizer must not hold this object
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
            sdk = anthropic.AsyncAnthropic(max_retries=RETRIES, timeout=self.timeout, default_headers=version)
            self._open.append(sdk)
        return self._open[0]

    async def ask(self, request: Request) -> Reply:
        """One call. Raises NotAnswered after all retries, BudgetSpent, NoKey, or CloudError for what will not pass."""
        most = worst(request)
        async with self._room:
            if self.stop:
                raise self.stop
            sdk = self.sdk
            await self.budget.hold(most)
            paid, failed = most, None
            try:
                reply = self._reply(await sdk.messages.create(**request))
                paid = reply.dollars
            except Exception as error:
                failed, unpaid = _failure(error)
                paid = 0.0 if unpaid else most
            finally:
                await self.budget.settle(most, paid)
        if failed:
            raise failed  # outside of the except: the SDK's error, its request and headers stay behind
        return reply

    # --- batches

    async def start_batch(self, requests: Mapping[str, Request]) -> str:
        """Send requests, by custom id, as one batch; returns its id. The caller holds the money."""
        rows = [{"custom_id": key, "params": request} for key, request in requests.items()]
        for pause in (*(min(8.0, 0.5 * 2**n) for n in range(RETRIES)), None):
            failed = None
            try:
                # Not the SDK's retries: a batch that broke off may have been taken, and would be paid for twice.
                return scrub((await self.sdk.with_options(max_retries=0).messages.batches.create(requests=rows)).id)
            except Exception as error:
                failed, refused = _failure(error)
            if pause is None or not refused or not isinstance(failed, NotAnswered):
                break
            await asyncio.sleep(pause)
        raise failed

    async def batch_ended(self, batch: str) -> bool:
        """Whether the results of a batch can be had. Raises CloudError when the API does not know it."""
        return (await self._free(lambda sdk: sdk.messages.batches.retrieve(batch))).processing_status == "ended"

    async def batch_results(self, batch: str) -> list[tuple[str, Reply | str]]:
        """Custom id and reply, or why there is none, in the order that the API gives."""

        async def read(sdk: Any) -> list[Any]:
            return [entry async for entry in await sdk.messages.batches.results(batch)]

        results: list[tuple[str, Reply | str]] = []
        for entry in await self._free(read):
            kind = entry.result.type
            if kind == "succeeded":
                results.append((entry.custom_id, self._reply(entry.result.message, batch=True)))
            else:
                error = getattr(getattr(entry.result, "error", None), "error", None)
                detail = f": {getattr(error, 'type', '')} {getattr(error, 'message', '')}" if error else ""
                results.append((entry.custom_id, scrub(f"its batch entry {kind}{detail}")[:300]))
        return results

    async def _free(self, call: Any) -> Any:
        sdk, failed = self.sdk, None
        try:
            return await call(sdk)
        except Exception as error:
            failed, _ = _failure(error)
        raise failed

    def _reply(self, message: Any, batch: bool = False) -> Reply:
        usage = json.loads(scrub(message.usage.to_json(indent=None)))
        usage = {k: v for k, v in usage.items() if v is not None}
        return Reply(
            text=scrub("".join(b.text for b in message.content if b.type == "text")),  # thinking blocks may precede
            model=scrub(str(message.model)),
            message_id=scrub(str(message.id)),
            request_id=scrub(str(getattr(message, "_request_id", None) or "")),
            stop_reason=scrub(str(message.stop_reason)),
            usage=usage,
            dollars=dollars(self.model, usage, batch),
        )


def _failure(error: Exception) -> tuple[CloudError, bool]:
    """An SDK's error as ours, without key, request or headers, and whether it is sure that nothing was paid."""
    import anthropic

    name, status = type(error).__name__, getattr(error, "status_code", None)
    message = getattr(error, "api_message", None) or (str(error) if isinstance(error, anthropic.APIError) else "")
    text = scrub(f"{name}{f' {status}' if status else ''}: {' '.join(str(message).split())}")[:300]
    if status in (401, 403):
        return NoKey(f"the API refused the key ({text})"), True
    if status in (402, 404):
        return CloudError(f"the API will not answer ({text})"), True
    return NotAnswered(text), bool(status) and status not in (408, 504)


def _close(loop: asyncio.AbstractEventLoop, thread: threading.Thread, opened: list[Any]) -> None:
    """Let calls in flight end (their replies are paid for), then close connections, loop and thread."""

    async def end() -> None:
        try:
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
