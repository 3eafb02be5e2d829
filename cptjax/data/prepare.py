"""Text becomes packed rows, once: `ensure_rows` finds them, or has a child process make them.

The child (`python -m cptjax.data.prepare SPEC.json`) is the only process that may import TensorFlow (for TFDS). Rows live in
`root/<source>-<key>/{train,validation}/`; the key covers the files' contents, the tokenizer and the settings, so
rows made for one run serve every other that wants the same. The folder appears whole, by a rename: half-made rows are
never read.
"""

import dataclasses
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from etils import epath

from cptjax.configuration.values import flat
from cptjax.data.packing import CONCATENATE, PACKINGS
from cptjax.data.plan import SourceInfo, source_info
from cptjax.data.records import as_written
from cptjax.data.rows import FORMAT, MANIFEST, Manifest, read_manifest
from cptjax.data.sources import Where, content_identity, find_source
from cptjax.data.splits import SplitSettings
from cptjax.data.text_to_rows import Tokenize, make_rows, tokenize_here
from cptjax.data.tokenizer import Tokenizer, open_tokenizer
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.processes import child_environment, end_with_parent


@dataclasses.dataclass(frozen=True)
class PreparedSource:
    """A source's rows: folders for `RowReader`, and their manifests; None where nothing was held out.

    files: the path (or the name) and the sha256 of everything that the text was read from.
    """

    name: str
    files: tuple[Mapping[str, str], ...] = dataclasses.field(compare=False)  # the same rows wherever the text lies
    train: str
    train_manifest: Manifest
    validation: str | None
    validation_manifest: Manifest | None

    @property
    def info(self) -> SourceInfo:
        """What `plan_data` wants to know of the training rows."""
        return source_info(self.train_manifest)


def ensure_rows(
    sources: Mapping[str, Where],
    tokenizer: str,
    sequence_length: int,
    root: str,
    *,
    validation_fraction: float = SplitSettings.fraction,
    validation_tokens: int = SplitSettings.tokens,
    near_duplicates: float | None = SplitSettings.near_duplicates,
    packing: str = CONCATENATE,
    exams: Sequence[str] = (),
    how: Mapping[str, object] | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, PreparedSource]:
    """The packed rows of each source, made now where they are missing.

    Args:
        sources: name to path, glob, folder, list of these, or `tfds:name/config:version`.
        tokenizer: a checkpoint's folder or a tokenizer file.
        sequence_length: positions in a row.
        root: the folder that all prepared rows live in; may be shared by runs and machines.
        validation_fraction, validation_tokens, near_duplicates: what to hold out (`splits.SplitSettings`).
        packing: how documents become rows, one of `packing.PACKINGS`.
        exams: files of questions (paths or globs): documents that hold one of them are left out (contamination.py).
        how: what tokenizes (`_tokenize`): `processes`, or `runner`, `options` and `scratch` of Apache Beam.
        report: where progress lines go.

    Raises:
        ConfigurationError: a source, tokenizer or setting that cannot be used (also when the child found it).
        CptjaxError: the rows could not be made, or those found are damaged.
    """
    split = SplitSettings(validation_fraction, validation_tokens, near_duplicates)
    opened = open_for_rows(sources, tokenizer, sequence_length, packing)
    decided = _exam_files(exams)
    wanted = {}
    for name, where in sources.items():
        source = find_source(name, where)
        files = content_identity(source)
        settings = {"sequence_length": sequence_length, "split": dataclasses.asdict(split), "packing": packing}
        decisive = [files, opened.fingerprint, settings, as_written(source.settings), FORMAT]
        own = {each["sha256"] for each in files} if source.settings.keep_own_items else set()
        others = [each for each in decided if each["sha256"] not in own]
        decisive += [[each["sha256"] for each in others]] if others else []
        key = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]
        wanted[name] = {
            "source": dataclasses.asdict(source),
            "files": files,
            "tokenizer": tokenizer,
            "exams": others,
            **settings,
            "folder": str(epath.Path(root) / f"{name}-{key}"),
        }
    missing = [job for job in wanted.values() if not _is_finished(job["folder"])]
    if missing:
        names = ", ".join(job["source"]["name"] for job in missing)
        report(f"preparing rows of {sequence_length} tokens: {names} (kept in {root})")
        if opened.loses:
            report(f"  the tokenizer {tokenizer} loses of the text: {opened.loses}")
        _run_child(missing, how or {}, report)
    return {name: _open_prepared(name, job, opened) for name, job in wanted.items()}


def open_for_rows(sources: Mapping[str, Where], tokenizer: str, sequence_length: int, packing: str) -> Tokenizer:
    """The tokenizer, where rows can be made with it of what is asked for.

    Raises:
        ConfigurationError: no source, a row without a position, an unknown packing, a tokenizer that ends no document.
    """
    if sequence_length < 1:
        raise ConfigurationError(f"SEQUENCE_LENGTH is {sequence_length}; a row needs at least one position.")
    if not sources:
        raise ConfigurationError("no sources were given: there is no text to prepare.")
    if packing not in PACKINGS:
        raise ConfigurationError(f"PACKING is {packing!r}; it is {' or '.join(map(repr, PACKINGS))}.")
    opened = open_tokenizer(tokenizer)
    if opened.eos is None:
        raise ConfigurationError(
            f"the tokenizer {tokenizer} has no EOS token, so the end of a document could not be learned.\n"
            "  Name one as eos_token in its tokenizer_config.json, or as eos_token_id in config.json."
        )
    return opened


def _exam_files(exams: Sequence[str]) -> list[dict[str, str]]:
    """Path and sha256 of each exam file; `exams` may hold lists of them."""
    files = list(flat(exams))
    if not files:
        return []
    source = find_source("exams", files)
    return [
        {"path": path, "sha256": f["sha256"]} for path, f in zip(source.files, content_identity(source), strict=True)
    ]


def _is_finished(folder: str) -> bool:
    return all((epath.Path(folder) / split / MANIFEST).exists() for split in ("train", "validation"))


def _open_prepared(name: str, job: Mapping, tokenizer: Tokenizer) -> PreparedSource:
    folder = job["folder"]
    train, validation = f"{folder}/train", f"{folder}/validation"
    train_manifest, validation_manifest = read_manifest(train), read_manifest(validation)
    if train_manifest.tokenizer["fingerprint"] != tokenizer.fingerprint:
        raise CptjaxError(
            f"{train} was made with another tokenizer ({train_manifest.tokenizer['name']}).\n  Delete {folder}."
        )
    paths = job["source"]["files"] or [found["name"] for found in job["files"]]
    files = tuple({"path": path, "sha256": found["sha256"]} for path, found in zip(paths, job["files"], strict=True))
    if not validation_manifest.rows:
        return PreparedSource(name, files, train, train_manifest, None, None)
    return PreparedSource(name, files, train, train_manifest, validation, validation_manifest)


def _run_child(jobs: Sequence[Mapping], how: Mapping[str, object], report: Callable[[str], None]) -> None:
    """Runs this module on `jobs` in a child process; its refusals are raised here as they were raised there."""
    with tempfile.TemporaryDirectory(prefix="cptjax-prepare-") as folder:
        spec, failure, log = (Path(folder) / name for name in ("spec.json", "failure.json", "log"))
        spec.write_text(
            json.dumps({"jobs": list(jobs), "how": how, "failure": str(failure)}, ensure_ascii=False), encoding="utf-8"
        )
        settings = {
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
        }  # the accelerator is the training process's
        command = [sys.executable, "-m", "cptjax.data.prepare", str(spec)]
        with log.open("wb") as errors:
            child = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                env=child_environment(settings),
            )
            try:
                with child.stdout:
                    for line in child.stdout:
                        report(line.rstrip("\n"))
                status = child.wait()
            except BaseException:  # interrupted: the child must not outlive us
                child.terminate()
                child.wait()
                raise
        if not status:
            return
        if failure.exists():
            found = json.loads(failure.read_text(encoding="utf-8"))
            raise (ConfigurationError if found["kind"] == "ConfigurationError" else CptjaxError)(found["message"])
        tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-12:]
        raise CptjaxError("\n  ".join([f"the process that prepares rows ended with status {status}:", *tail]))


def _tokenize(
    processes: int | None = None, runner: str | None = None, options: Sequence[str] = (), scratch: str | None = None
) -> Tokenize:
    """What makes token files: this machine's cores, or a Beam runner."""
    if runner is None:
        return tokenize_here(processes)
    try:
        from cptjax.data.beam_tokenizing import tokenize_on_beam
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"RUNNER = {runner!r} needs the package {error.name!r}, which is not installed.\n"
            "  Install cptjax with its extra `text` (pip install 'cptjax[text]'), or leave RUNNER out."
        ) from error
    return tokenize_on_beam(runner, options, scratch)


def main(spec_file: str) -> int:
    """The child: makes the rows of each job in the spec; a refusal goes to the spec's failure file."""
    end_with_parent()
    spec = json.loads(Path(spec_file).read_text(encoding="utf-8"))
    try:
        for job in spec["jobs"]:
            make_rows(job, _tokenize(**spec["how"]), print)
    except CptjaxError as error:
        kind = "ConfigurationError" if isinstance(error, ConfigurationError) else "CptjaxError"
        Path(spec["failure"]).write_text(json.dumps({"kind": kind, "message": str(error)}), encoding="utf-8")
        return error.exit_code
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m cptjax.data.prepare SPEC.json   (cptjax writes the spec and runs this itself)")
    sys.exit(main(sys.argv[1]))
