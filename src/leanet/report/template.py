"""Pages from templates: names escaped, the style sheet inside, figures typeset alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from leanet.ops.stats import MeanSD
from leanet.report import tables
from leanet.version import __version__

HERE = Path(__file__).parent
MINUS = "\N{MINUS SIGN}"


def render_template(name: str, **values: Any) -> str:
    """A page from a file of this folder: names escaped, figures as `number`, `quantity`, `brief`,
    `signed`, `spread`."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "brief": tables.brief,
        "number": number,
        "quantity": quantity,
        "signed": signed,
        "spread": spread,
    }
    css = Markup((HERE / "page.css").read_text(encoding="utf-8"))
    return environment.get_template(name).render(css=css, version=__version__, **values)


def typeset(text: str) -> str:
    """With a minus sign for every hyphen."""
    return text.replace("-", MINUS)


def number(value: float | None) -> str:
    """A figure with three decimals; an en dash where there is none."""
    return typeset(tables.number(value))


def quantity(value: float) -> str:
    """A score, threshold or distance, however large or small."""
    return typeset(tables.quantity(value))


def signed(value: float) -> str:
    """A difference with three decimals and its sign."""
    return typeset(tables.signed(value))


def spread(figure: MeanSD) -> str:
    """Mean ± SD; the mean alone where there is no SD."""
    return typeset(tables.spread(figure))
