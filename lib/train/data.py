"""Pairs to train on, each set with its card: where it comes from, how many, their hashes, that the ruler is not in it.

Knows the knowledge base, files of pairs, and how to make a pair of preference out of two texts. Train and valid never
share a family of tasks. Does not know models beyond `generate`, nor gold: the leak guard comes from outside, and
every text passes it before anything is trained. Kinds after the published study: sets like gold, sets that must span
all important unknowns, two styles of good answer, and good answers against the model's own drafts.
"""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lib.agent import prompt
from lib.agent.bank import LeakGuard
from lib.agent.prompt import BadReply, Draft
from lib.files import OneLine, canonical, rows, sha256
from lib.measure.answer import normalised
from lib.models.knowledge import Family, Situation, Unknown, choose, families, fill, situation
from lib.models.model import Decoding, Model
from lib.train.pretrain import HELD_OUT

KINDS = ("clean", "coverage", "styles", "on-policy")
PREFERENCE = ("styles", "on-policy")  # kinds whose pairs have a rejected side
QUESTIONS = 7
EVERY = 12  # every twelfth family is for validation; those that the base never saw are in neither part
EVERYDAY = 7  # how often the family of everything else is drawn for each draw of another, as in the base's corpus
KNOWLEDGE = "the knowledge base"  # a source whose texts nobody typed
VALID = 48  # pairs of validation, the same for every size of a training set


class BadData(OneLine, ValueError):
    """Pairs that cannot be trained on; the message says which, what came and what was expected."""


@dataclass(frozen=True)
class Pair:
    """A task with the set to learn and, for preference, the one to move away from."""

    task: str
    family: str
    chosen: Draft
    rejected: Draft | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        sides = [self.chosen, *([self.rejected] if self.rejected else [])]
        return (self.task, *(t for d in sides for t in (d.title, *d.questions)))

    def as_dict(self) -> dict[str, Any]:
        told: dict[str, Any] = {"task": self.task, "family": self.family, **_plain(self.chosen)}
        return told | ({"rejected": _plain(self.rejected)} if self.rejected else {})


def _plain(draft: Draft) -> dict[str, Any]:
    return {"title": draft.title, "questions": list(draft.questions)}


@dataclass(frozen=True)
class Card:
    """What a set of pairs is, for whoever reads the run."""

    kind: str
    source: str  # knowledge base, a file's name, or the model that wrote the chosen sets
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

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"families": list(self.families), "hash": self.hash}

    def _repr_markdown_(self) -> str:
        left = ", ".join(f"{n} {why}" for why, n in self.skipped.items() if n) or "none"
        return (
            f"| | train | valid |\n|---|---|---|\n| pairs | {self.train} | {self.valid} |\n"
            f"| families of tasks | {self.families[0]} | {self.families[1]} |\n"
            f"| sha256 | `{self.hashes.get('train', '')[:12]}` | `{self.hashes.get('valid', '')[:12]}` |\n\n"
            f"Kind **{self.kind}**, written by **{self.source}**, seed {self.seed}. Left out: {left}. "
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
        names = tuple(len({p.family for p in part}) for part in (train, valid))
        hashes = {k: sha256(_jsonl(part)) for k, part in (("train", train), ("valid", valid))}
        return cls(
            tuple(train),
            tuple(valid),
            replace(card, train=len(train), valid=len(valid), families=names, hashes=hashes),
        )

    @property
    def packed(self) -> bytes:
        """Both parts as JSON lines in xz: what a sealed run keeps."""
        parts = (("train", self.train), ("valid", self.valid))
        text = "".join(canonical({"split": k, **p.as_dict()}) + "\n" for k, part in parts for p in part)
        return lzma.compress(text.encode(), preset=9)

    def check(self, guard: LeakGuard) -> Pairs:
        """The set with the guard's result on its card. Raises Leak naming a text of the ruler, BadData on odd pairs."""
        count, typed = 0, self.card.source != KNOWLEDGE
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
    return [normalised(t) for t in (a.title, *a.questions)] == [normalised(t) for t in (b.title, *b.questions)]


# --- what the knowledge base gives ---------------------------------------------------------------


def split(all_families: Sequence[Family] | None = None) -> tuple[list[Family], list[Family]]:
    """Families to train on and families to validate on. Those that the base never saw stay out of both: their loss is
    ten times that of the others and would decide alone when to stop."""
    every = [f for f in (families() if all_families is None else all_families) if f.family not in HELD_OUT]
    valid = every[EVERY - 1 :: EVERY]
    return [f for f in every if f not in valid], valid


def situations(part: Sequence[Family], n: int, seed: int, guard: LeakGuard, skipped: dict[str, int]) -> list[Situation]:
    """n different task lines, family after family. What comes near the ruler is left out and counted.

    A larger n begins with the same lines as a smaller one, so sizes can be compared.
    """
    rng, found, seen = random.Random(f"tasks/{seed}"), [], set()
    # Tasks of no family of their own need practice too, or training on families unlearns them.
    share = [f for f in part for _ in range(EVERYDAY if f.family == "anything-else" else 1)]
    order: list[Family] = []
    for _ in range(50 * n + 50):
        if len(found) == n:
            return found
        order = order or rng.sample(share, len(share))
        s = situation(order.pop(), rng)
        if normalised(s.task) in seen or len(s.open_unknowns()) < QUESTIONS:
            skipped["repeated"] = skipped.get("repeated", 0) + 1
        elif any(guard.find(t) for t in (s.task, s.title)):
            skipped["near the ruler"] = skipped.get("near the ruler", 0) + 1
        else:
            seen.add(normalised(s.task))
            found.append(s)
    raise BadData(f"only {len(found)} different tasks in {len(part)} families, {n} were asked for")


def clean(s: Situation, seed: int = 0) -> Draft:
    """A set like gold: ranked unknowns, nothing given, nothing twice, each in its usual wording."""
    rng = random.Random(f"clean/{seed}/{s.task}")
    return _worded(s, choose(s, QUESTIONS, rng, ranked=True))


def coverage(s: Situation, seed: int = 0) -> Draft:
    """A set that must span: the first open unknown of every kind, then the rest by rank, in the order of rank."""
    return _worded(s, spanning(s))


def _worded(s: Situation, unknowns: Sequence[Unknown]) -> Draft:
    """One question each. Always the first wording that names the object: with five wordings by lot, a model of this
    size learns a blend of them and repeats itself."""
    texts = (next((a for a in u.ask if "{x}" in a), u.ask[0]) for u in unknowns)
    return Draft(s.title, tuple(fill(a, s.thing) for a in texts))


def spanning(s: Situation) -> list[Unknown]:
    """Seven open unknowns of as many kinds as there are, the most decision-critical of each.

    >>> kinds = {u.kind for u in spanning(situation(families()[0], random.Random(0), stated=0.0))}
    >>> kinds == {u.kind for u in families()[0].unknowns}
    True
    """
    open_ = s.open_unknowns()
    first = [u for i, u in enumerate(open_) if u.kind not in {o.kind for o in open_[:i]}]
    rest = [u for u in open_ if u not in first]
    chosen = (first + rest)[:QUESTIONS]
    return [u for u in open_ if u in chosen]


WRITERS: dict[str, Callable[[Situation, int], Draft]] = {"clean": clean, "coverage": coverage}
Writer = Callable[[Sequence[Situation], str], list[Draft | None]]  # situations, kind -> a set each, None: none came


def knowledge_base(seed: int) -> Writer:
    """Chosen sets from the knowledge base; `kind` is clean or coverage."""
    return lambda found, kind: [WRITERS[kind](s, seed) for s in found]


def build(
    kind: str, n: int, seed: int, guard: LeakGuard, writer: Writer | None = None, source: str = KNOWLEDGE
) -> Pairs:
    """n pairs of a kind with their validation pairs; on-policy pairs get their rejected side from `drafted`.

    Left out and counted: tasks that repeat or come near the ruler, sets that come near it, sets that never came.
    """
    skipped: dict[str, int] = {}
    parts = []
    for part, count, stream in zip(split(), (n, VALID), (seed, 1_000_000), strict=True):
        found = situations(part, count, stream, guard, skipped)
        write = writer or knowledge_base(seed)
        chosen = write(found, "coverage" if kind in ("coverage", "styles") else "clean")
        other = [clean(s, seed + 1) if kind == "styles" else None for s in found]
        parts.append(_kept(found, chosen, other, guard, skipped))
    return Pairs.of(*parts, Card(kind, source, seed, skipped=skipped))


def _kept(
    found: Sequence[Situation],
    chosen: Sequence[Draft | None],
    other: Sequence[Draft | None],
    guard: LeakGuard,
    skipped: dict[str, int],
) -> list[Pair]:
    kept = []
    for s, good, bad in zip(found, chosen, other, strict=True):
        why = "without a set" if good is None else "identical" if bad and same(good, bad) else ""
        pair = Pair(s.task, s.family.family, good, bad) if good else None
        if pair and not why and any(guard.find(t) for t in pair.texts):
            why = "near the ruler"
        if why:
            skipped[why] = skipped.get(why, 0) + 1
        elif pair:
            kept.append(pair)
    return kept


# --- the model's own drafts, and files -----------------------------------------------------------


def drafted(pairs: Pairs, model: Model, decoding: Decoding = Decoding()) -> Pairs:
    """On-policy pairs: rejected is the model's own draft of the same task. Identical and malformed ones are left out."""
    skipped = dict(pairs.card.skipped)
    parts = []
    for part in (pairs.train, pairs.valid):
        replies = model.generate([prompt.ask(p.task) for p in part], [decoding] * len(part))
        kept = []
        for pair, reply in zip(part, replies, strict=True):
            draft = read(reply.text)
            why = "malformed" if draft is None else "identical" if same(pair.chosen, draft) else ""
            if why:
                skipped[why] = skipped.get(why, 0) + 1
            else:
                kept.append(replace(pair, rejected=draft))
        parts.append(kept)
    return Pairs.of(*parts, replace(pairs.card, kind="on-policy", skipped=skipped))


def read(text: str, n: int = QUESTIONS) -> Draft | None:
    """A reply as a draft of n questions; None when it has another form."""
    try:
        draft = prompt.parse_set(text)
    except BadReply:
        return None
    return draft if len(draft.questions) == n and draft.title and all(draft.questions) else None


def from_file(path: Path | str, preference: bool) -> Pairs:
    """Pairs from JSON lines `{"task", "title", "questions", "family"?, "split"?, "rejected"?}`. Raises BadData.

    Without `split`, a sixth of the pairs, by family, is for validation; without `family`, a task is its own family.
    """
    file = Path(path)
    try:
        lines = rows(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not lines:
        raise BadData(f"{file}: no pairs in it; expected a JSON object a line with task, title, questions")
    told = [_row(file, number, line, preference) for number, line in enumerate(lines, 1)]
    valid: set[str] = set()
    for name in sorted({p.family for p, _ in told}, reverse=True):
        if sum(p.family in valid for p, _ in told) >= max(2, len(told) // 6):
            break
        valid.add(name)
    parts: dict[str, list[Pair]] = {"train": [], "valid": []}
    for pair, where in told:
        parts[where or ("valid" if pair.family in valid else "train")].append(pair)
    both = {p.family for p in parts["train"]} & {p.family for p in parts["valid"]}
    if both:
        raise BadData(f"{file}: family {min(both)!r} is in train and in valid; give each family one split")
    if len(told) < 4 or min(map(len, parts.values())) < 2:
        counts = f"{len(parts['train'])} to train on and {len(parts['valid'])} to validate"
        raise BadData(f"{file}: {len(told)} pairs, {counts}; expected at least 2 of each, from different families")
    return Pairs.of(parts["train"], parts["valid"], Card("file", file.name, 0))


def _row(file: Path, number: int, line: str, preference: bool) -> tuple[Pair, str]:
    where = f"{file}:{number}"
    try:
        raw = json.loads(line)
        task, family, part = raw["task"], raw.get("family") or raw["task"], raw.get("split", "")
        chosen, rejected = _draft(raw), _draft(raw["rejected"]) if preference else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        need = "task, title, questions" + (" and rejected {title, questions}" if preference else "")
        raise BadData(f"{where}: expected an object with {need} ({type(error).__name__}: {error})") from error
    if not isinstance(task, str) or not task.strip() or not isinstance(family, str) or part not in ("", *SPLITS):
        raise BadData(f"{where}: task and family are texts, split is train or valid")
    if rejected and same(chosen, rejected):
        raise BadData(f"{where}: chosen and rejected are identical, so there is nothing to prefer")
    return Pair(task, family, chosen, rejected), part


SPLITS = ("train", "valid")


def _draft(raw: dict[str, Any]) -> Draft:
    title, questions = raw["title"], raw["questions"]
    if not isinstance(title, str) or not isinstance(questions, list) or not all(isinstance(q, str) for q in questions):
        raise TypeError("title is a text and questions a list of texts")
    if not questions:
        raise ValueError("no questions")
    return Draft(title, tuple(questions))
