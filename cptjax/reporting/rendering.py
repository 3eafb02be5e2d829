"""Pages from templates: HTML that needs nothing else, whatever is written into it."""

from typing import Any

import jinja2
from etils import epath

_TEMPLATES = epath.Path(__file__).parent / "templates"


def render(template: str, **content: Any) -> str:
    """The page of a template (a file in templates/) with `content`, which is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template(template).render(**content)
    return html.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair in a label is no text
