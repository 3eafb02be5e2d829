"""Text to ids and back, for the two kinds of tokenizer file. Neither TensorFlow nor transformers is imported here.

The ids are those of `transformers`: special tokens written out in a text (`"</s>"`) become their ids, and what
surrounds them is encoded piece by piece.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

SPACE = "\u2581"  # how SentencePiece writes a space inside a piece
# Where a text is cut before byte-pair encoding, as every Qwen2 tokenizer.json has it.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


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

    def __init__(self, model: bytes, added: Mapping[str, int], legacy: bool, add_prefix_space: bool | None):
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
        pieces = range(self._processor.get_piece_size())
        self._special = {
            self._processor.id_to_piece(i): i
            for i in pieces
            if self._processor.is_control(i) or self._processor.is_unknown(i)
        } | dict(added)
        self._written = {i: token for token, i in self._special.items()}
        longest_first = sorted(self._special, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None
        self.size = max([self._processor.get_piece_size(), *(i + 1 for i in added.values())])

    def _encode_one(self, text: str) -> list[int]:
        parts = self._split.split(text) if self._split else [text]
        ids: list[int] = []
        for n, part in enumerate(parts):
            if n % 2:
                ids.append(self._special[part])
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
    """A `tokenizer.json`, run by the `tokenizers` library as the file says.

    `pipeline` replaces the file's normalizer and pre-tokenizer, as some classes of `transformers` do: "qwen2" (NFC and
    Qwen2's pattern), or Llama's way with spaces, "first" (a space before a text that has none), "always" (before each
    part between special tokens) or "never". None: as the file says.
    """

    def __init__(self, source: str, added: Mapping[str, int], special: Sequence[str], pipeline: str | None):
        self._tokenizer = Tokenizer.from_str(source)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        if pipeline == "qwen2":
            self._tokenizer.normalizer = normalizers.NFC()
            pattern = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")
            by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pattern, by_bytes])
        elif pipeline is not None:
            self._tokenizer.normalizer = None
            self._tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, pipeline, split=False)
        known = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        # Special tokens that the configuration names but the file does not list are recognised in text all the same;
        # a name without an id would be given one past the model's vocabulary, so it is passed over.
        listed = sorted(added, key=added.get)
        named = [token for token in special if self._tokenizer.token_to_id(token) is not None]
        missing = [token for token in dict.fromkeys([*listed, *named]) if token not in known]
        self._tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in missing])
        for token, i in added.items():
            if self._tokenizer.token_to_id(token) != i:
                found = self._tokenizer.token_to_id(token)
                raise ValueError(f"added_tokens_decoder gives {token!r} the id {i}, the file gives it {found}")
        self.size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(map(int, ids)), skip_special_tokens=False)

    def id_of(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)

    def first_default_id(self) -> int | None:
        """The id the file's post-processor puts before every text, or None."""
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        default = self._tokenizer.encode("a", add_special_tokens=True).ids
        return default[0] if len(default) > len(plain) and default[0] != plain[0] else None
