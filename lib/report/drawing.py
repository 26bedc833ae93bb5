"""The canvas of every figure, and the figure as an SVG whose marks are links. The one owner of `matplotlib`.

Knows how a drawing becomes an SVG that a page may hold: text as text, alt text, no style sheet and no script. The mark of
a run links to `RUN.html`, its page in the site; `lib.report.site` points the pages outside it to the sealed notebooks.
Does not know what is drawn. Only the index notebooks save.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pandas as pd

from lib.files import NOTEBOOKS, ROOT, runs_folder, write_atomic
from lib.runs.ledger import Ledger
from lib.show import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes

# Their lightness differs, so that a print in grey still tells them apart.
INK, FAINT, KEPT, PROVEN, ANCHOR = "#1a1a1a", "#b9b4ab", "#b5482a", "#2a6f5e", "#6b6b6b"
MARKS = {"kept": "o", "discarded": "s", "indecisive": "D"}  # by status, where colour alone would not print
SCALE = 1.4  # pixels of a page for a point: the smallest letters are 8 pixels high
NAMESPACE = "http://www.w3.org/2000/svg"
ELEMENTS = frozenset("svg g defs path use rect text tspan a title".split())
# Presentation attributes: they need no style sheet, which a page's sanitiser would have to read.
LOOKS = frozenset(
    "fill fill-opacity stroke stroke-opacity stroke-width stroke-dasharray stroke-linejoin stroke-linecap opacity "
    "font-size font-family font-weight text-anchor".split()
)
ATTRIBUTES = LOOKS | frozenset("id d x y width height transform viewBox href role aria-label xmlns".split())


def report_folder(runs: Path) -> Path:
    """Where the report of a folder of runs is written.

    `notebooks` for the project's own runs. Another `runs` has it beside itself, in the folder that it is the runs of; a
    folder of any other name in one named after it: two folders side by side must not replace each other's report.
    """
    runs = runs.resolve()
    if runs == ROOT / "runs":
        return NOTEBOOKS
    if runs.name == "runs":
        return runs.parent
    return runs.parent / f"{runs.name}-report"


def figures_folder(runs: Path) -> Path:
    """`figures` of the project for its own runs, else beside their report."""
    folder = report_folder(runs)
    if folder == NOTEBOOKS:
        folder = ROOT
    return folder / "figures"


@dataclass(frozen=True)
class Picture:
    """A drawn figure with its alt text, which is the label of the SVG as well."""

    svg: str
    alt: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, str], dict[str, str]]:
        return {"image/svg+xml": self.svg, "text/plain": self.alt}, {}

    def save(self, name: str) -> Picture:
        """Write the picture into the figures folder and return it."""
        path = figures_folder(runs_folder()) / f"{name}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, self.svg)
        return self


def canvas(width: float = 8.0, height: float = 4.2, **grid: Any) -> tuple[Any, Any]:
    """An empty figure in the house style and its axes, without pyplot (which costs half a second to import).

    `grid` goes to matplotlib's `subplots`, where a figure has several axes.
    """
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams.update({"font.size": 9, "legend.fontsize": 7, "legend.frameon": False})
    rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    # Letters stay letters, which a reader can search and a page keeps small; a fixed salt makes names of parts repeat.
    rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "notch"})
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    return figure, figure.subplots(**grid)


def picture(figure: Any, alt: str, captions: Mapping[str, str] | None = None) -> Picture:
    """The figure as SVG: same drawing, same bytes. `captions`: what a link says of its run, by id."""
    import io

    out = io.StringIO()
    # Without date and version of the library: they would make other bytes of the same drawing.
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = _plain(ElementTree.fromstring(out.getvalue()), captions or {})
    if root is None:
        raise AssertionError("the root of an SVG is an svg")
    box = root.get("viewBox", "").split()
    # A group and no image: the links inside an image are out of reach of a keyboard.
    root.attrib.update({"xmlns": NAMESPACE, "role": "group", "aria-label": alt})
    root.attrib.update({"width": f"{SCALE * float(box[2]):.0f}", "height": f"{SCALE * float(box[3]):.0f}"})
    root.attrib.update({"stroke-linejoin": "round", "font-family": "DejaVu Sans, Verdana, sans-serif"})
    return Picture(ElementTree.tostring(root, encoding="unicode"), alt)


def _plain(element: ElementTree.Element, captions: Mapping[str, str]) -> ElementTree.Element | None:
    """An element with only what a page may hold, its style as attributes; None for one that is left out."""
    tag = element.tag.rpartition("}")[2]
    if tag not in ELEMENTS:
        return None
    plain = ElementTree.Element(tag)
    plain.text = (element.text or "").strip() or None
    for name, value in {**element.attrib, **_style(element.get("style", ""))}.items():
        name = name.rpartition("}")[2]
        # Names of groups are of no use to a page; those of shapes and markers are drawn by reference.
        if name in ATTRIBUTES and (name != "id" or tag == "path"):
            plain.set(name, _rounded(value) if name in ("d", "transform", "x", "y") else value)
    if tag == "a":
        run = Path(plain.get("href", "")).stem
        label = ElementTree.SubElement(plain, "title")
        label.text = captions.get(run, run)
    for child in element:
        inner = _plain(child, captions)
        if inner is not None:
            plain.append(inner)
    return plain


def _style(text: str) -> dict[str, str]:
    """The declarations of a style attribute that have an attribute of their own.

    >>> _style("fill: #1a1a1a; font: 9px 'DejaVu Sans', sans-serif; text-anchor: middle")
    {'fill': '#1a1a1a', 'text-anchor': 'middle', 'font-size': '9'}
    """
    pairs = dict(re.findall(r"([a-z-]+): *([^;]+)", text))
    looks = {name: value for name, value in pairs.items() if name in LOOKS}
    size = re.search(r"([\d.]+)px", pairs.get("font", ""))
    if size:
        looks["font-size"] = size[1]
    if "bold" in pairs.get("font", "") or "700" in pairs.get("font", ""):
        looks["font-weight"] = "bold"
    return looks


def _rounded(text: str) -> str:
    """Coordinates to a hundredth of a point: nobody sees more, and the file is half the size."""
    return re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), " ".join(text.split()))


def empty(what: str) -> Picture:
    """A figure that says why nothing is drawn."""
    figure, ax = canvas(8, 1)
    ax.set_axis_off()
    ax.text(0.5, 0.5, what, ha="center", transform=ax.transAxes)
    return picture(figure, f"An empty chart: {what}.")


# --- runs as marks -------------------------------------------------------------------------------


def url(run: str) -> str:
    """Where a run's page is, seen from the pages of the site."""
    return f"{run}.html"


def captions(ledger: Ledger) -> dict[str, str]:
    """What a link says of each run: its name, what became of it and its quality."""
    f = ledger.frame()
    texts = f.id + ": " + f.status
    scored = texts + ", quality " + f.quality.map(lambda value: number(value, "quality"))
    return dict(zip(f.id, scored.where(f.quality.notna(), texts), strict=True))


def dots(ax: Axes, x: Sequence[float], y: Sequence[float], runs: Sequence[str], colour: str, **look: Any) -> None:
    """A mark for each run that links to its page."""
    if len(runs) == 0:
        return
    # A colour each: marks of one colour are drawn as one shape, which has one link.
    marks = ax.scatter(x, y, color=[colour] * len(runs), **look)
    marks.set_urls([url(run) for run in runs])


def squares(ax: Axes, x: float, heights: Sequence[float], colour: str, run: str) -> None:
    """Squares below each other as one shape, which is a link: a shape for each would make a megabyte of a large ledger."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    if not heights:
        return
    corners = [(-0.47, -0.47), (0.47, -0.47), (0.47, 0.47), (-0.47, 0.47), (-0.47, -0.47)]
    outlines = [Outline([(x + dx, y + dy) for dx, dy in corners], closed=True) for y in heights]
    shape = Outline.make_compound_path(*outlines)
    ax.add_patch(PathPatch(shape, facecolor=colour, edgecolor="none", url=url(run)))


def dots_by_status(ax: Axes, f: pd.DataFrame, x: str, y: str, size: float = 24) -> None:
    """A mark for each row, its shape and its colour by what became of the run."""
    for status, shape in MARKS.items():
        some = f[f.status == status]
        colour = KEPT if status == "kept" else ANCHOR
        dots(ax, some[x], some[y], list(some.id), colour, marker=shape, s=size, zorder=3, label=status)
