"""The levers, one family a file. Importing this package registers them all.

Each is a small function of keyword arguments that returns `run(state)`: a generator that yields lists of calls,
receives their completions and returns the new state.
"""

from lib.agent.pipeline import build
from lib.agent.steps import (
    adapters,
    asking,
    choosing,
    critiquing,
    decoding,
    planning,
    pruning,
    retrieval,
    scenarios,
    verifying,
)

__all__ = [
    "adapters", "asking", "build", "choosing", "critiquing", "decoding", "planning", "pruning", "retrieval",
    "scenarios", "verifying",
]  # fmt: skip
