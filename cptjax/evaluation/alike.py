"""Which texts are alike, so that what chooses a checkpoint and what is reported of it have nothing in common."""

from collections.abc import Hashable, Iterable, Sequence

from cptjax.data.pieces import all_pieces, documents, text_of
from cptjax.data.rows import RowReader
from cptjax.data.splits import same_text
from cptjax.data.tokenizer import Tokenizer
from cptjax.selection.near_duplicates import groups
from cptjax.selection.shingles import ShingleStore, word_shingles


def groups_of(texts: Iterable[str], threshold: float | None, also: Sequence[Hashable | None] = ()) -> list[int]:
    """A number for each text that all have in common which are connected: by the same folded text, by a Jaccard similarity of
    their 5-word shingles of at least `threshold` (None: not by that), or by the same name in `also` (None there: no name).

    The number is the smallest `same_text` among them: what is like nothing else has the same in every set.
    """
    store, same = ShingleStore(), []
    for text in texts:
        same.append(same_text(text))
        if threshold is not None:
            store.add(word_shingles(text))
    links: list[Sequence[Hashable]] = [[("text", each) for each in same]]
    if threshold is not None and store.sets:
        near = groups(store.sets, threshold).tolist()
        links.append(
            [("near", each) if len(shingles) else None for each, shingles in zip(near, store.sets, strict=True)]
        )
    if also:
        links.append([None if each is None else ("also", each) for each in also])
    root = list(range(len(same)))

    def find(place: int) -> int:
        while root[place] != place:
            root[place] = place = root[root[place]]
        return place

    for names in links:
        first: dict[Hashable, int] = {}
        for place, name in enumerate(names):
            if name is not None:
                root[find(place)] = find(first.setdefault(name, place))
    smallest: dict[int, int] = {}
    for place, each in enumerate(same):
        smallest[find(place)] = min(each, smallest.get(find(place), each))
    return [smallest[find(place)] for place in range(len(same))]


def document_groups(held_out: Sequence[tuple[str, Tokenizer]], threshold: float | None) -> dict[str, int]:
    """By the name of each held-out document the number of its group of near-duplicates; those of one name are one group.

    Args:
        held_out: folders of a source's held-out rows, each with the tokenizer that they were made with.
    """
    names, texts = [], []
    for folder, tokenizer in held_out:
        reader = RowReader(folder)
        read = [
            (ordinal, text_of(tokens, reader, tokenizer)) for ordinal, tokens in documents(reader, all_pieces(reader))
        ]
        names += [entry["id"] for entry in reader.documents([ordinal for ordinal, _ in read])]
        texts += [text for _, text in read]
    return dict(zip(names, groups_of(texts, threshold, names), strict=True))
