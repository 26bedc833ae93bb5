"""Pairs to train on, each set with its card: where it comes from, how many, their hashes, that the ruler is not in it.

Knows the teacher's sets, files of pairs, and how to make a pair of preference out of two texts. Train and valid never
share a family of tasks. Does not know models beyond `generate`, nor gold: the leak guard comes from outside, and
every text passes it before anything is trained. Kinds after the published study: the teacher's sets, sets that must
span what the task leaves open, two styles of good answer, and good answers against the model's own drafts.
"""

from __future__ import annotations

import lzma
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lib.agent import prompt
from lib.agent.bank import Example, bank, split
from lib.agent.guard import LeakGuard
from lib.agent.prompt import BadReply, Draft
from lib.files import Exit, OneLine, canonical, sha256
from lib.forms import Filled, read_rows
from lib.log import Row
from lib.measure.answer import normalised
from lib.models.embed import embedder
from lib.models.model import Decoding, Model

KINDS = ("clean", "coverage", "styles", "on-policy")
PREFERENCE = ("styles", "on-policy")  # kinds whose pairs have a rejected side
QUESTIONS = 7
# Drafts are drawn in the form of a set: of small models too few free ones have it, and a pair should differ in what is
# asked.
FORM = prompt.set_grammar(QUESTIONS, "json", questions=True)
TEACHER = "the teacher"  # sets that were read against the ruler before they came in
VALID = 48  # pairs of validation, the same for every size of a training set


class BadData(OneLine, ValueError):
    """Pairs that cannot be trained on; the message says which, what came and what was expected."""

    exit = Exit.USAGE


@dataclass(frozen=True)
class Pair:
    """A task with the set to learn and, for preference, the one to move away from."""

    task: str
    family: str
    chosen: Draft
    rejected: Draft | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text of it, for the leak guard."""
        chosen = (self.task, self.chosen.title, *self.chosen.questions)
        if self.rejected is None:
            return chosen
        return (*chosen, self.rejected.title, *self.rejected.questions)

    def as_dict(self) -> Row:
        """The pair as a line of a file of pairs."""
        row: Row = {"task": self.task, "family": self.family, **_plain(self.chosen)}
        if self.rejected:
            row["rejected"] = _plain(self.rejected)
        return row


def _plain(draft: Draft) -> Row:
    return {"title": draft.title, "questions": list(draft.questions)}


@dataclass(frozen=True)
class Card:
    """What a set of pairs is, for whoever reads the run."""

    kind: str
    source: str  # the teacher, a file's name, or the model that wrote the chosen sets
    seed: int
    train: int = 0
    valid: int = 0
    families: tuple[int, int] = (0, 0)  # in train, in valid; none is in both
    skipped: dict[str, int] = field(default_factory=dict)  # why a pair was left out -> how many
    hashes: dict[str, str] = field(default_factory=dict)  # sha256 of train, of valid
    guard: str = "not checked"

    @property
    def hash(self) -> str:
        """One hash for the whole set."""
        return sha256(canonical(self.hashes))

    def as_dict(self) -> Row:
        return asdict(self) | {"families": list(self.families), "hash": self.hash}

    def _repr_markdown_(self) -> str:
        skipped = ", ".join(f"{n} {why}" for why, n in self.skipped.items() if n) or "none"
        return (
            f"| | train | valid |\n|---|---|---|\n| pairs | {self.train} | {self.valid} |\n"
            f"| families of tasks | {self.families[0]} | {self.families[1]} |\n"
            f"| sha256 | `{self.hashes.get('train', '')[:12]}` | `{self.hashes.get('valid', '')[:12]}` |\n\n"
            f"Kind **{self.kind}**, written by **{self.source}**, seed {self.seed}. Left out: {skipped}. "
            f"Leak guard: {self.guard}. No family is in both."
        )


@dataclass(frozen=True)
class Pairs:
    """A training set: train, valid and the card."""

    train: tuple[Pair, ...]
    valid: tuple[Pair, ...]
    card: Card

    @classmethod
    def of(cls, train: Sequence[Pair], valid: Sequence[Pair], card: Card) -> Pairs:
        """The set with its counts and hashes filled in."""
        counted = replace(
            card, train=len(train), valid=len(valid),
            families=(len({p.family for p in train}), len({p.family for p in valid})),
            hashes={"train": sha256(_jsonl(train)), "valid": sha256(_jsonl(valid))},
        )  # fmt: skip
        return cls(tuple(train), tuple(valid), counted)

    @property
    def packed(self) -> bytes:
        """Both parts as JSON lines in xz: what a sealed run keeps."""
        parts = (("train", self.train), ("valid", self.valid))
        text = "".join(canonical({"split": k, **p.as_dict()}) + "\n" for k, part in parts for p in part)
        return lzma.compress(text.encode(), preset=9)

    def check(self, guard: LeakGuard) -> Pairs:
        """The set with the guard's result on its card. Raises Leak naming a text of the ruler, BadData on odd pairs."""
        # Sets of the teacher were read against the ruler by a person; any other text may be its copy, mistyped.
        count, typed = 0, self.card.source != TEACHER
        for number, pair in enumerate((*self.train, *self.valid), 1):
            guard.check(pair.texts, f"training pair {number} ({prompt.clip(pair.task)})", typed=typed)
            count += len(pair.texts)
            if pair.rejected and same(pair.chosen, pair.rejected):
                raise BadData(f"training pair {number} ({prompt.clip(pair.task)}): chosen and rejected are identical")
        for name, part in (("train", self.train), ("valid", self.valid)):
            if len(part) < 2:
                raise BadData(f"{len(part)} pairs in {name}: expected at least 2 there, from families of its own")
        return replace(self, card=replace(self.card, guard=f"clean, {count} texts compared with the ruler"))


def _jsonl(part: Iterable[Pair]) -> str:
    return "".join(canonical(p.as_dict()) + "\n" for p in part)


def same(a: Draft, b: Draft) -> bool:
    """Whether two drafts say the same, capitals and punctuation aside."""
    return [*map(normalised, (a.title, *a.questions))] == [*map(normalised, (b.title, *b.questions))]


# --- what the teacher's sets give ----------------------------------------------------------------


Writer = Callable[[Sequence[Example], str], list[Draft | None]]  # tasks, kind -> a set each, None: none came


def teacher(examples: Sequence[Example], kind: str) -> list[Draft | None]:
    """The teacher's own set of each task; of kind coverage the seven of its twelve questions that lie farthest apart."""
    return list(map(spanning, examples)) if kind == "coverage" else [e.draft for e in examples]


def spanning(example: Example) -> Draft:
    """The critical question and six more, each the one farthest in meaning from those chosen (farthest-first traversal,
    Gonzalez 1985), in their first order."""
    questions = [*example.draft.questions, *example.further]
    vectors = embedder().vectors(questions)
    # Rounded: the last digits of a matrix product differ between machines and must not decide a tie.
    close = (vectors @ vectors.T).round(5)
    # From the critical one: a set that spans much and misses it would be a bad example.
    chosen = [questions.index(example.critical)]
    while len(chosen) < QUESTIONS:
        rest = [i for i in range(len(questions)) if i not in chosen]
        chosen.append(min(rest, key=lambda i: (max(close[i][j] for j in chosen), i)))
    return Draft(example.draft.title, tuple(questions[i] for i in sorted(chosen)))


def tasks(part: Sequence[Example], n: int, seed: int | str, guard: LeakGuard, skipped: Counter[str]) -> list[Example]:
    """n tasks in an order that the seed draws. What comes near the ruler is left out and counted.

    A larger n begins with the same tasks as a smaller one, so sizes can be compared. Raises BadData where there are
    fewer.
    """
    examples: list[Example] = []
    for example in random.Random(f"tasks/{seed}").sample(part, len(part)):
        if len(examples) == n:
            break
        if any(map(guard.find, (example.task, example.draft.title))):
            skipped["near the ruler"] += 1
        else:
            examples.append(example)
    if len(examples) < n:
        raise BadData(f"{n} pairs were asked for and there are {len(examples)} of this kind: ask for fewer")
    return examples


def build(kind: str, n: int, seed: int, guard: LeakGuard, writer: Writer = teacher, source: str = TEACHER) -> Pairs:
    """n pairs of a kind with their validation pairs; on-policy pairs get their rejected side from `drafted`.

    Left out and counted: tasks that come near the ruler, sets that come near it, sets that never came.
    """
    skipped: Counter[str] = Counter()

    def pairs(part: Sequence[Example], count: int, stream: int | str) -> list[Pair]:
        """Pairs of the first `count` tasks that `stream` draws; fewer where sets are left out. Raises BadData."""
        kept = []
        examples = tasks(part, count, stream, guard, skipped)
        # All sets in one call: a writer that is paid sends them as one batch.
        for example, chosen in zip(examples, writer(examples, kind), strict=True):
            rejected = example.second if kind == "styles" else None
            if chosen is None:
                skipped["without a set"] += 1
                continue
            pair = Pair(example.task, example.family, chosen, rejected)
            if rejected and same(chosen, rejected):
                skipped["identical"] += 1
            elif any(map(guard.find, pair.texts)):
                skipped["near the ruler"] += 1
            else:
                kept.append(pair)
        return kept

    of_train, of_valid = split(bank())
    if kind == "styles":
        of_train, of_valid = [e for e in of_train if e.second], [e for e in of_valid if e.second]
    # Validation is drawn without the seed: trainings that differ in it are validated on the same pairs.
    train, valid = pairs(of_train, n, seed), pairs(of_valid, min(VALID, len(of_valid)), "valid")
    return Pairs.of(train, valid, Card(kind, source, seed, skipped=dict(skipped)))


# --- the model's own drafts, and files -----------------------------------------------------------


def drafted(pairs: Pairs, model: Model, guard: LeakGuard, decoding: Decoding = Decoding()) -> Pairs:
    """On-policy pairs: rejected is the model's own draft of the same task.

    Left out and counted: drafts that are malformed, identical to the chosen set, or near the ruler.
    """
    skipped = Counter(pairs.card.skipped)

    def beside(part: Sequence[Pair]) -> list[Pair]:
        """The pairs that have a usable draft, with it as their rejected side."""
        kept = []
        replies = model.generate([prompt.ask(p.task) for p in part], [decoding] * len(part))
        for pair, reply in zip(part, replies, strict=True):
            draft = read(reply.text)
            if draft is None:
                skipped["malformed"] += 1
            elif same(pair.chosen, draft):
                skipped["identical"] += 1
            elif next(guard.leaks((draft.title, *draft.questions)), None):
                # By chance, of a model's own words: a training of hours must not end for it.
                skipped["near the ruler"] += 1
            else:
                kept.append(replace(pair, rejected=draft))
        return kept

    train, valid = beside(pairs.train), beside(pairs.valid)
    return Pairs.of(train, valid, replace(pairs.card, kind="on-policy", skipped=dict(skipped)))


def read(text: str, n: int = QUESTIONS) -> Draft | None:
    """A reply as a draft of n questions; None when it has another form."""
    try:
        draft = prompt.parse_set(text)
    except BadReply:
        return None
    if len(draft.questions) != n or not draft.title or not all(draft.questions):
        return None
    return draft


@dataclass(frozen=True)
class Line:
    """A line of a file of pairs; other fields are nobody's business here."""

    task: Filled
    title: str
    questions: Annotated[tuple[str, ...], Field(min_length=1)]
    family: str | None = None
    split: Literal["train", "valid"] | None = None
    rejected: Draft | None = None


def from_file(path: Path | str, preference: bool) -> Pairs:
    """Pairs from JSON lines `{"task", "title", "questions", "family"?, "split"?, "rejected"?}`. Raises BadData.

    Without `split`, a sixth of the pairs, by family, is for validation; without `family`, a task is its own family.
    """
    file = Path(path)
    pairs: list[Pair] = []
    splits: list[str | None] = []
    try:
        for where, line in read_rows(file, Line, BadData):
            if preference and not (line.rejected and line.rejected.questions):
                raise BadData(f"{where}: rejected is missing; expected a title and questions to move away from")
            rejected = line.rejected if preference else None
            pairs.append(Pair(line.task, line.family or line.task, Draft(line.title, line.questions), rejected))
            splits.append(line.split)
    except OSError as error:
        raise BadData(f"{file}: cannot be read ({error.strerror})") from error
    if not pairs:
        raise BadData(f"{file}: no pairs in it; expected a JSON object a line with task, title, questions")
    # Whole families, from the end of the alphabet: the same file gives the same parts, and no task is in both.
    valid: set[str] = set()
    for name in sorted({p.family for p in pairs}, reverse=True):
        if sum(p.family in valid for p in pairs) >= max(2, len(pairs) // 6):
            break
        valid.add(name)
    parts: dict[str, list[Pair]] = {"train": [], "valid": []}
    families: dict[str, set[str]] = {"train": set(), "valid": set()}
    for own, pair in zip(splits, pairs, strict=True):
        # What the file says of a pair goes before the rule: somebody split it with a reason.
        part = own or ("valid" if pair.family in valid else "train")
        parts[part].append(pair)
        families[part].add(pair.family)
    both = families["train"] & families["valid"]
    if both:
        raise BadData(f"{file}: family {min(both)!r} is in train and in valid; give each family one split")
    if len(pairs) < 4 or min(map(len, parts.values())) < 2:
        counts = f"{len(parts['train'])} to train on and {len(parts['valid'])} to validate"
        raise BadData(f"{file}: {len(pairs)} pairs, {counts}; expected at least 2 of each, from different families")
    return Pairs.of(parts["train"], parts["valid"], Card("file", file.name, 0))
