import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markupsafe import Markup

import ppd_acc
from ppd_acc.page.markup import element, escaped, join, rendered, table


class Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.attributes = [], "", []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@given(st.text())
def test_any_text_stays_text_in_an_element_and_in_an_attribute(text):
    reader = Reader()
    reader.feed(element("p", text, title=text))
    reader.close()
    assert reader.tags == ["p"]
    assert [name for name, _ in reader.attributes] == ["title"]
    assert reader.text == (reader.attributes[0][1] or "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<b>&\"'", "&lt;b&gt;&amp;&quot;&#x27;"),
        ("a\x00b\x1b", "a\u2400b\u241b"),
        ("a\u202eb", "a\u27e8U+202E\u27e9b"),
        ("\ud800", "?"),
        ("tab\tand\nline", "tab\tand\nline"),
    ],
)
def test_what_a_page_cannot_hold_or_would_hide_is_made_visible(text, shown):
    assert escaped(text) == shown


def test_markup_is_taken_as_it_is_and_text_beside_it_is_escaped():
    assert element("p", Markup("<b>x</b>"), "<i>") == "<p><b>x</b>&lt;i&gt;</p>"
    assert join(["<", Markup("<br>"), None]) == "&lt;<br>"


def test_attributes_are_named_as_html_names_them_and_may_be_left_out():
    told = element("svg", class_=None, aria_label="a", viewBox="0 0")
    assert told == '<svg aria-label="a" viewBox="0 0"></svg>'


def test_a_table_has_headings_for_columns_and_rows_and_a_caption():
    told = table(("Name", "Count"), [("<a>", 3), ("b", "x")], caption="What")
    assert '<th scope="col">Count</th>' in told
    assert '<th scope="row">&lt;a&gt;</th><td class="number">3</td>' in told
    assert "<caption>What</caption>" in told


@given(st.text())
def test_any_text_stays_text_in_a_template(text):
    reader = Reader()
    reader.feed(table((text,), [], caption=text))
    reader.close()
    assert reader.tags == ["div", "table", "caption", "thead", "tr", "th", "tbody"]
    shown = dict(reader.attributes)["aria-label"] or ""
    assert reader.text == 2 * shown


def test_what_a_template_is_not_given_is_a_fault():
    with pytest.raises(UndefinedError, match="caption"):
        rendered("table.html", head=(), rows=(), class_="")


def test_a_text_that_looks_like_a_template_stays_a_text():
    assert "{{ 6 * 7 }}{% raw %}" in table(("{{ 6 * 7 }}{% raw %}",), [], caption="")


def test_every_file_that_a_page_is_made_of_is_packed():
    project = Path(ppd_acc.__file__).parents[2] / "pyproject.toml"
    patterns = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]["ppd_acc"]
    room = Path(ppd_acc.__file__).parent
    packed = {path for pattern in patterns for path in room.glob(pattern)}
    assert packed == {path for path in (room / "page").rglob("*.*") if path.suffix in (".css", ".html", ".js")}
