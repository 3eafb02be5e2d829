"""Text becomes packed rows ahead of the runs that read them: on this machine's cores, or on Apache Beam."""

from collections.abc import Mapping, Sequence

from etils import epath

from cptjax.configuration.values import flat, whole_number
from cptjax.counts import count
from cptjax.data.contamination import describe_exams, open_exams
from cptjax.data.packing import CONCATENATE
from cptjax.data.prepare import ensure_rows, open_for_rows
from cptjax.data.sources import Where, content_identity, find_source
from cptjax.data.splits import SplitSettings
from cptjax.errors import ConfigurationError
from cptjax.training.signals import stop_at_once


def prepare_data(
    sources: Mapping[str, Where],
    tokenizer: str,
    output_dir: str,
    sequence_length: float,
    packing: str = CONCATENATE,
    validation_fraction: float = SplitSettings.fraction,
    validation_tokens: float = SplitSettings.tokens,
    near_duplicates: float | None = SplitSettings.near_duplicates,
    decontaminate: Sequence[str] = (),
    processes: float | None = None,
    runner: str | None = None,
    runner_options: Sequence[str] = (),
    scratch: str | None = None,
    dry_run: bool = False,
) -> None:
    """Prepares the rows of `sources` in `output_dir`, where runs with ROWS_DIR = `output_dir` find them.

    What is there already is left as it is; what was interrupted goes on where it stopped.

    Args:
        tokenizer: the folder of a checkpoint, or a tokenizer's; or a name on the Hugging Face Hub.
        decontaminate: exam files; documents that hold an item of theirs are left out.
        processes: of this machine; None: one a core. Not with a runner.
        runner, runner_options, scratch: `data.beam_tokenizing.tokenize_on_beam`.

    Raises:
        ConfigurationError: a source, tokenizer or setting that cannot be used.
        CptjaxError: the rows could not be made.
    """
    if processes is not None and runner is not None:
        raise ConfigurationError("PROCESSES is of this machine's cores, and RUNNER of Apache Beam: set one of them.")
    if runner is None and (runner_options or scratch):
        raise ConfigurationError("BEAM_OPTIONS and SCRATCH are of Apache Beam: set RUNNER too.")
    processes = None if processes is None else whole_number(processes, "PROCESSES", minimum=1)
    folder = epath.Path(output_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"OUTPUT_DIR = '{folder}' is a file; name a folder.")
    length = whole_number(sequence_length, "SEQUENCE_LENGTH", minimum=1)
    most = whole_number(validation_tokens, "VALIDATION_TOKENS", minimum=1)
    SplitSettings(validation_fraction, most, near_duplicates)  # refuses what cannot be
    if not epath.Path(tokenizer).exists():
        from cptjax.checkpoints.hub import find_tokenizer  # here: with it comes JAX, which preparing does without

        tokenizer = find_tokenizer(tokenizer)
    opened = open_for_rows(sources, tokenizer, length, packing)
    if decontaminate and dry_run:  # otherwise said where they are looked for
        print(describe_exams(open_exams(find_source("exams", list(flat(decontaminate))).files)))
    for name, where in sources.items():
        source = find_source(name, where)
        print(f"{name}: {source.where}")
        if dry_run:
            content_identity(source)  # every file can be read
    print(f"tokenizer {opened.name}, {opened.size:,} pieces; rows of {length:,}, {packing}, in {output_dir}")
    if dry_run:
        if opened.loses:
            print(f"  it loses of the text: {opened.loses}")
        return
    with stop_at_once("while rows were prepared; what is done is kept."):
        prepared = ensure_rows(
            sources,
            tokenizer,
            length,
            output_dir,
            validation_fraction=validation_fraction,
            validation_tokens=most,
            near_duplicates=near_duplicates,
            packing=packing,
            exams=decontaminate,
            how={"processes": processes, "runner": runner, "options": list(runner_options), "scratch": scratch},
        )
    for name, found in prepared.items():
        train, held_out = found.train_manifest, found.validation_manifest
        print(
            f"{name}: {train.documents:,} documents, {count(train.bytes)} bytes, {count(train.tokens)} tokens in {train.rows:,} "
            f"rows ({found.info.fill:.2%} filled); held out {held_out.documents if held_out else 0:,} documents\n  {found.train}"
        )
