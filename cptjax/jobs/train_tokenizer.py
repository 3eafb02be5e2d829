"""A vocabulary of one's own: a SentencePiece tokenizer trained on named sources, in a folder that checkpoints carry."""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping, Sequence

from etils import epath

from cptjax.configuration import resolved_config
from cptjax.configuration.values import whole_number
from cptjax.data.local import publish, staging_folder
from cptjax.data.sources import content_identity, find_source
from cptjax.data.tokenizer import open_tokenizer
from cptjax.data.tokenizer_training import CONFIG, TokenizerSettings, sampled, train_vocabulary
from cptjax.errors import ConfigurationError
from cptjax.files import read_json

RECORD = "training.json"  # in the folder: what it was trained on; written last
_MEASURED_DOCUMENTS = 200  # of each source: what its bytes per token are measured on


def train_tokenizer(
    sources: Mapping[str, str | Sequence[str]],
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
    asked = {"settings": dataclasses.asdict(settings), "text": text}
    folder = epath.Path(output_dir).expanduser()
    if folder.exists() and any(folder.iterdir()):
        _refuse_another(folder, asked)
        print(f"{folder} holds this tokenizer already; nothing to do.")
        return
    print(f"training {settings.vocabulary:,} pieces ({settings.kind}) on {', '.join(text)}", flush=True)
    if dry_run:
        return

    model, counted = train_vocabulary(found, settings, report=lambda line: print(line, flush=True))
    if folder.exists():
        folder.rmdir()
    aside = staging_folder(str(folder))
    try:
        (aside / "tokenizer.model").write_bytes(model)
        _write(aside / "tokenizer_config.json", CONFIG)
        (aside / "config.gin").write_text(resolved_config(), encoding="utf-8")
        tokenizer = open_tokenizer(str(aside))
        for source in found:
            texts = [
                document.text for document, _ in zip(sampled(source, 1, 0), range(_MEASURED_DOCUMENTS), strict=False)
            ]
            read, tokens = sum(len(text.encode()) for text in texts), sum(map(len, tokenizer.encode_batch(texts)))
            counted[source.name]["bytes_per_token"] = round(read / tokens, 4)
            print(f"  {source.name}: {read / tokens:.2f} bytes per token")
        _write(aside / RECORD, {**asked, "sources": counted})
        publish(aside, str(folder), last=[RECORD])
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if settings.kind == "unigram":
        print(
            "note: `transformers` reads a SentencePiece unigram model as BPE, with other ids; cptjax reads it as it is."
        )
    print(f"wrote {folder}")


def _refuse_another(folder: epath.Path, asked: Mapping) -> None:
    """Refuses to write over a folder that is not just the tokenizer asked for."""
    if not (folder / RECORD).exists():
        names = ", ".join(sorted(os.path.basename(path) for path in folder.iterdir())[:5])
        raise ConfigurationError(f"OUTPUT_DIR = '{folder}' holds something else ({names}).\n  Name a new folder.")
    held = read_json(folder / RECORD)
    different = [name for name in ("settings", "text") if held.get(name) != json.loads(json.dumps(asked[name]))]
    if different:
        raise ConfigurationError(
            f"OUTPUT_DIR = '{folder}' holds a tokenizer trained with other {' and '.join(different)}.\n"
            f"  {held.get(different[0])} there, {asked[different[0]]} now.\n  Name a new folder."
        )


def _write(path: epath.Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
