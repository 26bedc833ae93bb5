"""Text, numbers and tables for notebooks: one way to show each kind of column."""

import pandas as pd
import pytest

from lib import show


@pytest.mark.parametrize(
    "column, value, text",
    [
        ("p", 0.0554, "0.0554"),
        ("p to base", 0.02, "0.02"),
        ("p", 1e-05, "<0.0001"),
        ("p", 1.0, "1"),
        ("delta", 0.0, "+0.000"),
        ("to base", 0.0449, "+0.045"),
        ("predicted", -0.01, "-0.010"),
        ("quality", 0.1848, "0.185"),
        ("calls a case", 2.0, "2.0"),
        ("new tokens a case", 376.6, "377"),
        ("quality", float("nan"), ""),
        ("against", "a|b", "a\\|b"),
    ],
)
def test_a_number_is_shown_by_the_kind_of_its_column(column, value, text):
    assert show.number(value, column) == text


def test_whole_numbers_stay_whole_where_some_are_missing():
    frame = pd.DataFrame({"id": ["0001-a", "0002-b"], "pairs": pd.array([72, None], "Int64"), "no_answer": [0, 3]})
    assert show.table(frame).text.splitlines() == [
        "| run | pairs | no answer |", "|---|---|---|", "| 0001-a | 72 | 0 |", "| 0002-b |  | 3 |"
    ]  # fmt: skip


def test_an_empty_table_says_so():
    assert show.table(pd.DataFrame(columns=["a"])).text == show.bullets([]).text == "Nothing here yet."


def test_a_text_of_others_breaks_out_of_no_cell():
    text = show.cell("a | b\n<img> [x](javascript:y) `c` $d$ &lt;")
    assert text == "a \\| b &lt;img> \\[x](javascript:y) 'c' \\$d\\$ &amp;lt;"


def test_a_missing_interval_is_empty_and_bounds_stay_on_one_line():
    assert show.interval(None, None) == show.interval(float("nan"), 1.0) == ""
    assert " " not in show.interval(-0.1, 0.1)


def test_what_is_shown_stands_in_a_notebook_once():
    """The plain text beside the Markdown of an output is one short line, and two equal texts are equal."""
    long = show.Markdown("| a |\n" * 100)
    assert repr(long) == "Markdown, 101 lines" and long == show.Markdown("| a |\n" * 100)


def test_a_long_table_is_folded_whole():
    folded = show.fold(pd.DataFrame({"a": [1, 2]}), "All")
    assert folded.text == "<details><summary>All</summary>\n\n| a |\n|---|\n| 1 |\n| 2 |\n\n</details>"


def test_text_that_was_made_safe_for_a_cell_is_not_escaped_twice():
    """A second backslash would free the bar, and the row would have a cell too many."""
    assert show.table(pd.DataFrame({"a": [show.cell("x | y")]})).text.splitlines()[2] == "| x \\| y |"


def test_a_long_argument_of_a_step_is_cut_between_words():
    text = show.spelled([{"step": "ask", "wording": "word " * 40}, {"step": "prune"}])
    assert text.startswith("ask(wording=word word") and text.endswith(" …) → prune") and len(text) < 90
