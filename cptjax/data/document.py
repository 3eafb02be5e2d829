"""A document: what every kind of source gives."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Document:
    """One text. `size` is its raw UTF-8 bytes; `metadata` the other plain fields of its record."""

    name: str
    text: str
    size: int
    metadata: Mapping[str, str | int | float | bool | None]
