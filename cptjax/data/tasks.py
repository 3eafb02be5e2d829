"""Sources as SeqIO tasks, blends of them as SeqIO mixtures, in SeqIO's registries. Imports TensorFlow.

What prepares rows (text_to_rows.py) reads the same chunks and gives the same ids without TensorFlow, whose import alone takes
longer than to tokenize tens of megabytes; a test compares the two. Tasks are for what else SeqIO can do with them: its own
trainers, caches and evaluators.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import seqio
import tensorflow as tf
from etils import epath

from cptjax.data.scan import Scan, scan
from cptjax.data.sources import SELECTION, Source, Where, find_source, placed_documents
from cptjax.data.splits import SplitSettings
from cptjax.data.tokenizer import Tokenizer, open_tokenizer
from cptjax.data.vocabulary import CheckpointVocabulary
from cptjax.errors import ConfigurationError

SPLITS = ("train", "validation")


class DocumentSource(seqio.DataSource):
    """A scanned source as SeqIO's: its shards are the chunks of the scan, read each by itself."""

    def __init__(self, source: Source, tokenizer: Tokenizer, scanned: Scan):
        counts = {split: len(scanned.members(split)) for split in SPLITS}
        super().__init__(splits=SPLITS, num_input_examples=counts, caching_permitted=True)
        self._source, self._tokenizer, self._scan = source, tokenizer, scanned

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        return [str(number) for number in range(len(self._scan.chunks))]

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
    ) -> tf.data.Dataset:
        """The split's documents, `text` and `ordinal`; `shuffle` shuffles chunks."""
        index, count = (shard_info.index, shard_info.num_shards) if shard_info else (0, 1)
        chunks = self._scan.chunks[index::count]
        if shuffle:
            order = np.random.default_rng(seed).permutation(len(chunks))
            chunks = [chunks[i] for i in order]

        members = set(self._scan.members(split).tolist())

        def examples() -> Iterator[dict]:
            for chunk in chunks:
                read = placed_documents(self._source, self._tokenizer, start=chunk.place)
                for ordinal, (_, document) in zip(
                    range(chunk.first, chunk.first + chunk.documents), read, strict=False
                ):
                    if ordinal in members:
                        yield {"text": document.text, "ordinal": ordinal}

        signature = {"text": tf.TensorSpec([], tf.string), "ordinal": tf.TensorSpec([], tf.int64)}
        return tf.data.Dataset.from_generator(examples, output_signature=signature)


def register_sources(
    sources: Mapping[str, Where],
    tokenizer: str,
    weights: Mapping[str, float] | None = None,
    mixture: str = "blend",
    split: SplitSettings | None = None,
) -> list[str]:
    """Reads `sources` once and registers the task "cptjax.<name>" of each, and their mixture "cptjax.<mixture>".

    Args:
        tokenizer: a checkpoint's folder, or a tokenizer's.
        weights: rates of the mixture; None: every source as much as every other.
        split: what is held out, as "validation"; None: as runs do if not told otherwise.

    Returns:
        The names of the tasks and, last, of the mixture.
    """
    opened = open_tokenizer(tokenizer)
    for name, where in sources.items():
        source = find_source(name, where)
        register_task(source, opened, scan(source, opened, split or SplitSettings(), print))
    register_mixture(task_name(mixture), weights or dict.fromkeys(sources, 1.0))
    return [*map(task_name, sources), task_name(mixture)]


def register_selection(folder: str, tokenizer: str, name: str = "selected", split: SplitSettings | None = None) -> str:
    """Registers what the job select_data kept as the task "cptjax.<name>", and returns that name.

    Args:
        folder: its OUTPUT_DIR; beside the text, manifest.jsonl there says of every unit of the corpus what became of it.

    Raises:
        ConfigurationError: the folder holds no finished selection.
    """
    if not (epath.Path(folder).expanduser() / SELECTION).exists():
        raise ConfigurationError(f"'{folder}' holds no finished selection: there is no {SELECTION} in it.")
    return register_sources({name: folder}, tokenizer, split=split)[0]


def register_task(source: Source, tokenizer: Tokenizer, scanned: Scan) -> seqio.Task:
    """Registers the task `source.name`: documents to `targets` (`[start] + tokens + [EOS]`) and `ordinal`."""
    name = task_name(source.name)
    seqio.TaskRegistry.remove(name)
    return seqio.TaskRegistry.add(
        name,
        source=DocumentSource(source, tokenizer, scanned),
        preprocessors=[
            _text_to_targets,
            lambda dataset, output_features: seqio.preprocessors.tokenize(
                dataset, output_features, copy_pretokenized=False
            ),
            seqio.preprocessors.append_eos,
            lambda dataset: _prepend_start(dataset, tokenizer.start),
        ],
        output_features={"targets": seqio.Feature(CheckpointVocabulary(tokenizer), add_eos=True, dtype=tf.int32)},
    )


def register_mixture(name: str, weights: Mapping[str, float]) -> seqio.Mixture:
    """Registers a blend of registered sources; `weights` are SeqIO's rates, shares of tokens in our row map."""
    seqio.MixtureRegistry.remove(name)
    return seqio.MixtureRegistry.add(name, [(task_name(source), weight) for source, weight in weights.items()])


def task_name(source: str) -> str:
    """SeqIO allows fewer letters in a name than we do."""
    return "cptjax." + "".join(
        letter if letter.isascii() and letter.isalnum() else f"_{ord(letter):x}_" for letter in source
    )


def _text_to_targets(dataset: tf.data.Dataset) -> tf.data.Dataset:
    return dataset.map(lambda example: {"targets": example["text"], "ordinal": example["ordinal"]})


def _prepend_start(dataset: tf.data.Dataset, start: int) -> tf.data.Dataset:
    return dataset.map(lambda example: {**example, "targets": tf.concat([[start], example["targets"]], axis=0)})
