"""An executed notebook as one HTML file that needs no network: formulas as MathML, no scripts.

Cells tagged ``hide`` are left out; of those tagged ``hide-input`` the code; of those tagged ``interactive`` the output,
for a widget does nothing without a kernel (the cell after it draws the same as a picture).
"""

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.preprocessors import Preprocessor
from traitlets.config import Config

HIDE, HIDE_INPUT, INTERACTIVE = "hide", "hide-input", "interactive"
TEMPLATE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block extra_css %}<style>
[data-mime-type="application/vnd.jupyter.stderr"] { background: none !important; color: #6b6b6b; } /* progress */
</style>{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
"""
# A code span is matched so that a dollar inside it stays one.
MATH = re.compile(r"(?P<code>`[^`]*`)|\$\$(?P<block>.+?)\$\$|(?<![\\$])\$(?P<inline>[^$\n]+?)\$", re.DOTALL)


class _Formulas(Preprocessor):
    """Turn the TeX of Markdown cells into MathML, which browsers draw by themselves."""

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> tuple[Any, Any]:
        if cell.cell_type == "markdown":
            cell.source = formulas(cell.source)
        return cell, resources


def formulas(markdown: str) -> str:
    """``markdown`` with its ``$…$`` and ``$$…$$`` as MathML; code spans are left alone."""

    def mathml(found: re.Match[str]) -> str:
        if found["code"]:
            return found["code"]
        display = "block" if found["block"] else "inline"
        return convert((found["block"] or found["inline"]).strip(), display=display).replace("\n", "")

    return MATH.sub(mathml, markdown)


def notebook_html(path: Path) -> str:
    """The notebook at ``path`` with its outputs as a page of HTML, pictures embedded."""
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_cell_tags = {HIDE}
    config.TagRemovePreprocessor.remove_input_tags = {HIDE_INPUT}
    config.TagRemovePreprocessor.remove_all_outputs_tags = {INTERACTIVE}
    exporter = HTMLExporter(config=config, raw_template=TEMPLATE, preprocessors=[_Formulas])
    return exporter.from_filename(str(path))[0]
