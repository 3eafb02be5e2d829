"""Log-probabilities of texts or token sequences, a JSONL file in, a JSONL file out."""

import itertools
import json
import sys
from collections.abc import Mapping

import jax
from etils import epath

from cptjax.checkpoints.source import open_checkpoint
from cptjax.configuration.values import whole_number
from cptjax.errors import ConfigurationError
from cptjax.evaluation.score import score_sequences
from cptjax.evaluation.sequences import read_sequences
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
    given tokens[:i + 1]. Every line is checked before the first is scored; the output appears when it is complete.
    """
    input, output = (str(epath.Path(path).expanduser()) for path in (input, output))
    if input == output or epath.Path(output).is_dir():
        raise ConfigurationError(
            f"OUTPUT = '{output}' is {'INPUT' if input == output else 'a folder'}; name a new file."
        )
    source = open_checkpoint(checkpoint, None if step is None else whole_number(step, "STEP"))
    reading = (input, source.model_folder, source.config.vocabulary)
    lengths = [len(tokens) for tokens in read_sequences(*reading)]
    print(f"{source.path}: scoring {len(lengths):,} lines ({sum(lengths):,} tokens) of {input}", flush=True)
    if lengths and max(lengths) - 1 > source.config.maximum_length:
        if source.config.positions == "learned":
            first = next(n for n, length in enumerate(lengths, start=1) if length - 1 > source.config.maximum_length)
            raise ConfigurationError(
                f"INPUT = '{input}': sequence {first:,} has {lengths[first - 1]:,} tokens; the model has learned positions for "
                f"{source.config.maximum_length:,} and none beyond."
            )
        print(
            f"warning: the longest line has {max(lengths):,} tokens; the model was made for {source.config.maximum_length:,}.",
            file=sys.stderr,
        )
    if dry_run:
        return
    mesh = build_mesh(mesh)
    params = source.load_parameters(mesh)
    destination = epath.Path(output)
    destination.parent.mkdir(parents=True, exist_ok=True)
    aside = destination.parent / f"{destination.name}.partial"
    given, scored = itertools.tee(read_sequences(*reading))  # the second runs one window ahead of the first
    with jax.set_mesh(mesh), aside.open("w") as stream:
        scores = score_sequences(params, source.config, numerics, mesh, scored)
        for tokens, logprobs in watch(zip(given, scores, strict=True), len(lengths), "scoring, lines"):
            stream.write(json.dumps({"tokens": tokens, "logprobs": [float(x) for x in logprobs]}) + "\n")
    aside.replace(destination)
    print(f"wrote {output}")
