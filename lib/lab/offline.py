"""The offline judge with the embedded embedder: what `from lib import OfflineJudge` gives.

Knows both sides, so that the measure need not import models nor models the measure.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

from lib.files import canonical, replace, sha256
from lib.measure import offline_judge
from lib.models.embed import embedder
from lib.weights import PINNED, cache

MANY = 30  # texts from which their vectors are kept on disk: what a ruler asks for comes again in every process


def vectors(texts: Sequence[str]) -> Any:
    """One row a text; MiniLM is loaded at the first call. The ruler's own texts are embedded once for all processes."""
    import numpy as np

    if len(texts) < MANY:
        return embedder().vectors(texts)
    path = cache() / "vectors" / f"{sha256(canonical([PINNED['minilm'].sha256, list(texts)]))[:24]}.npy"
    with contextlib.suppress(OSError, ValueError):
        return np.load(path)
    made = embedder().vectors(texts)
    with contextlib.suppress(OSError):  # without a cache it is only slower
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, made)
        replace(path, buffer.getvalue())
    return made


class OfflineJudge(offline_judge.OfflineJudge):
    """The embedded judge, ready to judge. Loads nothing before the first judgment."""

    def __init__(self) -> None:
        super().__init__(vectors)
