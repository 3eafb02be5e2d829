"""Near-duplicates in documents a second: ours, exact and by MinHash, and datasketch's own loop, taking turns to the same groups.

All read the same texts, from their shingles on to the groups. datasketch's loop is its documentation's: a MinHash for each text,
updated with its shingles; an LSH that is asked about each, and that each is inserted into. It has as many permutations and the same
bands as ours, for with its own choice at 128 it misses pairs, and its candidates are verified by the Jaccard similarity of sets of
strings, for otherwise it would find what is none. Groups that differ are an error, not a result.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cptjax.configuration.values import whole_number
from cptjax.data.sources import documents, find_source
from cptjax.errors import CptjaxError
from cptjax.selection.deduplication import NearDuplicates
from cptjax.selection.minhash import banding, components


def minhash_peer(
    text: str,
    threshold: float = 0.7,
    characters: float = 5,
    permutations: float = 256,
    documents_most: float | None = None,
    repeats: float = 3,
) -> dict[str, Any]:
    """Times all of them.

    Args:
        text: a source. characters: of a shingle. documents_most: of the source; None: all.
        permutations: of signatures, ours and datasketch's.

    Returns:
        Documents a second of each (medians), `ratio_...` of ours over datasketch's: `update` is called for each shingle, as its
        documentation shows first, or `update_batch` once for each text. How many documents all of them would drop.

    Raises:
        CptjaxError: two of them find other groups.
    """
    characters, permutations, repeats = (
        whole_number(value, name, minimum=1)
        for value, name in ((characters, "CHARACTERS"), (permutations, "PERMUTATIONS"), (repeats, "REPEATS"))
    )
    most = None if documents_most is None else whole_number(documents_most, "DOCUMENTS", 1)
    texts = [document.text for document in documents(find_source("TEXT", text))][:most]
    exact = NearDuplicates(threshold, characters)
    by_minhash = NearDuplicates(threshold, characters, method="minhash", permutations=permutations)
    bands = banding(threshold, permutations, by_minhash.miss)
    given = (texts, threshold, characters, permutations, bands)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "exact": lambda: _groups(exact, texts),
        "minhash": lambda: _groups(by_minhash, texts),
        "datasketch_update": lambda: by_datasketch(*given),
        "datasketch_update_batch": lambda: by_datasketch(*given, batched=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for _ in range(repeats):
        for name, way in ways.items():
            begin = time.perf_counter()
            found[name] = way()
            seconds[name].append(time.perf_counter() - begin)
    for name, labels in found.items():
        if not np.array_equal(labels, found["exact"]):
            raise CptjaxError(
                f"{name} finds other groups than the exact search: what is compared is not the same work."
            )
    speed = {name: len(texts) / statistics.median(each) for name, each in seconds.items()}
    return {
        "documents": len(texts),
        "characters": sum(map(len, texts)),
        "bands x rows": f"{bands[0]} x {bands[1]}",
        "dropped_by_all": len(texts) - len(np.unique(found["exact"])),
        **{f"documents_per_second_{name}": each for name, each in speed.items()},
        **{
            f"ratio_{ours}_{theirs}": speed[ours] / speed[f"datasketch_{theirs}"]
            for ours in ("exact", "minhash")
            for theirs in ("update", "update_batch")
        },
    }


def _groups(policy: NearDuplicates, texts: Sequence[str]) -> np.ndarray:
    """Of each text the first one of its group."""
    fates, _ = policy.select(iter(texts))
    return np.array([i if fate.cluster is None else fate.cluster for i, fate in enumerate(fates)])


def by_datasketch(
    texts: Sequence[str],
    threshold: float,
    characters: int,
    permutations: int,
    bands: tuple[int, int],
    batched: bool = False,
) -> np.ndarray:
    """int64 [texts]: of each the first one of its group, by datasketch's own loop and the similarity of each candidate."""
    from datasketch import MinHash, MinHashLSH

    lsh, sets, edges = MinHashLSH(threshold, permutations, params=bands), [], []
    for i, text in enumerate(texts):
        shingles = {text[k : k + characters].encode() for k in range(max(1, len(text) - characters + 1))}
        signature = MinHash(permutations)
        if batched:
            signature.update_batch(shingles)
        else:
            for shingle in shingles:
                signature.update(shingle)
        for j in lsh.query(signature):
            if len(shingles & sets[j]) / len(shingles | sets[j]) >= threshold:
                edges.append((j, i))
        lsh.insert(i, signature)
        sets.append(shingles)
    return components(len(texts), edges)
