"""What the project imports and what it declares are the same, and environment.yml adds nothing of its own."""

import ast
import json
import re
import sys
from importlib.metadata import packages_distributions

import pytest
import yaml
from packaging.requirements import Requirement

import lib
from lib.files import NOTEBOOKS, ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
STARTED = {"jupyterlab": "make lab", "ipykernel": "kernels of notebooks"}  # never imported: programs that are started
OURS = {"lib", "scripts", "tests"}


def normal(name):
    """A distribution's name as indexes compare it.

    >>> normal("Apple_FM.SDK")
    'apple-fm-sdk'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras):
    """The distributions of the dependencies and of some extras."""
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return {normal(Requirement(line).name) for lines in lists for line in lines}


def modules(text):
    """The packages outside the standard library that a source imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - OURS


def imported(folder, beside=()):
    """Distributions that the Python files of a folder import, each by all the names it may have."""
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, f"{folder} has no Python file"
    used = set().union(*(modules(path.read_text(encoding="utf-8")) for path in files)) - set(beside)
    known = packages_distributions()
    return {name: {normal(d) for d in known.get(name, [name])} for name in used}


def undeclared(used, names):
    return sorted(module for module, distributions in used.items() if not distributions & names)


def test_an_import_in_a_function_is_seen_and_the_standard_library_is_none():
    text = "import json, numpy.linalg\ndef f():\n    from yaml import load\nfrom lib.files import ROOT"
    assert modules(text) == {"numpy", "yaml"}
    assert undeclared({"yaml": {"pyyaml"}, "numpy": {"numpy"}}, {"numpy"}) == ["yaml"]


def test_everything_that_the_package_imports_is_declared():
    assert undeclared(imported("lib"), declared("apple", "cluster")) == []


@pytest.mark.parametrize("folder", ["scripts", "tests", "notebooks"])
def test_everything_that_the_rest_imports_is_declared(folder):
    published = {path.stem for path in (NOTEBOOKS / "published").glob("*.py")}
    assert undeclared(imported(folder, published), declared(*PROJECT["optional-dependencies"])) == []


def test_every_dependency_is_imported_by_the_package():
    used = set().union(*imported("lib").values())
    assert sorted(declared("apple", "cluster") - used - STARTED.keys()) == []
    assert not used & STARTED.keys(), "no longer only started"


# --- environment.yml: a Python and the project, so that pyproject.toml is the one list


def test_the_environment_is_the_python_and_the_packages_of_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == PROJECT["name"]
    assert environment["dependencies"] == [f"python{PROJECT['requires-python']}", "pip", {"pip": ["-e ."]}]


# --- notebooks


def from_the_package(path):
    """What a notebook imports of the package, as (module, name)."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            for node in ast.walk(ast.parse("".join(cell["source"]))):
                if isinstance(node, ast.ImportFrom):
                    yield from ((node.module, alias.name) for alias in node.names)
                elif isinstance(node, ast.Import):
                    yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "lib")


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.rglob("*.ipynb")), ids=lambda p: p.stem)
def test_a_notebook_imports_public_names_alone(path):
    names = set(from_the_package(path))
    assert names and names <= {("lib", name) for name in lib.__all__}
