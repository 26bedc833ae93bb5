"""Stored answers rated by a person, blind: the candidate's set beside gold's, then how far the judges agree.

Knows which sealed answers may be rated, their order, and the keys a rating is given with; it appends to `ratings.jsonl`
and writes nothing else. Sides are drawn by seed, and run and judgment stay hidden. Both sets are scored, one dimension
at a time: scores of one side alone would say which side is the candidate's. What the judges said is shown only when
asked for, so that nobody rates towards it. The logic needs no browser; the widgets only pass keys on and show.
"""

from __future__ import annotations

import html
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lib.desk.panel import shown
from lib.files import RULER, runs_folder, sha256
from lib.log import Log, now
from lib.measure.answer import Answer
from lib.measure.checks.agreement import ENOUGH, Pair, Rating, agreement, standing
from lib.measure.judge import DIMENSIONS, Judgment, Verdict
from lib.measure.ruler import Case, Gold, Ruler
from lib.runs.ledger import Ledger
from lib.runs.record import CaseRow, Record
from lib.runs.verify import RATABLE, RATED, RATINGS, item_of
from lib.show import Markdown, bullets, plural

Side = Literal["A", "B"]
SIDES: tuple[Side, ...] = ("A", "B")
CHOICES = {"a": "A helps more", "t": "tie", "b": "B helps more"}
SCORES = "12345"
BACK = "u"
KEYS = "".join(CHOICES) + SCORES + BACK
MARKS = len(DIMENSIONS) * len(SIDES)


@dataclass(frozen=True)
class Item:
    """One stored answer that waits for a person."""

    id: str
    case: Case
    run: str
    fingerprint: str
    answer: Answer
    gold: Side  # that gold is shown on

    @property
    def sets(self) -> dict[str, Gold | Answer]:
        """What is shown on each side."""
        assert self.case.gold is not None  # a ruler has gold for every case
        return {side: self.case.gold if side == self.gold else self.answer for side in SIDES}


@dataclass
class Session:
    """One person's ratings of a folder of runs. Keys come in by `press`; a full rating is on disk at once."""

    who: str = "me"
    seed: int = 0
    runs: Path = field(default_factory=runs_folder)
    ruler: Path = RULER
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if not self.who.strip():
            raise ValueError("who is empty: expected a name for the person who rates, such as 'me'")
        self.log = Log(self.runs / RATINGS, RATED)
        self.show()

    # --- what may be rated

    @cached_property
    def frozen(self) -> Ruler:
        """The ruler whose answers are rated. Raises BadRuler, Tampered."""
        return Ruler.load(self.ruler)

    @cached_property
    def records(self) -> list[Record]:
        """Sealed experiments of this very ruler and of each judge's newest version, on open gates, without leaks."""
        experiments = (r for r in Ledger.read(self.runs).records if r.kind == "experiment" and r.status != "invalid")
        ratable = (r for r in experiments if r.gate in RATABLE)
        current = [r for r in ratable if self.frozen.fingerprint(r.identity.judge) == r.fingerprint]
        newest = {r.judge: r.fingerprint for r in current}  # the last one in the ledger stands
        return [r for r in current if newest[r.judge] == r.fingerprint]

    @cached_property
    def answers(self) -> list[tuple[Record, CaseRow]]:
        """Every valid answer of these runs, with the run that it stands in."""
        ledger = Ledger(self.runs)
        return [(record, row) for record in self.records for row in ledger.cases(record.id) if row.answer]

    @cached_property
    def items(self) -> list[Item]:
        """All answers, each once, in the order of the seed: an item's place follows from its own words alone."""
        cases = {c.id: c for c in self.frozen.cases if c.gate in RATABLE}
        items: dict[str, Item] = {}
        for record, row in self.answers:
            assert row.answer is not None  # only rows with one are listed
            name = item_of(row.case, row.answer)
            if row.case in cases and name not in items:
                gold = SIDES[int(self._draw(name, "side"), 16) % len(SIDES)]
                items[name] = Item(name, cases[row.case], record.id, record.fingerprint, row.answer, gold)
        return sorted(items.values(), key=lambda item: self._draw(item.id, "place"))

    # By a hash of the answer's own words: a later run puts its items between the others and moves none of them.
    def _draw(self, name: str, what: str) -> str:
        return sha256(f"{self.seed} {what} {name}")

    @property
    def rated(self) -> list[Rating]:
        """What this person has said and not taken back, oldest first."""
        return standing(self.log.rows, self.who)

    def upcoming(self) -> Item | None:
        """The next unrated item; None at the end. Never the case of the one before while there is another.

        Of the cases the one that was rated least, of its runs the one that was rated least, then by seed: gold is known
        again from its second time on, so the first round goes through all cases.
        """
        rated = self.rated
        done, cases, runs = {r.item for r in rated}, Counter(r.case for r in rated), Counter(r.run for r in rated)
        last = rated[-1].case if rated else ""
        open_items = (item for item in self.items if item.id not in done)
        return min(open_items, key=lambda i: (i.case.id == last, cases[i.case.id], runs[i.run]), default=None)

    # --- rating by keys

    def show(self) -> None:
        """Turn to the next item; its time starts now."""
        self.item = self.upcoming()
        self.choice = ""  # a, b or t
        self.marks: list[int] = []  # A and B of the first dimension, A and B of the second, and so on
        self.start()

    def start(self) -> None:
        """Let the time of this item start now."""
        self.since = self.clock()

    @property
    def asked(self) -> tuple[str, str] | None:
        """The dimension and side whose score is due; None while the verdict is."""
        place = len(self.marks)
        return (DIMENSIONS[place // len(SIDES)], SIDES[place % len(SIDES)]) if self.choice else None

    def press(self, key: str) -> bool:
        """Take one key: a, b or t, then a score twice a dimension, u to take one back. False where it means nothing."""
        key = key.lower()
        if key == BACK:
            return self.back()
        if self.item is None:
            return False
        if not self.choice and key in CHOICES:
            self.choice = key
        elif self.choice and key in SCORES:
            self.marks.append(int(key))
            if len(self.marks) == MARKS:
                self._save(self.item)
                self.show()
        else:
            return False
        return True

    def back(self) -> bool:
        """Take the last key back; at the start of an item the last rating, which then comes again."""
        if self.marks:
            self.marks.pop()
        elif self.choice:
            self.choice = ""
        elif self.rated:
            # The log only grows: what is taken back stays in it, and a line says that it was.
            self.log.extend([{"kind": "undo", "item": self.rated[-1].item, "who": self.who, "at": now()}])
            self.show()
        else:
            return False
        return True

    def _save(self, item: Item) -> None:
        """Put a whole rating on disk, its marks sorted by side."""
        by_side = {side: dict(zip(DIMENSIONS, self.marks[place::2], strict=True)) for place, side in enumerate(SIDES)}
        [candidate] = set(SIDES) - {item.gold}
        rating = Rating(
            item.id, item.case.id, item.run, item.gold, self._verdict(item), by_side[candidate], by_side[item.gold],
            round(self.clock() - self.since, 1), self.who, now(), item.fingerprint,
        )  # fmt: skip
        self.log.extend([{"kind": "rating", **asdict(rating)}])

    def _verdict(self, item: Item) -> Verdict:
        if self.choice == "t":
            return "tie"
        return "loss" if self.choice.upper() == item.gold else "win"

    # --- beside the judges

    def pairs(self, fingerprint: str) -> list[Pair]:
        """The person's ratings beside what the judge of this fingerprint said of the same answer in the same run."""
        judged = {(record.id, row.case): row for record, row in self.answers if row.judgment}
        pairs = []
        for rating in self.rated:
            row = judged.get((rating.run, rating.case))
            if row is None or row.judgment is None or rating.fingerprint != fingerprint:
                continue
            person = Judgment({**rating.scores}, rating.verdict)
            pairs.append(Pair(rating.run, rating.case, row.judgment, person))
        return pairs

    @property
    def agreement(self) -> Markdown:
        """How far each judge agrees with this person, or how many ratings that still takes."""
        self.log.catch_up()
        lines = []
        for judge, fingerprint in {r.judge: r.fingerprint for r in self.records}.items():
            name, pairs = f"{judge} judge", self.pairs(fingerprint)
            if len(pairs) < ENOUGH:
                count, missing = plural(len(pairs), "rating"), ENOUGH - len(pairs)
                lines.append(f"{count} beside the {name}; {missing} more until its agreement is shown.")
            else:
                lines.append(f"**The {name} agrees with you** in {agreement(pairs)}.")
        return bullets(lines, "Nothing to rate here yet: seal an experiment first (`notch run`).")

    def panel(self) -> Any:
        """The session as widgets."""
        return Panel(self).box


# --- widgets -------------------------------------------------------------------------------------

STYLE = Path(__file__).with_name("rate.css")


class Panel:
    """What is shown of a session, its buttons, and the box that takes keys.

    Keys come as the text of a box, for JupyterLab keeps its own meaning of them everywhere else (there, `a` and `b`
    insert cells). The text only grows and is never cleared from here: clearing it would race with a fast typist.
    """

    def __init__(self, session: Session) -> None:
        import ipywidgets as w

        self.session, self.read = session, ""
        self.keys = w.Text(placeholder="click here, then type", description="keys", layout=w.Layout(width="17rem"))
        self.keys.style.description_width = "2.5rem"
        self.keys.add_class("notch-keys")
        self.begin = w.Button(description="Start", button_style="primary")
        self.undo = _button("undo", BACK, "7rem")
        self.done = w.Button(description="How far do the judges agree?", layout=w.Layout(width="16rem"))
        self.choices = {key: _button(text, key, "31%") for key, text in CHOICES.items()}
        self.scores = {key: w.Button(description=key, layout=w.Layout(width="3rem", flex="0 0 auto")) for key in SCORES}
        self.anchors = {key: w.HTML() for key in SCORES}  # what each score means
        self.task, self.sets, self.due, self.marks, self.state = (w.HTML() for _ in range(5))
        for key, button in {**self.choices, **self.scores, BACK: self.undo}.items():
            button.on_click(lambda _, key=key: self.press(key))
        self.begin.on_click(lambda _: self.start())
        self.done.on_click(lambda _: self.agree())
        self.keys.observe(self._typed, names="value")
        self.verdict = w.HBox(list(self.choices.values()), layout=w.Layout(justify_content="space-between"))
        rows = [w.HBox([self.scores[key], self.anchors[key]]) for key in SCORES]
        self.rubric = w.HBox([w.VBox(rows), self.marks], layout=w.Layout(justify_content="space-between"))
        self.out = w.Output()
        self.box = w.VBox([
            w.HTML(f"<style>{STYLE.read_text()}</style>"), w.HBox([self.keys, self.begin, self.undo, self.done]), self.state, self.task, self.sets,
            self.due, self.verdict, self.rubric, self.out,
        ], layout=w.Layout(padding="0 12px 8px 0"))  # fmt: skip
        self.started = False
        self.draw()

    # --- what is done

    def start(self) -> None:
        """Show the first item; its time runs from here."""
        self.started = True
        self.session.start()
        self.draw()
        self.keys.focus()

    def press(self, key: str) -> None:
        """A key from a button or the box; the box then has the keyboard again."""
        if self.started:
            self.session.press(key)
            self.draw()
        self.keys.focus()

    def agree(self) -> None:
        """Show how far the judges agree, because somebody asked."""
        self.out.outputs = shown(self.session.agreement.text)

    def _typed(self, change: Any) -> None:
        """Take the letters that came since the last look."""
        before, self.read = self.read, change["new"]
        added = self.read  # what was pasted over the text counts as typed
        if self.read.startswith(before):
            added = self.read[len(before) :]
        elif before.startswith(self.read):
            added = ""
        for key in added.lower():
            if self.started and key in KEYS:
                self.session.press(key)
        self.draw()

    # --- what is shown

    def draw(self) -> None:
        """Show the item, what is due of it and how many are left."""
        session = self.session
        item, asked = session.item, session.asked
        showing = self.started and item is not None
        self.out.outputs = ()  # what was said of the judges is of before
        rated = {r.item for r in session.rated}
        waiting = sum(i.id not in rated for i in session.items)
        self.state.value = (
            f"<small>{html.escape(session.who)}: {len(rated)} rated, {waiting} left. {self._state()}</small>"
        )
        _visible(showing, self.task, self.sets, self.due)
        _visible(showing and not asked, self.verdict)
        _visible(showing and bool(asked), self.rubric)
        _visible(item is not None and not self.started, self.begin)
        if not showing or item is None:
            return
        self.task.value = f"<div class='notch-task'><small>task</small> {html.escape(item.case.task)}</div>"
        due = asked[1] if asked else ""
        sets = "".join(_set(side, text, side == due) for side, text in item.sets.items())
        self.sets.value = f"<div class='notch-sets'>{sets}</div>"
        head, text = "Which set would help you more to plan this task?", ""
        if asked:
            [dimension] = [d for d in session.frozen.rubric if d.name == asked[0]]
            head, text = f"{_plain(dimension.name)} of set {asked[1]}", dimension.description
            for key, anchor in zip(SCORES, dimension.anchors, strict=True):
                self.anchors[key].value = html.escape(anchor)
            self.marks.value = _marks(session.marks)
        self.due.value = f"<div class='notch-due'><b>{head}</b> <small>{html.escape(text)}</small></div>"

    def _state(self) -> str:
        if self.session.item is None:
            return "Nothing is left to rate." if self.session.items else "No sealed experiment has an answer to rate."
        return "" if self.started else "Press Start: the time of the first case runs from there."


def _button(text: str, key: str, width: str) -> Any:
    import ipywidgets as w

    return w.Button(description=f"{text} ({key})", layout=w.Layout(width=width))


def _visible(on: bool, *widgets: Any) -> None:
    for widget in widgets:
        widget.layout.display = None if on else "none"


def _plain(dimension: str) -> str:
    return dimension.replace("_", "-").capitalize()


def _set(side: str, answer: Gold | Answer, due: bool) -> str:
    """One set of questions as a card."""
    lines = "".join(f"<li>{html.escape(q)}</li>" for q in answer.questions)
    return (
        f"<section class='{'due' if due else ''}'><h4>Set {side}</h4><b>{html.escape(answer.title)}</b>"
        f"<ol>{lines}</ol></section>"
    )


def _marks(marks: list[int]) -> str:
    """The scores so far, a dimension a row; the due one is framed."""
    cells = [f"<td>{mark}</td>" for mark in marks] + ["<td class='due'>·</td>"] + ["<td>·</td>"] * MARKS
    rows = []
    for i, dimension in enumerate(DIMENSIONS):
        first = len(SIDES) * i
        rows.append(f"<tr><th>{_plain(dimension)}</th>{''.join(cells[first : first + len(SIDES)])}</tr>")
    heads = "".join(f"<th>{side}</th>" for side in SIDES)
    return f"<table class='notch-marks'><tr><th></th>{heads}</tr>{''.join(rows)}</table>"
