"""Several checkpoints of one model become one: averaged, interpolated, or their differences from a base added to it."""

import math
from collections.abc import Mapping, Sequence

from etils import epath

from cptjax.checkpoints.export_record import made_of, refuse_another, write_record
from cptjax.checkpoints.exporting import check_dtype
from cptjax.checkpoints.merging import (
    Coefficients,
    average,
    linear,
    refuse_other_models,
    spherical,
    task_arithmetic,
    write_merged,
)
from cptjax.checkpoints.source import OpenedCheckpoint, open_checkpoint
from cptjax.configuration.values import whole_number
from cptjax.data.tokenizer import fitting_tokenizer, has_tokenizer, open_tokenizer
from cptjax.errors import ConfigurationError
from cptjax.reporting.watch import watch

METHODS = ("average", "linear", "spherical", "task_arithmetic")


def merge(
    checkpoints: Sequence[str] | Mapping[str, str],
    output_dir: str,
    method: str = "average",
    weights: Sequence[float] | Mapping[str, float] | None = None,
    fraction: float | None = None,
    base: str | None = None,
    dtype: str = "float32",
    shard_bytes: float = 5e9,
    dry_run: bool = False,
) -> None:
    """Writes the Hugging Face folder `output_dir`, merged from `checkpoints` (runs, steps of runs, Hugging Face folders).

    Tensor by tensor, in float64, rounded once. config.json and tokenizer are those of the first checkpoint, or of `base`.
    A folder that holds just this merge already is left as it is.

    Args:
        method: "average" of all by `weights`; "linear" or "spherical" at `fraction` of the way from the first checkpoint to
            the second; "task_arithmetic": `base` plus each checkpoint's difference from it, times its weight.
        weights: one for each checkpoint, in their order or by label; None: equal shares, or each difference whole.

    Raises:
        ConfigurationError: a checkpoint is missing, they are different models or tokenizers, or the method lacks something.
        CptjaxError: a checkpoint is damaged, a weight is not finite, or the disk refuses.
    """
    if not isinstance(checkpoints, Mapping | list | tuple):
        raise ConfigurationError(f"CHECKPOINTS = {checkpoints!r}; it is a list of paths, or labels with paths.")
    check_dtype(dtype)
    labelled = dict(checkpoints) if isinstance(checkpoints, Mapping) else dict(enumerate(checkpoints))
    factors = _weights(method, list(labelled), weights)
    coefficients = _coefficients(method, len(labelled), factors, weights is not None, fraction, base)
    sources = [open_checkpoint(path) for path in ([base] if base is not None else []) + list(labelled.values())]
    refuse_other_models(sources)
    _refuse_other_tokenizers(sources)
    tokenizer = fitting_tokenizer(
        sources[0].model_folder, sources[0].config.vocabulary, f"the checkpoint at '{sources[0].path}'"
    )
    undeclared = None if tokenizer is None else tokenizer.undeclared()
    destination = epath.Path(output_dir).expanduser()
    size = whole_number(shard_bytes, "SHARD_BYTES", minimum=1)
    how = {"method": method, "weights": factors, "fraction": fraction, "dtype": dtype, "shard_bytes": size}
    told = [f"{source.path}" + ("" if source.step is None else f", step {source.step}") for source in sources]
    if destination.exists():
        refuse_another(destination, {"made_of": [made_of(source) for source in sources], **how})
        print(f"{destination} holds this merge already: finished; nothing to do.")
        return
    print(f"{method} -> {destination} ({dtype})")
    for n, line in enumerate(told):
        role = "base" if base is not None and n == 0 else _role(method, n - (base is not None), factors, fraction)
        print(f"  {role:<10} {line}")
    if dry_run:
        return
    aside = destination.parent / f"{destination.name}.unrecorded"
    if aside.exists():
        aside.rmtree()  # left by a merge that was killed
    write_merged(sources, coefficients, aside, dtype, size, undeclared, watch)
    lineages = [source.lineage.to_json() for source in sources]
    record = {"source": " + ".join(told), "step": None, "made_of": [made_of(source) for source in sources], **how}
    write_record(aside, {**record, "lineages": lineages})
    aside.rename(destination)
    print(f"wrote {destination}")


def _weights(
    method: str, labels: Sequence[str | int], weights: Sequence[float] | Mapping[str, float] | None
) -> list[float]:
    """One number for each checkpoint, in their order."""
    if weights is None:
        return [1.0] * len(labels)
    if isinstance(weights, Mapping):
        if set(weights) != set(labels):
            raise ConfigurationError(f"WEIGHTS names {sorted(weights)}, but CHECKPOINTS has {labels}.")
        weights = [weights[label] for label in labels]
    if not isinstance(weights, list | tuple):
        raise ConfigurationError(
            f"WEIGHTS = {weights!r}; it is a list of numbers, one for each checkpoint, or by label."
        )
    if len(weights) != len(labels):
        raise ConfigurationError(f"WEIGHTS has {len(weights)} numbers, but CHECKPOINTS has {len(labels)} checkpoints.")
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise ConfigurationError(f"WEIGHTS holds {weight!r}, which is not a number.")
    return [float(weight) for weight in weights]


def _coefficients(
    method: str, count: int, factors: list[float], weighted: bool, fraction: float | None, base: str | None
) -> Coefficients:
    """How the checkpoints are combined, with all that the method needs and nothing that it does not use."""
    if method not in METHODS:
        raise ConfigurationError(f"METHOD = {method!r}; it must be one of {', '.join(METHODS)}.")
    between = method in ("linear", "spherical")
    if between != (fraction is not None):
        needs = "needs FRACTION, the way from the first checkpoint (0) to the second (1)"
        raise ConfigurationError(f"METHOD = {method!r} {needs if between else 'does not use FRACTION: leave it None'}.")
    if (method == "task_arithmetic") != (base is not None):
        needs = "does not use BASE: leave it None" if base is not None else "needs BASE, to which differences are added"
        raise ConfigurationError(f"METHOD = {method!r} {needs}.")
    if between and (count != 2 or weighted):
        raise ConfigurationError(
            f"METHOD = {method!r} takes two CHECKPOINTS and a FRACTION, no WEIGHTS; there are {count}."
            if count != 2
            else f"METHOD = {method!r} takes FRACTION and no WEIGHTS."
        )
    if between:
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not math.isfinite(fraction):
            raise ConfigurationError(f"FRACTION = {fraction!r}; it must be a number.")
        if method == "spherical" and not 0 <= fraction <= 1:
            raise ConfigurationError(f"FRACTION = {fraction}; an arc has its ends at 0 and 1 ('linear' goes beyond).")
        return linear(fraction) if method == "linear" else spherical(fraction)
    if count < (1 if base is not None else 2):
        raise ConfigurationError(f"CHECKPOINTS names {count}: there is nothing to merge.")
    if method == "task_arithmetic":
        return task_arithmetic(factors)
    if min(factors) < 0 or not sum(factors):
        raise ConfigurationError(f"WEIGHTS = {factors}: of an average none may be negative, and not all zero.")
    return average(factors)


def _role(method: str, n: int, factors: Sequence[float], fraction: float | None) -> str:
    if method in ("linear", "spherical"):
        return f"{fraction if n else 1 - fraction:g}"
    return f"{factors[n]:+g}" if method == "task_arithmetic" else f"{factors[n] / sum(factors):g}"


def _refuse_other_tokenizers(sources: Sequence[OpenedCheckpoint]) -> None:
    """The same id must be the same text in all of them: rows of an embedding are added up by id.

    Raises:
        ConfigurationError: two of them differ, or one has a tokenizer and another none.
    """
    known = [
        open_tokenizer(str(source.model_folder)).fingerprint if has_tokenizer(source.model_folder) else None
        for source in sources
    ]
    for source, fingerprint in zip(sources[1:], known[1:], strict=True):
        if fingerprint != known[0]:
            has = "have different tokenizers"
            if None in (fingerprint, known[0]):
                lacking = sources[0] if known[0] is None else source
                has = (
                    f"may have different tokenizers: '{lacking.path}' has none. Copy its files there if it is the same"
                )
            raise ConfigurationError(
                f"'{sources[0].path}' and '{source.path}' {has}.\n"
                "  Rows of their embeddings stand for different text, so they cannot be added."
            )
