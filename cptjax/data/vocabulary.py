"""A checkpoint's tokenizer as a `seqio.Vocabulary`. Imports SeqIO, and so TensorFlow: for `prepare` only."""

from collections.abc import Iterable, Sequence

import numpy as np
import seqio
import tensorflow as tf

from cptjax.data.tokenizer import Tokenizer


class CheckpointVocabulary(seqio.Vocabulary):
    """The ids of `tokenizer`, in Python and inside a tf.data pipeline."""

    def __init__(self, tokenizer: Tokenizer):
        super().__init__(extra_ids=0)
        self.tokenizer = tokenizer

    @property
    def bos_id(self) -> int | None:
        return self.tokenizer.bos

    @property
    def eos_id(self) -> int | None:
        return self.tokenizer.eos

    @property
    def unk_id(self) -> int | None:
        return None  # ids are never replaced on the way back

    @property
    def _base_vocab_size(self) -> int:
        return self.tokenizer.size

    def _encode(self, s: str) -> Sequence[int]:
        return self.tokenizer.encode(s)

    def _decode(self, ids: Iterable[int]) -> str:
        return self.tokenizer.decode(list(ids))

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        def encode(text: bytes | np.ndarray) -> np.ndarray:  # an array when TensorFlow runs eagerly
            text = text if isinstance(text, bytes) else text.item()
            return np.array(self.tokenizer.encode(text.decode("utf-8")), np.int32)

        ids = tf.numpy_function(encode, [s], tf.int32)
        ids.set_shape([None])
        return ids

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        text = tf.numpy_function(lambda ids: self.tokenizer.decode(ids.tolist()).encode("utf-8"), [ids], tf.string)
        text.set_shape([])
        return text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CheckpointVocabulary) and other.tokenizer.fingerprint == self.tokenizer.fingerprint

    def __hash__(self) -> int:
        return hash(self.tokenizer.fingerprint)
