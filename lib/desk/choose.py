"""One task answered by several models side by side, blind until one answer is chosen: stock, champion, best prompting, Claude.

Knows who answers and who asked, and appends each choice to `ratings.jsonl`; nothing else is written. Letters are drawn by
lot, and no source is named before the choice. Where fewer than two sets came out whole there is none: nothing is asked,
nothing written. Claude costs a cent or so for each press of Answer.
"""

from __future__ import annotations

import html
import os
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lib.desk.explore import Choice, Tried
from lib.files import RULER, OneLine, runs_folder
from lib.log import Log, now
from lib.measure.answer import Answer
from lib.measure.checks.agreement import NEITHER, Chosen, item_id, taken
from lib.measure.ruler import Ruler
from lib.report import trained
from lib.report.era import latest
from lib.runs.ledger import Ledger
from lib.runs.verify import RATED, RATINGS
from lib.show import plural

LETTERS = "ABCDEFG"
Side = Tried | str  # a try, or why there is none


def sources(runs: Path) -> dict[str, Choice]:
    """Who answers, each with a task yet to be asked: the stock model, the champion of these runs, with a key Claude.

    Beside a champion with an adapter the best run without one too: the stock model seldom has a set to choose.
    """
    ledger = Ledger.read(runs)
    era = latest(ledger)
    found = {"stock": Choice("")}
    if champion := ledger.champion(era):
        found["champion"] = Choice.of_run(champion, runs)
        prompting = trained.best(ledger, era, adapter=False)
        if champion.adapter and prompting not in ("", trained.stock(ledger, era)):
            found["best prompting"] = Choice.of_run(ledger.get(prompting), runs)
    if os.environ.get("ANTHROPIC_API_KEY"):
        found["claude"] = Choice("", model=Ruler.load(RULER).protocol.judge["model"])
    return found


@dataclass
class Blind:
    """A person's choices between the answers of several sources, which stay hidden until one is chosen."""

    who: str = "me"
    runs: Path = field(default_factory=runs_folder)
    sources: Mapping[str, Choice] | None = None  # None: those of the runs
    # From the system and not from a seed, which would say which letter is whose.
    lot: random.Random = field(default_factory=random.SystemRandom)

    def __post_init__(self) -> None:
        self.log = Log(self.runs / RATINGS, RATED)
        self.asked = dict(self.sources or sources(self.runs))
        self.letters: dict[str, str] = {}  # letter -> source, of the task that was answered last
        self.sides: dict[str, Side] = {}  # letter -> what came
        self.chosen = ""  # the letter that was taken, or NEITHER, "" until then

    def answer(self, task: str) -> None:
        """Have every source answer, under letters drawn by lot. What cannot answer says why in its place."""
        names = list(self.asked)
        self.lot.shuffle(names)
        self.letters, self.sides, self.chosen = dict(zip(LETTERS, names, strict=False)), {}, ""
        for letter, name in self.letters.items():
            try:
                self.sides[letter] = self.asked[name].of(task)
            except (OneLine, ValueError) as error:
                self.sides[letter] = str(error)

    def set_of(self, letter: str) -> list[str]:
        """Title and questions of an answer, [] where there is none."""
        side = self.sides[letter]
        if isinstance(side, Tried) and isinstance(side.answer, Answer):
            return [side.answer.title, *side.answer.questions]
        return []

    @property
    def whole(self) -> int:
        """How many sets stand."""
        return len(list(filter(self.set_of, self.sides)))

    @property
    def asks(self) -> bool:
        """Whether there is something to choose: two sets, of which none was taken yet."""
        return self.whole > 1 and not self.chosen

    def choose(self, letter: str) -> None:
        """Take one answer or NEITHER: it is on disk before a source is named. Raises ValueError on what cannot be taken."""
        texts = [""]
        if letter != NEITHER:
            texts = self.set_of(letter)
        if not self.asks or not texts:
            raise ValueError(
                f"{letter}: of two whole sets or more one is chosen, once; an answer that is no set cannot be"
            )
        title, *questions = texts
        [task] = {side.case.task for side in self.sides.values() if isinstance(side, Tried)}
        answers = {name: self.set_of(at) for at, name in self.letters.items()}
        row = Chosen(item_id("typed", title, questions), task, self.letters, letter, answers, self.who, now())
        self.log.extend([{"kind": "choice", **asdict(row)}])
        self.chosen = letter

    @property
    def counts(self) -> str:
        """How often each source was chosen, in a sentence."""
        self.log.catch_up()
        counted = taken(self.log.rows, self.who)
        rows = ", ".join(f"{name} {chosen} of {plural(shown, 'time')}" for name, (chosen, shown) in counted.items())
        return f"Chosen so far: {rows}." if rows else "Nothing was chosen yet."


def show(task: str = "plan a trip to Paris", **blind: Any) -> Any:
    """The choice as one widget; nothing is asked before Answer is pressed. `blind` as of `Blind`."""
    return Panel(Blind(**blind), task).box


class Panel:
    """A task, a column for each answer, a button below each."""

    def __init__(self, blind: Blind, task: str) -> None:
        import ipywidgets as w

        self.blind = blind
        wide = w.Layout(width="42rem", max_width="100%")
        self.task = w.Text(value=task, description="your task", style={"description_width": "7rem"}, layout=wide)
        self.go = w.Button(description="Answer side by side", button_style="primary", layout=w.Layout(width="12rem"))
        self.message, self.columns = w.HTML(), w.HBox([], layout=w.Layout(flex_flow="row wrap"))
        self.neither = w.Button(description="Neither", disabled=True)
        self.go.on_click(lambda _: self.answer())
        self.neither.on_click(lambda _: self.choose(NEITHER))
        self.box = w.VBox([self.task, self.go, self.message, self.columns, self.neither])
        self._say(f"{plural(len(blind.asked), 'source')} will answer.")

    def answer(self) -> None:
        self.columns.children, self.neither.disabled = (), True
        if not self.task.value.strip():
            self._say("The task is empty; type one line, such as: plan a trip to Paris.")
            return
        self._say("Working …")
        self.blind.answer(self.task.value)
        self._draw()
        if self.blind.asks:
            self._say("Which set would help you more to plan this? Who wrote it is said afterwards.")
        else:
            stand = plural(self.blind.whole, "set")
            self._say(
                f"A choice takes two sets, and {stand} came out whole: nothing is asked, and nothing is recorded."
            )

    def choose(self, letter: str) -> None:
        self.blind.choose(letter)
        self._draw()
        self._say(f"You chose {', '.join(filter(None, [letter, self.blind.letters.get(letter)]))}.")

    def _say(self, text: str) -> None:
        self.message.value = f"{html.escape(text)} <i>{html.escape(self.blind.counts)}</i>"

    def _draw(self) -> None:
        import ipywidgets as w

        columns, asks = [], self.blind.asks
        self.neither.disabled = not asks
        for letter in self.blind.sides:
            named = "" if asks else self.blind.letters[letter]
            button = w.Button(description=f"Choose {letter}", disabled=not asks or not self.blind.set_of(letter))
            button.on_click(lambda _, letter=letter: self.choose(letter))
            text = w.HTML(_column(f"{letter}: {named}" if named else letter, self.blind, letter))
            columns.append(w.VBox([text, button], layout=w.Layout(flex="1 1 16rem", margin="0 16px 0 0")))
        self.columns.children = columns


def _column(head: str, blind: Blind, letter: str) -> str:
    """One answer; of one that failed its fault, and what was written instead."""
    side, texts = blind.sides[letter], blind.set_of(letter)
    if texts:
        items = "".join(f"<li>{html.escape(q)}</li>" for q in texts[1:])
        return f"<h4>{head}</h4><b>{html.escape(texts[0])}</b><ol>{items}</ol>"
    why, wrote = str(side), ""
    if isinstance(side, Tried):
        why = getattr(side.answer, "reason", "")
        wrote = side.state.calls[-1]["text"] if side.state.calls else ""
    return (
        f"<h4>{head}</h4><b style='color: var(--jp-error-color1, #b00020)'>✗ No answer: {html.escape(why)}</b>"
        f"<pre style='white-space: pre-wrap'>{html.escape(wrote[:600])}</pre>"
    )
