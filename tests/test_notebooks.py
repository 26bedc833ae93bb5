"""The notebook templates that papermill runs: short cells, one configuration, nothing left over from a run."""

import ast
import json
import re
from dataclasses import fields
from inspect import get_annotations
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from lib.files import NOTEBOOKS
from lib.lab.execute import MAKERS
from lib.lab.execute import TEMPLATES as KINDS

TEMPLATES = sorted(NOTEBOOKS.glob("1*.ipynb"))
TAGS = ("parameters", "hypothesis", "method", "result", "decision", "record")
BANNED = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While, ast.If, ast.Try, ast.With,
    ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp,
)  # fmt: skip

pytestmark = pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.stem)


def cells(path, kind=None):
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [c for c in found if kind in (None, c["cell_type"])]


def source(cell):
    return "".join(cell["source"])


def lines(cell):
    return [line for line in source(cell).split("\n") if line.strip()]


def tags(cell):
    return cell["metadata"].get("tags", [])


def tagged(path, tag):
    [cell] = [c for c in cells(path) if tag in tags(c)]
    return cell


def declared(path):
    """The parameters cell as (name, annotation, source line)."""
    body = ast.parse(source(tagged(path, "parameters"))).body
    assert all(isinstance(node, ast.AnnAssign) and node.value is not None for node in body)
    rows = source(tagged(path, "parameters")).split("\n")
    return [(node.target.id, ast.unparse(node.annotation), rows[node.end_lineno - 1]) for node in body]


def test_a_template_keeps_nothing_of_a_run(path):
    for cell in cells(path, "code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None
    assert "papermill" not in json.loads(path.read_text(encoding="utf-8"))["metadata"]


def test_a_template_has_exactly_one_cell_of_each_part_in_order(path):
    found = [tag for cell in cells(path) for tag in tags(cell)]
    assert found == list(TAGS)
    assert all(c["cell_type"] == "code" for c in cells(path) if tags(c))


def test_code_cells_are_short(path):
    others = [c for c in cells(path, "code") if "parameters" not in tags(c)]
    assert len(lines(tagged(path, "parameters"))) <= 15
    assert all(0 < len(lines(c)) <= 8 for c in others)
    assert sum(len(lines(c)) for c in others) <= 25


def test_code_cells_hold_no_definition_branch_loop_or_plotting(path):
    for cell in cells(path, "code"):
        nodes = list(ast.walk(ast.parse(source(cell))))
        assert [type(n).__name__ for n in nodes if isinstance(n, BANNED)] == []
        assert not re.search(r"\bplt\.|matplotlib|\bopen\(", source(cell))


def maker(path):
    """The class that the parameters of a template make."""
    return MAKERS[KINDS[path.stem]]


def parameters(cls):
    """The fields of a class as their plain types, in the order of its source."""
    own = get_annotations(cls)  # fields() leaves what a class declares anew at its place in the base
    names = [f.name for f in fields(cls) if f.name not in ("kind", "folder")]  # what runs it says, not a cell
    hints = get_type_hints(cls)  # without the checks of Annotated
    return {n: plain(hints[n]) for n in [*(n for n in names if n not in own), *own] if n in names}


def plain(hint):
    """The type of the values that a hint allows: str of a Literal of words, list of list[str]."""
    if get_origin(hint) is Literal:
        [kind] = {type(value) for value in get_args(hint)}
        return kind
    return get_origin(hint) or hint


def test_the_parameters_are_the_fields_of_what_they_make(path):
    assert [name for name, _, _ in declared(path)] == list(parameters(maker(path)))


def test_every_parameter_has_the_type_of_its_field(path):
    assert {name: eval(kind) for name, kind, _ in declared(path)} == parameters(maker(path))


def test_the_defaults_of_the_parameters_cell_make_what_runs(path):
    values = {}
    exec(source(tagged(path, "parameters")), values)
    given = {name: values[name] for name, _, _ in declared(path)}
    assert maker(path)(**given, kind=KINDS[path.stem]).fingerprint


def test_every_parameter_is_handed_to_what_runs(path):
    calls = [n for n in ast.walk(ast.parse(source(tagged(path, "hypothesis")))) if isinstance(n, ast.Call)]
    [call] = [c for c in calls if getattr(c.func, "id", "") == maker(path).__name__]
    handed = {k.arg: k.value.id for k in call.keywords if isinstance(k.value, ast.Name)}
    assert handed == {name: name for name, _, _ in declared(path)}


def test_a_markdown_cell_stands_before_each_code_section(path):
    every = cells(path)
    assert every[0]["cell_type"] == "markdown" and source(every[0]).startswith("# ")
    for tag in ("hypothesis", "method", "result", "decision"):
        before = every[every.index(tagged(path, tag)) - 1]
        assert before["cell_type"] == "markdown" and source(before).startswith(f"## {tag.capitalize()}\n"), tag
    assert every[1] == tagged(path, "parameters") and every[-1] == tagged(path, "record")


def test_every_markdown_cell_says_something(path):
    for cell in cells(path, "markdown"):
        assert len(re.sub(r"^#.*$", "", source(cell), flags=re.M).strip()) > 20
