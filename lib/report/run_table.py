"""Every run on one page that is searched, sorted and filtered, two runs case by case, and the same as CSV.

Knows the ledger's frame and one small script (`page.js`), which asks nothing of a network. Does not know notebooks.
"""

from __future__ import annotations

from csv import QUOTE_NONNUMERIC
from pathlib import Path
from typing import TYPE_CHECKING

from lib.files import canonical
from lib.measure.stats import paired
from lib.report.run_page import SEALED_GATE, text
from lib.runs.ledger import Ledger
from lib.show import HEADS, attempt, chance, interval, number

if TYPE_CHECKING:
    import pandas as pd

SCRIPT = Path(__file__).with_name("page.js")
COLUMNS = ("id", "kind", "status", "lever", "gate", "quality", "wtl", "no_answer", "delta", "p", "predicted", "model",
           "adapter", "pipeline", "hypothesis")  # fmt: skip
FORMULA = r"^(?=[=+\-@\t\r])"  # how a text begins that a spreadsheet would run
LONG = 24  # letters of a cell from which the page may cut it; all of it shows where the pointer rests
FILTERS = ("status", "kind", "lever", "gate")  # columns with a menu


def frame(ledger: Ledger) -> pd.DataFrame:
    """The columns of the page, a row a run, pipelines in words and eras numbered."""
    f = ledger.frame()
    f["pipeline"] = [attempt(p, d) for p, d in zip(f.pipeline, f.decoding, strict=True)]
    f["era"] = f.fingerprint.factorize()[0] + 1
    # Kept as what later ones must beat: a reader takes the word for a win.
    unopposed = (f.status == "kept") & (f.against == "")
    f["status"] = f.status.mask(unopposed, f.kind.map({"confirm": "first look"}).fillna("first run"))
    return f[["era", *COLUMNS]]


def csv(ledger: Ledger) -> str:
    """The same as `runs.csv`: a text that a spreadsheet would run has an apostrophe before it; numbers stay numbers."""
    # Every text in quotes: a lone carriage return in one would end its row, and begin a cell behind it.
    return frame(ledger).replace(FORMULA, "'", regex=True).to_csv(index=False, quoting=QUOTE_NONNUMERIC)


def runs(ledger: Ledger) -> str:
    """The page's body: menus, a search field and the table, whole without a script too."""
    f = frame(ledger)
    menus = "".join(_menu(name, sorted(set(f[name].dropna()) - {""})) for name in FILTERS)
    search = '<label>search <input type="search" id="search" autocomplete="off"></label>'
    heads = "".join(_head(name) for name in f.columns)
    body = "".join(_row(row) for row in f.astype(object).where(f.notna(), None).to_dict("records"))
    return (
        f'<h1>Every run</h1><form id="filters">{search} {menus} <output id="count">{len(f)} runs</output></form>'
        f'<table id="runs"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
        '<p><a href="runs.csv">runs.csv</a> · <a href="compare.html">two runs case by case</a></p>'
    )


def _menu(name: str, values: list[str]) -> str:
    options = "".join(f"<option>{text(value)}</option>" for value in values)
    return f'<label>{name} <select data-column="{name}"><option value="">all</option>{options}</select></label>'


def _head(name: str) -> str:
    label = HEADS.get(name, name.replace("_", " "))
    return f'<th scope="col" data-column="{name}"><button type="button">{label}</button></th>'


def _row(row: dict[str, object]) -> str:
    """A run as a row; a long cell says all of itself where the pointer rests."""
    cells = ""
    for name, value in row.items():
        shown = text(number(value, name))
        hint = f' title="{shown}"' if len(shown) > LONG else ""
        if name == "id":
            shown = f'<a href="{shown}.html">{shown}</a>'
        cells += f"<td{hint}>{shown}</td>"
    return f"<tr>{cells}</tr>"


def compare(ledger: Ledger) -> str:
    """A page that sets two runs of one gate and era side by side, case by case: it holds every quality."""
    scored = [r for r in ledger.records if r.scores and r.gate != SEALED_GATE and r.kind == "experiment"]
    data = {r.id: {"group": f"{r.gate} {r.fingerprint[:8]}", "quality": ledger.qualities(r.id)} for r in scored}
    # A task or a slug must not end the element that holds it.
    held = canonical(data).replace("<", "\\u003c")
    return (
        "<h1>Two runs case by case</h1><p>Positive: the second run is better. Only runs of one gate, ruler and judge.</p>"
        '<form id="compare"><label>first <select id="first"></select></label> '
        '<label>second <select id="second"></select></label></form><p id="sum" role="status"></p>'
        '<table id="pairs"><thead><tr><th scope="col">case</th><th scope="col">first</th><th scope="col">second</th>'
        '<th scope="col">difference</th></tr></thead><tbody></tbody></table>'
        f'<script type="application/json" id="data">{held}</script>'
    )


def pairs(ledger: Ledger, first: str, second: str) -> tuple[str, pd.DataFrame]:
    """Two runs case by case, what the second gained first, and the paired difference in a sentence.

    Raises NoRun, and ValueError where the two were not measured alike or hold cases of the sealed gate.
    """
    import pandas as pd

    a, b = ledger.get(first), ledger.get(second)
    for run in (a, b):
        if not run.scores:
            raise ValueError(f"{run.id} has no scores ({run.kind}, {run.status}); compare two scored runs")
        if run.gate == SEALED_GATE:
            raise ValueError(
                f"{run.id} looked at the sealed gate, whose cases are never shown; compare its full gate run"
            )
    for what in ("gate", "fingerprint"):
        if getattr(a, what) != getattr(b, what):
            name = {"fingerprint": "ruler and judge"}.get(what, what)
            raise ValueError(f"{a.id} and {b.id} have not the same {name}; only runs of one {name} are compared")
    qualities = [ledger.qualities(run.id) for run in (a, b)]
    # A judge may have failed on a case of either run; only what both have is paired.
    f = pd.DataFrame({a.id: qualities[0], b.id: qualities[1]}).dropna()
    f["difference"] = f[b.id] - f[a.id]
    test = paired(f[b.id].tolist(), f[a.id].tolist())
    better, worse = int((f.difference > 0).sum()), int((f.difference < 0).sum())
    said = (
        f"{b.id} against {a.id}: {test.delta:+.3f} (95 % {interval(test.low, test.high)}, {chance(test.p)}), "
        f"{better} cases better, {worse} worse, {len(f) - better - worse} the same"
    )
    return said, f.sort_values("difference", kind="stable").rename_axis("case").reset_index()
