"""Templates filled in."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **context: Any) -> str:
    """Fill a template of ``report/templates`` in; every value is escaped, and a missing one is an error."""
    environment = Environment(
        loader=PackageLoader("foundling.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**context)
