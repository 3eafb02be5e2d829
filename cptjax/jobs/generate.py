"""Texts or token sequences, continued by a checkpoint: a JSONL file in, a JSONL file out."""

import itertools
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from etils import epath

from cptjax.checkpoints.digests import digest_file
from cptjax.checkpoints.source import OpenedCheckpoint, open_checkpoint
from cptjax.configuration.values import whole_number
from cptjax.data.tokenizer import Tokenizer, fitting_tokenizer
from cptjax.evaluation.generate import check_drawing, check_prompt
from cptjax.evaluation.generate import generate as continue_prompts
from cptjax.evaluation.parts_written import PartsWritten
from cptjax.evaluation.sequences import check_output, read_sequences, text_of
from cptjax.hosts.alone import together
from cptjax.models.numerics import Numerics
from cptjax.reporting.watch import watch
from cptjax.sharding.mesh import build_mesh
from cptjax.sharding.processes import join_processes, number_of_first
from cptjax.training.signals import stop_at_once
from cptjax.watching import unwatched

WINDOW = 1024  # prompts that are read, continued and written together


@together
def generate(
    checkpoint: str,
    input: str,
    output: str,
    max_new_tokens: float,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: float = 0,
    step: float | None = None,
    numerics: Numerics = Numerics(),
    mesh: Mapping[str, int] | None = None,
    dry_run: bool = False,
) -> None:
    """Continues each line of `input` by at most `max_new_tokens` tokens of `checkpoint` and writes a line for it to `output`.

    In: `{"tokens": [...]}`, used as they are, or `{"text": "..."}`, with BOS as the checkpoint's tokenizer adds it and no
    EOS. Out: `{"tokens": [...], "text": "..."}`, the prompt included. Every line is checked before the first is continued;
    the output appears when it is complete, and a stopped job goes on after the last `WINDOW` lines that it had done.

    Args:
        temperature, top_p: see `evaluation.generate.generate`; temperature 0 takes the likeliest token.
        seed: the tokens of line i are drawn by (seed, i): other lines do not change them.

    Raises:
        ConfigurationError: a checkpoint, a line or a setting that cannot be.
        Stopped: SIGTERM came; what was written is kept.
    """
    new, seed = whole_number(max_new_tokens, "MAX_NEW_TOKENS"), whole_number(seed, "SEED")
    check_drawing(temperature, top_p, seed)
    input, output = (str(epath.Path(path).expanduser()) for path in (input, output))
    check_output(input, output)
    if not dry_run:
        join_processes()
    source = open_checkpoint(checkpoint, None if step is None else whole_number(step, "STEP"))
    tokenizer = fitting_tokenizer(source.model_folder, source.config.vocabulary, f"the checkpoint at '{source.path}'")
    reading = (input, source.model_folder, source.config.vocabulary)
    lengths = [len(tokens) for tokens in read_sequences(*reading)]
    first = dry_run or jax.process_index() == 0
    say = (lambda line: print(line, flush=True)) if first else (lambda line: None)
    how = "the likeliest token each time" if not temperature else f"TEMPERATURE {temperature:g}, TOP_P {top_p:g}"
    say(f"{source.path}: continuing {len(lengths):,} lines of {input} by at most {new:,} tokens, {how}")
    _check_lengths(source, input, lengths, new)
    if dry_run:
        return

    settings = {
        "CHECKPOINT": source.identity,
        "INPUT": digest_file(epath.Path(input)).sha256,
        "MAX_NEW_TOKENS": new,
        "TEMPERATURE": temperature,
        "TOP_P": top_p,
        "SEED": seed,
        "COMPUTE_DTYPE": numerics.compute_dtype,
        "the tokenizer": None if tokenizer is None else tokenizer.fingerprint,
        "lines in a part": WINDOW,
    }
    parts = PartsWritten(output, settings)
    with stop_at_once("during the generation; what was written is kept."):
        mesh = build_mesh(mesh)
        done = min(number_of_first(parts.done) * WINDOW, len(lengths))
        if done:
            say(f"{done:,} lines were continued before")
        params = source.load_parameters(mesh) if done < len(lengths) else None
        eos, seen = end_of_text(source, tokenizer), watch if first else unwatched
        for prompts in _windows(itertools.islice(read_sequences(*reading), done, None)):
            drawing = (new, temperature, seed, eos, seen, top_p, done)
            written = continue_prompts(params, source.config, numerics, mesh, prompts, *drawing)
            if first:
                parts.write(_line(tokens, tokenizer) for tokens in written)
            done += len(prompts)
            if done < len(lengths):
                say(f"  {done:,} of {len(lengths):,} lines")
        if first:
            parts.finish()
    say(f"wrote {output}")


def _check_lengths(source: OpenedCheckpoint, input: str, lengths: list[int], new: int) -> None:
    """Refuses prompts that cannot be continued, and warns of those that the model was not made for."""
    for number, length in enumerate(lengths, start=1):
        check_prompt(source.config, length, new, f"INPUT = '{input}': sequence {number:,}")
    reach = max(lengths, default=0) + new
    if reach - 1 > source.config.maximum_length and jax.process_index() == 0:
        print(
            f"warning: the longest text may have {reach:,} tokens; the model was made for {source.config.maximum_length:,}.",
            file=sys.stderr,
        )


def _windows(sequences: Iterator[list[int]]) -> Iterator[list[list[int]]]:
    while window := list(itertools.islice(sequences, WINDOW)):
        yield window


def _line(tokens: list[int], tokenizer: Tokenizer | None) -> dict[str, Any]:
    """`text` is null where the checkpoint has no tokenizer."""
    return {"tokens": tokens, "text": None if tokenizer is None else text_of(tokens, tokenizer)}


def end_of_text(source: OpenedCheckpoint, tokenizer: Tokenizer | None) -> int | None:
    """The id that ends a text: the tokenizer's, or the config.json's where there is no tokenizer."""
    if tokenizer is not None:
        return tokenizer.eos
    declared = source.original_config.get("eos_token_id")
    return declared[0] if isinstance(declared, list) else declared
