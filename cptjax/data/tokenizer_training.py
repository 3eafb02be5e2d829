"""A SentencePiece vocabulary with byte fallback, trained on a sample of named sources. No TensorFlow.

Nothing of a text is lost: no normalisation, no space added or removed, characters outside the vocabulary become bytes.
Without SentencePiece's dummy prefix (a space before every text, taken off again when decoding) a text comes back exactly
as it was, spaces at its ends too, and no reader of the folder has to know a rule about when the prefix is due.
"""

import dataclasses
import io
import re
from collections.abc import Iterator, Sequence

from cptjax.data.tokenizer_sample import Survey, sample_fractions
from cptjax.errors import ConfigurationError

KINDS = ("bpe", "unigram")
SPECIAL = {"unk": "<unk>", "bos": "<s>", "eos": "</s>"}  # ids 0, 1, 2, as Llama has them
_LONGEST = 4096  # characters of a sentence: SentencePiece drops longer ones (max_sentence_length) without a word
_RESERVED = re.compile(
    "[\0\u2585]"
)  # a sentence ends at the first, is dropped with the second; they are written as bytes
_BYTE_NAMES = "<0123456789ABCDEFx>"  # the characters of "<0x0A>"
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


def train_vocabulary(
    surveys: Sequence[Survey], settings: TokenizerSettings
) -> tuple[bytes, dict[str, dict[str, int | float]]]:
    """The SentencePiece model, and of each source its documents and bytes, in all and in the sample.

    Raises:
        ConfigurationError: a vocabulary that is too large or too small for the text.
    """
    counted: dict[str, dict[str, int | float]] = {}
    for read in surveys:
        whole, sample = {"documents": read.documents, "bytes": read.bytes}, {"sampled_documents": 0, "sampled_bytes": 0}
        counted[read.source.name] = {**whole, **sample}
    sizes = {read.source.name: read.bytes for read in surveys}
    fractions = sample_fractions(sizes, settings.temperature, settings.sample_bytes)

    def pieces() -> Iterator[str]:
        for read in surveys:
            name = read.source.name
            for document in read.sampled(fractions[name], settings.seed):
                counted[name]["sampled_documents"] += 1
                counted[name]["sampled_bytes"] += document.size
                yield from sentences(document.text)

    return _train(pieces(), settings), counted


def sentences(text: str) -> Iterator[str]:
    """A text in the parts that SentencePiece is given: of a length that it takes, cut before line breaks where it can be.

    They hold many lines, for a line break inside of one is learned like any character, as part of pieces like `):\\n`
    (at its end SentencePiece takes it off). What SentencePiece reserves is left out.
    """
    for part in _RESERVED.split(text):
        begin = 0
        while begin < len(part):
            end = begin + _LONGEST
            if end < len(part) and (line_break := part.rfind("\n", begin + 1, end)) > 0:
                end = line_break
            yield part[begin:end]
            begin = end


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
            required_chars=_BYTE_NAMES
            if settings.kind == "unigram"
            else "",  # `tokenizer_folder.unigram_json` says why
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,  # the indentation of code is one piece
            max_sentence_length=4 * _LONGEST,
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
