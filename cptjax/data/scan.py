"""One reading of a source before any row is made: what is malformed is found first, and the split is decided."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from cptjax.data.sources import Source, documents
from cptjax.data.splits import SplitSettings, held_out, text_group
from cptjax.data.tokenizer import Tokenizer
from cptjax.errors import ConfigurationError


@dataclasses.dataclass(frozen=True)
class Scan:
    """What one reading of a source tells: a name, a size, metadata and a place in the split for each document."""

    names: list[str]
    sizes: list[int]
    metadata: list[Mapping]
    held_out: np.ndarray


def scan(source: Source, tokenizer: Tokenizer, split: SplitSettings) -> Scan:
    """Reads the source once, before any token is made, so that a malformed line anywhere is found first."""
    names, sizes, metadata, groups, tokens = [], [], [], [], []
    candidate = int(split.fraction * 2.0**64)
    for document in documents(source):
        names.append(document.name)
        sizes.append(document.size)
        metadata.append(document.metadata)
        groups.append(text_group(document.text))
        # Only documents that may be held out need counting here.
        tokens.append(len(tokenizer.encode(document.text)) + 1 if groups[-1] < candidate else 0)
    if not names:
        raise ConfigurationError(
            f"source {source.name!r} is empty: there is no document with text in {source.where}.\n"
            "  A blend cannot read from it; leave it out, or give other files."
        )
    return Scan(names, sizes, metadata, held_out(np.array(groups, np.uint64), np.array(tokens), split))
