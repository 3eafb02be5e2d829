"""A checkpoint's tokenizer, opened from its folder: the ids of `transformers`, without it and without TensorFlow.

Which tokens begin and end a text is read from the first of these that says so (a `null` says "none"):
tokenizer_config.json, special_tokens_map.json, the SentencePiece model itself, config.json, generation_config.json.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from etils import epath
from tokenizers import AddedToken

from cptjax.data.encoders import Encoder, SentencePieceEncoder, TokenizersEncoder
from cptjax.data.normalizers import lossy_in_pipeline
from cptjax.data.tokenizer_class import added_tokens, content, pipeline_of, with_pipeline
from cptjax.errors import ConfigurationError

FILES = ("tokenizer.json", "tokenizer.model")  # in the order of `transformers`


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A tokenizer and what is known of it; `open_tokenizer` makes one.

    Attributes:
        name: its folder (or file), as given.
        size: one more than the highest id it can give.
        bos, eos: ids that begin and end a text, None where there is none.
        adds_bos: whether the checkpoint's own tokenizer puts BOS before a text by default.
        fingerprint: sha256 over everything that decides the ids: equal fingerprints, equal ids.
        lossy: what it loses of a text, by name (`normalizers`); empty where every text comes back as it was.
    """

    name: str
    size: int
    bos: int | None
    eos: int | None
    adds_bos: bool
    fingerprint: str
    lossy: tuple[str, ...]
    encoder: Encoder = dataclasses.field(repr=False)

    @property
    def loses(self) -> str | None:
        """`lossy` in a line, None where nothing is lost."""
        return "; ".join(self.lossy) or None

    @property
    def start(self) -> int | None:
        """The id that begins a document in a packed row: BOS, or EOS for tokenizers without BOS."""
        return self.bos if self.bos is not None else self.eos

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, nothing added before or after; special tokens written out in it become their ids."""
        return self.encoder.encode([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text; faster than one at a time."""
        return self.encoder.encode(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; special tokens are written out."""
        return self.encoder.decode(ids)

    def id_of(self, token: str) -> int | None:
        """The id of one token by its written form, None if it has no such token."""
        return self.encoder.id_of(token)

    def undeclared(self) -> dict[str, object] | None:
        """The tokenizer_config.json that a folder with nothing but a SentencePiece model lacks; None where none is missing.

        Without one `transformers` 5 guesses: it adds no BOS and drops the leading space. An export says how it is.
        """
        path = epath.Path(self.name)
        folder = path if path.is_dir() else path.parent
        if not isinstance(self.encoder, SentencePieceEncoder) or (folder / "tokenizer_config.json").exists():
            return None
        special = {"bos_token": self.bos, "eos_token": self.eos}
        return {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": self.adds_bos,
            "add_eos_token": False,
            **{name: self.encoder.decode([i]) for name, i in special.items() if i is not None},
        }


def open_tokenizer(folder_or_file: str) -> Tokenizer:
    """Opens a tokenizer.json (preferred) or a SentencePiece tokenizer.model, given the folder or the file.

    Raises:
        ConfigurationError: no such path, no tokenizer in it, an unreadable file, a special token it does not have.
    """
    given = epath.Path(folder_or_file)
    file = _tokenizer_file(given)
    settings = {
        name: _read_json(file.parent / f"{name}.json")
        for name in ("tokenizer_config", "special_tokens_map", "config", "generation_config")
    }
    declared = settings["tokenizer_config"]
    raw = file.read_bytes()
    try:
        if file.suffix == ".json":
            source = json.loads(raw)
            pipeline = pipeline_of(declared, settings["config"], source)
            numbered, named = added_tokens(declared, settings["special_tokens_map"], pipeline)
            if pipeline is not None:
                source = with_pipeline(source, pipeline, numbered if "added_tokens_decoder" in declared else None)
            written = raw.decode("utf-8") if pipeline is None else json.dumps(source, ensure_ascii=False)
            encoder: Encoder = TokenizersEncoder(written, numbered, named)
            lossy = lossy_in_pipeline(source, encoder.added())
        else:
            numbered, named = added_tokens(declared, settings["special_tokens_map"], None)
            legacy, prefix = bool(declared.get("legacy", False)), declared.get("add_prefix_space")
            encoder = SentencePieceEncoder(raw, numbered, named, legacy, prefix)
            lossy = encoder.lossy
            pipeline = f"legacy={legacy} prefix={prefix}"
    except Exception as error:  # both libraries raise plain Exception
        raise ConfigurationError(
            f"{file} cannot be read as a tokenizer: {_one_line(error)}.\n"
            "  Expected a `tokenizers` tokenizer.json or a SentencePiece tokenizer.model."
        ) from error
    find = functools.partial(_special_id, file=file, encoder=encoder, settings=settings)
    bos, eos = find("bos"), find("eos")
    adds_bos = _adds_bos(declared, encoder, bos)
    decisive = json.dumps([_rules(numbered, named), pipeline, bos, eos, adds_bos], ensure_ascii=False)
    fingerprint = hashlib.sha256(hashlib.sha256(raw).digest() + decisive.encode()).hexdigest()
    return Tokenizer(str(folder_or_file), encoder.size, bos, eos, adds_bos, fingerprint, lossy, encoder)


def refuse_rows_too_few(tokenizer: Tokenizer, rows: int, whose: str) -> None:
    """Refuses a tokenizer that gives ids for which an embedding has no row. Rows beyond its ids are allowed: many checkpoints pad.

    Args:
        whose: the checkpoint or model, for the message.

    Raises:
        ConfigurationError: with both sizes.
    """
    if tokenizer.size > rows:
        raise ConfigurationError(
            f"{whose}: its tokenizer has {tokenizer.size:,} pieces, its embedding {rows:,} rows. They do not belong together.\n"
            f"  ({tokenizer.name}) Put back the tokenizer it was trained with; or give it another one, and rows for its pieces,\n"
            "  with the job change_vocabulary (docs/models.md). Of random weights, the config's `vocabulary` is too small."
        )


def fitting_tokenizer(folder: epath.PathLike, rows: int, whose: str) -> Tokenizer | None:
    """The tokenizer in a checkpoint's folder, None if there is none.

    Raises:
        ConfigurationError: it gives ids for which the embedding's `rows` have none.
    """
    if not has_tokenizer(folder):
        return None
    tokenizer = open_tokenizer(str(folder))
    refuse_rows_too_few(tokenizer, rows, whose)
    return tokenizer


def has_tokenizer(folder: epath.PathLike) -> bool:
    """Whether a folder holds a tokenizer that `open_tokenizer` reads."""
    return any((epath.Path(folder) / name).exists() for name in FILES)


def _tokenizer_file(given: epath.Path) -> epath.Path:
    if not given.exists():
        raise ConfigurationError(
            f"there is no tokenizer at {given}: no such file or folder.\n"
            "  TOKENIZER (or the checkpoint's folder) must hold tokenizer.json or tokenizer.model."
        )
    if not given.is_dir():
        if PurePath(given.name).suffix not in (".json", ".model"):
            raise ConfigurationError(f"{given} is not a tokenizer file: its name must end in .json or .model.")
        return given
    for name in FILES:
        if (given / name).exists():
            return given / name
    raise ConfigurationError(
        f"{given} holds no tokenizer: neither {' nor '.join(FILES)} is in it.\n"
        "  Give a folder that has one, or set TOKENIZER to a tokenizer file."
    )


def _rules(numbered: Mapping[int, AddedToken], named: Sequence[AddedToken]) -> list:
    """What the added tokens are, as JSON."""
    tokens = [*sorted(numbered.items()), *((None, token) for token in named)]
    return [
        [i, token.content, token.single_word, token.lstrip, token.rstrip, token.normalized, token.special]
        for i, token in tokens
    ]


def _special_id(kind: str, *, file: epath.Path, encoder: Encoder, settings: Mapping[str, Mapping]) -> int | None:
    """The id of "bos" or "eos": the first source that mentions it decides."""
    for name in ("tokenizer_config", "special_tokens_map"):
        if f"{kind}_token" in settings[name]:
            token = content(settings[name][f"{kind}_token"])
            found = encoder.id_of(token) if token else None
            if token and found is None:
                raise ConfigurationError(
                    f"{file.parent / name}.json names {token!r} as {kind}_token, but {file.name} has no such token."
                )
            return found
    own = encoder.model_special(kind) if isinstance(encoder, SentencePieceEncoder) else None
    if own is not None:
        return own
    for name in ("config", "generation_config"):
        value = settings[name].get(f"{kind}_token_id")
        if value is not None:
            value = value[0] if isinstance(value, list) else value
            if not isinstance(value, int) or not 0 <= value < encoder.size:
                raise ConfigurationError(
                    f"{file.parent / name}.json says {kind}_token_id = {value}, but {file.name} has ids 0 to "
                    f"{encoder.size - 1}."
                )
            return value
    return None


def _adds_bos(declared: Mapping, encoder: Encoder, bos: int | None) -> bool:
    if bos is None:
        return False
    if declared.get("add_bos_token") is not None:
        return bool(declared["add_bos_token"])
    # A SentencePiece model that says nothing is read as the Llama family's: they all begin with BOS.
    return encoder.first_default_id() == bos if isinstance(encoder, TokenizersEncoder) else True


def _read_json(path: epath.Path) -> dict:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"{path} is not JSON: {_one_line(error)}.") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path} must hold a JSON object, not {type(found).__name__}.")
    return found


def _one_line(error: Exception) -> str:
    return str(error).split("\n")[0][:200].rstrip(".")
