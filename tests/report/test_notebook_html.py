"""A notebook's page: formulas without a network, tags respected, nothing fetched from elsewhere."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from foundling.report.notebook_html import formulas, notebook_html


def test_inline_and_displayed_formulas_become_mathml():
    html = formulas("Let $x_p$ be\n\n$$ d_p = \\sum_q a_{pq} $$\n\na degree.")
    assert html.count("<math") == 2
    assert 'display="inline"' in html
    assert 'display="block"' in html
    assert "<msub><mi>x</mi><mi>p</mi></msub>" in html
    assert "$" not in html


@pytest.mark.parametrize("text", ["costs `$5` or `$6`", "no formula", r"an escaped \$ and one more \$ sign"])
def test_what_is_no_formula_stays(text):
    assert formulas(text) == text


def page(tmp_path, *cells) -> str:
    path = tmp_path / "n.ipynb"
    nbformat.write(new_notebook(cells=list(cells)), path)
    return notebook_html(path)


def code(source: str, printed: str, *tags: str):
    output = new_output("stream", text=printed)
    return new_code_cell(source, metadata={"tags": list(tags)}, outputs=[output])


def test_tags_decide_what_is_shown(tmp_path):
    html = page(
        tmp_path,
        code("source_plain", "output_plain"),
        code("source_hidden", "output_hidden", "hide"),
        code("source_input", "output_input", "hide-input"),
        code("source_widget", "output_widget", "interactive"),
    )
    shown = set(re.findall(r"(?:source|output)_[a-z]+", html))
    assert shown == {"source_plain", "output_plain", "output_input", "source_widget"}


def test_the_page_needs_no_network_and_escapes_names(tmp_path):
    html = page(tmp_path, new_markdown_cell("# T\n\n$a^2$"), code("1", "<script>alert(1)</script>"))
    assert not re.findall(r"<script|<link|src=[\"']https?:|@import|url\(https?:", html)
    assert "&lt;script&gt;" in html
    assert "<msup><mi>a</mi><mn>2</mn></msup>" in html
