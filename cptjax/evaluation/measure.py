"""Measuring one checkpoint: its held-out documents source by source, and the base's own samples."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence

from jax.sharding import Mesh

from cptjax.data.prepare import PreparedSource, ensure_rows
from cptjax.data.rows import RowReader
from cptjax.data.sources import Where
from cptjax.errors import ConfigurationError
from cptjax.evaluation.compared import Compared
from cptjax.evaluation.documents import document_losses
from cptjax.evaluation.exams.answers import ACCURACIES, CHANCE, ExamAnswers, ExamSettings, answer_exam
from cptjax.evaluation.exams.questions import Exam
from cptjax.evaluation.measurement import Measurement
from cptjax.evaluation.own_samples import Model, sample_losses, write_samples
from cptjax.evaluation.strided import strided_losses
from cptjax.evaluation.table import EXAM_UNITS
from cptjax.watching import Watch

Rows = Mapping[str, PreparedSource]
Say = Callable[[str], None]


def held_out_rows(
    compared: Sequence[Compared],
    sources: Mapping[str, Where],
    length: int,
    root: str,
    **split: float | None,
) -> dict[str, Rows]:
    """By tokenizer (its fingerprint) the rows of every source, made where they are missing.

    Args:
        split: how documents are held out (`prepare.ensure_rows`).

    Raises:
        ConfigurationError, CptjaxError: as `ensure_rows`; a source of which nothing is held out.
    """
    found: dict[str, Rows] = {}
    if not sources:
        return {one.tokenizer.fingerprint: {} for one in compared}
    for one in compared:
        if one.tokenizer.fingerprint not in found:
            found[one.tokenizer.fingerprint] = ensure_rows(sources, str(one.opened.model_folder), length, root, **split)
    for name in sources:
        if any(rows[name].validation is None for rows in found.values()):
            raise ConfigurationError(
                f"nothing of source {name!r} is held out, so there is nothing to evaluate on.\n"
                f"  VALIDATION_FRACTION = {split['validation_fraction']}, and it needs two documents that are not alike."
            )
    return found


def shares_tokens(one: Compared, base: Compared, rows: Mapping[str, Rows]) -> bool:
    """Whether a checkpoint can be asked about texts in the base's tokens: it has as many, and cuts text the same way.

    Tokenizers may differ in what they say of themselves and still give the same rows.
    """
    mine, theirs = (contents(rows[each.tokenizer.fingerprint]) for each in (one, base))
    same = bool(mine) and mine == theirs or one.tokenizer.fingerprint == base.tokenizer.fingerprint
    return one.opened.config.vocabulary == base.opened.config.vocabulary and same


def contents(rows: Rows) -> dict[str, str]:
    """By source the digest of its held-out rows."""
    return {name: source.validation_manifest.content for name, source in rows.items()}


def text_digest(source: PreparedSource) -> str:
    """sha256 over all that the source's text was read from."""
    return hashlib.sha256("".join(file["sha256"] for file in source.files).encode()).hexdigest()


def base_samples(
    base: Compared, model: Model, mesh: Mesh, count: int, tokens: int, seed: int, say: Say, watch: Watch
) -> list[list[int]]:
    """Texts that the base writes, BOS (or what its documents begin with) included."""
    begin = time.monotonic()
    samples = write_samples(model, mesh, base.tokenizer.start, base.tokenizer.eos, count, tokens, seed, watch)
    say(f"{base.label} has written {count:,} texts of its own ({time.monotonic() - begin:.0f} s)")
    return samples


def answer_exams(
    one: Compared,
    model: Model,
    exams: Sequence[Exam],
    settings: ExamSettings,
    mesh: Mesh,
    say: Say,
    watch: Watch,
) -> dict[str, ExamAnswers]:
    """By exam what a checkpoint makes of each question, with a line for each."""
    found = {}
    for exam in exams:
        begin = time.monotonic()
        answers = found[exam.name] = answer_exam(model, one.tokenizer, exam, settings, mesh, watch)
        shown = [
            f"{EXAM_UNITS[metric].strip()} {column.mean():.4f}"
            for metric, column in answers.columns.items()
            if metric in (*(accuracy for each in ACCURACIES.values() for accuracy in each), CHANCE)
        ]
        seconds = time.monotonic() - begin
        say(f"  exam {exam.name}: {', '.join(shown)} ({len(answers):,} questions, {seconds:.0f} s)")
        if answers.cut:
            say(
                f"  note: {answers.cut:,} prompts of {exam.name} were longer than the {model.config.maximum_length:,} positions "
                f"that {one.label} was made for, and lost their beginning"
            )
    return found


def measure(
    one: Compared,
    model: Model,
    rows: Rows,
    base: Model | None,
    samples: Sequence[Sequence[int]],
    mesh: Mesh,
    say: Say,
    watch: Watch,
    stride: int | None = None,
) -> Measurement:
    """All that is measured of one checkpoint, with a line for each part of it.

    Args:
        model: the checkpoint, loaded.
        base: whose samples they are, loaded; None where the checkpoint cannot be asked about them, or there are none.
        stride: read each document in overlapping windows too, each so many tokens further on; None: do not.
    """
    sources, in_windows, own = {}, {}, None
    for name, source in rows.items():
        begin = time.monotonic()
        reader = RowReader(source.validation)
        sources[name] = document_losses(model.params, model.config, model.numerics, reader, mesh, watch)
        found = sources[name].total
        say(
            f"  {name}: {found.loss:.4f} nats/token, {found.bits_per_byte:.4f} bits/byte "
            f"({found.tokens:,} tokens of {len(sources[name]):,} documents, {time.monotonic() - begin:.0f} s)"
        )
        if stride is not None:
            begin = time.monotonic()
            in_windows[name] = strided_losses(model.params, model.config, model.numerics, reader, mesh, stride, watch)
            found = in_windows[name].total
            say(
                f"  {name}, in windows {stride} tokens apart: {found.loss:.4f} nats/token, {found.bits_per_byte:.4f} bits/byte "
                f"({time.monotonic() - begin:.0f} s)"
            )
    if base is not None:
        begin = time.monotonic()
        own = sample_losses(base, model, mesh, samples, watch)
        tokens = own.tokens.sum()
        say(
            f"  the base's own samples: {own.nats.sum() / tokens:.4f} nats/token, KL {own.kl.sum() / tokens:.4f} nats/token "
            f"({int(tokens):,} tokens of {len(samples):,} samples, {time.monotonic() - begin:.0f} s)"
        )
    return Measurement(
        label=one.label,
        path=str(one.opened.path),
        step=one.opened.step,
        tokens=one.tokens,
        identity=one.opened.identity,
        tokenizer=one.tokenizer.fingerprint,
        rows=contents(rows),
        sources=sources,
        own_samples=own,
        in_windows=in_windows,
        samples=samples if base is not None and model.params is base.params else None,
    )
