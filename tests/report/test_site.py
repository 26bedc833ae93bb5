"""Notebooks as pages: whole, without scripts of others, without an outside request."""

import json
import os

import pytest

from lib.lab.base import BadParameters
from lib.report import run_page, site
from lib.report.site import PUBLISHED, STYLE, current, notebook_path, page, page_path
from lib.runs.record import record_of
from tests.report.test_tables import made

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def notebook(path, data, meta=None):
    output = {"output_type": "display_data", "data": data, "metadata": meta or {}}
    cell = {"cell_type": "code", "id": "a", "source": "1", "execution_count": 1, "outputs": [output], "metadata": {}}
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


@pytest.mark.parametrize("text", ["> <script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[a](javascript:b)"])
def test_a_text_never_becomes_a_script_of_the_page(tmp_path, text):
    made = page(notebook(tmp_path / "a.ipynb", {"text/markdown": text, "text/plain": "x"}), [])
    assert "<script>alert" not in made and "<img src=x" not in made and 'href="javascript' not in made


def test_a_picture_without_alt_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.ipynb: a picture has no alt text"):
        page(notebook(tmp_path / "a.ipynb", {"image/png": PIXEL}), [])


def test_a_page_is_whole_titled_linked_and_asks_nobody(tmp_path):
    path = notebook(tmp_path / "a.ipynb", {"image/png": PIXEL}, {"image/png": {"alt": "one dot"}})
    made = page(path, [("runs & more", "b.html")])
    assert made.startswith("<!doctype html>") and made.endswith("</html>") and "<title>a</title>" in made
    assert 'alt="one dot"' in made and '<a href="b.html">runs &amp; more</a>' in made
    assert "http://" not in made.replace("http://www.w3.org", "") and "https://" not in made


def sealed(folder, number, status, **changes):
    record = record_of(made(number, status, None, **changes))
    run = folder / record.id
    run.mkdir(parents=True)
    return notebook(run / "experiment.ipynb", {"text/markdown": "## Result", "text/plain": "x"}), record


def test_a_crashed_run_shows_hypothesis_status_and_error_at_its_head(tmp_path):
    """As 0073-train-orpo-styles: the notebook broke off before its hypothesis was shown; the record has it."""
    said = {
        "hypothesis": "Rejected sides in another <style> teach more.",
        "error": "CellTimeoutError: no output for 120 s & more",
    }
    path, record = sealed(tmp_path, 73, "crashed", slug="train-orpo-styles", kind="train", lever="training", **said)
    text = page(path, [], lead=run_page.head(record_of(record), "0072-a", ""))
    head = text[: text.index("Result")]
    assert "0073-train-orpo-styles" in head and "<b>crashed</b>" in head and "another &lt;style&gt; teach" in head
    assert "CellTimeoutError: no output for 120 s &amp; more" in head
    assert '<a rel="prev" href="0072-a.html">' in head and 'rel="next"' not in head


def test_only_the_first_column_of_a_table_keeps_its_words_on_one_line():
    rules = [rule for rule in STYLE.read_text().split("}") if "white-space: nowrap" in rule]
    assert [rule.rpartition("{")[0].strip() for rule in rules] == ["td:first-child, th:first-child"]


def test_the_page_of_the_published_study_is_made_again_only_when_something_of_it_is_newer(tmp_path):
    rendered = tmp_path / "published.html"
    assert not current(rendered)
    rendered.write_text("")
    assert current(rendered)
    os.utime(rendered, times=(0, (PUBLISHED.parent / "verdicts.jsonl").stat().st_mtime - 1))
    assert not current(rendered)


def test_pages_of_other_runs_lie_beside_them(tmp_path):
    assert page_path(tmp_path / "runs", "20_report") == tmp_path / "figures" / "20_report.html"


def test_two_folders_of_runs_side_by_side_keep_a_report_each(tmp_path):
    written = {f(tmp_path / name, "20_report") for name in ("runs", "a", "b") for f in (notebook_path, page_path)}
    assert len(written) == 6
    assert notebook_path(tmp_path / "runs", "20_report") == tmp_path / "20_report.ipynb"
    assert page_path(tmp_path / "a", "20_report") == tmp_path / "a-report" / "figures" / "20_report.html"


def test_a_folder_of_runs_that_is_not_there_is_an_error_and_nothing_is_written(tmp_path):
    with pytest.raises(BadParameters, match="nope.runs: no such folder of runs"):
        site.write(tmp_path / "nope" / "runs")
    assert list(tmp_path.iterdir()) == []


def cell_of(*outputs):
    return {
        "cell_type": "code",
        "id": "a",
        "source": "1",
        "execution_count": 1,
        "outputs": list(outputs),
        "metadata": {},
    }


def text_output(text, kind="text/plain"):
    return {"output_type": "display_data", "data": {kind: text}, "metadata": {}}


def page_of(path, *outputs):
    path.write_text(json.dumps({"cells": [cell_of(*outputs)], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return page(path, [])


@pytest.mark.parametrize("kind", ["text/plain", "text/markdown", "text/html", "image/png"])
def test_an_output_of_any_kind_that_is_too_long_is_cut_on_the_page_and_named(tmp_path, kind):
    whole = "beginning " + "x" * site.OUTPUT_LETTERS
    text = page_of(tmp_path / "experiment.ipynb", text_output(whole, kind), text_output("the result"))
    assert len(text) < 50_000 and "the result" in text
    assert "2,000,010 letters, stands in experiment.ipynb" in text
    assert ("beginning" in text) == (kind in ("text/plain", "text/markdown"))


def test_a_stream_that_is_too_long_is_cut_as_well(tmp_path):
    stream = {"output_type": "stream", "name": "stdout", "text": "y" * (site.OUTPUT_LETTERS + 1)}
    assert (
        "stands in a.ipynb" in page_of(tmp_path / "a.ipynb", stream)
        and len(page_of(tmp_path / "a.ipynb", stream)) < 50_000
    )


def test_an_output_that_fits_is_whole(tmp_path):
    text = page_of(tmp_path / "a.ipynb", text_output("z" * 500_000))
    assert "z" * 500_000 in text and "too long" not in text


def test_of_a_flood_of_outputs_the_first_and_the_last_are_shown_and_the_rest_is_counted(tmp_path):
    text = page_of(tmp_path / "a.ipynb", *(text_output(f"step {n}.") for n in range(5_000)))
    assert "step 0." in text and "step 4999." in text and "step 2500." not in text
    assert "4980 more outputs of this cell stand in a.ipynb" in text and len(text) < 50_000


SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" role="group" aria-label="a dot">'
    '<a href="0001-a.html"><title>0001-a</title><path d="M 0 0 L 9 9" stroke="#1a1a1a" stroke-width="0.8"/></a>{more}</svg>'
)


def test_a_figure_stands_in_the_page_itself_so_that_its_marks_can_be_followed(tmp_path):
    text = page(notebook(tmp_path / "a.ipynb", {"image/svg+xml": SVG.format(more="")}), [])
    # In small letters, as HTML reads them; a browser's parser gives an SVG its capital again.
    assert 'viewbox="0 0 9 9"' in text and '<a href="0001-a.html"><title>0001-a</title>' in text
    assert 'stroke-width="0.8"' in text and "data:image/svg" not in text


@pytest.mark.parametrize(
    "more",
    [
        "<script>alert(1)</script>",
        '<path d="M0 0" onclick="alert(1)"/>',
        '<a href="javascript:alert(1)"><path d="M0 0"/></a>',
        '<image href="http://evil.example/x.png"/>',
        "<style>body{display:none}</style>",
        "<foreignObject><iframe src='http://evil.example'></iframe></foreignObject>",
    ],
)
def test_nothing_in_the_svg_of_a_sealed_notebook_runs_or_reaches_out(tmp_path, more):
    text = page(notebook(tmp_path / "a.ipynb", {"image/svg+xml": SVG.format(more=more)}), [])
    body = text[text.index("<body>") :]
    figure = body[body.index("<figure ") : body.index("</figure>")]
    for word in ("<script", "onclick=", 'href="javascript', "<image", "<style", "<iframe", 'src="http'):
        assert word not in figure.lower()


def test_an_svg_without_alt_text_is_refused(tmp_path):
    bare = SVG.format(more="").replace(' aria-label="a dot"', "")
    with pytest.raises(ValueError, match=r"a\.ipynb: a picture has no alt text"):
        page(notebook(tmp_path / "a.ipynb", {"image/svg+xml": bare}), [])


def test_outside_the_site_the_marks_of_a_figure_lead_to_the_sealed_notebooks():
    text = site.RUN_LINK.sub(r'href="../runs/\1/experiment.ipynb"', SVG.format(more='<a href="21_runs.html"/>'))
    assert 'href="../runs/0001-a/experiment.ipynb"' in text and 'href="21_runs.html"' in text
