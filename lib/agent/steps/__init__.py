"""The levers, one family a file. Importing this package registers them all.

Each is a small function of keyword arguments that returns `run(state)`: a generator that yields lists of calls,
receives their completions and returns the new state. Its annotations are the ranges of its arguments; its `@step` says
the class of lever, what it costs, what it needs of a model, and what of the state it takes, uses and gives. Checks,
menus, the search and the dry run read all of that from there: a new lever is its function, here, and its test.

Where a comment names an experiment of the published study (`notebooks/published`), the first figure is its quality,
the second that of the plain call (gate dev) or of the adapter that it was tried on (full): one draw each, of 10 or 30
tasks, so a hint and no finding.
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
