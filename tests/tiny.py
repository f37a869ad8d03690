"""A throw-away notebook with the right parameters cell, for tests of the machinery around notebooks."""

from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from foundling.parameters import model_of


def parameters_source(notebook: str) -> str:
    """A parameters cell with every parameter at its default."""
    fields = model_of(notebook).model_fields
    return "\n".join(f"{name} = {field.get_default(call_default_factory=True)!r}" for name, field in fields.items())


def write_notebook(folder: Path, name: str, cells: Sequence[str]) -> Path:
    """A notebook ``<folder>/<name>.ipynb``: the parameters cell, ``start``, and ``cells``."""
    start = f"from foundling.run import start\nrun = start({name!r}, globals())"
    notebook = new_notebook(
        cells=[
            new_markdown_cell(f"# {name}"),
            new_code_cell(parameters_source(name), metadata={"tags": ["parameters"]}),
            *(new_code_cell(source) for source in (start, *cells)),
        ]
    )
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path
