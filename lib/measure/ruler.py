"""The frozen ruler: cases, gold answers, rubric, protocol; its seal and its fingerprint.

Knows the files of `ruler/` and refuses to load them when one byte differs from FROZEN. Does not know models, levers
or how an answer came about. A changed ruler is another ruler: freeze it in a new folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.files import RULER, OneLine, Tampered, canonical, check_sums, hidden, rows, sha256, sums, write_new
from lib.log import Row

GATES = ("full", "dev", "confirm")
AREAS = ("travel", "health", "admin", "home", "social", "career", "creative", "learning", "shopping", "finance")
SEAL = "FROZEN"
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


@dataclass(frozen=True)
class Dimension:
    """One dimension of the rubric."""

    name: str
    description: str
    anchors: tuple[str, ...]  # what a score of 1, 2, 3, 4 and 5 means


@dataclass(frozen=True)
class Protocol:
    """How answers are gated, judged and scored."""

    questions: int = 7
    blend: tuple[float, float] = (0.5, 0.5)  # weight of the rubric, weight of the verdict
    orders: int = 2  # pairwise calls, gold first and candidate first
    judge: dict[str, Any] = field(default_factory=dict)  # model, effort, thinking
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
    folder: Path = field(compare=False)

    @classmethod
    def load(cls, folder: Path | str = RULER) -> Ruler:
        """Read and verify a ruler. Raises Tampered (naming the file) or BadRuler."""
        folder = Path(folder)
        frozen = folder / SEAL
        if not frozen.exists():
            raise BadRuler(f"{frozen}: missing, so this ruler is not frozen; `notch freeze` writes it once")
        text = frozen.read_text(encoding="utf-8", errors="replace")
        if wrong := check_sums(folder, text, SEAL):
            raise Tampered("; ".join(wrong))
        return read(folder, sha256(text))

    def gate(self, name: str) -> tuple[Case, ...]:
        """The cases of one gate, in file order. Raises BadRuler on an unknown or empty gate."""
        if name not in GATES:
            raise BadRuler(f"gate {name!r}: expected one of {', '.join(GATES)}")
        cases = tuple(c for c in self.cases if c.gate == name)
        if not cases:
            raise BadRuler(f"{self.folder}: no case in gate {name!r}")
        return cases

    def fingerprint(self, judge: dict[str, Any]) -> str:
        """sha256 over the seal and the judge's identity: results that differ in it are never compared."""
        return sha256(canonical({"seal": self.seal, "judge": judge}))

    def _repr_markdown_(self) -> str:
        table = [f"| {c.area} | {c.task} | {c.gold.critical if c.gold else ''} |" for c in self.gate("full")]
        count = ", ".join(f"{len(self.gate(g))} {g}" for g in GATES)
        head = f"Ruler `{self.seal[:12]}`: {count}.\n\n| area | task (full gate) | what decides the plan |\n|---|---|---|\n"
        return head + "\n".join(table)


def read(folder: Path, seal: str = "") -> Ruler:
    """Read a ruler's files without looking at the seal. Raises BadRuler naming file and line."""
    for name in FILES:
        if not (folder / name).exists():
            raise BadRuler(f"{folder / name}: missing; a ruler has {', '.join(FILES)}")
    unknowns = _unknowns(folder / "unknowns.jsonl")
    answers, tasks = folder / "gold.jsonl", folder / "cases.jsonl"
    gold = _by_id(answers, {"id": str, "title": str, "questions": list, "critical": str})
    cases = []
    for row in _by_id(tasks, {"id": str, "gate": str, "area": str, "task": str}).values():
        answer = gold.pop(row["id"], None)
        if answer is None:
            raise BadRuler(f"{answers}: no gold answer for case {row['id']!r}")
        if row["gate"] not in GATES:
            raise BadRuler(f"{tasks}: case {row['id']!r} has gate {row['gate']!r}, not one of {GATES}")
        if row["area"] not in AREAS:
            raise BadRuler(f"{tasks}: case {row['id']!r} has area {row['area']!r}, not one of {', '.join(AREAS)}")
        known = {k: answer[k] for k in ("title", "questions", "critical", "why", "author") if k in answer}
        made = Gold(**known)
        cases.append(
            Case(row["id"], row["task"], made, row["gate"], row["area"], _of(made, unknowns.pop(row["id"], ())))
        )
    if unknowns:
        raise BadRuler(f"{folder / 'unknowns.jsonl'}: unknowns of {sorted(unknowns)[0]!r}, which is no case")
    if gold:
        raise BadRuler(f"{answers}: gold for {sorted(gold)[0]!r}, which is no case")
    if not cases:
        raise BadRuler(f"{tasks}: empty; a ruler needs at least one case")
    try:
        rubric = json.loads((folder / "rubric.json").read_text(encoding="utf-8"))
        dims = tuple(Dimension(d["name"], d["description"], tuple(d["anchors"])) for d in rubric["dimensions"])
        protocol = json.loads((folder / "protocol.json").read_text(encoding="utf-8"))
        rules = Protocol(**protocol | {k: tuple(protocol[k]) for k in ("blend", "generic_titles")})
    except (ValueError, KeyError, TypeError) as error:
        raise BadRuler(f"{folder}: rubric.json or protocol.json cannot be read ({error})") from error
    # Rulers frozen before usefulness was asked for have no prompt for it and stay readable.
    texts = {k: folder / f"judge_{k}.md" for k in ("rubric", "pairwise", "useful")}
    prompts = {k: path.read_text(encoding="utf-8") for k, path in texts.items() if path.exists()}
    return Ruler(tuple(cases), dims, rules, prompts, seal, folder)


def _unknowns(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of unknowns by case; a ruler without the file has none. Raises BadRuler."""
    if not path.exists():
        return {}
    return {row["id"]: row["unknowns"] for row in _by_id(path, {"id": str, "unknowns": list}).values()}


def _of(gold: Gold, rows: Iterable[dict[str, Any]]) -> tuple[Unknown, ...]:
    """A case's unknowns; where gold asks for one, its own question is one more way to ask. Raises BadRuler."""
    found, places = [], dict(enumerate(gold.questions))
    for row in rows:
        try:
            own = places[row["gold"]] if row.get("gold") is not None else ""
            asked = (*row["asked"], *([own] if own else []))
            found.append(Unknown(row["name"], float(row["weight"]), asked, bool(own) and own == gold.critical))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadRuler(
                f"unknowns.jsonl: {row!r:.90} of {gold.title!r}: expected name, weight, asked and gold as a place among "
                f"gold's {len(places)} questions, from 0 ({type(error).__name__}: {error})"
            ) from error
    return tuple(found)


def freeze(folder: Path = RULER) -> str:
    """Check a ruler and write its seal once; returns the seal's sha256. Raises BadRuler, FileExistsError."""
    ruler = read(folder)
    for case in ruler.cases:
        questions = case.gold.questions if case.gold else ()
        where = f"{folder / 'gold.jsonl'}: gold of {case.id!r}"
        if len(questions) != ruler.protocol.questions or len(set(questions)) != len(questions):
            raise BadRuler(f"{where}: {len(set(questions))} different questions, expected {ruler.protocol.questions}")
        if not all(isinstance(q, str) and q.strip() for q in questions):
            raise BadRuler(f"{where}: a question is not a text")
        if case.gold and case.gold.critical not in questions:
            raise BadRuler(f"{where}: critical is not one of its questions")
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != SEAL]
    text = sums(folder, [n for n in names if not hidden(n)])
    write_new(folder / SEAL, text)
    return sha256(text)


def _by_id(path: Path, need: dict[str, type]) -> dict[str, Row]:
    by_id: dict[str, Row] = {}
    for where, row in json_lines(path, BadRuler):
        for key, kind in need.items():
            if not isinstance(row.get(key), kind):
                raise BadRuler(f"{where}: {key!r} is not a {kind.__name__}; expected {', '.join(need)}")
        if row["id"] in by_id:
            raise BadRuler(f"{path}: two rows have the id {row['id']!r}")
        by_id[row["id"]] = row
    return by_id


def json_lines(path: Path, refusal: type[ValueError]) -> Iterator[tuple[str, Row]]:
    """Place ("file:line") and object of every line of a file that is not blank. Raises `refusal` naming the line, OSError."""
    try:
        lines = [(n, line) for n, line in enumerate(rows(path.read_text(encoding="utf-8")), 1) if line.strip()]
    except UnicodeDecodeError as error:
        raise refusal(f"{path}: not UTF-8 ({error})") from error
    for number, line in lines:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise refusal(f"{path}:{number}: not a JSON object ({error})") from error
        if not isinstance(row, dict):
            raise refusal(f"{path}:{number}: not a JSON object")
        yield f"{path}:{number}", row
