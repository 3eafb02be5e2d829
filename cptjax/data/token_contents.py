"""What each token of a vocabulary stands for in a text, as bytes: how tokens of different kinds of tokenizers are compared.

SentencePiece writes a space as U+2581 and a byte as "<0x0A>"; byte-level BPE writes every byte as a character of its own. Both
mean bytes, a word's leading space among them.
"""

import functools
import json
import re
from typing import NamedTuple

from etils import epath

from cptjax.data.encoders import Encoder, SentencePieceEncoder, TokenizersEncoder
from cptjax.data.tokenizer import Tokenizer
from cptjax.data.tokenizer_class import SPACE, content
from cptjax.errors import ConfigurationError

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Token(NamedTuple):
    """One token.

    Attributes:
        content: the bytes it stands for; of a special token, its written form.
        special: no text of its own: the beginning or end of one, an unknown character, a role in a chat.
        is_byte: a piece that is given only where no other covers a byte.
    """

    content: bytes
    special: bool = False
    is_byte: bool = False


class Vocabulary(NamedTuple):
    """All tokens of a tokenizer by id, None where an id is no token's, and which of them have a role ("bos", "eos", ...)."""

    tokens: tuple[Token | None, ...]
    roles: dict[str, int]


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """The vocabulary of `tokenizer`.

    Raises:
        ConfigurationError: its tokens do not say what they stand for (WordPiece, marks at the end of a word).
    """
    found, unknown = _tokens(tokenizer)
    roles = {"bos": tokenizer.bos, "eos": tokenizer.eos, "unk": unknown, "pad": _padding(tokenizer)}
    roles = {role: token for role, token in roles.items() if token is not None}
    for token in roles.values():
        found[token] = found[token]._replace(special=True)
    return Vocabulary(tuple(found.get(i) for i in range(tokenizer.size)), roles)


def _tokens(tokenizer: Tokenizer) -> tuple[dict[int, Token], int | None]:
    """The tokens by id, and which of them stands for what the vocabulary does not know."""
    encoder: Encoder = tokenizer.encoder
    if isinstance(encoder, SentencePieceEncoder):
        return _of_sentencepiece(encoder)
    if isinstance(encoder, TokenizersEncoder):
        return _of_tokenizers(encoder, tokenizer.name)
    raise TypeError(f"{type(encoder).__name__} is no kind of tokenizer file that is known here")


def _of_sentencepiece(encoder: SentencePieceEncoder) -> tuple[dict[int, Token], int | None]:
    model = encoder.model
    tokens: dict[int, Token] = {}
    for i in range(model.get_piece_size()):
        piece = model.id_to_piece(i)
        if model.is_byte(i):
            tokens[i] = Token(bytes.fromhex(piece[3:5]), is_byte=True)
        elif not model.is_unused(i):
            tokens[i] = Token(_spaced(piece), special=model.is_control(i) or model.is_unknown(i))
    for added, i in encoder.added_ids():
        tokens[i] = Token(added.content.encode(), special=added.special)
    return tokens, model.unk_id() if model.unk_id() >= 0 else None


def _of_tokenizers(encoder: TokenizersEncoder, name: str) -> tuple[dict[int, Token], int | None]:
    source = encoder.source()
    model = source["model"]
    marks = [key for key in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
    if model.get("type") not in ("BPE", "Unigram") or marks:
        raise ConfigurationError(
            f"the tokens of {name} do not say what text they stand for ({model.get('type')}{''.join(f', {m}' for m in marks)}).\n"
            "  Vocabularies of BPE and unigram tokenizers can be compared."
        )
    steps = json.dumps([source.get("pre_tokenizer"), source.get("normalizer"), source.get("decoder")])
    by_bytes, fallback = '"ByteLevel"' in steps, bool(model.get("byte_fallback"))
    listed = model["vocab"]
    numbered = listed.items() if isinstance(listed, dict) else ((piece, i) for i, (piece, _) in enumerate(listed))
    tokens: dict[int, Token] = {}
    for piece, i in numbered:
        byte = _BYTE.fullmatch(piece) if fallback else None
        if byte:
            tokens[i] = Token(bytes.fromhex(byte[1]), is_byte=True)
        else:
            tokens[i] = Token(_from_characters(piece) if by_bytes else _spaced(piece))
    for added, i in encoder.added_ids():
        tokens[i] = Token(added.content.encode(), special=added.special)
    unknown = model.get("unk_id") if "unk_id" in model else encoder.id_of(model.get("unk_token") or "")
    return tokens, unknown


def _spaced(piece: str) -> bytes:
    return piece.replace(SPACE, " ").encode()


def _from_characters(piece: str) -> bytes:
    """The bytes that the characters of a byte-level piece are; the piece's own where one of them is none."""
    table = _bytes_of_characters()
    return bytes(table[c] for c in piece) if all(c in table for c in piece) else piece.encode()


@functools.cache
def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's way to write any byte: printable ones of Latin-1 as they are, the others, in order, from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


def _padding(tokenizer: Tokenizer) -> int | None:
    """The id of the token that its folder declares for padding."""
    path = epath.Path(tokenizer.name)
    folder = path if path.is_dir() else path.parent
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            declared = json.loads((folder / name).read_text(encoding="utf-8")).get("pad_token")
            if declared:
                return tokenizer.id_of(content(declared))
    return None
