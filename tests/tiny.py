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


def start_source(notebook: str) -> str:
    """The cell that opens the run."""
    return f"from foundling.run import start\nrun = start({notebook!r}, globals())"


def write_notebook(
    folder: Path, name: str, cells: Sequence[str], parameters: str | None = None, tags: Sequence[Sequence[str]] = ()
) -> Path:
    """A notebook ``<folder>/<name>.ipynb``: a title, the parameters cell, and ``cells`` of code with their ``tags``."""
    tags = [*tags, *([()] * (len(cells) - len(tags)))]
    source = parameters_source(name) if parameters is None else parameters
    notebook = new_notebook(
        cells=[
            new_markdown_cell(f"# {name}"),
            new_code_cell(source, metadata={"tags": ["parameters"]}),
            *(new_code_cell(cell, metadata={"tags": list(tag)}) for cell, tag in zip(cells, tags, strict=True)),
        ]
    )
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path
