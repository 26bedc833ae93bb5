"""The teacher's sets: tasks that are not the ruler's, each with questions as an expert would ask them.

Knows the files beside it, which a frontier model (Claude) wrote and a second reading mended (README.md there), the
split of their families into train and valid, and which sets are near to a task. Does not know gold answers, nor
models. They are the examples that retrieval shows, the targets of imitation and the chosen side of a preference.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib.agent.guard import SAME_TASK, content, overlap
from lib.agent.prompt import Draft
from lib.files import rows, sha256
from lib.models.embed import embedder

FOLDER = Path(__file__).parent
AREAS = ("travel", "health", "admin", "home", "social", "career", "creative", "learning", "shopping", "finance")
SHOWN = ("json", "lines")  # schemas that a set can be shown in: it has no reasons, unknowns or slots
VALID = 12  # one family in so many is for validation


@dataclass(frozen=True)
class Example:
    """A task with a good question set."""

    id: str
    family: str  # tasks that teach nearly the same share one; a family is in train or in valid
    area: str
    task: str
    draft: Draft  # title and seven questions, the most decisive first
    further: tuple[str, ...] = ()  # five that are good too
    critical: str = ""  # the one of the seven whose answer changes the plan most
    second: Draft | None = None  # the same seven unknowns in another good style, for some

    def shown(self, schema: str) -> Draft:
        """The set as the reply in a schema. Raises ValueError where it has not what the schema asks for."""
        if schema not in SHOWN:
            raise ValueError(f"the bank's sets have no {schema} to show; take schema {' or '.join(SHOWN)} after demos")
        return self.draft

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text of it that a model may see."""
        second = (self.second.title, *self.second.questions) if self.second else ()
        return (self.task, self.draft.title, *self.draft.questions, *self.further, *second)


@lru_cache(maxsize=1)
def bank() -> tuple[Example, ...]:
    """Every set, area by area, in the order of the files."""
    second = {row["id"]: Draft(row["title"], tuple(row["questions"])) for row in _lines(FOLDER / "second.jsonl")}
    return tuple(
        Example(
            row["id"], row["family"], row["area"], row["task"], Draft(row["title"], tuple(row["questions"])),
            tuple(row["further"]), row["critical"], second.get(row["id"]),
        )
        for area in AREAS
        for row in _lines(FOLDER / f"{area}.jsonl")
    )  # fmt: skip


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in rows(path.read_text(encoding="utf-8"))]


def split(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Sets to train on and sets to validate on: by family, by a hash of its name, so that a new set moves no other."""
    apart = {e.family for e in examples if int(sha256(e.family)[:8], 16) % VALID == 0}
    return [e for e in examples if e.family not in apart], [e for e in examples if e.family in apart]


def nearest(task: str, examples: Sequence[Example], k: int, by: str = "words") -> list[Example]:
    """The k examples nearest to a task, leaving out those that are the same task (by words, not by id).

    By "words": shared words, rare ones counting more. By "embedding": cosine of sentence vectors. Ties go to the
    earlier example, so the choice repeats exactly.
    """
    mine = content(task)
    if by == "words":
        often = Counter(w for e in examples for w in content(e.task))
        close = [sum(1 / often[w] for w in content(e.task) & mine) for e in examples]
    else:
        # Rounded: the last digits of a matrix product differ between machines and must not decide a tie.
        cosines = _vectors(tuple(e.task for e in examples)) @ embedder().vectors([task])[0]
        close = [round(float(c), 5) for c in cosines]
    others = [i for i, e in enumerate(examples) if overlap(content(e.task), mine) < SAME_TASK]
    return [examples[i] for i in sorted(others, key=lambda i: (-close[i], i))[:k]]


@lru_cache(maxsize=4)
def _vectors(texts: tuple[str, ...]) -> Any:
    return embedder().vectors(texts)
