"""What a model reads of a page."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.web.html_text import MAX_TEXT_CHARS, read_html

URL = "http://a.test/d/"


def text_of(html: str) -> str:
    return read_html(html, URL).text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One\n two &amp; three<p>four", "One two & three\n\nfour"),
        ("<h2>A <b>b</b></h2>c", "## A b\n\nc"),
        ("<ul><li>a<ul><li>b</ul><li>c</ul>", "- a\n- b\n- c"),
        ("<table><tr><th>a<th>b<tr><td>1<td>2</table>", "a | b\n1 | 2"),
        ("<pre>\n  if x:\n    y\n</pre>", "  if x:\n    y"),
        ("a<br>b<hr>c", "a\nb\nc"),
        ('see <a href="/x (1)">the  page</a>.', "see [the page](http://a.test/x%20%281%29)."),
        ('<a href="#top">top</a> <a href="javascript:x()">js</a>', "top js"),
        ('<a href="http://[">bad</a>', "bad"),
        ('<img alt=" a cat "><img alt="">', "[image: a cat]"),
        ("\u4f60\u597d<b>\u4e16\u754c</b>", "\u4f60\u597d\u4e16\u754c"),
        ("no tags & nothing", "no tags & nothing"),
        ("<div/>a<p/>b", "a\nb"),
    ],
)
def test_elements_become_plain_text(html: str, text: str) -> None:
    assert text_of(html) == text


@pytest.mark.parametrize(
    "html",
    [
        "<script>x</script>",
        "<style>x</style>",
        "<!-- x -->",
        "<template>x</template>",
        "<noscript>x</noscript>",
        "<nav><p>x</nav>",
        "<div hidden>x</div>",
        "<div aria-hidden=true>x</div>",
        "<div style='color:red; display : none'><p>x<p>x</div>",
        "<span style='font-size:0'>x</span>",
        "<span style='opacity: 0'>x</span>",
        "<p hidden>x<p>",
        "<p hidden>x<div></div>",
        "<head><meta name=a content=x></head>",
        "<select><option>x<option>x</select>",
    ],
)
def test_what_nobody_sees_is_left_out_and_nothing_after_it(html: str) -> None:
    assert text_of(f"<p>before</p>{html}<p>after</p>").split() == ["before", "after"]


def test_the_title_is_apart() -> None:
    page = read_html("<html><head><title> A &lt;b&gt;\n c </title></head><body>d</body>", URL)
    assert (page.title, page.text, page.cut) == ("A <b> c", "d", False)


def test_the_main_part_is_taken_if_it_says_something() -> None:
    words = "word " * 60
    around = "<div>around</div>"
    assert "around" not in text_of(f"{around}<main><p>{words}</main>{around}")
    assert "around" in text_of(f"{around}<main>short</main>{around}")


def test_a_page_that_takes_too_long_is_cut() -> None:
    clock = itertools.count(step=2.0)
    page = read_html("<p>one</p>" * 20_000, URL, now=lambda: next(clock))
    assert page.cut
    assert page.text.startswith("one")


def test_a_long_page_is_cut() -> None:
    page = read_html("<p>" + "word " * 300_000, URL)
    assert page.cut
    assert len(page.text) <= MAX_TEXT_CHARS + 20_000


@pytest.mark.parametrize("opening", ["<a ", "<a x='", "<!--", "<script>", "<![CDATA[", "&", "<"])
def test_what_never_ends_ends(opening: str) -> None:
    read_html("<p>seen</p>" + opening * 40_000, URL)


SOUP = st.sampled_from(
    [
        *("<p>", "</p>", "<li>", "<ul>", "</ul>", "<div hidden>", "</div>", "<a href='x'>", "</a>"),
        *("<pre>", "</pre>", "<td>", "<tr>", "<table>", "</table>", "<br/>", "<title>", "</title>"),
        *("<", ">", "&#x41;", "a", " ", "<main>"),
    ]
)


@given(st.lists(SOUP))
def test_any_soup_is_read(parts: list[str]) -> None:
    page = read_html("".join(parts), URL)
    assert "\n\n\n" not in page.text


@given(st.text(max_size=200))
def test_any_text_is_read(html: str) -> None:
    read_html(html, URL)
