"""Claude as a candidate: the model that the small one is measured against. Asks through `claude.client`.

Knows messages in, text out, tokens and dollars. Greedy decoding is not to be had there and no sampling parameter is
ever sent, so a run on it is one draw and repeats only roughly. A grammar goes out as far as the API holds schemas;
counts and patterns become words of the schema. Does not know what is asked, and keeps no reply: a run that breaks off
pays again.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from lib.claude import store
from lib.claude.client import Claude, NotAnswered, check_key, schema
from lib.claude.prices import BudgetSpent, CloudError, UnknownModel, listed
from lib.models.grammar import BadGrammar
from lib.models.model import Capabilities, Completion, Cost, Decoding, Json, Message, Model, NoModel

CAN = Capabilities(greedy=False, temperature=False, grammar=True)
CAP = "NOTCH_CANDIDATE_DOLLARS"
REASONS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "refusal": "refusal"}


def check(name: str) -> None:
    """Refuse a model without a price, a cap that is no number, or a missing key. Raises NoModel or NoKey."""
    try:
        listed(name)
    except UnknownModel as error:
        raise NoModel(str(error)) from error
    cap()
    check_key()


def cap() -> float:
    """Dollars that one model may spend: 2, or what the environment says. Raises NoModel."""
    text = os.environ.get(CAP, "2")
    try:
        dollars = float(text)
    except ValueError:
        dollars = -1.0
    # Also nan, which compares with nothing.
    if not 0 < dollars < 10_000:
        raise NoModel(f"{CAP} is {text!r:.40}: expected the dollars that a candidate may cost, such as 2")
    return dollars


class CloudModel(Model):
    """A Claude model that answers. Raises NoModel or NoKey when it is made, NoModel when the cap is reached."""

    def __init__(self, name: str, dollars: float | None = None, concurrency: int = 10) -> None:
        check(name)
        super().__init__(name, CAN, served=[], sampling="the API's own")
        self.dollars = cap() if dollars is None else dollars
        self._claude = Claude(name, self.dollars, concurrency)

    def generate(self, prompts: Sequence[Sequence[Message]], decodings: Sequence[Decoding]) -> list[Completion]:
        """Complete every conversation, several at a time. Raises NoModel or BadGrammar before anything is sent."""
        began = time.perf_counter()
        requests = [self._request(p, d) for p, d in zip(prompts, decodings, strict=True)]
        paid = self._claude.budget.spent
        try:
            return self._claude.submit(self._all(requests)).result()
        except CloudError as error:
            hint = f"; {CAP} sets the cap" if isinstance(error, BudgetSpent) else ""
            # Outside of the SDK's frames, which hold the key.
            failed = NoModel(f"model {self.name!r}: {error}{hint}")
        finally:
            paid = self._claude.budget.spent - paid
            self.cost += Cost(seconds=time.perf_counter() - began, dollars=paid)
            if folder := os.environ.get("NOTCH_RUNS"):  # in a run, which may crash: a budget must see this all the same
                store.book(Path(folder) / store.NAME, self.name, paid)
        raise failed

    async def _all(self, requests: Sequence[Json]) -> list[Completion]:
        """All replies in order. Raises the first error, when every call has ended."""
        replies = await asyncio.gather(*(self._one(r) for r in requests), return_exceptions=True)
        done = []
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply  # after all others have ended: what is in flight is paid for
            done.append(reply)
        return done

    async def _one(self, request: Json) -> Completion:
        """One reply and its tokens; a call that got none is an error of its case."""
        try:
            reply = await self._claude.ask(request)
        except NotAnswered as error:
            return Completion(str(error), 0, 0, "error")
        # The record keeps which version answered: what is asked for is a name.
        if reply.model not in self.identity["served"]:
            self.identity["served"] = sorted([*self.identity["served"], reply.model])
        spent = reply.spent
        self.cost += Cost(1, spent.input_tokens, spent.output_tokens)
        reason = REASONS.get(reply.stop_reason, reply.stop_reason)
        return Completion(reply.text, spent.input_tokens, spent.output_tokens, reason, id=reply.message_id)

    def _request(self, messages: Sequence[Message], decoding: Decoding) -> Json:
        """The parameters of a call. Raises NoModel on decoding that Claude does not take, BadGrammar."""
        usual = Decoding()
        for name in ("temp", "top_p", "min_p", "top_k"):
            if getattr(decoding, name) != getattr(usual, name):
                raise NoModel(f"model {self.name!r} takes no {name}: Claude samples as it likes; leave it out")
        # The API knows no system role among the turns: it takes those texts apart from them.
        request: Json = {
            "model": self.name,
            "max_tokens": decoding.max_tokens,
            "system": [{"type": "text", "text": m["content"]} for m in messages if m["role"] == "system"],
            "messages": [dict(m) for m in messages if m["role"] != "system"],
        }
        if listed(self.name).thinking:
            request["thinking"] = {"type": "between_tools"}  # there are no tools: it answers without thinking first
        if decoding.grammar:
            request["output_config"] = {"format": {"type": "json_schema", "schema": _schema(decoding.grammar)}}
        return request


def _schema(grammar: str) -> Json:
    """A grammar in the form that the API takes. Raises BadGrammar."""
    try:
        return schema(json.loads(grammar))
    except (ValueError, TypeError, AttributeError, AssertionError) as error:
        raise BadGrammar(f"grammar {grammar!r:.60} is no schema that the API takes ({error!s:.120})") from error
