"""Token sequences from a JSONL file of `{"tokens": [...]}` or `{"text": ...}` lines, each line checked; and what they say."""

import json
import os
from collections.abc import Iterator, Sequence

from etils import epath

from cptjax.data.tokenizer import Tokenizer, open_tokenizer, refuse_rows_too_few
from cptjax.errors import ConfigurationError
from cptjax.files import is_local


def read_sequences(path: epath.PathLike, tokenizer: epath.PathLike, vocabulary: int) -> Iterator[list[int]]:
    """The token ids of each line, in order; blank lines are passed over.

    Args:
        path: the JSONL file, UTF-8.
        tokenizer: the folder whose tokenizer encodes texts; opened only when a text is met. BOS is added as it says.
        vocabulary: ids are below it.

    Raises:
        ConfigurationError: no such file, a line of another form, by its number, or a tokenizer with ids beyond `vocabulary`.
    """
    path = epath.Path(path)
    if not path.exists():
        raise ConfigurationError(
            f'INPUT = \'{path}\' does not exist.\n  It is a JSONL file with a line {{"tokens": [...]}} or {{"text": "..."}} each.'
        )
    opened = None
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            if not raw.strip():
                continue
            where = f"{path}, line {number}"
            try:
                line = json.loads(raw.decode("utf-8"))
            except ValueError as error:
                raise ConfigurationError(f"{where} is not JSON: {error}.") from None
            if not isinstance(line, dict) or ("tokens" in line) == ("text" in line):
                raise ConfigurationError(
                    f'{where}: a line is {{"tokens": [...]}} or {{"text": "..."}}, one of the two.'
                )
            if "tokens" in line:
                yield checked_tokens(line["tokens"], vocabulary, where)
                continue
            if not isinstance(line["text"], str):
                raise ConfigurationError(f"{where}: text is {type(line['text']).__name__}, not a string.")
            if opened is None:
                opened = open_tokenizer(str(tokenizer))
                refuse_rows_too_few(opened, vocabulary, f"the checkpoint at '{tokenizer}'")
            yield tokens_of(line["text"], opened)


def check_output(input: str, output: str) -> None:
    """Raises ConfigurationError for an OUTPUT that is a folder, or the very file that is read."""
    same = is_local(input) and is_local(output) and os.path.realpath(input) == os.path.realpath(output)
    if same or input == output or epath.Path(output).is_dir():
        raise ConfigurationError(
            f"OUTPUT = '{output}' is {'a folder' if epath.Path(output).is_dir() else 'INPUT'}; name a new file."
        )


def tokens_of(text: str, tokenizer: Tokenizer) -> list[int]:
    """A text's token ids, with BOS as the tokenizer adds it and no EOS."""
    return ([tokenizer.bos] if tokenizer.adds_bos else []) + tokenizer.encode(text)


def text_of(tokens: Sequence[int], tokenizer: Tokenizer) -> str:
    """What a text's tokens say, without what begins a text (BOS, or EOS where there is no BOS) and the EOS that ends it.

    An embedding may have rows that no piece of the tokenizer belongs to: they say nothing.
    """
    begin = 1 if len(tokens) and tokens[0] == tokenizer.start else 0
    end = len(tokens) - (len(tokens) > begin and tokens[-1] == tokenizer.eos)
    return tokenizer.decode([token for token in tokens[begin:end] if token < tokenizer.size])


def checked_tokens(tokens: object, vocabulary: int, where: str) -> list[int]:
    """Token ids as they are; ConfigurationError, which begins with `where`, if they are no ids below `vocabulary`."""
    if not isinstance(tokens, list) or any(type(token) is not int for token in tokens):
        raise ConfigurationError(f"{where}: tokens is not a list of whole numbers.")
    outside = [token for token in tokens if not 0 <= token < vocabulary]
    if outside:
        raise ConfigurationError(f"{where}: token {outside[0]} is not in the model's vocabulary of {vocabulary:,}.")
    return tokens
