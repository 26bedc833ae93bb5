"""The teacher's sets: tasks that are not the ruler's, each with questions as an expert would ask them.

Knows the files beside it, which a frontier model (Claude) wrote and a second reading mended (README.md there), the
split of their families into train and valid, and which sets are near to a task. Does not know gold answers, nor
models. They are the examples that retrieval shows, the targets of imitation and the chosen side of a preference.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from lib.agent.guard import SAME_TASK, content, overlap
from lib.agent.prompt import Draft
from lib.files import sha256
from lib.forms import read_rows
from lib.models.embed import vectors

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
    second = {row.id: row.draft for row in _read("second")}
    examples = []
    for area in AREAS:
        for row in _read(area):
            further, other = row.further, second.get(row.id)
            examples.append(Example(row.id, row.family, row.area, row.task, row.draft, further, row.critical, other))
    return tuple(examples)


@dataclass(frozen=True)
class _Line:
    """A line of a file."""

    id: str
    title: str
    questions: tuple[str, ...]
    family: str = ""
    area: str = ""
    task: str = ""
    further: tuple[str, ...] = ()
    critical: str = ""

    @property
    def draft(self) -> Draft:
        return Draft(self.title, self.questions)


def _read(name: str) -> list[_Line]:
    return [line for _, line in read_rows(FOLDER / f"{name}.jsonl", _Line)]


def split(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Sets to train on and sets to validate on: by family, by a hash of its name, so that a new set moves no other."""
    # By family, so that a set to validate on is not a near copy of one that was learnt.
    parts: tuple[list[Example], list[Example]] = ([], [])
    for example in examples:
        parts[int(sha256(example.family)[:8], 16) % VALID == 0].append(example)
    return parts


def nearest(task: str, examples: Sequence[Example], k: int, by: str = "words") -> list[Example]:
    """The k examples nearest to a task, leaving out those that are the same task (by words, not by id).

    By "words": shared words, rare ones counting more. By "embedding": cosine of sentence vectors. Ties go to the
    earlier example, so the choice repeats exactly.
    """
    words = [content(example.task) for example in examples]
    asked = content(task)
    if by == "words":
        count = Counter(chain.from_iterable(words))
        # An exact sum: words come out of a set in another order in every process, and the last digit decides ties.
        close = [math.fsum(1 / count[word] for word in own & asked) for own in words]
    else:
        # Rounded: the last digits of a matrix product differ between machines and must not decide a tie.
        cosines = _vectors(tuple(example.task for example in examples)) @ vectors([task])[0]
        close = [round(float(cosine), 5) for cosine in cosines]
    # Leave-one-out by words, not by id: the same task under another id would hand over its answer.
    others = [i for i, own in enumerate(words) if overlap(own, asked) < SAME_TASK]
    return [examples[i] for i in sorted(others, key=lambda i: -close[i])[:k]]


@lru_cache(maxsize=4)
def _vectors(texts: tuple[str, ...]) -> Any:
    return vectors(texts)
