"""A SentencePiece vocabulary with byte fallback, trained on a sample of named sources. No TensorFlow.

Nothing of a text is lost: no normalisation, no space added or removed, characters outside the vocabulary become bytes.
Without SentencePiece's dummy prefix a text comes back exactly as it was, and `transformers` gives a BPE the same ids.
"""

import dataclasses
import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cptjax.data.document import Document
from cptjax.data.sources import Source, documents
from cptjax.errors import ConfigurationError

KINDS = ("bpe", "unigram")
SPECIAL = {"unk": "<unk>", "bos": "<s>", "eos": "</s>"}  # ids 0, 1, 2, as Llama has them
CONFIG = {
    "tokenizer_class": "LlamaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "add_prefix_space": False,
    "legacy": False,
    "clean_up_tokenization_spaces": False,
    **{f"{name}_token": token for name, token in SPECIAL.items()},
}
_LINE = 4096  # characters: longer lines are cut, for SentencePiece drops what is too long without a word
_THREADS = 8  # as many on every machine: how sums are cut among threads decides their last bits


@dataclasses.dataclass(frozen=True)
class TokenizerSettings:
    """What decides a vocabulary, beside the text.

    Attributes:
        vocabulary: pieces in all: special tokens and the 256 bytes included.
        kind: "bpe" or "unigram".
        temperature: sources are sampled by bytes ** (1 / temperature): 1 keeps their sizes, more evens them out.
        sample_bytes: at most about so much text is trained on; None: all.
        seed: of the sample.
        coverage: the share of characters that get a piece of their own; the others are written as bytes.
    """

    vocabulary: int
    kind: str = "bpe"
    temperature: float = 1.0
    sample_bytes: int | None = 20_000_000
    seed: int = 0
    coverage: float = 0.9995

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ConfigurationError(f"KIND = {self.kind!r}; it is one of {', '.join(map(repr, KINDS))}.")
        if not self.temperature >= 1:
            raise ConfigurationError(f"TEMPERATURE = {self.temperature}; it is 1 (sizes as they are) or more.")
        if not 0 < self.coverage <= 1:
            raise ConfigurationError(f"COVERAGE = {self.coverage}; it is a share of characters, above 0 and at most 1.")
        least = len(SPECIAL) + 256 + 1
        if self.vocabulary < least:
            raise ConfigurationError(
                f"VOCABULARY = {self.vocabulary}; {len(SPECIAL)} special tokens and 256 bytes come first, "
                f"so it must be at least {least}."
            )


def sample_fractions(sizes: Mapping[str, int], settings: TokenizerSettings) -> dict[str, float]:
    """Which part of each source (bytes by name) is trained on.

    The shares are bytes ** (1 / temperature); as much is taken in all as `sample_bytes` and the smallest source allow.
    """
    weights = {name: size ** (1 / settings.temperature) for name, size in sizes.items()}
    shares = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    total = min(sizes[name] / share for name, share in shares.items())
    if settings.sample_bytes is not None:
        total = min(total, settings.sample_bytes)
    return {name: min(1.0, total * shares[name] / sizes[name]) for name in sizes}


def train_vocabulary(
    sources: Sequence[Source], settings: TokenizerSettings, report: Callable[[str], None]
) -> tuple[bytes, dict[str, dict[str, Any]]]:
    """The SentencePiece model, and of each source its documents and bytes, in all and in the sample.

    Raises:
        ConfigurationError: a source without text, or a vocabulary that is too large or too small for it.
    """
    found: dict[str, dict[str, Any]] = {}
    for source in sources:
        sizes = [document.size for document in documents(source)]
        if not sizes:
            raise ConfigurationError(
                f"source {source.name!r} is empty: there is no document with text in {source.where}."
            )
        found[source.name] = {"documents": len(sizes), "bytes": sum(sizes), "sampled_documents": 0, "sampled_bytes": 0}
        report(f"  {source.name}: {len(sizes):,} documents, {sum(sizes) / 1e6:,.1f} MB")
    fractions = sample_fractions({name: counted["bytes"] for name, counted in found.items()}, settings)

    def lines() -> Iterator[str]:
        for source in sources:
            for document in sampled(source, fractions[source.name], settings.seed):
                found[source.name]["sampled_documents"] += 1
                found[source.name]["sampled_bytes"] += document.size
                yield from _lines(document.text)

    return _train(lines(), settings), found


def sampled(source: Source, fraction: float, seed: int) -> Iterator[Document]:
    """About `fraction` of a source's documents, chosen by their names alone; all of them for 1."""
    for document in documents(source):
        drawn = hashlib.sha256(f"{seed} {source.name} {document.name}".encode()).digest()[:8]
        if int.from_bytes(drawn, "little") < fraction * 2.0**64 or fraction >= 1:
            yield document


def _lines(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        for begin in range(0, len(line), _LINE):
            part = line[begin : begin + _LINE].replace("\0", "")  # SentencePiece ends a line at a zero byte
            if part:
                yield part


def _train(lines: Iterator[str], settings: TokenizerSettings) -> bytes:
    import sentencepiece

    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=written,
            model_type=settings.kind,
            vocab_size=settings.vocabulary,
            character_coverage=settings.coverage,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,  # the indentation of code is one piece
            max_sentence_length=8 * _LINE,
            num_threads=_THREADS,
            minloglevel=2,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            **{f"{name}_piece": token for name, token in SPECIAL.items()},
        )
    except (RuntimeError, OSError) as error:
        raise ConfigurationError(_meaning(str(error), settings.vocabulary)) from error
    return written.getvalue()


def _meaning(message: str, vocabulary: int) -> str:
    """SentencePiece's complaint about the size, in words of ours."""
    if most := re.search(r"too high.*?<= (\d+)", message):
        return f"VOCABULARY = {vocabulary} is more than this text can fill.\n  It allows at most {most[1]}; give more text."
    if least := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return (
            f"VOCABULARY = {vocabulary} is too small: the characters of this text need {least[1]} pieces.\n"
            "  Raise it, or lower COVERAGE, so that rare characters are written as bytes."
        )
    return f"SentencePiece cannot train on this text: {message.strip().splitlines()[-1]}"
