"""The offline judge with the embedded embedder: what `from lib import OfflineJudge` gives.

Knows both sides, so that the measure need not import models nor models the measure.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Sequence
from functools import cache as once
from pathlib import Path
from typing import Any

from lib.files import RULER, SHIPPED, Tampered, canonical, rows, sha256, sha256_file, write_atomic
from lib.measure import offline_judge
from lib.measure.answer import Answer
from lib.measure.ruler import read
from lib.models import embed
from lib.models.embed import MANY, embedder, vectors
from lib.models.model import NoModel
from lib.runs.provenance import machine
from lib.weights import cache

TEXTS = "calibration.jsonl"  # of a ruler: the texts whose scores are kept beside the constants
READ = (TEXTS, "cases.jsonl", "gold.jsonl", "unknowns.jsonl")  # files of a ruler that such scores depend on
# Another machine adds up in another order.
NEAR = 0.01  # how far a score may come out elsewhere
DRAWN = 3  # rows of a block that are embedded again where the cache is doubted


def doubted(texts: Sequence[str]) -> Any:
    """The same, with some rows embedded anew: whoever can write the cache can write a sum too. Raises Tampered."""
    array = vectors(texts)
    # So few were embedded just now.
    if len(texts) < MANY:
        return array
    # By the system's chance: whoever forged the cache must not know which rows are looked at.
    drawn = random.SystemRandom().sample(range(len(texts)), min(DRAWN, len(texts)))
    if abs(_fresh([texts[i] for i in drawn]) - array[drawn]).max() > 1e-3:
        raise Tampered(f"{cache() / 'vectors'}: holds other vectors than the sentences have; delete that folder")
    return array


class OfflineJudge(offline_judge.OfflineJudge):
    """The embedded judge, ready to judge. Loads nothing before the first judgment."""

    def __init__(self, vectors: offline_judge.Vectors = vectors) -> None:
        super().__init__(vectors)

    def check(self, ruler: Path = RULER) -> None:
        """Refuse where it does not say what its fingerprint says that it says. Raises NoModel, also without weights.

        Judges the ruler's calibration texts, once a machine; for a ruler without any those of the shipped one, whose
        scores are what the fingerprint names.
        """
        if not (ruler / TEXTS).exists():
            ruler = SHIPPED
        _repeats(ruler, tuple(sha256_file(p) for name in READ if (p := ruler / name).exists()))


@once  # a loop checks hundreds of proposals
def _repeats(ruler: Path, content: tuple[str, ...]) -> None:
    """Raise NoModel where scores of its texts are not the kept ones; what was found sound here is not judged again."""
    code = [sha256_file(Path(module.__file__ or "")) for module in (offline_judge, embed)]
    mark = sha256(canonical([content, sha256_file(offline_judge.CONSTANTS), code, machine()]))[:24]
    path = cache() / "judge" / mark
    if path.exists():
        return
    texts = ruler / TEXTS
    kept = json.loads(offline_judge.CONSTANTS.read_text(encoding="utf-8"))["calibration"]
    cases = read(ruler).by_id
    lines = [json.loads(line) for line in rows(texts.read_text(encoding="utf-8"))]
    pairs = [(cases[t["case"]], Answer(t["title"], tuple(t["questions"]))) for t in lines if t["case"] in cases]
    if len(pairs) != len(kept):
        raise NoModel(f"{texts}: {len(pairs)} texts of this ruler's cases, and the offline judge was fitted with {len(kept)}; "
                      "fit it to this ruler with `python -m scripts.fit_offline_judge --write`, or judge with claude")  # fmt: skip
    # Vectors of this process: those on disk may be another library's.
    judgments = offline_judge.OfflineJudge(_fresh).judge_all(pairs)
    off = [abs(a - b) for judged, row in zip(judgments, kept, strict=True)
           for a, b in zip(judged.scores.values(), row, strict=True)]  # fmt: skip
    # Kept scores have two decimals, hence the half of a hundredth; by `not <=` NaN is wrong too.
    wrong = [d for d in off if not d <= NEAR + 0.005]
    if wrong:
        raise NoModel(f"the offline judge gives {len(wrong)} of {len(off)} scores of {texts} otherwise than where it was fitted, "
                      f"by up to {max(wrong):.2f}, and at most {NEAR} is allowed: its code or its libraries are others here; "
                      "put them back (`make setup`), or judge with claude")  # fmt: skip
    with contextlib.suppress(OSError):  # without a cache it is only slower
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, b"")


def _fresh(texts: Sequence[str]) -> Any:
    return embedder().vectors(texts)
