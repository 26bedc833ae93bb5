"""A notebook in a kernel of its own: this Python's, with its environment by argument, and no run where none began."""

import json
import sys
from pathlib import Path

import pytest

from lib.files import Exit, NoFolder
from lib.lab import execute, kernel
from lib.runs.ledger import Ledger
from tests.lab.test_execute import TOY, own_notebook

SHOW = "import os, sys; (sys.executable, os.environ.get('ONLY_FOR_THE_KERNEL'))"


def test_the_kernel_is_this_pythons_whatever_a_kernelspec_of_that_name_says(tmp_path, monkeypatch):
    spec = tmp_path / "kernels" / "python3"
    spec.mkdir(parents=True)
    about = {"argv": ["/bin/false", "{connection_file}"], "display_name": "odd", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(about))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    path = own_notebook(tmp_path / "who.ipynb", SHOW)
    notebook, error = kernel.execute(path, {}, {"ONLY_FOR_THE_KERNEL": "yes"})
    assert error is None
    assert str((sys.executable, "yes")) in json.dumps(notebook["cells"][-1]["outputs"])


def test_a_kernel_that_does_not_start_is_a_missing_prerequisite_and_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(kernel.NoKernel, match="/bin/false could be started, so nothing was run") as stopped:
        execute.run("10_experiment", TOY, folder=tmp_path / "runs")
    assert stopped.value.exit == Exit.MISSING and "\n" not in str(stopped.value)
    assert Ledger.read(tmp_path / "runs").records == []


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file" / "runs", Path("/proc/notch")):
        with pytest.raises(NoFolder, match=f"^{folder} cannot be written .*nothing was begun.* --runs$") as stopped:
            execute.run("10_experiment", TOY, folder=folder)
        assert stopped.value.exit == Exit.MISSING
