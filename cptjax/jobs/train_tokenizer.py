"""A vocabulary of one's own: a SentencePiece tokenizer trained on named sources, in a folder that checkpoints carry."""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping

from etils import epath

from cptjax.configuration import resolved_config
from cptjax.configuration.values import whole_number
from cptjax.data.local import publish, staging_folder
from cptjax.data.records import as_written
from cptjax.data.sources import Where, content_identity, find_source
from cptjax.data.tokenizer import open_tokenizer
from cptjax.data.tokenizer_folder import tokenizer_files
from cptjax.data.tokenizer_sample import survey
from cptjax.data.tokenizer_training import TokenizerSettings, train_vocabulary
from cptjax.errors import ConfigurationError
from cptjax.files import read_json
from cptjax.reporting.watch import watch

RECORD = "training.json"  # in the folder: what it was trained on; written last


def train_tokenizer(
    sources: Mapping[str, Where],
    vocabulary: float,
    output_dir: str,
    kind: str = "bpe",
    temperature: float = 1.0,
    sample_bytes: float | None = 20e6,
    seed: float = 0,
    coverage: float = 0.9995,
    dry_run: bool = False,
) -> None:
    """Trains a vocabulary of `vocabulary` pieces with byte fallback on `sources` and writes the tokenizer's folder.

    The same text and settings give the same file, byte for byte. Args: `data.tokenizer_training.TokenizerSettings`.

    Raises:
        ConfigurationError: settings or sources that cannot be; a folder that holds something else.
    """
    settings = TokenizerSettings(
        whole_number(vocabulary, "VOCABULARY"),
        kind,
        temperature,
        None if sample_bytes is None else whole_number(sample_bytes, "SAMPLE_BYTES", minimum=1),
        whole_number(seed, "SEED"),
        coverage,
    )
    if not sources:
        raise ConfigurationError("SOURCES is empty: there is no text to train a vocabulary on.")
    found = [find_source(name, where) for name, where in sources.items()]
    text = {source.name: [file["sha256"] for file in content_identity(source)] for source in found}
    records = {source.name: as_written(source.settings) for source in found}
    asked = {"settings": dataclasses.asdict(settings), "text": text, "records": records}
    folder = epath.Path(output_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"OUTPUT_DIR = '{folder}' is a file.\n  Name a new folder.")
    if folder.exists() and any(folder.iterdir()):
        _refuse_another(folder, asked)
        print(f"{folder} holds this tokenizer already; nothing to do.")
        return
    print(f"training {settings.vocabulary:,} pieces ({settings.kind}) on {', '.join(text)}", flush=True)
    if dry_run:
        return

    surveys = []
    for read in survey(found, watch):
        print(f"  {read.source.name}: {read.documents:,} documents, {read.bytes / 1e6:,.1f} MB", flush=True)
        surveys.append(read)
    print("  SentencePiece is at work; it tells nothing until it is done", flush=True)
    model, counted = train_vocabulary(surveys, settings)
    if folder.exists():
        folder.rmdir()
    aside = staging_folder(str(folder))
    try:
        for name, content in tokenizer_files(model, settings.kind).items():
            (aside / name).write_bytes(content)
        (aside / "config.gin").write_text(resolved_config(), encoding="utf-8")
        tokenizer = open_tokenizer(str(aside))
        for read in surveys:
            tokens = sum(map(len, tokenizer.encode_batch([document.text for document in read.examples])))
            measured = sum(document.size for document in read.examples) / tokens
            counted[read.source.name]["bytes_per_token"] = round(measured, 4)
            print(f"  {read.source.name}: {measured:.2f} bytes per token")
        record = {**asked, "sources": counted}
        (aside / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        publish(aside, str(folder), last=[RECORD])
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    print(f"wrote {folder}")


def _refuse_another(folder: epath.Path, asked: Mapping) -> None:
    """Refuses to write over a folder that is not just the tokenizer asked for."""
    if not (folder / RECORD).exists():
        names = ", ".join(sorted(os.path.basename(path) for path in folder.iterdir())[:5])
        raise ConfigurationError(f"OUTPUT_DIR = '{folder}' holds something else ({names}).\n  Name a new folder.")
    held = read_json(folder / RECORD)
    different = [name for name in asked if held.get(name) != json.loads(json.dumps(asked[name]))]
    if different:
        raise ConfigurationError(
            f"OUTPUT_DIR = '{folder}' holds a tokenizer trained with other {' and '.join(different)}.\n"
            f"  {held.get(different[0])} there, {asked[different[0]]} now.\n  Name a new folder."
        )
