"""Near-duplicate removal as a policy: of each group of texts that are nearly the same one stays.

Groups are connected by pairs whose sets of shingles have at least a given Jaccard similarity. Every such pair is found
(near_duplicates.py): MinHash with banding, which is what others do here, is built to miss some.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError
from cptjax.selection.minhash import banding, components, minhash_groups, signer
from cptjax.selection.near_duplicates import groups
from cptjax.selection.selected import Evidence, Reason, Selection, selection_of
from cptjax.selection.shingles import Shingles, ShingleStore, jaccard, shingled

if TYPE_CHECKING:
    from cptjax.selection.corpus import Corpus

STAGE = "near_duplicates"
REASON = Reason(STAGE, "nearly the same as {}, or connected with it")
KEEP = ("first", "longest")
EXACT, MINHASH = "exact", "minhash"


@dataclasses.dataclass(frozen=True)
class Fate:
    """What becomes of a unit, and why.

    Attributes:
        stage: of the selection, where it went; None: it is kept.
        instead: the unit that stays in its place; None where there is none.
        cluster: a number that the units of its group share; None: it is alone.
        score: what it was decided by; None: nothing.
    """

    kept: bool
    stage: str | None = None
    instead: int | None = None
    cluster: int | None = None
    score: float | None = None


@dataclasses.dataclass(frozen=True)
class NearDuplicates:
    """What texts are nearly the same, and which of them stays.

    Attributes:
        threshold: the Jaccard similarity from which two texts are.
        shingle: "5 words" (without case and punctuation; of Chinese, Japanese and Korean each character is a word), or
            "5 characters" (of the raw text), or a number, of characters.
        keep: which of a group stays: "first" in the corpus, or "longest" in characters (of several, the first).
        most_shingles: 8 bytes of memory each, and some times that while they are compared. Of a corpus with more of them an
            even sample is compared, so that similarities are estimates.
        method: "exact" misses no pair; "minhash" finds candidates by signatures (minhash.py). Either verifies what it found.
        permutations: of a signature. miss: with which probability, at most, MinHash misses a pair at the threshold.
        runner: of Apache Beam, for "minhash" ("DirectRunner", ...); None: this process. runner_options, scratch: its.
    """

    threshold: float = 0.7
    shingle: str | float = "5 words"
    keep: str = "first"
    most_shingles: float = 1e8
    method: str = EXACT
    permutations: int = 256
    miss: float = 1e-4
    runner: str | None = None
    runner_options: Sequence[str] = ()
    scratch: str | None = None

    def __post_init__(self):
        if not isinstance(self.threshold, int | float) or not 0 < self.threshold <= 1:
            raise ConfigurationError(f"THRESHOLD = {self.threshold!r}: a similarity above 0 and at most 1.")
        if self.keep not in KEEP:
            raise ConfigurationError(f"KEEP = {self.keep!r}: one of {', '.join(KEEP)}.")
        if not isinstance(self.most_shingles, int | float) or self.most_shingles < 1:
            raise ConfigurationError(f"most_shingles is {self.most_shingles!r}; it is at least 1.")
        if not isinstance(self.miss, int | float) or not 0 < self.miss < 1:
            raise ConfigurationError(f"MISS = {self.miss!r}: a probability above 0 and below 1.")
        object.__setattr__(self, "permutations", whole_number(self.permutations, "PERMUTATIONS", 1))
        self.shingles("")  # refuses what is no shingle
        if self.method not in (EXACT, MINHASH):
            raise ConfigurationError(f"METHOD = {self.method!r}: {EXACT!r} or {MINHASH!r}.")
        if self.runner is not None and self.method != MINHASH:
            raise ConfigurationError(
                f"RUNNER = {self.runner!r} needs METHOD = {MINHASH!r}: the exact one is one process."
            )
        if self.method == MINHASH:
            self._bands()  # refuses permutations too few

    def shingles(self, text: str) -> Shingles:
        """The shingles of a text.

        Raises:
            ConfigurationError: `shingle` is none.
        """
        return shingled(text, self.shingle)

    def made_of(self) -> dict[str, Any]:
        """What the choice depends on."""
        where = ("runner", "runner_options", "scratch")
        left_out = where if self.method == MINHASH else ("method", "permutations", "miss", *where)
        made_of = {k: v for k, v in dataclasses.asdict(self).items() if k not in left_out}
        if self.method == MINHASH:
            made_of["signatures"] = signer()  # two libraries' candidates differ
        return {"NearDuplicates": made_of}

    def choose(self, corpus: "Corpus") -> Selection:
        """What becomes of each unit of a corpus; found once, and kept among its stages."""

        def make() -> dict[str, np.ndarray]:
            fates, found = self.select(corpus.texts())
            return {
                "instead": np.array([-1 if each.instead is None else each.instead for each in fates], np.int64),
                "cluster": np.array([-1 if each.cluster is None else each.cluster for each in fates], np.int64),
                "score": np.array([np.nan if each.score is None else each.score for each in fates]),
                "found": np.array(found),
            }

        made = corpus.stages.keep(STAGE, make)
        kept = made["instead"] < 0
        evidence = [Evidence("Near-duplicates", np.arange(len(corpus)))]
        groups_ = (made["instead"], made["cluster"], made["score"])
        return selection_of(kept, REASON, *groups_, [str(made["found"])], evidence)

    def select(self, texts: Iterable[str]) -> tuple[list[Fate], str]:
        """What becomes of each text, and what was done, in a line. A text without any word has no shingle, and stays."""
        if self.runner is not None:
            return self._select_on_beam(texts)
        store, lengths = ShingleStore(int(self.most_shingles)), []
        for text in texts:
            store.add(self.shingles(text))
            lengths.append(len(text))
        if self.method == MINHASH:
            label = minhash_groups(store.sets, self.threshold, self.permutations, self.miss)
        else:
            label = groups(store.sets, self.threshold)
        stays = self._stays(label, lengths)

        def similarity(unit: int) -> float:
            return jaccard(store.sets[unit], store.sets[stays[unit]])

        fates, found = _fates(label, stays, similarity), self._found(label)
        if store.modulus > 1:
            found += f", estimated by one shingle in {store.modulus:,}"
        return fates, found

    def _select_on_beam(self, texts: Iterable[str]) -> tuple[list[Fate], str]:
        """The same on Apache Beam: the workers hold the shingles; the texts are in this machine's memory."""
        from cptjax.selection.minhash_on_beam import Banding, edges_on_beam

        texts = list(texts)
        how = Banding(self.written, self.threshold, self.permutations, *self._bands())
        edges = edges_on_beam(texts, how, self.runner, self.runner_options, self.scratch)
        label = components(len(texts), [(i, j) for i, j, _ in edges])
        stays = self._stays(label, list(map(len, texts)))

        def similarity(unit: int) -> float:
            return jaccard(self.shingles(texts[unit]), self.shingles(texts[stays[unit]]))

        return _fates(label, stays, similarity), self._found(label)

    def _bands(self) -> tuple[int, int]:
        return banding(self.threshold, self.permutations, self.miss)

    @property
    def written(self) -> str:
        """`shingle` in words."""
        return self.shingle if isinstance(self.shingle, str) else f"{self.shingle:.15g} characters"

    def _stays(self, label: np.ndarray, lengths: list[int]) -> np.ndarray:
        """Of the group of each text the one that stays: labels are the group's first member."""
        stays = label.copy()
        if self.keep == "longest":
            order = np.lexsort((np.arange(len(label)), -np.array(lengths, np.int64), label))
            stays[order] = order[np.searchsorted(label[order], label[order])]
        return stays

    def _found(self, label: np.ndarray) -> str:
        size = np.bincount(label, minlength=len(label))
        found = f"{int((size > 1).sum()):,} groups of near-duplicates, from {self.threshold:g} on"
        if self.method == MINHASH:
            bands, rows = self._bands()
            found += f", by MinHash in {bands} bands of {rows}"
        return found


def _fates(label: np.ndarray, stays: np.ndarray, similarity: Callable[[int], float]) -> list[Fate]:
    """What becomes of each text; `similarity` is asked for what is dropped."""
    size = np.bincount(label, minlength=len(label))[label]
    fates = []
    for unit, (group, stay) in enumerate(zip(label.tolist(), stays.tolist(), strict=True)):
        cluster = group if size[unit] > 1 else None
        if stay == unit:
            fates.append(Fate(True, cluster=cluster))
        else:
            fates.append(Fate(False, STAGE, stay, cluster, similarity(unit)))
    return fates
