"""What the cloud costs: dated prices, what a call took, the most that it can take, and a hard cap.

Knows dollars and tokens. Does not know requests beyond their size, nor who answers them. A model without a price here
is not paid for.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lib.files import Exit, OneLine

PRICED = "2026-11-23"  # the day on which these prices were read; prices are not in the API
BATCH_SHARE = 0.5  # of the price
CACHE_READ, CACHE_WRITE = 0.1, 1.25  # of the input price
# The schema has a prompt of its own, which no request shows; an upper bound.
UNSEEN = 1000  # tokens that the API may add to a request
Request = dict[str, Any]  # free form: JSON as the API takes it


@dataclass(frozen=True)
class Listed:
    """What a model costs, in dollars per million tokens, and which settings it takes."""

    input: float
    output: float
    thinking: bool = False  # thinks unless told otherwise, so a request says how
    effort: bool = True


MODELS = {
    "claude-sonnet-5-5": Listed(2.0, 10.0, thinking=True),
    "claude-sonnet-4-6": Listed(3.0, 15.0),
    "claude-haiku-4-5": Listed(1.0, 5.0, effort=False),
    "claude-haiku-4-5-20251001": Listed(1.0, 5.0, effort=False),  # what the name above is served as
}


class CloudError(OneLine):
    """The API cannot be used for this run; the message says why and never holds a key."""

    exit = Exit.RUN_FAILED
    paid = False  # whether the API may bill what failed


class UnknownModel(CloudError):
    """A model without a listed price; nothing is spent on it."""

    exit = Exit.USAGE


class BudgetSpent(CloudError):
    """The next call could pass the dollar cap. What was answered is in the store: a run with a higher cap goes on."""


@dataclass(frozen=True)
class Spent:
    """What calls took. Adds with `+`."""

    calls: int = 0  # replies that were paid for
    stored: int = 0  # replies that the store had already
    input_tokens: int = 0  # read, cached or not
    output_tokens: int = 0
    dollars: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


def listed(model: str) -> Listed:
    """Price and settings of a model. Raises UnknownModel."""
    if model not in MODELS:
        raise UnknownModel(f"model {model!r} has no price of {PRICED} in lib/claude/prices.py, so nothing is spent "
                           f"on it; there are {', '.join(MODELS)}")  # fmt: skip
    return MODELS[model]


def same_model(asked: str, served: str) -> bool:
    """Whether the model that answered is the one that was asked: the API names a dated snapshot of it.

    >>> same_model("claude-haiku-4-5", "claude-haiku-4-5-20251001"), same_model("claude-haiku-4-5", "claude-haiku-4-5-x")
    (True, False)
    """
    return served == asked or re.fullmatch(re.escape(asked) + r"-\d{8}", served) is not None


def input_tokens(usage: Mapping[str, Any]) -> int:
    """All tokens that were read: the API counts cached ones apart."""
    return sum(
        int(usage.get(k) or 0) for k in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    )


def dollars(model: str, usage: Mapping[str, Any], batch: bool = False) -> float:
    """Price of one reply. Raises UnknownModel.

    >>> dollars("claude-sonnet-5-5", {"input_tokens": 1_000_000, "output_tokens": 100_000})
    3.0
    >>> dollars("claude-sonnet-5-5", {"input_tokens": 0, "cache_read_input_tokens": 1_000_000}, batch=True)
    0.1
    """
    price, count = listed(model), {k: int(v) for k, v in usage.items() if isinstance(v, (int, float))}
    read = count.get("input_tokens", 0) + CACHE_READ * count.get("cache_read_input_tokens", 0)
    # Five minutes of cache, the only kind that requests here ask for.
    read += CACHE_WRITE * count.get("cache_creation_input_tokens", 0)
    paid = (read * price.input + count.get("output_tokens", 0) * price.output) / 1e6
    return round(paid * (BATCH_SHARE if batch else 1.0), 9)


def spent(usage: Mapping[str, Any], dollars: float) -> Spent:
    """What one reply took."""
    return Spent(1, 0, input_tokens(usage), int(usage.get("output_tokens") or 0), dollars)


def worst(request: Request, batch: bool = False) -> float:
    """The most that a request can cost: a token is at least a byte, all of them written to the cache, all room used."""
    price = listed(request["model"])
    read = len(json.dumps([request.get(k) for k in ("system", "messages", "output_config")]).encode()) + UNSEEN
    paid = (read * CACHE_WRITE * price.input + request["max_tokens"] * price.output) / 1e6
    return paid * (BATCH_SHARE if batch else 1.0)


class Budget:
    """Dollars spent and dollars that calls in flight may still cost. Belongs to one event loop."""

    def __init__(self, cap: float) -> None:
        self.cap, self.spent, self.held, self.flying = cap, 0.0, 0.0, 0
        self._settled = asyncio.Condition()

    async def hold(self, most: float) -> None:
        """Set money aside for a call; waits while calls in flight may free enough. Raises BudgetSpent."""
        async with self._settled:
            # It waits before it refuses: a call in flight holds its worst and mostly gives nearly all of it back.
            await self._settled.wait_for(lambda: not self.flying or self.spent + self.held + most <= self.cap)
            if self.spent + self.held + most > self.cap:
                raise BudgetSpent(
                    f"the cap is ${self.cap:.2f}, ${self.spent:.4f} is spent and the next call can cost ${most:.4f}: "
                    "raise `dollars`; what was answered is in the store and is not paid for again"
                )
            self.held, self.flying = self.held + most, self.flying + 1

    def book(self, paid: float) -> None:
        """Count what was paid without having been held: a batch that an earlier process sent."""
        self.spent += paid

    async def settle(self, most: float, paid: float) -> None:
        """Give back what was set aside and book what was paid."""
        async with self._settled:
            self.flying -= 1
            # Exactly 0 with nothing in flight: no crumbs of rounding stay behind.
            self.held = self.held - most if self.flying else 0.0
            self.spent += paid
            self._settled.notify_all()
