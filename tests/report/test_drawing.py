"""A figure as SVG: text stays text, marks are links, and nothing in it could run or reach out."""

from xml.etree import ElementTree

import pytest

from lib.report import drawing


def parts(svg, tag):
    return [e for e in ElementTree.fromstring(svg).iter() if e.tag == f"{{{drawing.NAMESPACE}}}{tag}"]


@pytest.fixture
def drawn():
    figure, ax = drawing.canvas(4, 2)
    drawing.dots(ax, [1, 2], [0.1, 0.2], ["0001-a", "0002-b"], drawing.KEPT, s=20)
    ax.set_title("<b>bold & co</b>")
    return drawing.picture(figure, 'two "dots" & more', {"0002-b": "0002-b: kept"})


def test_each_mark_of_one_colour_is_a_link_of_its_own_with_the_words_of_its_run(drawn):
    links = parts(drawn.svg, "a")
    assert [a.get("href") for a in links] == ["0001-a.html", "0002-b.html"]
    assert [t.text for t in parts(drawn.svg, "title")] == ["0001-a", "0002-b: kept"]


def test_letters_stay_letters_and_markup_in_them_stays_text(drawn):
    assert "<b>bold & co</b>" in [t.text for t in parts(drawn.svg, "text")]


def test_it_holds_no_style_script_or_name_of_another_place(drawn):
    for word in ("<style", "style=", "<script", "<image", "url(", "<metadata", "xlink"):
        assert word not in drawn.svg
    assert drawn.svg.replace(drawing.NAMESPACE, "").count("http") == 0


def test_its_alt_text_is_the_label_of_a_group_whose_links_a_keyboard_reaches(drawn):
    root = ElementTree.fromstring(drawn.svg)
    assert root.get("role") == "group" and root.get("aria-label") == 'two "dots" & more'
    assert root.get("viewBox").split()[2:] == ["288", "144"] and root.get("width") == "403"


def test_marks_that_are_drawn_by_reference_find_what_they_refer_to(drawn):
    names = {p.get("id") for p in parts(drawn.svg, "path")}
    references = {u.get("href") for u in parts(drawn.svg, "use")}
    assert references and {r.removeprefix("#") for r in references} <= names


def test_no_mark_is_drawn_for_no_run():
    figure, ax = drawing.canvas(4, 2)
    drawing.dots(ax, [], [], [], drawing.KEPT)
    assert parts(drawing.picture(figure, "nothing").svg, "a") == []
