"""A document: what every kind of source gives."""

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Document:
    """One text. `size` is its raw UTF-8 bytes; `metadata` the other plain fields of its record.

    tokens: ids of it that are known already (a token cache's), without those that begin and end a document.
    """

    name: str
    text: str
    size: int
    metadata: Mapping[str, str | int | float | bool | None]
    tokens: np.ndarray | None = dataclasses.field(default=None, compare=False)
