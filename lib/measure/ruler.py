"""The frozen ruler: cases, gold answers, rubric, protocol; its seal and its fingerprint.

Knows the files of `ruler/` and refuses to load them when one byte differs from FROZEN. Does not know models, levers
or how an answer came about. A changed ruler is another ruler: freeze it in a new folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from lib.files import RULER, OneLine, Tampered, canonical, check_sums, hidden, sha256, sums, write_new
from lib.forms import STRICT, Filled, fault, read_rows
from lib.log import Row

Gate = Literal["full", "dev", "confirm"]
GATES: tuple[str, ...] = get_args(Gate)
SEAL = "FROZEN"
Kind = TypeVar("Kind")
FILES = ("cases.jsonl", "gold.jsonl", "rubric.json", "judge_rubric.md", "judge_pairwise.md", "protocol.json")


class BadRuler(OneLine, ValueError):
    """A ruler that cannot be used as it is; the message says which file and line, and what was expected."""


@dataclass(frozen=True)
class Gold:
    """The answer that an expert planner would give."""

    title: str
    questions: tuple[str, ...]
    critical: str = ""  # the most decision-critical of the questions, word for word
    why: str = ""  # why that one
    author: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "questions", tuple(self.questions))


@dataclass(frozen=True)
class Unknown:
    """One thing that a plan of a task depends on and only the person knows."""

    name: str
    weight: float  # 1, nice to know, to 5, another plan altogether
    asked: tuple[str, ...]  # ways to ask for it; with gold's own where gold asks for it
    critical: bool = False  # what gold's critical question asks for


@dataclass(frozen=True)
class Case:
    """One held-out task with its gold answer."""

    id: str
    task: str
    gold: Gold | None = None
    gate: str = "full"
    area: str = ""
    unknowns: tuple[Unknown, ...] = ()  # none where the ruler has none: gold's questions stand for them then

    @property
    def reference(self) -> Gold:
        """The gold answer, for whoever compares with it. Raises ValueError where the case has none."""
        if self.gold is None:
            raise ValueError(f"case {self.id!r} has no gold answer to compare with; take a case of a ruler")
        return self.gold

    @property
    def golden(self) -> tuple[str, ...]:
        """Gold's questions, none without gold."""
        return self.gold.questions if self.gold else ()


@dataclass(frozen=True)
class Dimension:
    """One dimension of the rubric."""

    name: str
    description: str
    anchors: tuple[str, ...]  # what a score of 1, 2, 3, 4 and 5 means


HALVES = 0.5, 0.5  # weight of the rubric, weight of the verdict: one scale for every ruler


@dataclass(frozen=True)
class Protocol:
    """How answers are gated, judged and scored."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT  # a misspelt rule would be no rule
    questions: int = 7
    blend: tuple[float, float] = HALVES
    orders: int = 2  # pairwise calls, gold first and candidate first
    judge: Row = field(default_factory=dict)  # model, effort, thinking
    refusal: str = "scores 0"
    generic_titles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ruler:
    """A verified ruler. Make it with `Ruler.load()`."""

    cases: tuple[Case, ...]
    rubric: tuple[Dimension, ...]
    protocol: Protocol
    prompts: dict[str, str]  # "rubric", "pairwise", "useful": the judge's prompts, word for word
    seal: str  # sha256 of FROZEN
    # Where it lies makes no other ruler.
    folder: Path = field(compare=False)

    @classmethod
    def load(cls, folder: Path | str = RULER) -> Ruler:
        """Read and verify a ruler. Raises Tampered (naming the file) or BadRuler."""
        folder = Path(folder)
        frozen = folder / SEAL
        if not frozen.exists():
            raise BadRuler(f"{frozen}: missing, so this ruler is not frozen; `notch freeze` writes it once")
        text = frozen.read_text(encoding="utf-8", errors="replace")
        # Before a row is read: a changed file is Tampered, also where it would parse.
        if differences := check_sums(folder, text, SEAL):
            raise Tampered("; ".join(differences))
        return read(folder, sha256(text))

    def gate(self, name: str) -> tuple[Case, ...]:
        """The cases of one gate, in file order. Raises BadRuler on an unknown or empty gate."""
        if name not in GATES:
            raise BadRuler(f"gate {name!r}: expected one of {', '.join(GATES)}")
        cases = tuple(c for c in self.cases if c.gate == name)
        if not cases:
            raise BadRuler(f"{self.folder}: no case in gate {name!r}")
        return cases

    @cached_property
    def by_id(self) -> dict[str, Case]:
        """The cases of all gates by their ids."""
        return {c.id: c for c in self.cases}

    @property
    def held_out(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Tasks and gold questions of every gate: what no prompt may show and no training may see."""
        return tuple(c.task for c in self.cases), tuple(chain.from_iterable(c.golden for c in self.cases))

    @property
    def counts(self) -> str:
        """How many cases each gate has, in words; a ruler of one's own may leave a gate empty."""
        return ", ".join(f"{name} {sum(c.gate == name for c in self.cases)}" for name in GATES)

    def fingerprint(self, judge: Row) -> str:
        """sha256 over the seal and the judge's identity: results that differ in it are never compared."""
        return sha256(canonical({"seal": self.seal, "judge": judge}))


def read(folder: Path, seal: str = "") -> Ruler:
    """Read a ruler's files without looking at the seal. Raises BadRuler naming file and line."""
    for name in FILES:
        if not (folder / name).exists():
            raise BadRuler(f"{folder / name}: missing; a ruler has {', '.join(FILES)}")
    tasks = by_id(folder / "cases.jsonl", TaskRow)
    gold = by_id(folder / "gold.jsonl", Gold)
    unknowns = {}
    # In a ruler without them gold's questions stand for the unknowns.
    if (folder / "unknowns.jsonl").exists():
        unknowns = by_id(folder / "unknowns.jsonl", _Unknowns)
    if not tasks:
        raise BadRuler(f"{folder / 'cases.jsonl'}: empty; a ruler needs at least one case")
    for file, ids in (("gold.jsonl", gold.keys()), ("unknowns.jsonl", unknowns.keys())):
        if ids - tasks.keys():
            raise BadRuler(f"{folder / file}: {min(ids - tasks.keys())!r} is no case")
    if tasks.keys() - gold.keys():
        raise BadRuler(f"{folder / 'gold.jsonl'}: no gold answer for case {min(tasks.keys() - gold.keys())!r}")
    cases = []
    for id, row in tasks.items():
        listed = unknowns.get(id, _Unknowns(())).unknowns
        cases.append(Case(id, row.task, gold[id], row.gate, row.area, _unknowns(listed, gold[id])))
    rubric = whole(folder / "rubric.json", _Rubric)
    protocol = whole(folder / "protocol.json", Protocol)
    if protocol.blend != HALVES:
        raise BadRuler(
            f"{folder / 'protocol.json'}: blend is {list(protocol.blend)}; expected [0.5, 0.5]: sealed scores are read so"
        )
    # Rulers frozen before usefulness was asked for have no prompt for it and stay readable.
    prompts = {}
    for kind in ("rubric", "pairwise", "useful"):
        path = folder / f"judge_{kind}.md"
        if path.exists():
            prompts[kind] = path.read_text(encoding="utf-8")
    return Ruler(tuple(cases), rubric.dimensions, protocol, prompts, seal, folder)


# --- rows of the files ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Named:
    id: str


@dataclass(frozen=True)
class TaskRow:
    """A row of `cases.jsonl`, without its id."""

    gate: Gate
    area: Filled
    task: Filled


@dataclass(frozen=True)
class _Unknown:
    name: str
    weight: float
    asked: tuple[str, ...]
    gold: Annotated[int, Field(ge=0)] | None = None  # place among gold's questions of the one that asks for it


@dataclass(frozen=True)
class _Unknowns:
    unknowns: tuple[_Unknown, ...]


@dataclass(frozen=True)
class _Drafted:
    reviewed: bool = True  # a row that says nothing of it was never a draft


@dataclass(frozen=True)
class _Rubric:
    dimensions: tuple[Dimension, ...]


def _unknowns(rows: Iterable[_Unknown], gold: Gold) -> tuple[Unknown, ...]:
    """A case's unknowns; where gold asks for one, its own question is one more way to ask. Raises BadRuler."""
    unknowns = []
    for row in rows:
        if row.gold is None:
            unknowns.append(Unknown(row.name, row.weight, row.asked))
            continue
        if row.gold >= len(gold.questions):
            raise BadRuler(
                f"unknowns.jsonl: {row.name!r} of {gold.title!r} is gold's question {row.gold}: expected a place among "
                f"its {len(gold.questions)} questions, from 0"
            )
        own = gold.questions[row.gold]
        unknowns.append(Unknown(row.name, row.weight, (*row.asked, own), own == gold.critical))
    return tuple(unknowns)


def by_id(path: Path, row: type[Kind]) -> dict[str, Kind]:
    """The rows of a file by their `id`. Raises BadRuler naming file and line."""
    values: dict[str, Kind] = {}
    # Read twice, once for the ids alone: the forms say what a row means, and its name is no part of that.
    for (where, named), (_, value) in zip(
        read_rows(path, _Named, BadRuler), read_rows(path, row, BadRuler), strict=True
    ):
        if named.id in values:
            raise BadRuler(f"{where}: a second row with the id {named.id!r}")
        values[named.id] = value
    return values


def whole(path: Path, kind: type[Kind]) -> Kind:
    """A file that is one JSON object. Raises BadRuler."""
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes(), strict=True)
    except ValidationError as failure:
        raise fault(failure, getattr(kind, "__dataclass_fields__", {}), BadRuler, f"{path}:") from None


def freeze(folder: Path = RULER) -> str:
    """Check a ruler and write its seal once; returns the seal's sha256. Raises BadRuler, FileExistsError."""
    ruler = read(folder)
    _refuse_draft(folder)
    for case in ruler.cases:
        questions = case.golden
        where = f"{folder / 'gold.jsonl'}: gold of {case.id!r}"
        # Gold must pass the gate that answers must pass.
        if len(questions) != ruler.protocol.questions or len(set(questions)) != len(questions):
            raise BadRuler(f"{where}: {len(set(questions))} different questions, expected {ruler.protocol.questions}")
        if case.gold and case.gold.critical not in questions:
            raise BadRuler(f"{where}: critical is not one of its questions")
    # Every file, also one that nobody reads: what lies in a frozen folder is part of the ruler, or is Tampered with.
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != SEAL]
    text = sums(folder, [n for n in names if not hidden(n)])
    write_new(folder / SEAL, text)
    return sha256(text)


def _refuse_draft(folder: Path) -> None:
    """Raise BadRuler naming every row that is not filled in, or that was drafted and that no person has reviewed."""
    texts: dict[str, dict[str, list[str]]] = {"gold.jsonl": {}}
    for id, row in by_id(folder / "gold.jsonl", Gold).items():
        texts["gold.jsonl"][id] = [row.title, row.critical, *row.questions]
    if (folder / "unknowns.jsonl").exists():
        texts["unknowns.jsonl"] = {}
        for id, listed in by_id(folder / "unknowns.jsonl", _Unknowns).items():
            texts["unknowns.jsonl"][id] = []
            for unknown in listed.unknowns:
                texts["unknowns.jsonl"][id] += [unknown.name, *unknown.asked]
    faults = []
    for file, by_case in texts.items():
        empty, unread = [], []
        for id, drafted in by_id(folder / file, _Drafted).items():
            if not all(map(str.strip, by_case[id])):
                empty.append(id)
            elif not drafted.reviewed:
                unread.append(id)
        if empty:
            faults.append(f"{file} has empty texts in {', '.join(empty)}")
        if unread:
            faults.append(
                f'{file} is not reviewed in {", ".join(unread)} (a person who read a row sets "reviewed": true)'
            )
    if faults:
        raise BadRuler(f"{folder}: {'; '.join(faults)}")
