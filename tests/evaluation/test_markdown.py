"""Tables and users' text in Markdown: the signs by hand, and as a renderer of CommonMark reads them."""

from html import escape

import pytest
from rendering import HOSTILE, Page, rendered

from hf_clip.evaluation.markdown import escaped, table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a | b", "a \\| b"),
        ("two\r\n lines", "two lines"),
        ("<b>`*[x]", "\\<b>\\`\\*\\[x\\]"),
        ("a\\|", "a\\\\\\|"),
        ("_a_ b_c.png", "\\_a\\_ b_c.png"),
        ("fish & chips &amp;", "fish & chips \\&amp;"),
        ("# a", "\\# a"),
        ("a - b", "a - b"),
        ("  ", ""),
    ],
)
def test_escapes(text, expected):
    assert escaped(text) == expected


def test_a_table_by_hand():
    made = table(["", "recall", "picture"], [["a", 0.25, "b.png"], ["c", 3, "0.250 [0.100, 0.500]"]], left=(0, 2))
    assert made.split("\n") == [
        "|  | recall | picture |",
        "| --- | --: | --- |",
        "| a | 0.250 | b.png |",
        "| c | 3 | 0.250 [0.100, 0.500] |",
    ]


def test_figures_stand_on_the_right():
    page = rendered(table(["name", "one", "two"], [["a", 1.0, 2]]))
    assert [style for tag, style in Page(page).tags if tag == "td"] == [None, "text-align:right", "text-align:right"]


def test_hostile_text_stays_one_cell():
    made = table([escaped(text) for text in HOSTILE], [[escaped(text) for text in HOSTILE]] * 2)
    page = Page(rendered(made))
    assert page.rows == [[" ".join(text.split()) for text in HOSTILE]] * 3
    assert {tag for tag, _ in page.tags} == {"table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_a_line(text):
    expected = escape(" ".join(text.split()), quote=False)
    assert rendered(escaped(text)) == f"<p>{expected}</p>\n"
    assert rendered(f"# {escaped(text)}") == f"<h1>{expected}</h1>\n"
