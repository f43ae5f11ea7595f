"""Fill the HTML templates, which have no scripts and load no external resources.

The template engine escapes all text of users and programs.
"""

from __future__ import annotations

from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_TEMPLATES: Final = Environment(
    loader=PackageLoader("autotuner.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    finalize=lambda value: _printable(value) if isinstance(value, str) else value,
)


def fill(template: str, *, refresh: int | None = None, home: str = "", **values: Any) -> str:  # noqa: ANN401 (as jinja2)
    """Return a page as HTML.

    Args:
        template: The file's name.
        refresh: Seconds after which a browser loads the page again; None: never.
        home: The address of the list of all studies, to link to; empty without one.
        values: The template's variables.
    """
    return _TEMPLATES.get_template(template).render(refresh=refresh, home=home, **values)


def _printable(text: str) -> str:
    """Return a text without the characters that HTML forbids, and without half surrogate pairs."""
    if isinstance(text, Markup):
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
