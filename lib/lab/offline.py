"""The offline judge with the embedded embedder: what `from lib import OfflineJudge` gives.

Knows both sides, so that the measure need not import models nor models the measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lib.measure import offline_judge
from lib.models.embed import embedder


def vectors(texts: Sequence[str]) -> Any:
    """One row a text; MiniLM is loaded at the first call."""
    return embedder().vectors(texts)


class OfflineJudge(offline_judge.OfflineJudge):
    """The embedded judge, ready to judge. Loads nothing before the first judgment."""

    def __init__(self) -> None:
        super().__init__(vectors)
