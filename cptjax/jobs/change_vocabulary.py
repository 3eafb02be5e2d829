"""A checkpoint gets another tokenizer: tokens that it knows keep their rows, new ones get rows made of the old."""

import json
import tempfile
from typing import Any

from etils import epath

from cptjax.checkpoints.digests import digest_file
from cptjax.checkpoints.export_record import made_of, refuse_another, write_record
from cptjax.checkpoints.hugging_face import tokenizer_files
from cptjax.checkpoints.source import open_checkpoint
from cptjax.checkpoints.vocabulary_change import changed_config, write_changed
from cptjax.configuration.values import whole_number
from cptjax.data.special_ids import moved_ids
from cptjax.data.token_contents import Vocabulary, vocabulary_of
from cptjax.data.token_similarity import similar_tokens
from cptjax.data.tokenizer import Tokenizer, open_tokenizer, refuse_rows_too_few
from cptjax.data.vocabulary_change import counts, describe_change
from cptjax.data.vocabulary_mapping import VocabularyMapping, map_vocabulary
from cptjax.errors import ConfigurationError
from cptjax.files import read_json
from cptjax.models.vocabulary import METHODS, Mixture, NewRows
from cptjax.reporting.watch import watch

GENERATION = "generation_config.json"


def change_vocabulary(
    checkpoint: str,
    tokenizer: str,
    output_dir: str,
    method: str = "pieces",
    seed: float = 0,
    step: float | None = None,
    shard_bytes: float = 5e9,
    dry_run: bool = False,
) -> None:
    """Writes the Hugging Face folder `output_dir`: `checkpoint` with `tokenizer`, and rows of embedding and head for its tokens.

    A token that both vocabularies have is copied bit for bit, whatever its id; all other weights are as they were, in their
    dtype. A folder that holds just this already is left as it is.

    Args:
        checkpoint: a run, its average, a step, a Hugging Face folder, a name on the Hub. Its tokenizer is the old one.
        tokenizer: the folder, or file, of the new one.
        method: what the rows of new tokens are made of: one of `models.vocabulary.METHODS`. seed: of "gaussian".

    Raises:
        ConfigurationError: a tokenizer that is larger than the checkpoint's table, whose tokens do not say what they stand for, or
            that `transformers` reads otherwise beside such a model; something else is at `output_dir`.
        CptjaxError: the checkpoint is damaged, a new row is not finite, or the disk refuses.
    """
    if method not in METHODS:
        raise ConfigurationError(f"METHOD = {method!r}; it must be one of {', '.join(METHODS)}.")
    source = open_checkpoint(checkpoint, None if step is None else whole_number(step, "STEP"))
    old, new = open_tokenizer(str(source.model_folder)), open_tokenizer(tokenizer)
    refuse_rows_too_few(old, source.config.vocabulary, f"the checkpoint at '{source.path}'")
    what = f"{source.path}" + ("" if source.step is None else f", step {source.step}")
    destination, size = epath.Path(output_dir).expanduser(), whole_number(shard_bytes, "shard_bytes", minimum=1)
    dtype = (
        "float32" if source.store else source.original_config.get("dtype", source.original_config.get("torch_dtype"))
    )
    how = {"method": method, "seed": whole_number(seed, "SEED"), "dtype": dtype, "shard_bytes": size}
    if destination.exists():
        asked = {"step": source.step, "made_of": made_of(source), "tokenizer": _digests(tokenizer), **how}
        refuse_another(destination, asked)
        print(f"{destination} holds this change of vocabulary already: finished; nothing to do.")
        return

    before, after = vocabulary_of(old), vocabulary_of(new)
    mapping = map_vocabulary(before, after, old.encode_batch)
    config, left_out = moved_ids(changed_config(source, new.size), after.roles, mapping.new_ids)
    generation, more = _generation(source.model_folder, after, mapping)
    _refuse_read_otherwise(new, tokenizer, config)
    print(f"{what}: {source.family.architecture} -> {destination}")
    for line in describe_change(before, after, mapping, old, new, source.config.vocabulary):
        print(f"  {line}")
    for name in dict.fromkeys([*left_out, *more]):
        print(f"  left out of config.json or {GENERATION}: {name}, which the new vocabulary has no ids for")
    if dry_run:
        return
    rows = _new_rows(after, mapping, method, how["seed"])
    aside = destination.parent / f"{destination.name}.unrecorded"
    if aside.exists():
        aside.rmtree()  # left by a change that was killed
    write_changed(source, new.size, rows.of, config, aside, tokenizer, new.undeclared(), size, watch)
    _finish_tokenizer(aside, tokenizer, generation)
    record = {"source": what, "step": source.step, "made_of": made_of(source), "tokenizer": _digests(tokenizer), **how}
    write_record(aside, {**record, **counts(mapping), "lineage": source.lineage.to_json()})
    aside.rename(destination)
    print(f"wrote {destination}")


def _digests(tokenizer: str) -> dict[str, str]:
    """sha256 of each of the new tokenizer's files."""
    return {file.name: digest_file(file).sha256 for file in tokenizer_files(tokenizer) if file.name != GENERATION}


def _generation(
    folder: epath.Path, new: Vocabulary, mapping: VocabularyMapping
) -> tuple[dict[str, Any] | None, list[str]]:
    """The checkpoint's generation_config.json with its ids moved, and what was left out of it; None where it has none."""
    if not (folder / GENERATION).exists():
        return None, []
    return moved_ids(read_json(folder / GENERATION), new.roles, mapping.new_ids)


def _finish_tokenizer(folder: epath.Path, tokenizer: str, generation: dict[str, Any] | None) -> None:
    """Gives a tokenizer file the name it is looked for under, and the folder how to generate with the model, not another's."""
    given = epath.Path(tokenizer)
    if not given.is_dir() and given.name != f"tokenizer{given.suffix}":
        (folder / given.name).rename(folder / f"tokenizer{given.suffix}")
    (folder / GENERATION).unlink(missing_ok=True)
    if generation is not None:
        (folder / GENERATION).write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")


def _refuse_read_otherwise(tokenizer: Tokenizer, path: str, config: dict[str, Any]) -> None:
    """Which class reads a tokenizer.json follows from config.json too: beside the model it must give the ids that it gives now.

    Raises:
        ConfigurationError: it does not, with a text.
    """
    with tempfile.TemporaryDirectory(prefix="cptjax_tokenizer_") as name:
        folder = epath.Path(name)
        for file in tokenizer_files(path):
            file.copy(folder / file.name)
        if (declared := tokenizer.undeclared()) is not None:
            (folder / "tokenizer_config.json").write_text(json.dumps(declared))
        _finish_tokenizer(folder, path, None)
        (folder / "config.json").write_text(json.dumps(config))
        there = open_tokenizer(name)
    facts = [(each.size, each.bos, each.eos, each.adds_bos) for each in (tokenizer, there)]
    texts = [token.content.decode("utf-8", "replace") for token in vocabulary_of(tokenizer).tokens if token is not None]
    texts += ["".join(texts), " ".join(texts)]
    pairs = zip(texts, tokenizer.encode_batch(texts), there.encode_batch(texts), strict=True)
    differing = next(((text, one, other) for text, one, other in pairs if one != other), None)
    if facts[0] != facts[1] or differing:
        shown = (
            f"{differing[0]!r} is {differing[1]} and would be {differing[2]}"
            if differing
            else f"{facts[0]}, {facts[1]}"
        )
        raise ConfigurationError(
            f"TOKENIZER = '{path}' is read otherwise beside a model of type {config.get('model_type')!r}: {shown}.\n"
            "  `transformers` takes its class from there. Name one in its tokenizer_config.json, such as\n"
            '  "tokenizer_class": "PreTrainedTokenizerFast", which reads tokenizer.json as it says.'
        )


def _new_rows(after: Vocabulary, mapping: VocabularyMapping, method: str, seed: int) -> NewRows:
    """How the new tokens' rows are made by `method`."""
    mixtures: dict[int, Mixture] = {}
    if method == "pieces":
        mixtures = {int(i): (p, [1.0] * len(p)) for i in mapping.made if (p := mapping.pieces[i])}
    elif method == "overlap":
        mixtures = _of_overlap(after, mapping)
    return NewRows(mapping.copied, mixtures, mapping.known, drawn=method == "gaussian", seed=seed)


def _of_overlap(after: Vocabulary, mapping: VocabularyMapping) -> dict[int, Mixture]:
    """New token -> the old ones that both vocabularies have and that are written like it, and their weights.

    Raises:
        ConfigurationError: there are none.
    """
    tokens = after.tokens
    both = [i for i in (mapping.copied >= 0).nonzero()[0] if not tokens[i].special and not tokens[i].is_byte]
    if not both:
        raise ConfigurationError("METHOD = 'overlap', but the vocabularies have no token in common. Use 'pieces'.")
    made = [int(i) for i in mapping.made if tokens[i] is not None]
    found = similar_tokens([tokens[i].content for i in made], [tokens[i].content for i in both])
    old = mapping.copied[both]
    return {
        i: (old[near].tolist(), weights.tolist()) for i, (near, weights) in zip(made, found, strict=True) if len(near)
    }
