"""What a renderer of CommonMark makes of our pages, and users' text that would break them."""

from html.parser import HTMLParser

import pytest

HOSTILE = [
    "a | b",
    "back\\slash | \\| \\",
    "two\r\n\n lines",
    "[link](https://a.b) ![picture](c.png)",
    "<b>bold</b> <!-- gone -->",
    "`code` *a* **b** _c_ __d__ ~~e~~",
    "&amp; &#35; &lt;b&gt;",
    "# no heading",
    "- no list",
    "> no quotation",
]


class Page(HTMLParser):
    """The texts of all tables' cells, row by row, and every (tag, its style)."""

    def __init__(self, html: str):
        super().__init__()
        self.rows, self.tags, self.in_cell = [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes).get("style")))
        self.in_cell = self.in_cell or tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self.in_cell:
            self.rows[-1][-1] += data


def rendered(text: str) -> str:
    """HTML; the test is skipped where no renderer is installed."""
    renderer = pytest.importorskip("markdown_it").MarkdownIt("commonmark")
    return renderer.enable(["table", "strikethrough"]).render(text)
