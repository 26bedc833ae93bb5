"""Notebooks as pages: executes the index notebooks against a folder of runs and renders them, and every run, as HTML.

Knows nbconvert's plain template and a small shell around it: no outside request, readable at 375 pixels, white ground
under pictures. Does not know what the pages say.
"""

from __future__ import annotations

import html as escape
import sys
from functools import partial
from pathlib import Path
from typing import Any

from lib.files import NOTEBOOKS, ROOT, write_atomic
from lib.lab.execute import render
from lib.lab.ledger import Ledger
from lib.report.figures import figures_folder

INDEXES = ("20_report", "21_runs")
# Reads no run: it belongs to the project and is rendered with its own runs only.
PUBLISHED = NOTEBOOKS / "published" / "published.ipynb"
STYLE = """
:root{color-scheme:light dark}body{margin:0 auto;max-width:80rem;padding:1rem;font:16px/1.55 system-ui,sans-serif;
background:#fbfaf7;color:#1a1a1a}a{color:#8f3517}nav{font-size:.9rem;margin-bottom:1.5rem}main main{padding:0}
h1,h2,h3{line-height:1.2;font-weight:600}table{border-collapse:collapse;display:block;overflow-x:auto;font-size:.86rem}
td,th{padding:.25rem .6rem;border-bottom:1px solid #ddd6ca;text-align:left;vertical-align:top}img{max-width:100%;height:auto;background:#fff}
pre{overflow-x:auto;font-size:.85rem;background:#f2efe8;padding:.6rem}blockquote{margin-left:0;padding-left:1rem;border-left:3px solid #b5482a}
p,ul,ol,blockquote{max-width:46rem}td:first-child,th:first-child{white-space:nowrap}
.jp-InputPrompt,.jp-OutputPrompt,.anchor-link,.prompt{display:none}
@media(prefers-color-scheme:dark){body{background:#191816;color:#e9e4da}pre{background:#262420}td,th{border-color:#3b372f}a{color:#e58b6b}}
"""


# What Markdown makes, and nothing that could run: the sanitiser's own list lets no heading and no table through.
TAGS = frozenset(
    "h1 h2 h3 h4 h5 h6 p br hr div span em strong b i code pre blockquote ul ol li a table thead tbody tr th td "
    "details summary figure figcaption sub sup del".split()
)
ATTRIBUTES = {
    "*": ["id", "class", "title"],
    "a": ["href"],
    "img": ["src", "alt"],
    "td": ["align"],
    "th": ["align", "scope"],
}


def home(runs: Path) -> Path:
    """Where the index notebooks of a folder of runs live: `notebooks` for the project's own, else beside the runs."""
    return NOTEBOOKS if runs.resolve() == (ROOT / "runs").resolve() else runs.resolve().parent


def notebook_path(runs: Path, name: str) -> Path:
    return PUBLISHED if name == PUBLISHED.stem else home(runs) / f"{name}.ipynb"


def page_path(runs: Path, name: str) -> Path:
    return figures_folder(runs) / f"{name}.html"


def write(runs: Path, html: Path | None = None) -> None:
    """Execute and render the index notebooks; with `html`, also a page a run and an index page."""
    home(runs).mkdir(parents=True, exist_ok=True)
    own = [PUBLISHED.stem] if home(runs) == NOTEBOOKS else []
    names = [*INDEXES, *own]
    for name in names:
        out, target = notebook_path(runs, name), page_path(runs, name)
        if name in own and current(target):
            continue
        # As in JupyterLab: a page in a folder of its own imports the code beside it.
        render(out if name in own else NOTEBOOKS / out.name, out, runs, out.parent if name in own else None)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, page(out, [(n, f"{n}.html") for n in names]))
    if html is None:
        return
    html.mkdir(parents=True, exist_ok=True)
    links = [("report", "index.html"), ("runs", "21_runs.html"), *[(n, f"{n}.html") for n in own]]
    write_atomic(html / "index.html", page(notebook_path(runs, "20_report"), links))
    records = Ledger.read(runs).records
    entries = "".join(f'<li><a href="{r["id"]}.html">{r["id"]}</a> {r["status"]}</li>' for r in records)
    listing = f"<h2>Every run</h2><ul>{entries}</ul>"
    write_atomic(html / "21_runs.html", page(notebook_path(runs, "21_runs"), links, listing))
    for name in own:
        write_atomic(html / f"{name}.html", page(notebook_path(runs, name), links))
    for r in records:
        write_atomic(html / f"{r['id']}.html", page(runs / r["id"] / "experiment.ipynb", links, lead=crash(r)))


def crash(record: dict[str, Any]) -> str:
    """What the record of a crashed run says, as its notebook broke off before it could; "" for any other run."""
    if record["status"] != "crashed":
        return ""
    hypothesis, error = (escape.escape(record[k]) for k in ("hypothesis", "error"))
    quote = f"<blockquote>{hypothesis}</blockquote>"
    return f"<h1>{record['id']} crashed</h1>{quote}<p>Status: <b>crashed</b>.</p><pre>{error}</pre>"


def current(target: Path) -> bool:
    """Whether the published study's page is newer than its notebook, code, data and this shell."""
    parts = [p for p in (*PUBLISHED.parent.iterdir(), Path(__file__)) if p.is_file()]
    return target.exists() and target.stat().st_mtime >= max(p.stat().st_mtime for p in parts)


def page(path: Path, links: list[tuple[str, str]], tail: str = "", lead: str = "") -> str:
    """One notebook as a complete page. Raises ValueError when a picture has no alt text."""
    body = _body(path.read_text(encoding="utf-8"))
    if "No description has been provided for this image" in body:
        raise ValueError(f"{path}: a picture has no alt text")
    nav = " · ".join(f'<a href="{escape.escape(href)}">{escape.escape(name)}</a>' for name, href in links)
    title = escape.escape(path.stem if path.stem != "experiment" else path.parent.name)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,'
        f'initial-scale=1"><title>{title}</title><style>{STYLE}</style></head><body><nav>{nav}</nav>{lead}{body}{tail}</body></html>'
    )


def _body(notebook: str) -> str:
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  1.3 s of grammar at import, unused here
    import bleach
    import nbformat
    from nbconvert import HTMLExporter

    # Sanitising keeps a model's text, or a hypothesis, from becoming a script of the page.
    exporter = HTMLExporter(template_name="basic", exclude_input=True, sanitize_html=True)
    exporter.register_filter("clean_html", partial(bleach.clean, tags=TAGS, attributes=ATTRIBUTES))
    return exporter.from_notebook_node(nbformat.reads(notebook, 4))[0]
