"""Checkpoints side by side on held-out text, on their base's own texts, and on exams: what was gained, what forgotten."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import jax
from etils import epath

from cptjax.configuration import resolved_config
from cptjax.configuration.values import whole_number
from cptjax.counts import count
from cptjax.data.sources import Where, content_identity, find_source
from cptjax.data.splits import SplitSettings
from cptjax.data.tokenizer import Tokenizer
from cptjax.errors import ConfigurationError
from cptjax.evaluation.alike import document_groups
from cptjax.evaluation.asked import check_asked, check_candidates, refuse_too_long
from cptjax.evaluation.bootstrap import FEW_DOCUMENTS
from cptjax.evaluation.by_field import group_rows, group_values, window_rows
from cptjax.evaluation.compared import Compared, open_compared
from cptjax.evaluation.exams.answers import ExamSettings, scored_questions
from cptjax.evaluation.exams.contamination import Contamination
from cptjax.evaluation.exams.questions import find_exams
from cptjax.evaluation.generate import check_drawing
from cptjax.evaluation.harness_rows import tasks_table, without_tasks
from cptjax.evaluation.harness_tasks import Harness, HarnessTasks, harness_results
from cptjax.evaluation.held_out import refuse_trained_text
from cptjax.evaluation.matched_rows import matched_rows
from cptjax.evaluation.measure import answer_exams, base_samples, held_out_rows, measure, shares_tokens, text_digest
from cptjax.evaluation.measurement import find_measurement, refuse_other_settings, write_measurement
from cptjax.evaluation.own_samples import Model
from cptjax.evaluation.result_row import as_json_lines
from cptjax.evaluation.results import result_rows
from cptjax.evaluation.savings import ask_curves, curve_rows, curves_table
from cptjax.evaluation.selecting import names_of, select, selection_sentence
from cptjax.evaluation.system_rows import check_systems, refuse_short_texts, system_rows, without_systems
from cptjax.evaluation.table import EVALUATION, few_documents, partly_compared, results_table
from cptjax.models.model import parameter_counts
from cptjax.models.numerics import Numerics
from cptjax.reporting.folder import CONFIG, RunFolder
from cptjax.reporting.metrics import read_metrics
from cptjax.reporting.watch import watch
from cptjax.sharding.mesh import build_mesh, describe_devices
from cptjax.training.signals import stop_at_once
from cptjax.watching import unwatched

SAMPLES = "samples.jsonl"
_ENDED = (
    "checkpoints",
    "exams",
    "select_on",
    "group_by",
    "systems",
    "tasks",
    "curves",
    "contamination",
)  # what a finished evaluation was of


def evaluate(
    checkpoints: Mapping[str, str] | Sequence[str] | str,
    sources: Mapping[str, Where],
    sequence_length: float,
    output_dir: str,
    base: str | None = None,
    rows_dir: str | None = None,
    samples: float = 128,
    sample_tokens: float = 128,
    seed: float = 0,
    numerics: Numerics = Numerics(),
    mesh: Mapping[str, int] | None = None,
    validation_fraction: float = 0.02,
    validation_tokens: float = 2**17,
    near_duplicates: float | None = SplitSettings.near_duplicates,
    exams: str | Sequence[str | Sequence[str] | None] = (),
    exam_settings: ExamSettings = ExamSettings(),
    select_on: str | None = None,
    stride: float | None = None,
    group_by: Mapping[str, str] | None = None,
    tasks: HarnessTasks = HarnessTasks(),
    curves: Mapping[str, Sequence[Any]] | None = None,
    source_flops: float | None = None,
    domain_share: float | None = None,
    matched_on: str | None = None,
    contamination: bool = True,
    dry_run: bool = False,
) -> None:
    """Measures each checkpoint's loss and bits per byte on held-out documents, its loss and KL on the base's own samples, and
    what it answers in exams.

    Writes evaluation.jsonl and samples.jsonl and prints a table; docs/evaluation.md says what each number is. A checkpoint
    that was measured is not measured again.

    Args:
        checkpoints, base: see `evaluation.compared.open_compared`; a checkpoint may be a system (evaluation/systems.py), the
            base may not.
        sources: name -> path, glob, list of them, "tfds:name" or "python:kind"; what is held out of them is scored.
        sequence_length: positions in a row, and so the most context that scoring gives.
        samples, sample_tokens: texts that the base writes, and tokens in each at most; 0 samples: none.
        seed: of the samples and of the bootstrap.
        validation_fraction, validation_tokens, near_duplicates: as the runs had them: so the same documents are held out.
        exams: JSONL files, or globs of them, a list may hold lists and None; exam_settings: how their questions are asked.
        select_on: a source or an exam by half of which the best checkpoint is chosen; the other half is reported.
        stride: read held-out documents in overlapping windows too, each so many tokens further on (evaluation/strided.py).
        group_by: source -> a field of its records: its loss for each value of that, too (evaluation/by_field.py).
        tasks: of the lm-evaluation-harness; they may change from one start to the next.
        contamination: look for exams' questions in what the checkpoints were trained on, and report with and without them.
        curves, source_flops, domain_share, matched_on: what is read off at equal loss (`evaluation.savings.ask_curves`).

    Raises:
        ConfigurationError: a checkpoint, source, exam or setting that cannot be; an evaluation under other settings in the
            folder.
        CptjaxError: a damaged file.
        Stopped: SIGTERM came; what was measured is kept.
    """
    settings = {
        "SEQUENCE_LENGTH": whole_number(sequence_length, "SEQUENCE_LENGTH", minimum=1),
        "VALIDATION_FRACTION": validation_fraction,
        "VALIDATION_TOKENS": whole_number(validation_tokens, "VALIDATION_TOKENS", minimum=1),
        "NEAR_DUPLICATES": near_duplicates,
        "SAMPLES": whole_number(samples, "SAMPLES"),
        "SAMPLE_TOKENS": whole_number(sample_tokens, "SAMPLE_TOKENS", minimum=1),
        "SEED": whole_number(seed, "SEED"),
        "COMPUTE_DTYPE": numerics.compute_dtype,
        # Also where it is not given: what was measured with it holds documents that SELECT_ON would not leave out.
        "STRIDE": None if stride is None else whole_number(stride, "STRIDE", minimum=1),
    }
    length, drawn, seed = (settings[name] for name in ("SEQUENCE_LENGTH", "SAMPLES", "SEED"))

    # --- What is there, before anything is read or made ---
    found_exams = find_exams(exams)
    check_asked(sources, found_exams, tasks.names, length, settings["STRIDE"], group_by, select_on)
    if drawn:
        check_drawing(1.0, 1.0, seed)
    if found_exams:
        settings |= {"EXAMS": {exam.name: exam.sha256 for exam in found_exams}, "exam settings": asdict(exam_settings)}
        forms = {exam.name: exam_settings.forms_of(exam) for exam in found_exams}
    texts = [find_source(name, where) for name, where in sources.items()]
    folder = RunFolder(output_dir)
    _refuse_another_job(folder)
    refuse_other_settings(folder.path, settings)
    checkpoints, systems = without_systems(checkpoints, base)
    compared, reference = open_compared(checkpoints, base)
    check_candidates(select_on, compared, reference)
    check_systems(systems, reference, sources, select_on)
    asked_curves = ask_curves(curves, compared, reference, source_flops, domain_share, matched_on, sources)
    for one in (expert for label, system in systems.items() for expert in system.compared(label)):
        refuse_too_long(one, {"SEQUENCE_LENGTH": length})
    lengths = {name: settings[name] for name in ("SEQUENCE_LENGTH", *(("SAMPLE_TOKENS",) if drawn else ()))}
    first = jax.process_index() == 0
    say = (lambda line: print(line, flush=True)) if first else (lambda line: None)
    seen = watch if first else unwatched
    for one in compared:
        refuse_too_long(one, lengths)
        say(f"{one.label}: {_described(one)}{', the base' if one is reference else ''}")
    if texts:
        say(f"on {', '.join(f'{text.name} ({text.where})' for text in texts)}, in rows of {length} tokens")
    if drawn:
        say(f"and on {drawn} texts of at most {settings['SAMPLE_TOKENS']} tokens that {reference.label} writes")
    for exam in found_exams:
        say(f"and on the exam {exam.name}: {exam.questions:,} questions, {' and '.join(forms[exam.name])} form")
    for label, system in systems.items():
        say(f"{label}: {system.path}, {len(system.experts)} experts, routed on {system.prefix} tokens")
    harness = Harness(tasks) if tasks.names else None
    if harness is not None:
        say(f"and on {', '.join(tasks.names)} of lm-eval {harness.version}")
    if dry_run:
        return

    with stop_at_once("during the evaluation; what was measured is kept."):
        # --- Rows, once for each tokenizer; then all that must be the same for every checkpoint is known ---
        split = {"validation_fraction": validation_fraction, "near_duplicates": near_duplicates}
        split["validation_tokens"] = settings["VALIDATION_TOKENS"]
        root = str(epath.Path(rows_dir or folder.path / "rows").expanduser())
        read = {text.name: [file["sha256"] for file in content_identity(text)] for text in texts}
        held_out = SplitSettings(validation_fraction, settings["VALIDATION_TOKENS"], near_duplicates)
        trained = [*compared, *(expert for label, system in systems.items() for expert in system.compared(label))]
        for sentence in refuse_trained_text(trained, read, held_out):
            say(f"note: {sentence}")
        rows = held_out_rows(compared, sources, length, root, **split)
        refuse_short_texts(systems, rows[reference.tokenizer.fingerprint])
        files = {name: text_digest(source) for name, source in rows[reference.tokenizer.fingerprint].items()}
        settings |= {"SOURCES": files, "BASE": reference.opened.identity}
        templates = {text.name: text.settings.template for text in texts if text.settings.template is not None}
        settings["templates"] = templates or None  # the same files by another template are another text
        marks = {text.name: text.settings.scored_after for text in texts if text.settings.scored_after is not None}
        settings["scored_after"] = marks or None
        refuse_other_settings(folder.path, settings)
        measured = {one.label: find_measurement(folder.path, one) for one in compared}
        labels = [one.label for one in compared]
        fields = dict(group_by or {})
        groups = group_values(rows, fields)
        finished = {"job": "evaluate", "checkpoints": labels, "base": reference.label}
        finished |= {"exams": [exam.name for exam in found_exams]} if found_exams else {}
        finished |= {"contamination": contamination} if found_exams else {}
        finished |= {"select_on": select_on} if select_on is not None else {}
        finished |= {"group_by": fields} if fields else {}
        finished |= {"systems": {label: system.identity for label, system in systems.items()}} if systems else {}
        finished |= {"tasks": harness.asked} if harness is not None else {}
        finished |= {"curves": asked_curves.identity} if asked_curves is not None else {}
        ended = folder.finished() or {}
        if all(measured.values()) and all(ended.get(each) == finished.get(each) for each in _ENDED):
            found = read_metrics(folder.path / EVALUATION)
            say("\n".join([*results_table(without_tasks(found)), *curves_table(found), *tasks_table(found)]))
            if (sentence := selection_sentence(found)) is not None:
                say(sentence)
            say(f"{folder.path} is finished; nothing to do.")
            return

        # --- Measuring; the base first, for it writes the samples ---
        mesh = build_mesh(mesh)
        lock = folder.hold() if first else None  # until this process ends
        if first:
            folder.start(resolved_config(), sys.argv, describe_devices(mesh.devices.flat))

        def load(one: Compared) -> Model:
            return Model(one.opened.load_parameters(mesh), one.opened.config, numerics)

        asked = [
            one.label for one in compared if drawn and shares_tokens(one, reference, rows)
        ]  # about the base's texts
        missing = [one for one in compared if measured[one.label] is None]
        for label in [label for label in labels if measured[label] is not None]:
            say(f"{label}: measured before")
        with jax.set_mesh(mesh):
            origin = load(reference) if any(one.label in asked for one in missing) else None
            if (done := measured[reference.label]) is not None:
                written = done.samples or []
            elif drawn:
                written = base_samples(reference, origin, mesh, drawn, settings["SAMPLE_TOKENS"], seed, say, seen)
            else:
                written = []
            for one in sorted(missing, key=lambda one: one is not reference):
                say(f"{one.label}:")
                loaded = None  # before the next is there: beside the base one model is held at a time
                loaded = origin if one is reference and origin is not None else load(one)
                measured[one.label] = measure(
                    one,
                    loaded,
                    rows[one.tokenizer.fingerprint],
                    origin if one.label in asked else None,
                    written,
                    mesh,
                    say,
                    seen,
                    settings["STRIDE"],
                )
                answers = answer_exams(one, loaded, found_exams, exam_settings, mesh, say, seen)
                measured[one.label] = replace(measured[one.label], exams=answers)
                if first:
                    write_measurement(folder.path, measured[one.label], settings)

            origin = loaded = None  # tasks and systems load their own
            of_tasks = []
            if harness is not None:
                told = (folder.path, mesh, seed, first, say, seen)
                of_tasks = harness_results(harness, compared, reference, load, numerics.compute_dtype, *told)
            of_systems = []
            if systems:
                given = (
                    load,
                    rows[reference.tokenizer.fingerprint],
                    numerics,
                    mesh,
                    settings["STRIDE"],
                    seed,
                    say,
                    seen,
                )
                of_systems = system_rows(systems, compared, reference, *given)

        # --- What came out ---
        asked_about = {exam.name for exam in found_exams}
        leaks = Contamination(found_exams, exam_settings.set_aside, folder.path, say, seen) if contamination else None
        for one in compared:  # a measurement may hold more than is asked for now
            found = measured[one.label]
            answers = {name: each for name, each in found.exams.items() if name in asked_about}
            answers, unknown = (answers, []) if leaks is None else leaks.mark(one, answers, first)
            measured[one.label] = replace(found, exams=answers)
            for sentence in unknown:
                say(f"note: {sentence}")
                finished["contamination"] = "not known of all"  # so that the same command looks again
        reported, chosen = [measured[label] for label in labels], None
        if select_on is not None:
            exam = next((exam for exam in found_exams if exam.name == select_on), None)
            names = None if exam is None else names_of(scored_questions(exam, exam_settings.set_aside))
            alike = None
            if exam is None:
                cut = {one.tokenizer.fingerprint: one.tokenizer for one in compared}
                held = [(rows[each][select_on].validation, tokenizer) for each, tokenizer in cut.items()]
                alike = document_groups(held, near_duplicates)
            chosen = select(reported, measured[reference.label], select_on, names, alike)
            reported = chosen.reported
        among = (reported, reported[labels.index(reference.label)])
        sha256 = {exam.name: exam.sha256 for exam in found_exams}
        results = (
            result_rows(*among, seed, exams=sha256)
            + window_rows(*among, seed)
            + group_rows(*among, groups, fields, seed)
        )
        results += of_systems
        results += [] if chosen is None else chosen.rows
        of_curves, no_number = curve_rows(asked_curves, reported, seed)
        of_matched, not_matched = matched_rows(asked_curves, *among, seed)
        of_curves, no_number = of_curves + of_matched, no_number + not_matched
        if first:
            folder.write(EVALUATION, as_json_lines([*results, *of_curves, *of_tasks]))
            texts = [_text(reference.tokenizer, tokens) for tokens in written]
            folder.write(SAMPLES, _lines({"tokens": t, "text": text} for t, text in zip(written, texts, strict=True)))
            folder.finish(finished)
    if any(not found.same_tokens(measured[reference.label]) for found in measured.values()):
        say("tokenizers differ: between them only bits per byte are compared")
    say("\n" + "\n".join([*results_table(results), *curves_table(of_curves), *tasks_table(of_tasks)]))
    if (sentence := selection_sentence(results)) is not None:
        say(sentence)
    for sentence in [*no_number, *partly_compared(results, reference.label)]:
        say(f"note: {sentence}")
    for sentence in few_documents(results):
        say(f"note: {sentence}")
    for name, answers in among[1].exams.items():
        if answers.documents is not None and answers.documents.max() + 1 < FEW_DOCUMENTS:
            of = answers.documents.max() + 1
            say(f"note: the questions of {name} are of only {of} documents: its intervals say little (make_exam)")
    say(f"done: {folder.path / EVALUATION}")
    if lock is not None:
        lock.close()


def _described(one: Compared) -> str:
    """A checkpoint in a few words."""
    step = "" if one.opened.step is None else f", step {one.opened.step:,}"
    tokens = "" if one.tokens is None else f", {count(one.tokens)} tokens since its base"
    return f"{one.opened.path}{step}, {count(parameter_counts(one.opened.config).total)} parameters{tokens}"


def _refuse_another_job(folder: RunFolder) -> None:
    """The folder's config.gin says which job it is of; another's would be written over."""
    path = folder.path / CONFIG
    found = (
        re.search(r"^JOB = ['\"](\w+)['\"]", path.read_text(encoding="utf-8"), re.MULTILINE) if path.exists() else None
    )
    if found and found[1] != "evaluate":
        raise ConfigurationError(
            f"OUTPUT_DIR = '{folder.path}' is the folder of another job, {found[1]}.\n  Name a folder for the evaluation."
        )


def _text(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """What the tokens say; an embedding may have rows that no piece of the tokenizer belongs to."""
    return tokenizer.decode([token for token in tokens if token < tokenizer.size])


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
