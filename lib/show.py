"""Text, numbers and tables as a notebook shows them.

Knows Markdown and the kinds of columns. Does not know what is shown.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

NOTHING = "Nothing here yet."
# A whole wording would hide the other columns of a table.
LONGEST = 60  # letters of one argument of a step
# Columns whose heading is not their name.
HEADS = {"id": "run", "wtl": "W/T/L", "interval": "95 %", "non_redundancy": "non-redundancy"}
# All but tab and line feed; and those that turn the direction of what follows.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# By a column's first word; other fractions have three decimals.
FORMATS = {"delta": "+.3f", "predicted": "+.3f", "to": "+.3f", "seconds": ".1f", "calls": ".1f", "new": ".0f",
           "loss": ".4f", "dim": ".2f"}  # fmt: skip


@dataclass(frozen=True, repr=False)
class Markdown:
    """Text that a notebook renders."""

    text: str

    def _repr_markdown_(self) -> str:
        return self.text

    def __repr__(self) -> str:
        # Short: the long form would put every table into the notebook a second time.
        return f"Markdown, {plural(self.text.count(chr(10)) + 1, 'line')}"


def cell(text: str) -> str:
    """Text of others that cannot break out of a Markdown table, nor pose as HTML, a link or a formula.

    >>> cell("a | b <c> [d]")
    'a \\\\| b &lt;c> \\\\[d]'
    """
    flat = " ".join(text.split())
    for a, b in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("[", "\\["), ("`", "'"), ("$", "\\$")):
        flat = flat.replace(a, b)
    return flat


def visible(text: str) -> str:
    """Text whose control characters, which a terminal would obey, are written out; as JSON spells them.

    >>> visible("a\\x1b[2J" + chr(0x202E) + " é\\n")
    'a\\\\u001b[2J\\\\u202e é\\n'
    """
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def fenced(text: str, kind: str = "text") -> str:
    """Text as a block that it cannot break out of, whatever it holds."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{kind}\n{text}\n{fence}"


def bar(what: str, done: float, total: float, unit: str, seconds_left: float | None) -> str:
    """How far something is, in one line.

    >>> bar("training", 3, 12, "steps", 130.0), bar("1 ask", 0, 30, "cases", None)
    ('training ███░░░░░░░░░ 3 of 12 steps, 2 min 10 s left', '1 ask ░░░░░░░░░░░░ 0 of 30 cases')
    """
    full, left = round(12 * done / total), ""
    if seconds_left is not None:
        minutes, seconds = divmod(round(seconds_left), 60)
        left = f", {minutes} min {seconds} s left" if minutes else f", {seconds} s left"
    return f"{what} {'█' * full}{'░' * (12 - full)} {done:.0f} of {total:.0f} {unit}{left}"


def folder_name(text: str, letters: int = 40) -> str:
    """A text as the name of a folder: small letters, digits and hyphens, cut between words where it is long.

    >>> folder_name("Over-generate and prune: ask, tournament by meaning")
    'over-generate-and-prune-ask-tournament'
    """
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if len(name) <= letters:
        return name
    return name[: letters + 1].rpartition("-")[0] or name[:letters]


def plural(n: int, noun: str, more: str = "") -> str:
    """A number with its noun.

    >>> plural(1, "run"), plural(2, "class", "classes")
    ('1 run', '2 classes')
    """
    return f"{n} {noun if n == 1 else more or noun + 's'}"


def spelled(plain: Any) -> str:
    """A pipeline, one step of it or a decoding in words.

    >>> spelled([{"step": "ask", "n": 8}, {"step": "prune"}]), spelled({"temp": 0.7})
    ('ask(n=8) → prune', 'temp=0.7')
    """
    if isinstance(plain, list):
        return " → ".join(map(spelled, plain))
    arguments = [f"{k}={textwrap.shorten(str(v), LONGEST, placeholder=' …')}" for k, v in plain.items() if k != "step"]
    head, rest = str(plain.get("step", "")), ", ".join(arguments)
    if head and rest:
        return f"{head}({rest})"
    return head or rest


def words(arguments: Mapping[str, Any]) -> str:
    """Names and values in a line.

    >>> words({"temp": 0.7, "top_p": 0.9})
    'temp 0.7, top_p 0.9'
    """
    return ", ".join(f"{name} {value}" for name, value in arguments.items())


def candidate_name(candidate: str) -> str:
    """A candidate whose adapter is named by its training, wherever that lies.

    >>> candidate_name("smollm2 + runs/0003-train-sft/adapter"), candidate_name("smollm2 + 0003-train-sft/epoch-01")
    ('smollm2 + 0003-train-sft', 'smollm2 + 0003-train-sft epoch-01')
    """
    model, plus, adapter = candidate.partition(" + ")
    training = re.search(r"\d{4,}-[a-z0-9-]+", adapter)
    if training is None:
        return candidate
    return f"{model}{plus}{' '.join([training[0], *re.findall(r'epoch-[0-9]+', adapter)])}"


def attempt(pipeline: list[dict[str, Any]], decoding: dict[str, Any]) -> str:
    """What was run, in words.

    >>> attempt([{"step": "ask"}], {"temp": 0.7})
    'ask [temp=0.7]'
    """
    return spelled(pipeline) + (f" [{spelled(decoding)}]" if decoding else "")


def interval(low: float | None, high: float | None, sign: str = "+") -> str:
    """Two bounds that stay on one line, with their signs; `sign=""` for what is never below 0. Missing ones give "".

    >>> interval(-0.01, 0.25), interval(0.1, 0.2, "")
    ('-0.010\\xa0to\\xa0+0.250', '0.100\\xa0to\\xa00.200')
    """
    # pandas holds what is missing as NaN, the one number that is not itself.
    if low is not None and low == low:
        return f"{low:{sign}.3f}\u00a0to\u00a0{high:{sign}.3f}"
    return ""


def number(value: Any, column: str = "") -> str:
    """A value by the kind of its column: p, a difference with its sign, seconds, whole numbers, else three decimals.

    >>> [number(0.0554, "p"), number(1e-05, "p to base"), number(0.02, "delta"), number(72, "pairs"), number(None)]
    ['0.0554', '<0.0001', '+0.020', '72', '']
    """
    kind = column.partition(" ")[0]
    if value is None or value != value:
        return ""
    if kind == "p" and not isinstance(value, str):
        if value >= 1e-4:
            return f"{value:.3g}"
        return "<0.0001"
    if isinstance(value, float) or (kind in ("delta", "predicted", "to") and not isinstance(value, str)):
        return f"{value:{FORMATS.get(kind, '.3f')}}"
    return re.sub(r"(?<!\\)\|", r"\\|", str(value))  # `cell` may have escaped it already


def chance(p: float | None) -> str:
    """A p in a sentence.

    >>> chance(0.0208), chance(1e-05)
    ('p = 0.0208', 'p <0.0001')
    """
    text = number(p, "p")
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def grid(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table of texts."""
    heads = list(heads)
    return "\n".join(
        ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|", *(f"| {' | '.join(r)} |" for r in rows)]
    )


def table(frame: pd.DataFrame) -> Markdown:
    """A table for a notebook: numbers by the kind of their column, no index, readable where it is rendered."""
    if frame.empty:
        return Markdown(NOTHING)
    heads = [HEADS.get(c, str(c).replace("_", " ")) for c in frame.columns]
    # As objects: in a column of floats None would turn back into NaN.
    plain = frame.astype(object).where(frame.notna(), None)
    rows = plain.itertuples(index=False, name=None)
    return Markdown(grid(heads, ([number(v, h) for v, h in zip(row, heads, strict=True)] for row in rows)))


def bullets(lines: Iterable[str], nothing: str = NOTHING) -> Markdown:
    """Sentences as a list."""
    return Markdown("\n".join(f"- {line}" for line in lines) or nothing)


def fold(content: pd.DataFrame | Markdown, summary: str) -> Markdown:
    """A long table or text behind one line that opens it: the page stays readable, and nothing is left out."""
    text = (content if isinstance(content, Markdown) else table(content)).text
    # Blank lines around the text: only then is it read as Markdown within HTML.
    return Markdown(f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>")
