"""Log-probabilities of texts or token sequences, a JSONL file in, a JSONL file out."""

import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from etils import epath

from cptjax.checkpoints.source import open_checkpoint
from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError
from cptjax.evaluation.routing import score_by_system
from cptjax.evaluation.score import score_sequences
from cptjax.evaluation.sequences import check_output, read_sequences
from cptjax.evaluation.systems import System, open_system, system_file
from cptjax.files import whole_file
from cptjax.models.config import DecoderConfig
from cptjax.models.numerics import Numerics
from cptjax.reporting.watch import watch
from cptjax.sharding.mesh import build_mesh


def score(
    checkpoint: str,
    input: str,
    output: str,
    step: float | None = None,
    numerics: Numerics = Numerics(),
    mesh: Mapping[str, int] | None = None,
    dry_run: bool = False,
) -> None:
    """Scores each line of `input` under `checkpoint` and writes a line for it to `output`.

    In: `{"tokens": [...]}`, used as they are, or `{"text": "..."}`, with BOS as the checkpoint's tokenizer adds it and no
    EOS. Out: `{"tokens": [...], "logprobs": [...]}`, logprobs[i] being the float32 natural-log probability of tokens[i + 1]
    given tokens[:i + 1]. Every line is checked before the first is scored; the output appears when it is complete. A system
    (evaluation/systems.py) names the `expert` of a line, too, and gives null to the tokens that its router reads.
    """
    input, output = (str(epath.Path(path).expanduser()) for path in (input, output))
    check_output(input, output)
    if (described := system_file(checkpoint)) is not None:
        if step is not None:
            raise ConfigurationError(
                f"STEP = {step}, but '{described}' is a system, whose experts are named with their steps."
            )
        _score_by_system(open_system(described), input, output, numerics, mesh, dry_run)
        return
    source = open_checkpoint(checkpoint, None if step is None else whole_number(step, "STEP"))
    reading = (input, source.model_folder, source.config.vocabulary)
    lengths = [len(tokens) for tokens in read_sequences(*reading)]
    print(f"{source.path}: scoring {len(lengths):,} lines ({sum(lengths):,} tokens) of {input}", flush=True)
    _check_lengths(source.config, input, lengths, "the model")
    if dry_run:
        return
    mesh = build_mesh(mesh)
    params = source.load_parameters(mesh)
    given, scored = itertools.tee(read_sequences(*reading))  # the second runs one window ahead of the first
    with jax.set_mesh(mesh), _lines_of(output) as write:
        scores = score_sequences(params, source.config, numerics, mesh, scored)
        for tokens, logprobs in watch(zip(given, scores, strict=True), len(lengths), "scoring, lines"):
            write({"tokens": tokens, "logprobs": [float(x) for x in logprobs]})


def _score_by_system(
    system: System, input: str, output: str, numerics: Numerics, mesh: Mapping[str, int] | None, dry_run: bool
) -> None:
    """Each line gets the number of its `expert`; the log-probabilities of tokens that the router reads are null."""
    models = (system.embedder, *system.experts)
    reading = (input, system.experts[0].model_folder, min(each.config.vocabulary for each in models))
    texts = list(read_sequences(*reading))
    if (empty := next((n for n, text in enumerate(texts, start=1) if not text), None)) is not None:
        raise ConfigurationError(f"INPUT = '{input}': sequence {empty:,} is empty: there is nothing to route it by.")
    total = sum(map(len, texts))
    print(f"{system.path}: scoring {len(texts):,} lines ({total:,} tokens) of {input} by {len(system.experts)} experts")
    for number, expert in enumerate(system.experts):  # any line may be given to any of them
        _check_lengths(expert.config, input, list(map(len, texts)), f"expert {number}")
    if dry_run:
        return
    found = score_by_system(system, numerics, build_mesh(mesh), texts, lambda line: print(line, flush=True))
    with _lines_of(output) as write:
        for tokens, (expert, logprobs) in zip(texts, found, strict=True):
            write({"tokens": tokens, "logprobs": logprobs, "expert": expert})


def _check_lengths(config: DecoderConfig, input: str, lengths: Sequence[int], what: str) -> None:
    """Refuses lines that learned positions do not reach to the end of, and warns of those that a model was not made for."""
    longest = config.maximum_length
    if not lengths or max(lengths) - 1 <= longest:
        return
    if config.positions == "learned":
        first = next(n for n, length in enumerate(lengths, start=1) if length - 1 > longest)
        raise ConfigurationError(
            f"INPUT = '{input}': sequence {first:,} has {lengths[first - 1]:,} tokens; {what} has learned positions for "
            f"{longest:,} and none beyond."
        )
    print(f"warning: the longest line has {max(lengths):,} tokens; {what} was made for {longest:,}.", file=sys.stderr)


@contextlib.contextmanager
def _lines_of(output: str) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that adds a JSON line; the file `output` appears when all are there."""
    destination = epath.Path(output)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(destination) as stream:
        yield lambda line: stream.write((json.dumps(line) + "\n").encode())
    print(f"wrote {output}")
