"""How alike tokens are by what they are written with: character n-grams, and the sparsest weights that follow from them.

After FOCUS (arXiv 2305.14481), whose similarities are those of fastText vectors trained on tokenized text of the new
language. These need no text and no training: two tokens are alike that share rare n-grams, whatever they mean.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

_LONGEST = 4  # characters of an n-gram
_BLOCK = 256  # tokens compared at a time with all others


def similar_tokens(
    contents: Sequence[bytes], others: Sequence[bytes]
) -> Iterator[tuple[Int[np.ndarray, " near"], Float[np.ndarray, " near"]]]:
    """For each content the `others` that it is made of, and their weights, which add up to 1; none where nothing is alike.

    The similarity is the cosine of TF-IDF vectors of character n-grams (1 to 4, a mark at either end); the weights are the
    sparsemax (arXiv 1602.02068) of those above 0.
    """
    from scipy import sparse

    counted = [_grams(content) for content in (*contents, *others)]
    number: dict[str, int] = {}
    rows, columns, values = [], [], []
    for row, grams in enumerate(counted):
        for gram, count in grams.items():
            rows.append(row)
            columns.append(number.setdefault(gram, len(number)))
            values.append(count)
    matrix = sparse.csr_matrix((values, (rows, columns)), (len(counted), len(number)), dtype=np.float64)
    rarity = np.log(len(counted) / np.bincount(columns, minlength=len(number)))
    matrix = matrix @ sparse.diags(rarity)
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).reshape(-1))
    matrix = sparse.csr_matrix(sparse.diags(1 / np.where(lengths > 0, lengths, 1)) @ matrix)
    mine, theirs = matrix[: len(contents)], sparse.csc_matrix(matrix[len(contents) :].T)
    for start in range(0, len(contents), _BLOCK):
        cosines = sparse.csr_matrix(mine[start : start + _BLOCK] @ theirs)
        for row in range(cosines.shape[0]):
            part = slice(cosines.indptr[row], cosines.indptr[row + 1])
            near, scores = cosines.indices[part], cosines.data[part]
            near, scores = near[scores > 0], scores[scores > 0]
            weights = sparsemax(scores)
            yield near[weights > 0].astype(np.int64), weights[weights > 0]


def sparsemax(scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The point of the simplex nearest to `scores` (arXiv 1602.02068, algorithm 1): most of it is exactly 0."""
    if not len(scores):
        return scores
    ordered = np.sort(scores)[::-1]
    above = np.cumsum(ordered) - 1
    kept = int(np.flatnonzero(ordered * np.arange(1, len(scores) + 1) > above)[-1])
    return np.maximum(scores - above[kept] / (kept + 1), 0.0)


def _grams(content: bytes) -> dict[str, int]:
    """The n-grams of a token's text between two marks, counted; a byte that is no character counts as one."""
    text = f"\x02{content.decode('utf-8', 'surrogateescape')}\x03"
    counts: dict[str, int] = {}
    for n in range(1, _LONGEST + 1):
        for start in range(len(text) - n + 1):
            gram = text[start : start + n]
            if gram not in ("\x02", "\x03"):
                counts[gram] = counts.get(gram, 0) + 1
    return counts
