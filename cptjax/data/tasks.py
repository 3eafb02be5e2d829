"""Sources as SeqIO tasks, blends of them as SeqIO mixtures, in SeqIO's registries. Imports TensorFlow."""

from collections.abc import Iterator, Mapping

import numpy as np
import seqio
import tensorflow as tf

from cptjax.data.sources import Source, documents
from cptjax.data.tokenizer import Tokenizer
from cptjax.data.vocabulary import CheckpointVocabulary

SPLITS = ("train", "validation")


def register_task(source: Source, tokenizer: Tokenizer, held_out: np.ndarray) -> seqio.Task:
    """Registers the task `source.name`: documents to `targets` (`[start] + tokens + [EOS]`) and `ordinal`.

    Args:
        held_out: bool [documents], which of the source's documents are for validation; the others are for training.
    """

    def examples(split: str) -> Iterator[dict]:
        for ordinal, document in enumerate(documents(source)):
            if ordinal < len(held_out) and held_out[ordinal] == (split == "validation"):
                yield {"text": document.text, "ordinal": ordinal}

    def data_set(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed  # the order is the source's own; rows are permuted when they are read
        signature = {"text": tf.TensorSpec([], tf.string), "ordinal": tf.TensorSpec([], tf.int64)}
        return tf.data.Dataset.from_generator(lambda: examples(split), output_signature=signature)

    counts = {"train": int((~held_out).sum()), "validation": int(held_out.sum())}
    name = task_name(source.name)
    seqio.TaskRegistry.remove(name)
    return seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(data_set, splits=SPLITS, num_input_examples=counts, caching_permitted=False),
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
