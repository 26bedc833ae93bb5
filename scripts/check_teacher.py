"""Checks the teacher's sets and prints their card: form, leaks, near-duplicates, openings, split. Exit code 1 on a fault.

usage: python -m scripts.check_teacher [FOLDER]     (default: lib/agent/bank)
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.agent.bank import AREAS, FOLDER, split
from lib.agent.bank import bank as read_bank
from lib.agent.guard import Leak, LeakGuard
from lib.files import rows
from lib.measure.answer import Answer, spec_gate
from lib.measure.ruler import Ruler
from lib.models.embed import vectors

KEYS = {"id", "family", "area", "task", "title", "questions", "further", "critical"}
SAME = 0.82  # cosine of two task lines from which a reader has to say that they are different tasks
COMMON = 0.02  # share of all questions that one opening of four words may have
WORDS, SECOND = (4, 13), (8, 20)  # words of a question, of one in the second style


def opening(question: str, n: int = 4) -> str:
    """The first words of a question, without capitals and signs.

    >>> opening("Which passport would you show at the port?")
    'which passport would you'
    """
    return " ".join(re.findall(r"[\w']+", question.lower())[:n])


def form(where: str, row: dict[str, Any]) -> Iterator[str]:
    """What is wrong with one set, a sentence each."""
    if set(row) != KEYS:
        yield f"{where}: keys {sorted(set(row) ^ KEYS)} are missing or too many"
        return
    if row["area"] not in AREAS or not row["id"].startswith(row["area"] + "-"):
        yield f"{where}: area {row['area']!r} and id {row['id']!r} do not fit"
    if len(row["further"]) != 5 or row["critical"] not in row["questions"]:
        yield f"{where}: expected five further questions, and critical to be one of the seven"
    if not 3 <= len(row["task"].split()) <= 16:
        yield f"{where}: a task of {len(row['task'].split())} words"
    yield from questions(where, row["title"], row["questions"], row["further"], WORDS)


def questions(where: str, title: str, seven: list[str], further: list[str], words: tuple[int, int]) -> Iterator[str]:
    """What is wrong with a title and its questions."""
    gate = spec_gate(title, seven)
    if not isinstance(gate, Answer):
        yield f"{where}: {gate.reason}"
    if len({q.lower() for q in (*seven, *further)}) != len(seven) + len(further):
        yield f"{where}: a question stands there twice"
    for question in (*seven, *further):
        if not words[0] <= len(question.split()) <= words[1] or not question.endswith("?") or question.count("?") > 1:
            yield f"{where}: {question!r} has {len(question.split())} words, or another end than one question mark"
    twice = Counter(opening(q, 2) for q in seven).most_common(1)[0]
    if twice[1] > 2 and words == WORDS:
        yield f"{where}: {twice[1]} of the seven begin with {twice[0]!r}"


def read(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every set with its file and line."""
    for area in AREAS:
        for number, line in enumerate(rows((folder / f"{area}.jsonl").read_text(encoding="utf-8")), 1):
            yield f"{area}.jsonl:{number}", json.loads(line)


def leaks(sets: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """Sets that come near a task or a gold question of the ruler."""
    ruler = Ruler.load()
    guard, (own, _) = LeakGuard(*ruler.held_out), ruler.held_out
    for where, row in sets:
        try:
            guard.check([row["task"], row["title"], *row["questions"], *row["further"]], where)
        except Leak as leak:
            yield str(leak)
    tasks = vectors([row["task"] for _, row in sets]) @ vectors(own).T
    for (where, row), line in zip(sets, tasks, strict=True):
        if line.max() >= SAME:
            yield f"{where}: {row['task']!r} comes near a task of the ruler (cosine {line.max():.2f}): {own[int(line.argmax())]!r}"


def twins(sets: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """Pairs of tasks that mean nearly the same and are of different families, which would share them out to both parts."""
    of = vectors([row["task"] for _, row in sets])
    close = of @ of.T
    for i, (where, row) in enumerate(sets):
        for j in range(i):
            if close[i, j] >= SAME and row["family"] != sets[j][1]["family"]:
                yield f"{where}: {row['task']!r} is close to {sets[j][1]['task']!r} ({sets[j][0]}, cosine {close[i, j]:.2f}) in another family"


def card(sets: list[tuple[str, dict[str, Any]]]) -> tuple[str, list[str]]:
    """The card as text, and what is wrong with the openings."""
    asked = [q for _, row in sets for q in (*row["questions"], *row["further"])]
    opens = Counter(map(opening, asked))
    top, count = opens.most_common(1)[0]
    firsts = sum(row["questions"].index(row["critical"]) == 0 for _, row in sets)
    train, valid = split(read_bank())
    areas = ", ".join(f"{area} {n}" for area, n in Counter(row["area"] for _, row in sets).items())
    lengths = sorted(len(q.split()) for q in asked)
    told = [
        f"{len(sets)} sets ({areas}), {len({row['family'] for _, row in sets})} families, {len(asked)} questions",
        f"train {len(train)} sets of {len({e.family for e in train})} families, valid {len(valid)} of {len({e.family for e in valid})}",
        f"second style: {sum(e.second is not None for e in read_bank())} sets",
        f"distinct openings of four words: {len(opens)} ({100 * len(opens) / len(asked):.0f} % of the questions); the commonest, {top!r}, begins {100 * count / len(asked):.1f} %",
        f"words of a question: median {lengths[len(lengths) // 2]}, from {lengths[0]} to {lengths[-1]}; the critical question stands first in {100 * firsts / len(sets):.0f} %",
    ]
    odd = [
        f"{text!r} begins {100 * n / len(asked):.1f} % of all questions"
        for text, n in opens.items()
        if n > COMMON * len(asked)
    ]
    return "\n".join(told), odd


def main(folder: Path = FOLDER) -> int:
    """Print what is wrong, then the card."""
    sets = list(read(folder))
    wrong = [text for where, row in sets for text in form(where, row)]
    ids = Counter(row["id"] for _, row in sets)
    wrong += [f"id {name!r} stands there {n} times" for name, n in ids.items() if n > 1]
    for number, line in enumerate(rows((folder / "second.jsonl").read_text(encoding="utf-8")), 1):
        row = json.loads(line)
        wrong += questions(f"second.jsonl:{number}", row["title"], row["questions"], [], SECOND)
        if row["id"] not in ids:
            wrong.append(f"second.jsonl:{number}: no set {row['id']!r}")
    wrong += [*leaks(sets), *twins(sets)]
    told, odd = card(sets)
    for text in (*wrong, *odd):
        print(text)
    print(told)
    return int(bool(wrong or odd))


if __name__ == "__main__":
    sys.exit(main(*(Path(a) for a in sys.argv[1:2])))
