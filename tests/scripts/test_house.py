"""The figures of the house: what counts as code, and what the first version is read from."""

import subprocess

from scripts.house import Figures, figures, here, main, then

SOURCE = '''"""What it is.

Two lines more.
"""

# Why it is so.
LIMIT = 3  # no line of its own


def small(rows: dict[str, Any]) -> list:
    """Says what."""
    told = [row for row in rows if row]
    text = """of
    three
    lines"""
    return told if text else []
'''


def test_code_is_what_is_no_docstring_no_comment_and_not_blank():
    count = figures(SOURCE)
    assert (count.files, count.code, count.docstrings, count.comments) == (1, 7, 5, 1)
    assert count.nonblank == 12
    assert (count.ternaries, count.comprehensions, count.untyped, count.told) == (1, 1, 1, 1)


def test_a_denser_line_has_as_many_tokens():
    joined, apart = figures("x = 1; y = 2\n"), figures("x = 1\ny = 2\n")
    assert (joined.code, apart.code) == (1, 2) and joined.tokens == apart.tokens + 1  # the semicolon


def test_rates_are_of_statements_and_lines():
    count = Figures(code=200, nonblank=400, docstrings=30, comments=10, statements=500, ternaries=5, comprehensions=20)
    assert (count.prose, count.reasons, count.ternary_rate, count.comprehension_rate) == (10, 5, 10, 40)


def test_an_empty_file_counts_for_nothing_and_files_add_up(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.py").write_text(SOURCE)
    (tmp_path / "b.py").write_text(SOURCE)
    (tmp_path / "__init__.py").write_text("\n")
    assert here(tmp_path) == figures(SOURCE) + figures(SOURCE)


def test_the_first_version_is_read_from_its_commit(tmp_path):
    def git(*args):
        user = ("-c", "user.name=t", "-c", "user.email=t@t.example")
        subprocess.run(["git", "-C", tmp_path, *user, *args], check=True, capture_output=True)

    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.py").write_text(SOURCE)
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "lib" / "a.py").write_text("x = 1\n")
    assert then("HEAD", tmp_path) == figures(SOURCE)
    assert then("0000000", tmp_path) is None


def test_a_copy_without_the_commit_is_counted_all_the_same(capsys):
    main("0000000")
    out = capsys.readouterr().out
    assert "lines of code" in out and "no commit 0000000 in this copy" in out
