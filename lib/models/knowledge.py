"""The knowledge base of the tiny planner: families of tasks and what a plan for each depends on.

Knows the YAML files in `tiny/knowledge` and how to make a task line, a title and a question set of a stated
quality from them. Does not know the ruler: none of its tasks are here, and the leak guard holds that.
Does not cover what happens when a person types a task of no family; that is what the held-out tests measure.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).parent / "tiny" / "knowledge"
QUALITIES = ("clean", "generic", "messy")
LEADS = ("", "", "", "", "help me ", "i want to ", "i need to ", "we want to ", "please help me ", "I'd like to ")
HAS_LEAD = re.compile(r"(?i)(help|i|i'd|i'm|we|my|our|how|what|which|an?|the|can|please|need|want)\b")
SOFT_VOWEL = re.compile(r"(?i)(uni|use|usu|util|uk|u-|u\b|euro|one\b|once)")
SPELT = re.compile(r"([AEFHILMNORSX](-|\b)|HR\b|SQL|MRI|LED|honest|hour|heir)")  # spoken with a vowel first


@dataclass(frozen=True)
class Unknown:
    """One thing that a plan depends on."""

    name: str  # noun phrase of 1 to 4 words
    kind: str  # goal, scope, who, budget, time, state or limits
    why: str  # clause: why the plan depends on it
    ask: tuple[str, ...]  # natural phrasings, `{x}` stands for the object
    vague: str  # the careless phrasing
    answers: tuple[str, ...]  # short answers, each of which changes the plan


@dataclass(frozen=True)
class Family:
    """A kind of task, with its unknowns ranked by how much a plan depends on them, most first."""

    family: str
    area: str
    about: str
    tasks: tuple[str, ...]
    titles: tuple[str, ...]
    objects: tuple[str, ...]
    adjectives: tuple[str, ...]
    made_up: str  # place, person, brand or none
    unknowns: tuple[Unknown, ...]
    given: dict[str, tuple[str, ...]]  # unknown name -> fragments that state it in the task line
    steps: tuple[str, ...]
    scenarios: tuple[str, ...]


@dataclass(frozen=True)
class Situation:
    """One task line of a family, with everything that a good planner would make of it."""

    family: Family
    thing: str  # the object, as it stands in title and questions
    task: str
    title: str
    given: tuple[str, ...] = ()  # names of the unknowns that the task line already answers
    stated: tuple[str, ...] = ()  # the fragments that answer them, word for word

    def open_unknowns(self) -> list[Unknown]:
        """The unknowns that the task line leaves open, most decision-critical first."""
        return [u for u in self.family.unknowns if u.name not in self.given]


@dataclass(frozen=True)
class Item:
    """One question of a set, with the unknown that it asks about and the fault planted in it, if any."""

    unknown: Unknown
    text: str
    fault: str = field(default="")  # "", "vague", "two things", "given", "duplicate", "telegraphic"


@lru_cache(maxsize=1)
def families(folder: Path = FOLDER) -> tuple[Family, ...]:
    """Every family of the knowledge base, by name. Raises ValueError naming the file that cannot be read."""
    import yaml

    read = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            raw = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            unknowns = tuple(
                Unknown(**{**u, "ask": tuple(u["ask"]), "answers": tuple(u["answers"])}) for u in raw["unknowns"]
            )
            given = {g["unknown"]: tuple(g["texts"]) for g in raw["given"]}
            lists = {k: tuple(raw[k]) for k in ("tasks", "titles", "objects", "adjectives", "steps", "scenarios")}
            plain = {k: raw[k] for k in ("family", "area", "about", "made_up")}
            read.append(Family(**plain, **lists, unknowns=unknowns, given=given))
        except (KeyError, TypeError, yaml.YAMLError) as error:
            raise ValueError(f"{path}: not a family file ({error})") from error
    if not read:
        raise ValueError(f"{folder}: no family files (*.yaml) here")
    return tuple(read)


def fill(pattern: str, thing: str) -> str:
    """Put the object into a pattern and mend the article before it.

    >>> fill("buy a {x}", "old bicycle")
    'buy an old bicycle'
    """
    vowel = SPELT.match(thing) or (thing[:1].lower() in "aeiou" and not SOFT_VOWEL.match(thing))
    if vowel:
        pattern = re.sub(r"\b([Aa]) \{x\}", r"\1n {x}", pattern)
    text = pattern.replace("{x}", thing)
    return text[:1].upper() + text[1:] if pattern.startswith("{x}") and pattern.endswith("?") else text


# --- task lines ----------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _word_parts() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Heads and tails of the words in the knowledge base: invented words made of them look like English."""
    words = {w.lower() for f in families() for o in f.objects for w in o.split() if w.isalpha() and len(w) > 4}
    return tuple(sorted({w[: len(w) // 2 + 1] for w in words})), tuple(sorted({w[len(w) // 2 :] for w in words}))


def invented_word(rng: random.Random) -> str:
    """A word that nobody has seen, so that the model learns to copy and not to recall."""
    heads, tails = _word_parts()
    word = rng.choice(heads) + rng.choice(tails)
    return word if len(word) <= 12 else word[:12]


@lru_cache(maxsize=1)
def _nouns() -> tuple[str, ...]:
    return tuple(sorted({o for f in families() for o in f.objects if o.islower()}))


def thing(family: Family, rng: random.Random, invent: float = 0.45) -> str:
    """An object for a family: one of its own, one with an adjective, or (share `invent`) a new combination."""
    own = rng.choice(family.objects)
    if rng.random() >= invent:
        described = family.adjectives and rng.random() < 0.5
        return f"{rng.choice(family.adjectives)} {own}" if described else own
    name = invented_word(rng)
    if family.made_up == "place" or (family.made_up == "person" and not own.islower()):
        return name.capitalize() if rng.random() < 0.7 else f"{name.capitalize()} {invented_word(rng).capitalize()}"
    first = rng.random()
    if first < 0.35 and family.made_up in ("brand", "person"):
        return f"{name.capitalize()} {own}"
    if first < 0.75:
        return f"{name} {own}" if own.islower() else name.capitalize()
    return f"{rng.choice(_nouns()).split()[0]} {own}" if own.islower() else name.capitalize()


def situation(family: Family, rng: random.Random, invent: float = 0.45, stated: float = 0.45) -> Situation:
    """A task line of a family. `stated` is the share of lines that say one or two things themselves."""
    x = thing(family, rng, invent)
    task = fill(rng.choice(family.tasks), x)
    plain = task
    # A line that already speaks as a person ("help me ...", "i want ...") takes no second lead.
    task = task if HAS_LEAD.match(task) else rng.choice(LEADS) + task
    speaks = bool(HAS_LEAD.match(plain))
    # Most titles restate the line word for word: for a task of no known family that is the honest thing to do.
    literal = not speaks and rng.random() < 0.65
    title = plain[:1].upper() + plain[1:] if literal else fill(rng.choice(family.titles), x)
    names: list[str] = []
    texts: list[str] = []
    if family.given and rng.random() < stated:
        names = rng.sample(sorted(family.given), 2 if len(family.given) > 1 and rng.random() < 0.2 else 1)
        texts = [rng.choice(family.given[n]) for n in names]
        task = " ".join([task, *texts])
        if literal or rng.random() < 0.5:
            title = " ".join([title, *texts])
    title = re.sub(r"\bmy\b", "your", re.sub(r"\bour\b", "your", title))
    return Situation(family, x, task, title, tuple(names), tuple(texts))


# --- question sets -------------------------------------------------------------------------------


def phrase(unknown: Unknown, x: str, rng: random.Random, used: tuple[str, ...] = (), concrete: bool = True) -> str:
    """One natural question about an unknown, not one of those used already.

    Two wordings in three are the first that names the object (`concrete`) or the first that does not. A corpus in
    which all five are equally likely teaches a small model nothing that greedy decoding could follow.
    """
    texts = [a for a in unknown.ask if fill(a, x) not in used] or list(unknown.ask)
    usual = next((a for a in texts if ("{x}" in a) == concrete), texts[0])
    return fill(usual if rng.random() < 0.67 else rng.choice(texts), x)


def choose(situation: Situation, n: int, rng: random.Random, ranked: bool) -> list[Unknown]:
    """n different open unknowns in the order of their rank.

    ranked: those that decide the plan, the top one always. Not ranked: the things that anyone would think of, budget,
    dates and people before the particular ones, and the top one only now and then. The order is the same in both,
    so that a small model can learn to move on to the next and not to repeat itself.
    """
    open_ = situation.open_unknowns()
    if ranked:
        rest = sorted(range(1, len(open_)), key=lambda i: i + 1.6 * rng.random())[: n - 1]
        return [open_[0], *(open_[i] for i in sorted(rest))]
    weight = {"budget": 1.5, "time": 1.5, "who": 1.2, "goal": 1.0}

    def lure(i: int) -> float:
        return weight.get(open_[i].kind, 0.7) * (0.4 if i == 0 else 1.0) * (0.5 + rng.random())

    return [open_[i] for i in sorted(sorted(range(len(open_)), key=lure, reverse=True)[:n])]


def question_set(situation: Situation, n: int, quality: str, rng: random.Random) -> list[Item]:
    """n questions about a situation.

    clean: ranked unknowns, natural wording, nothing given, no repeat. generic: obvious unknowns, worded so
    that they would fit many tasks, a quarter of them careless. messy: obvious unknowns, with repeats, double questions, telegraphic ones and things that
    the task already says.
    """
    items: list[Item] = []
    for unknown in choose(situation, n, rng, ranked=quality == "clean"):
        item = Item(unknown, phrase(unknown, situation.thing, rng, concrete=quality == "clean"))
        if quality == "generic" and rng.random() < 0.25:
            item = Item(unknown, unknown.vague, "vague")
        elif quality == "messy":
            item = _spoil(situation, item, items, rng)
        items.append(item)
    while len(items) < n:
        again = items[len(items) % 3].unknown
        items.append(Item(again, phrase(again, situation.thing, rng, tuple(i.text for i in items)), "duplicate"))
    return items


def _spoil(situation: Situation, item: Item, items: list[Item], rng: random.Random) -> Item:
    unknown, x, draw = item.unknown, situation.thing, rng.random()
    used = tuple(i.text for i in items)
    if draw < 0.10 and len(items) > 1:
        again = rng.choice(items[:-1]).unknown  # not the last one: a small model would learn to stand still
        return Item(again, phrase(again, x, rng, used), "duplicate")
    if draw < 0.38:
        other = phrase(rng.choice(situation.open_unknowns()), x, rng)
        return Item(unknown, f"{item.text[:-1]} and {other[:1].lower()}{other[1:]}", "two things")
    if draw < 0.50 and situation.given:
        stated = next(u for u in situation.family.unknowns if u.name == situation.given[0])
        return Item(stated, phrase(stated, x, rng, used), "given")
    if draw < 0.58:
        return Item(unknown, f"{unknown.name[:1].upper()}{unknown.name[1:]}?", "telegraphic")
    if draw < 0.66:
        return Item(unknown, unknown.vague, "vague")
    return item
