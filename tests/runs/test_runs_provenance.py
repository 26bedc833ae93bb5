"""Which code made a run: what makes it dirty, and what does not."""

import json
import subprocess

import pytest

from lib.files import NOTEBOOKS
from lib.runs.provenance import code_state


@pytest.fixture
def project(tmp_path):
    """A project of one module and one template, committed. Returns its folder."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.py").write_text("a = 1\n")
    (tmp_path / "notebooks").mkdir()
    template = tmp_path / "notebooks" / "10_experiment.ipynb"
    template.write_bytes((NOTEBOOKS / "10_experiment.ipynb").read_bytes())
    for args in (["init"], ["add", "."], ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-m", "x"]):
        subprocess.run(["git", *args], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def dirty(project):
    return code_state.__wrapped__(project)["dirty"]


def saved(project, place, **change):
    template = project / "notebooks" / "10_experiment.ipynb"
    notebook = json.loads(template.read_text(encoding="utf-8"))
    notebook["cells"][place] |= change
    template.write_text(json.dumps(notebook, indent=2))


def test_outputs_and_parameters_that_jupyterlab_saved_by_itself_make_no_run_dirty(project):
    assert dirty(project) is False
    saved(project, -1, outputs=[{"output_type": "stream", "name": "stdout", "text": "x"}], execution_count=9)
    saved(project, 1, source=['hypothesis: str = "tried by hand"'])
    (project / "notebooks" / "scratch.ipynb").write_text("{}")
    assert dirty(project) is False


def test_another_code_cell_or_module_makes_it_dirty(project):
    saved(project, -1, source=["run.result "])
    assert dirty(project) is True
    subprocess.run(["git", "checkout", "."], cwd=project, check=True, capture_output=True)
    assert dirty(project) is False
    (project / "lib" / "a.py").write_text("a = 2\n")
    assert dirty(project) is True
