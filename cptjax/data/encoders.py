"""Text to ids and back, for the two kinds of tokenizer file. Neither TensorFlow nor transformers is imported here.

The ids are those of `transformers`: special tokens written out in a text (`"</s>"`) become their ids, and what
surrounds them is encoded piece by piece.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from tokenizers import AddedToken, Tokenizer

from cptjax.data.normalizers import lossy_in_sentencepiece
from cptjax.data.tokenizer_class import SPACE

# What the `tokenizers` library takes for white space beside a special token; Python's \s holds more.
_WHITE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_WHOLE = (
    2,
    3,
    4,
)  # kinds of SentencePiece's pieces that are found in a text as they are: unknown, control, user-defined


class Encoder(Protocol):
    """What a tokenizer file can do."""

    size: int

    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def id_of(self, token: str) -> int | None: ...


class SentencePieceEncoder:
    """A SentencePiece model, with special tokens recognised in the text.

    A text gets the model's dummy prefix (one space, when the model was trained with it) unless it begins with a
    space. After a special token inside a text the prefix is repeated only by `legacy` tokenizers (`transformers`'
    LlamaTokenizer).
    """

    def __init__(
        self,
        model: bytes,
        numbered: Mapping[int, AddedToken],
        named: Sequence[AddedToken],
        legacy: bool,
        add_prefix_space: bool | None,
    ):
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2

        proto = sentencepiece_model_pb2.ModelProto.FromString(model)
        declared = proto.normalizer_spec.add_dummy_prefix
        self._prefix = declared if add_prefix_space is None else add_prefix_space
        self._legacy = legacy
        self._folds_spaces = proto.normalizer_spec.remove_extra_whitespaces
        # Two of it: only at the start of a text, or between special tokens, is known whether the prefix is due.
        proto.normalizer_spec.add_dummy_prefix = self._prefix
        self._prefixing = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        proto.normalizer_spec.add_dummy_prefix = False
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        ids = {piece.piece: i for i, piece in enumerate(proto.pieces)}
        whole = [piece.piece for piece in proto.pieces if piece.type in _WHOLE and SPACE not in piece.piece]
        self._rules = rules = {token.content: token for token in (*named, *numbered.values())}
        self._special = {token: ids[token] for token in (*whole, *rules) if token in ids}
        self._special |= {token.content: i for i, token in numbered.items()}
        self._written = {i: token for token, i in self._special.items()}
        patterns = [_pattern(token, rules.get(token)) for token in sorted(self._special, key=len, reverse=True)]
        self._split = re.compile("(" + "|".join(patterns) + ")") if patterns else None
        self.size = max([len(proto.pieces), *(i + 1 for i in numbered)])
        self.lossy = lossy_in_sentencepiece(
            proto, self._prefix, [rules[token] for token in self._special if token in rules]
        )

    def _encode_one(self, text: str) -> list[int]:
        parts = self._split.split(text) if self._split else [text]
        ids: list[int] = []
        for n, part in enumerate(parts):
            if n % 2:
                ids.append(self._special[part if part in self._special else part.strip(_WHITE)])
            elif part:
                at_start = n == 0 or self._legacy
                bare = self._folds_spaces or not part.startswith((" ", SPACE))
                ids += (self._prefixing if at_start and bare else self._processor).encode(part)
        return ids

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._encode_one(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        parts: list[str | list[int]] = [[]]
        for i in map(int, ids):
            if i in self._written:
                parts += [self._written[i], []]
            else:
                parts[-1].append(i)
        runs = [part if isinstance(part, str) else self._processor.decode(part) for part in parts]
        if self._prefix:
            first = next((n for n, part in enumerate(parts) if isinstance(part, list) and part), 0)
            runs[first] = runs[first].removeprefix(" ")
        return "".join(runs)

    @property
    def model(self):
        """The SentencePiece processor, without a prefix: its pieces and their kinds."""
        return self._processor

    def added_ids(self) -> list[tuple[AddedToken, int]]:
        """The tokens that the folder's files add to the model, or name, each with its id."""
        return [(self._rules[token], i) for token, i in self._special.items() if token in self._rules]

    def model_special(self, kind: str) -> int | None:
        """The id of "bos" or "eos" as the SentencePiece model itself has it."""
        i = getattr(self._processor, f"{kind}_id")()
        return i if i >= 0 else None

    def id_of(self, token: str) -> int | None:
        if token in self._special:
            return self._special[token]
        i = self._processor.piece_to_id(token)
        return i if self._processor.id_to_piece(i) == token else None


class TokenizersEncoder:
    """A `tokenizer.json`, run by the `tokenizers` library as it says.

    Added to it are tokens that the folder's other files list with an id or name. A name without an id would be given one past
    the model's vocabulary (`transformers` does so), so it is passed over.

    Raises:
        ValueError: a token that is listed with another id than it has.
    """

    def __init__(self, source: str, numbered: Mapping[int, AddedToken], named: Sequence[AddedToken]):
        self._tokenizer = Tokenizer.from_str(source)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.add_tokens([numbered[i] for i in sorted(numbered)])
        for i, token in numbered.items():
            found = self._tokenizer.token_to_id(token.content)
            if found != i:
                raise ValueError(f"added_tokens_decoder gives {token.content!r} the id {i}, the file gives it {found}")
        known = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        missing = [token for token in named if token.content not in known]
        self._tokenizer.add_tokens(
            [token for token in missing if self._tokenizer.token_to_id(token.content) is not None]
        )
        self.size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(map(int, ids)), skip_special_tokens=False)

    def id_of(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)

    def added(self) -> list[AddedToken]:
        """Its special tokens, and others that are found in a text as they are."""
        return list(self._tokenizer.get_added_tokens_decoder().values())

    def added_ids(self) -> list[tuple[AddedToken, int]]:
        """`added`, each with its id."""
        return [(token, i) for i, token in self._tokenizer.get_added_tokens_decoder().items()]

    def source(self) -> dict:
        """The tokenizer.json that is run."""
        return json.loads(self._tokenizer.to_str())

    def first_default_id(self) -> int | None:
        """The id the file's post-processor puts before every text, or None."""
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        default = self._tokenizer.encode("a", add_special_tokens=True).ids
        return default[0] if len(default) > len(plain) and default[0] != plain[0] else None


def _pattern(token: str, rules: AddedToken | None) -> str:
    """Where a special token is found in a text; the white space it takes up is part of it."""
    found = re.escape(token)
    if rules is None:
        return found
    if rules.single_word:
        found = rf"(?<!\w){found}(?!\w)"
    return (f"[{_WHITE}]*" if rules.lstrip else "") + found + (f"[{_WHITE}]*" if rules.rstrip else "")
