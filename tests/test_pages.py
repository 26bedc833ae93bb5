"""The notebooks that are opened by hand: nothing left over from a run, short cells, seconds to run, nothing written."""

import ast
import json
import re

import pytest

from lib.files import NOTEBOOKS
from lib.lab import kernel

PAGES = sorted(NOTEBOOKS.glob("0*.ipynb"))

pytestmark = pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)


def cells(path, kind):
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]) for c in found if c["cell_type"] == kind]


def test_a_page_keeps_nothing_of_a_run(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)


def test_its_cells_are_short_calls(path):
    banned = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.Lambda, ast.ListComp, ast.With)
    for source in cells(path, "code"):
        assert len([line for line in source.split("\n") if line.strip()]) <= 4
        assert not [n for n in ast.walk(ast.parse(source)) if isinstance(n, banned)]


def test_every_notebook_that_it_links_is_there(path):
    links = re.findall(r"\]\(([^)]+)\)", "\n".join(cells(path, "markdown")))
    assert links and all((NOTEBOOKS / link).is_file() for link in links)


@pytest.mark.slow
def test_it_runs_in_a_kernel_without_a_key_and_writes_nothing(path, tmp_path, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    notebook, error = kernel.execute(path, {}, {"NOTCH_RUNS": str(tmp_path / "runs")})
    assert error is None and kernel.fault(notebook, results=0) is None
    assert list(tmp_path.iterdir()) == [] and notebook["cells"]
