"""The corpus of the tiny planner: examples of every call in `prompt`, made from the knowledge base.

Knows the mixture: which calls, how often, in which quality. Question sets are of mixed quality on purpose (about a
third clean), so that fine-tuning on clean ones has something to teach. Does not know the ruler; `leaks` is given the
texts to stay away from. Source of the idea (synthetic corpus, wide objects): measured on a 2.7 M parameter toy.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lib.agent import prompt
from lib.agent.prompt import Draft, Message
from lib.models.knowledge import Family, Item, Situation, choose, families, phrase, question_set, situation

QUALITY = {"clean": 0.30, "generic": 0.45, "messy": 0.25}
COACHED = {"clean": 0.55, "generic": 0.27, "messy": 0.18}  # instructions go with better sets, as in real data


@dataclass(frozen=True)
class Example:
    """One conversation that ends with the reply to learn."""

    kind: str
    messages: tuple[Message, ...]  # the last one is the assistant's

    @property
    def text(self) -> str:
        return "\n".join(m["content"] for m in self.messages)


class Writer:
    """Writes examples from one random stream. Same seed, same corpus."""

    def __init__(self, seed: int, invent: float = 0.45, only: set[str] | None = None) -> None:
        self.rng = random.Random(seed)
        self.invent = invent
        self.families = [f for f in families() if only is None or f.family in only]
        # The family of everything else is drawn more often: it stands for all the tasks that have no family.
        self.weights = [7.0 if f.family == "anything-else" else 1.0 for f in self.families]

    def situation(self, near: Family | None = None) -> Situation:
        family = near if near and self.rng.random() < 0.6 else self.rng.choices(self.families, self.weights)[0]
        return situation(family, self.rng, self.invent)

    def quality(self, table: dict[str, float] = QUALITY) -> str:
        return self.rng.choices(list(table), list(table.values()))[0]

    def count(self) -> int:
        return self.rng.choices([7, 8, 9, 10, 6, 5], [60, 15, 8, 5, 6, 6])[0]

    def example(self) -> Example:
        kind = self.rng.choices(list(MIXTURE), [w for w, _ in MIXTURE.values()])[0]
        messages, reply = MIXTURE[kind][1](self)
        return Example(kind, (*messages, {"role": "assistant", "content": reply}))

    def examples(self, n: int) -> Iterator[Example]:
        for _ in range(n):
            yield self.example()


Made = tuple[list[Message], str]


def draft_of(s: Situation, items: list[Item], schema: str = "json") -> Draft:
    """A question set as a reply in a schema, with the extra fields that the schema asks for."""
    extra: tuple[str, ...] = ()
    if schema == "unknowns":
        extra = tuple(i.unknown.name for i in items)
    elif schema == "reasons":
        extra = tuple(i.unknown.why for i in items)
    elif schema == "givens":
        extra = s.stated
    return Draft(s.title, tuple(i.text for i in items), extra)


def _ask(w: Writer, schema: str = "json") -> Made:
    s, n = w.situation(), w.count()
    advice = w.rng.choices(
        [(), ("coach",), ("contrast",), ("coach", "contrast"), ("antimodal",), (w.rng.choice(list(prompt.FRAMES)),)],
        [58, 16, 7, 7, 5, 7],
    )[0]
    quality = w.quality(COACHED if {"coach", "contrast"} & set(advice) else QUALITY)
    items = question_set(s, n, quality, w.rng)
    if "antimodal" in advice:
        special = [u for u in s.open_unknowns() if u.kind not in ("budget", "time", "who")]
        items = [Item(u, phrase(u, s.thing, w.rng)) for u in special[:n]] or items
        n = len(items)
    return prompt.ask(s.task, n, schema, advice), prompt.write_set(draft_of(s, items, schema), schema)


def _spelled(w: Writer) -> Made:
    """`ask` with an instruction in free words, so that a person's own prompt is not a foreign language."""
    messages, reply = _ask(w)
    words = messages[0]["content"].split(" ")
    kept = [x for x in words if w.rng.random() > 0.3][: w.rng.randint(8, 40)]
    return [{"role": "system", "content": f"{prompt.ROLE}\n{' '.join(kept)}\n{prompt.AS_JSON}"}, messages[1]], reply


def _slots(w: Writer) -> Made:
    s = w.situation()
    messy = w.quality() != "clean"
    items = []
    for slot in prompt.SLOTS:
        fitting = [u for u in s.open_unknowns() if u.kind == slot] or [u for u in s.family.unknowns if u.kind == slot]
        u = fitting[0] if not messy else w.rng.choice(fitting)
        items.append(Item(u, u.vague if messy and w.rng.random() < 0.4 else phrase(u, s.thing, w.rng)))
    return prompt.ask(s.task, 7, "slots"), prompt.write_set(draft_of(s, items), "slots")


def _demos(w: Writer) -> Made:
    """Worked examples and the answer share one quality: that is what in-context learning is learnt from."""
    s, quality = w.situation(), w.quality()
    n = w.count()
    shown = []
    for _ in range(w.rng.choices([1, 2, 3], [50, 40, 10])[0]):
        other = w.situation(near=s.family)
        shown.append((other.task, draft_of(other, question_set(other, n, quality, w.rng))))
    advice = ("coach",) if w.rng.random() < 0.25 else ()
    items = question_set(s, n, quality, w.rng)
    return prompt.ask(s.task, n, "json", advice, shown), prompt.write_set(draft_of(s, items))


def _next(w: Writer) -> Made:
    s = w.situation()
    items = question_set(s, w.rng.randint(1, 8), w.quality(), w.rng)
    *asked, last = items
    return prompt.next_question(s.task, [i.text for i in asked]), _json(question=last.text)


def _restate(w: Writer) -> Made:
    s = w.situation()
    return prompt.restate(s.task), _json(title=s.title)


def _brainstorm(w: Writer) -> Made:
    s = w.situation()
    names = [u.name for u in choose(s, len(s.open_unknowns()), w.rng, ranked=w.rng.random() < 0.6)]
    return prompt.brainstorm(s.task), _json(unknowns=names)


def _select(w: Writer) -> Made:
    s = w.situation()
    n = 7
    pool = question_set(s, w.rng.randint(8, 12), "messy", w.rng)
    rank = {u.name: i for i, u in enumerate(s.family.unknowns)}
    order = sorted(range(len(pool)), key=lambda i: (bool(pool[i].fault), rank[pool[i].unknown.name]))
    return prompt.select(s.task, [i.text for i in pool], n), _json(keep=sorted(i + 1 for i in order[:n]))


def _from_unknowns(w: Writer) -> Made:
    s = w.situation()
    clean = w.quality() == "clean"
    us = choose(s, w.count(), w.rng, ranked=clean)
    if w.rng.random() < 0.3:
        w.rng.shuffle(us)
    items = [Item(u, phrase(u, s.thing, w.rng) if clean or w.rng.random() < 0.6 else u.vague) for u in us]
    return prompt.from_unknowns(s.task, [u.name for u in us]), prompt.write_set(draft_of(s, items))


def _plan(w: Writer) -> Made:
    s = w.situation()
    return prompt.plan(s.task), _json(steps=list(s.family.steps))


def _assume(w: Writer) -> Made:
    s = w.situation()
    us = choose(s, 7, w.rng, ranked=True)
    return prompt.assume(s.task, s.family.steps), _json(
        assumptions=[f"{u.name}: {w.rng.choice(u.answers)}" for u in us]
    )


def _critique(w: Writer) -> Made:
    s = w.situation()
    items = question_set(s, 7, w.rng.choice(("messy", "messy", "generic", "clean")), w.rng)
    weight = {"given": 0, "duplicate": 1, "two things": 2, "vague": 3, "telegraphic": 4}
    faulty = sorted((i for i in range(7) if items[i].fault), key=lambda i: weight[items[i].fault])
    fault = {"telegraphic": "vague"}.get(items[faulty[0]].fault, items[faulty[0]].fault) if faulty else "none"
    reply = _json(worst=faulty[0] + 1 if faulty else 0, fault=fault)
    return prompt.critique(s.task, [i.text for i in items]), reply


def _revise(w: Writer) -> Made:
    s = w.situation()
    draft = question_set(s, 7, w.quality(), w.rng)
    kept = {i.unknown.name: i for i in draft if not i.fault}
    if w.rng.random() < 0.65:
        better = question_set(s, 7, "clean", w.rng)
        items = [kept.get(i.unknown.name, i) for i in better]
    else:
        items = question_set(s, 7, w.quality(), w.rng)
    return prompt.revise(s.task, [i.text for i in draft]), prompt.write_set(draft_of(s, items))


def _compare(w: Writer) -> Made:
    s = w.situation()
    worth = {"clean": 2, "generic": 1, "messy": 0}
    a, b = w.quality(), w.quality()
    sets = [[i.text for i in question_set(s, 7, q, w.rng)] for q in (a, b)]
    better = "tie" if a == b else "A" if worth[a] > worth[b] else "B"
    return prompt.compare(s.task, *sets), _json(better=better)


def _scenarios(w: Writer) -> Made:
    s = w.situation()
    told = list(s.family.scenarios)
    w.rng.shuffle(told)
    return prompt.scenarios(s.task), _json(scenarios=told[:4])


def _answer(w: Writer) -> Made:
    s = w.situation()
    u = w.rng.choice(s.family.unknowns)
    told = w.rng.choice(s.family.scenarios)
    return prompt.answer(s.task, told, phrase(u, s.thing, w.rng)), _json(answer=w.rng.choice(u.answers))


def _answers(w: Writer) -> Made:
    s = w.situation()
    u = w.rng.choice(s.family.unknowns)
    text = u.vague if w.rng.random() < 0.2 else phrase(u, s.thing, w.rng)
    return prompt.answers(s.task, text), _json(answers=list(u.answers))


def _check(w: Writer) -> Made:
    s = w.situation()
    items = question_set(s, 7, w.rng.choice(("messy", "messy", "generic", "clean")), w.rng)
    at = w.rng.randrange(7)
    item, others = items[at], [i.text for k, i in enumerate(items) if k != at]
    same = sum(i.unknown.name == item.unknown.name for i in items) > 1
    told = {
        "one_thing": item.fault != "two things",
        "given": item.unknown.name in s.given,
        "specific": item.fault not in ("vague", "telegraphic"),
        "duplicate": same,
    }
    return prompt.check(s.task, item.text, others), _json(**told)


def _repair(w: Writer) -> Made:
    s = w.situation()
    faulty: list[Item] = []
    while not faulty:
        faulty = [i for i in question_set(s, 7, w.rng.choice(("messy", "generic")), w.rng) if i.fault]
    item = w.rng.choice(faulty)
    if item.fault in ("given", "duplicate"):
        good = phrase(w.rng.choice([u for u in s.open_unknowns() if u.name != item.unknown.name]), s.thing, w.rng)
    else:
        good = phrase(item.unknown, s.thing, w.rng)
    fault = "vague" if item.fault == "telegraphic" else item.fault
    return prompt.repair(s.task, item.text, fault), _json(question=good)


def _adapt(w: Writer) -> Made:
    s, quality = w.situation(), w.quality()
    other = w.situation(near=s.family)
    shown = question_set(other, 7, quality, w.rng)
    if other.family is s.family:
        told = {u.name for u in s.open_unknowns()}
        items = [Item(i.unknown, phrase(i.unknown, s.thing, w.rng)) for i in shown if i.unknown.name in told]
        used = {i.unknown.name for i in items}
        spare = [u for u in s.open_unknowns() if u.name not in used]
        items += [Item(u, phrase(u, s.thing, w.rng)) for u in spare[: 7 - len(items)]]
    if other.family is not s.family or len(items) != 7:
        items = question_set(s, 7, quality, w.rng)
    return prompt.adapt(s.task, other.task, [i.text for i in shown]), prompt.write_set(draft_of(s, items))


def _json(**body: object) -> str:
    import json

    return json.dumps(body, ensure_ascii=False)


MIXTURE: dict[str, tuple[float, Callable[[Writer], Made]]] = {
    "ask": (48, _ask),
    "restate": (5, _restate),
    "demos": (11, _demos),
    "spelled": (2, _spelled),
    "lines": (1.5, lambda w: _ask(w, "lines")),
    "slots": (2.5, _slots),
    "unknowns": (2.5, lambda w: _ask(w, "unknowns")),
    "reasons": (2.5, lambda w: _ask(w, "reasons")),
    "givens": (2, lambda w: _ask(w, "givens")),
    "next": (5, _next),
    "brainstorm": (2, _brainstorm),
    "select": (2, _select),
    "from_unknowns": (3, _from_unknowns),
    "plan": (0.7, _plan),
    "assume": (0.8, _assume),
    "critique": (2, _critique),
    "revise": (2, _revise),
    "compare": (1.5, _compare),
    "scenarios": (0.7, _scenarios),
    "answer": (0.8, _answer),
    "answers": (1.2, _answers),
    "check": (2, _check),
    "repair": (1.5, _repair),
    "adapt": (2, _adapt),
}
