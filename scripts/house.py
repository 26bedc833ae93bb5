"""Prints how large and how readable `lib` is, beside the first version of it. Judges nothing; the goals stand in a column.

usage: python -m scripts.house [COMMIT]     (default: 1c620f6, the first version)
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tarfile
import tokenize
from dataclasses import dataclass, fields
from pathlib import Path

from lib.files import ROOT

FIRST = "1c620f6"
LOOPS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
LAYOUT = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)

ROWS = (
    ("files of lib", "", "{0.files}"),
    ("lines of code", "11000 or fewer", "{0.code}"),
    ("tokens of code", "25 % fewer", "{0.tokens}"),
    ("lines with dict[str, Any]", "under 60", "{0.untyped}"),
    ("ternaries per 1,000 statements", "under 20", "{0.ternary_rate:.0f}"),
    ("comprehensions per 1,000 statements", "under 60", "{0.comprehension_rate:.0f}"),
    ("docstrings and comments, % of non-blank lines", "20 or more", "{0.prose:.1f}"),
    ("own-line comments per 100 lines of code", "5 or more", "{0.reasons:.1f}"),
    ("names bound to `told`", "0", "{0.told}"),
)  # what is counted, the goal, how the figure is written


@dataclass(frozen=True)
class Figures:
    """Counts of one file or, added, of many."""

    files: int = 0  # that hold anything
    code: int = 0  # lines with a token that is no comment and no docstring
    tokens: int = 0  # on those lines
    nonblank: int = 0  # lines
    docstrings: int = 0  # lines
    comments: int = 0  # lines that hold nothing else
    statements: int = 0
    ternaries: int = 0
    comprehensions: int = 0
    untyped: int = 0  # lines of code with dict[str, Any]
    told: int = 0  # times that the name is bound

    def __add__(self, other: Figures) -> Figures:
        return Figures(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def prose(self) -> float:
        """Docstrings and comments, in percent of the lines that are not blank."""
        return 100 * (self.docstrings + self.comments) / max(1, self.nonblank)

    @property
    def reasons(self) -> float:
        """Comments on a line of their own per 100 lines of code."""
        return 100 * self.comments / max(1, self.code)

    @property
    def ternary_rate(self) -> float:
        """Conditional expressions per 1,000 statements."""
        return 1000 * self.ternaries / max(1, self.statements)

    @property
    def comprehension_rate(self) -> float:
        """Comprehensions and generator expressions per 1,000 statements."""
        return 1000 * self.comprehensions / max(1, self.statements)


def figures(source: str) -> Figures:
    """The figures of one file; none at all of an empty one.

    >>> figures('"What."\\n\\n# why\\nx = 1 if y else 2\\n')
    Figures(files=1, code=1, tokens=7, nonblank=3, docstrings=1, comments=1, statements=2, ternaries=1, comprehensions=0, untyped=0, told=0)
    """
    if not source.strip():
        return Figures()
    tree, lines = ast.parse(source), source.split("\n")
    docstrings: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            docstrings |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    code: set[int] = set()
    comments: set[int] = set()
    tokens = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in LAYOUT and token.start[0] not in docstrings:
            code |= set(range(token.start[0], token.end[0] + 1))
            tokens += 1
    nodes = list(ast.walk(tree))
    return Figures(
        files=1,
        code=len(code),
        tokens=tokens,
        nonblank=sum(bool(line.strip()) for line in lines),
        docstrings=len(docstrings),
        comments=len(comments - code - docstrings),
        statements=sum(isinstance(n, ast.stmt) for n in nodes),
        ternaries=sum(isinstance(n, ast.IfExp) for n in nodes),
        comprehensions=sum(isinstance(n, LOOPS) for n in nodes),
        untyped=sum("dict[str, Any]" in lines[i - 1] for i in code),
        told=sum(isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and n.id == "told" for n in nodes),
    )


def here(folder: Path) -> Figures:
    """The figures of all Python files under a folder."""
    return sum((figures(p.read_text(encoding="utf-8")) for p in sorted(folder.rglob("*.py"))), Figures())


def then(commit: str, root: Path = ROOT) -> Figures | None:
    """The figures of `lib` in a commit; None where this copy of the project has no such commit."""
    archive = subprocess.run(["git", "-C", str(root), "archive", commit, "lib"], capture_output=True)
    if archive.returncode:
        return None
    total = Figures()
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file and member.name.endswith(".py"):
                total += figures(file.read().decode())
    return total


def main(commit: str = FIRST) -> None:
    now, before = here(ROOT / "lib"), then(commit)
    print(f"{'':46s}{'goal':>16s}{commit:>10.10s}{'now':>10s}")
    for name, goal, figure in ROWS:
        old = figure.format(before) if before else ""
        print(f"{name:46s}{goal:>16s}{old:>10s}{figure.format(now):>10s}")
    print(f"{'files of lab':46s}{'12 or fewer':>16s}{'':10s}{here(ROOT / 'lib' / 'lab').files:10d}")
    if before:
        change = 100 * (now.tokens / before.tokens - 1)
        print(f"{abs(change):.1f} % {'more' if change > 0 else 'fewer'} tokens of code than in {commit}")
    else:
        print(f"no commit {commit} in this copy, so nothing to compare with")


if __name__ == "__main__":
    main(*sys.argv[1:])
