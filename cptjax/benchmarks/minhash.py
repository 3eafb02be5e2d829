"""Near-duplicates in documents a second: ours, exact and by MinHash, and datasketch as its documentation shows it, taking turns.

All three read the same texts, from their shingles on to the groups. datasketch's own loop: a MinHash for each text, updated with
each of its shingles; an LSH that each is inserted into and asked about. Its candidates are not verified, which would cost more.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cptjax.configuration.values import whole_number
from cptjax.data.sources import documents, find_source
from cptjax.selection.deduplication import NearDuplicates
from cptjax.selection.minhash import components


def minhash_peer(
    text: str,
    threshold: float = 0.7,
    characters: float = 5,
    permutations: float = 128,
    documents_most: float | None = None,
    repeats: float = 3,
) -> dict[str, Any]:
    """Times all three.

    Args:
        text: a source. characters: of a shingle. documents_most: of the source; None: all.
        permutations: of datasketch's signatures, and of ours.

    Returns:
        Documents a second of each, `ratio_exact` and `ratio_minhash` (ours over datasketch's), how many documents each would drop.
    """
    characters, permutations, repeats = (
        whole_number(value, name, minimum=1)
        for value, name in ((characters, "CHARACTERS"), (permutations, "PERMUTATIONS"), (repeats, "REPEATS"))
    )
    most = None if documents_most is None else whole_number(documents_most, "DOCUMENTS", 1)
    texts = [document.text for document in documents(find_source("TEXT", text))][:most]
    exact = NearDuplicates(threshold, characters)
    by_minhash = NearDuplicates(threshold, characters, method="minhash", permutations=2 * permutations)
    ways: dict[str, Callable[[], int]] = {
        "exact": lambda: _dropped(exact, texts),
        "minhash": lambda: _dropped(by_minhash, texts),
        "datasketch": lambda: by_datasketch(texts, threshold, characters, permutations),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    dropped = {}
    for _ in range(repeats):
        for name, way in ways.items():
            begin = time.perf_counter()
            dropped[name] = way()
            seconds[name].append(time.perf_counter() - begin)
    speed = {name: len(texts) / statistics.median(each) for name, each in seconds.items()}
    return {
        "documents": len(texts),
        "characters": sum(map(len, texts)),
        **{f"documents_per_second_{name}": each for name, each in speed.items()},
        **{f"dropped_{name}": each for name, each in dropped.items()},
        "ratio_exact": speed["exact"] / speed["datasketch"],
        "ratio_minhash": speed["minhash"] / speed["datasketch"],
    }


def _dropped(policy: NearDuplicates, texts: Sequence[str]) -> int:
    return sum(not fate.kept for fate in policy.select(iter(texts))[0])


def by_datasketch(texts: Sequence[str], threshold: float, characters: int, permutations: int) -> int:
    """How many documents datasketch's own loop would drop."""
    from datasketch import MinHash, MinHashLSH

    lsh, edges = MinHashLSH(threshold, permutations), []
    for i, text in enumerate(texts):
        signature = MinHash(permutations)
        for shingle in {text[k : k + characters] for k in range(max(1, len(text) - characters + 1))}:
            signature.update(shingle.encode("utf-8"))
        edges += [(j, i) for j in lsh.query(signature)]
        lsh.insert(i, signature)
    return len(texts) - len(np.unique(components(len(texts), edges)))
