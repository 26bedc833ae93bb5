"""Notebooks as pages: executes the index notebooks against a folder of runs and renders them, and every run, as HTML.

Knows nbconvert's plain template and a small shell around it: no outside request, readable at 375 pixels, white ground
under pictures. Does not know what the pages say.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import html as escape
import os
import re
import sys
import threading
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

from lib.files import NOTEBOOKS, RULER, writable, write_atomic
from lib.lab.base import BadParameters
from lib.lab.execute import render
from lib.measure.ruler import Ruler
from lib.report import run_page, run_table
from lib.report.drawing import ATTRIBUTES as DRAWN
from lib.report.drawing import ELEMENTS, figures_folder, report_folder
from lib.report.run_table import SCRIPT
from lib.runs.ledger import Ledger

INDEXES = ("20_report", "21_runs")
# Reads no run: it belongs to the project and is rendered with its own runs only.
PUBLISHED = NOTEBOOKS / "published" / "published.ipynb"
STYLE = Path(__file__).with_name("page.css")
SHELL = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{title}</title><style>
{style}</style></head><body><nav>{nav}</nav><main>{body}</main>{script}</body></html>"""
# What a page shows of one cell; a sealed notebook may hold any number of outputs, of any length.
CELL_OUTPUTS = 20
OUTPUT_LETTERS = 2_000_000  # the tables of 2,000 runs fit
CUT_LETTERS = 2_000  # shown of an output that does not
# What Markdown makes, and nothing that could run: the sanitiser's own list lets no heading and no table through.
TAGS = frozenset(
    "h1 h2 h3 h4 h5 h6 p br hr div span em strong b i code pre blockquote ul ol li a table thead tbody tr th td "
    "details summary figure figcaption sub sup del".split()
)
# A link of a figure, which names the page of a run in the site.
RUN_LINK = re.compile(r'href="(\d{4,}-[a-z0-9-]+)\.html"')
ATTRIBUTES = {
    "*": ["id", "class", "title"], "a": ["href"], "img": ["src", "alt"], "td": ["align"], "th": ["align", "scope"],
}  # fmt: skip


def notebook_path(runs: Path, name: str) -> Path:
    """Where an index notebook is written; the published study's own stays where it is."""
    return PUBLISHED if name == PUBLISHED.stem else report_folder(runs) / f"{name}.ipynb"


def page_path(runs: Path, name: str) -> Path:
    """Where the page of an index is written."""
    return figures_folder(runs) / f"{name}.html"


def write(runs: Path, html: Path | None = None) -> None:
    """Execute and render the index notebooks; with `html`, also a page a run. Raises BadParameters without the folder."""
    if not runs.is_dir():
        raise BadParameters(f"{runs}: no such folder of runs; `notch run --runs {runs}` would begin one")
    for folder in (report_folder(runs), figures_folder(runs), *([html] if html else [])):
        writable(folder, "the report lies beside the folder of runs, pages where --html says")
    names = [*INDEXES]
    if report_folder(runs) == NOTEBOOKS:
        names.append(PUBLISHED.stem)
    links = [(name, f"{name}.html") for name in names]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(partial(_index, runs, links), names))
    if html is not None:
        write_site(runs, html, names)


def _index(runs: Path, links: list[tuple[str, str]], name: str) -> None:
    """Execute and render one index notebook, in a thread of its own."""
    out, target = notebook_path(runs, name), page_path(runs, name)
    # The published page reads no run, so it changes with its own files alone.
    if name not in INDEXES and current(target):
        return
    try:
        if name in INDEXES:
            render(NOTEBOOKS / out.name, out, runs)
        else:  # as in JupyterLab: a page in a folder of its own imports the code beside it
            render(out, out, runs, out.parent)
    finally:
        with contextlib.suppress(RuntimeError):  # there is none where no kernel was started
            asyncio.get_event_loop().close()  # that the kernel's client left to this thread
    # No page of a run stands beside it here; the sealed notebook does.
    sealed = os.path.relpath(runs, target.parent)
    write_atomic(target, RUN_LINK.sub(rf'href="{sealed}/\1/experiment.ipynb"', page(out, links)))


def write_site(runs: Path, html: Path, names: list[str]) -> None:
    """The rendered indexes, a page a run, the page of all runs and of two runs beside each other in one folder; the
    report is its index page."""
    files = {INDEXES[0]: "index.html", **{name: f"{name}.html" for name in names[1:]}}
    links = [("report", "index.html"), ("runs", "runs.html"), ("compare", "compare.html")]
    links.append(("tables", f"{INDEXES[1]}.html"))
    links += [(name, files[name]) for name in names[len(INDEXES) :]]
    ledger = Ledger.read(runs)
    for name, file in files.items():
        write_atomic(html / file, page(notebook_path(runs, name), links))
    for title, make in (("runs", run_table.runs), ("compare", run_table.compare)):
        write_atomic(html / f"{title}.html", shell(f"notch: {title}", make(ledger), links, SCRIPT.read_text()))
    write_atomic(html / "runs.csv", run_table.csv(ledger))
    ruler = Ruler.load(RULER)
    ids = ["", *(r.id for r in ledger.records), ""]
    for r, before, after in zip(ledger.records, ids, ids[2:], strict=False):
        # Gold of another ruler is not what this run was judged against, so its page shows none.
        same = r.fingerprint == ruler.fingerprint(r.identity.judge)
        folds = run_page.cases(r, ledger.cases(r.id) if r.scores else (), ruler.by_id if same else {})
        lead = run_page.head(r, before, after)
        write_atomic(html / f"{r.id}.html", page(runs / r.id / "experiment.ipynb", links, folds, lead))


def current(target: Path) -> bool:
    """Whether the published study's page is newer than its notebook, code, data and this shell."""
    parts = [p for p in (*PUBLISHED.parent.iterdir(), STYLE, Path(__file__)) if p.is_file()]
    return target.exists() and target.stat().st_mtime >= max(p.stat().st_mtime for p in parts)


def page(path: Path, links: list[tuple[str, str]], tail: str = "", lead: str = "") -> str:
    """One notebook as a complete page. Raises ValueError when a picture has no alt text."""
    body = _body(path)
    if "No description has been provided for this image" in body:
        raise ValueError(f"{path}: a picture has no alt text")
    title = path.parent.name if path.stem == "experiment" else path.stem
    return shell(title, lead + body + tail, links)


def shell(title: str, body: str, links: list[tuple[str, str]], script: str = "") -> str:
    """A complete page around a body. Nothing runs on it but its own script, which its content policy names by hash."""
    nav = " · ".join(f'<a href="{escape.escape(href)}">{escape.escape(name)}</a>' for name, href in links)
    allowed = "'none'"
    if script:
        allowed = f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        script = f"<script>{script}</script>"
    policy = f"default-src 'none'; img-src data: 'self'; style-src 'unsafe-inline'; script-src {allowed}"
    style = STYLE.read_text(encoding="utf-8")
    # Whatever may scroll is reached by keyboard.
    body = re.sub(r"<(table|figure|pre)(?=[ >])", r'<\1 tabindex="0"', body)
    return SHELL.format(title=escape.escape(title), style=style, nav=nav, body=body, script=script, policy=policy)


@cache  # its templates are compiled once, and not for each of thousands of pages
def _exporter(thread: int) -> Any:
    """What makes HTML of a notebook, sanitised. Each thread has its own: it remembers things while it works."""
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # 1.3 s at import, unused here
    import bleach
    from nbconvert import HTMLExporter

    # Sanitising keeps a model's text, or a hypothesis, from becoming a script of the page.
    exporter = HTMLExporter(template_name="basic", exclude_input=True, sanitize_html=True)
    tags, attributes = TAGS | ELEMENTS, {**ATTRIBUTES, **{name: [*DRAWN] for name in ELEMENTS}}
    exporter.register_filter("clean_html", partial(bleach.clean, tags=tags, attributes=attributes))
    return exporter


def _body(path: Path) -> str:
    """A notebook's outputs and Markdown as sanitised HTML. Raises ValueError on a picture without alt text."""
    exporter = _exporter(threading.get_ident())
    import nbformat

    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        cell.outputs = [_inline(output, path) for output in bounded(cell.get("outputs", []), path.name)]
    html: str = exporter.from_notebook_node(notebook)[0]
    return html


def bounded(outputs: list[Any], name: str) -> list[Any]:
    """The outputs of a cell as far as a page can hold them, and a line about what only the notebook of that name holds."""
    shown = []
    for output in outputs:
        kinds = output.get("data", output)
        letters = sum(len(content) for content in kinds.values() if isinstance(content, str))
        if letters > OUTPUT_LETTERS:
            begin = str(kinds.get("text/plain") or kinds.get("text/markdown") or kinds.get("text") or "")[:CUT_LETTERS]
            output = _note(f"{begin} … Cut: the whole of this output, {letters:,} letters, stands in {name}.")
        shown.append(output)
    if len(shown) > CELL_OUTPUTS:
        # A progress bar leaves an output a step, and the result comes last: so the first and the last ones stay.
        half = CELL_OUTPUTS // 2
        shown[half:-half] = [_note(f"{len(shown) - 2 * half} more outputs of this cell stand in {name}.")]
    return shown


def _inline(output: Any, path: Path) -> Any:
    """An output whose SVG stands in the page itself, sanitised as any text: the links inside an image cannot be followed."""
    svg = output.get("data", {}).pop("image/svg+xml", "")
    if svg:
        if 'aria-label="' not in svg:
            raise ValueError(f"{path}: a picture has no alt text")
        output["data"]["text/html"] = f"<figure>{svg}</figure>"
    return output


def _note(text: str) -> Any:
    import nbformat.v4

    return nbformat.v4.new_output("stream", name="stdout", text=text)
