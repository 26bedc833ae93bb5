"""The reading order in the docstring of `lib/__init__.py` is true, and it is the order of imports."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lib

PACKAGE = Path(lib.__file__).parent
ORDER = re.findall(r"^    ([a-z_.]+)  +\S", lib.__doc__, re.MULTILINE)
# Where each heavy dependency may be imported. Most have one owner; mlx itself is the arithmetic of every module that
# computes with weights, and ipywidgets of every page with buttons, so those list all of theirs: a new one is a decision.
OWNERS = {
    "mlx": {
        "models.ragged",
        "models.prefixes",
        "models.batching",
        "models.mlx",
        "models.embed",
        "models.gguf",
        "train.forward",
        "train.lora",
        "train.fit",
        "train.orpo",
        "train.grpo",
        "train.adapter",
        "train.recipe",
    },
    "mlx_lm": {"models.batching", "models.mlx", "train.lora"},
    "llguidance": {"models.grammar"},
    "apple_fm_sdk": {"models.apple"},
    "matplotlib": {"report.drawing"},
    "ipywidgets": {"desk.choose", "desk.panel", "desk.rate", "desk.supervise"},
    "papermill": {"lab.kernel"},
    "anthropic": {"claude.client"},
    "distributed": {"lab.orders", "lab.workers"},
}


def module(path):
    """`measure.ruler` for lib/measure/ruler.py, `agent.steps` for its __init__."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# The empty __init__ of a room has nothing to read; the root is where the order is written.
FILES = {module(p): p for p in sorted(PACKAGE.rglob("*.py")) if p.read_text(encoding="utf-8").strip() and module(p)}


def targets(node):
    """Full names that an import statement may bind, the most precise first."""
    if isinstance(node, ast.Import):
        return [[alias.name] for alias in node.names]
    assert node.level == 0, "a relative import hides where it leads"
    return [[f"{node.module}.{alias.name}", node.module] for alias in node.names]


def imports(path, inside=(ast.Module,)):
    """(line, names) of every import that stands anywhere within a node of the given kinds."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for owner in (n for n in ast.walk(tree) if isinstance(n, inside)):
        for node in ast.walk(owner):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield from ((node.lineno, names) for names in targets(node))


def own(path):
    """Names, within the package, of what a file imports from it; "" for the root itself."""
    for _, names in imports(path):
        if names[0].split(".")[0] == "lib":
            inner = [name.partition(".")[2] for name in names]
            yield next((name for name in inner if name in FILES), inner[-1])


def heavy(path, **kinds):
    """(line, distribution) of every import of a dependency that has an owner."""
    found = {(line, names[0].split(".")[0]) for line, names in imports(path, **kinds)}
    return {(line, name) for line, name in found if name in OWNERS}


def test_every_file_is_listed_once_and_every_listed_file_is_there():
    assert len(ORDER) == len(set(ORDER))
    assert set(ORDER) == set(FILES)


@pytest.mark.parametrize("name", list(FILES))
def test_imports_point_up_only(name):
    above = ORDER[: ORDER.index(name)] if name in ORDER else ORDER  # an unlisted file fails above, once
    assert [other for other in own(FILES[name]) if other not in above] == []


@pytest.mark.parametrize("name", [n for n in FILES if n.startswith("measure.")])
def test_the_measure_imports_nothing_of_what_it_measures(name):
    assert {other.split(".")[0] for other in own(FILES[name])} <= {"files", "forms", "log", "claude", "measure"}


@pytest.mark.parametrize("name", [n for n in FILES if n.startswith("models.")])
def test_a_model_knows_nothing_of_the_measure(name):
    assert [other for other in own(FILES[name]) if other.split(".")[0] == "measure"] == []


@pytest.mark.parametrize("name", list(FILES))
def test_a_heavy_dependency_is_imported_by_its_owners_alone(name):
    assert {(line, what) for line, what in heavy(FILES[name]) if name not in OWNERS[what]} == set()


@pytest.mark.parametrize("name", FILES)
def test_a_heavy_dependency_is_imported_inside_the_function_that_needs_it(name):
    for_types = {
        node.lineno
        for block in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8")))
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
    }
    lazy = heavy(FILES[name], inside=(ast.FunctionDef, ast.AsyncFunctionDef))
    assert {(line, what) for line, what in heavy(FILES[name]) - lazy if line not in for_types} == set()


@pytest.mark.parametrize("name", FILES)
def test_no_import_hides_in_a_string(name):
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    words = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    words |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert words & {"__import__", "import_module", "run_module", "run_path"} == set()


def test_every_name_of_the_root_leads_to_a_listed_file():
    for name, home in lib._HOME.items():
        assert getattr(lib, name) is not None
        assert home.removeprefix("lib.") in [*ORDER, "desk", "report"]
    with pytest.raises(AttributeError, match="qualty"):
        lib.qualty  # noqa: B018


def test_a_lever_in_a_new_file_is_imported_and_listed_as_program_md_says(tmp_path):
    """The two lines that program.md asks for are enough, and without the second the order says what is missing."""
    shutil.copytree(PACKAGE, tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    steps, top = tmp_path / "lib" / "agent" / "steps", tmp_path / "lib" / "__init__.py"
    (steps / "echoing.py").write_text(
        '"""A lever of one\'s own."""\n\nfrom lib.agent.pipeline import step  # noqa: F401\n'
    )
    (tmp_path / "tests").mkdir()
    shutil.copy(__file__, tmp_path / "tests")

    def ordered():
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests",
            "-k",
            "listed_once or point_up",
        ]
        env = os.environ | {"PYTHONPATH": str(tmp_path)}
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)

    asked = (PACKAGE.parent / "program.md").read_text(encoding="utf-8")
    assert "above `agent.steps` in the docstring of `lib/__init__.py`" in asked
    init = (steps / "__init__.py").read_text().replace("    decoding,\n", "    decoding,\n    echoing,\n")
    (steps / "__init__.py").write_text(init)
    assert "agent.steps.echoing" in ordered().stdout
    line = "    agent.steps                 registers the levers"
    top.write_text(top.read_text().replace(line, f"    agent.steps.echoing         repeats what it was told\n{line}"))
    assert ordered().returncode == 0


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import lib", "numpy pandas matplotlib mlx papermill"),
        ("from lib import quality, paired, OfflineJudge, Ruler, Case, Gold, Answer", "pandas matplotlib mlx papermill"),
    ],
)
def test_importing_the_names_of_notebooks_is_cheap(code, absent):
    command = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    loaded = set(done.stdout.split())
    assert "lib" in loaded
    assert loaded & set(absent.split()) == set()
