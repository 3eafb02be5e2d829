"""A corpus becomes a smaller one: what is kept, and of everything else why it went."""

import dataclasses
import gzip
import json
from collections.abc import Iterable
from typing import IO

from etils import epath

from cptjax.counts import count
from cptjax.data.document import Document
from cptjax.data.sources import Where, as_plain, content_identity, documents, find_source
from cptjax.errors import ConfigurationError
from cptjax.files import read_json, whole_file, write_file
from cptjax.selection.deduplication import Fate, NearDuplicates
from cptjax.training.signals import stop_at_once

MANIFEST, CORPUS, RECORD = "manifest.jsonl", "selected.jsonl.gz", "selection.json"


def select_data(input: Where, output_dir: str, policy: NearDuplicates, dry_run: bool = False) -> None:
    """Writes `manifest.jsonl`, a line for each document of the corpus, and the kept documents as `selected.jsonl.gz`.

    `selection.json` says of what and how; it is written last. Where it is, the same selection is done already.

    Args:
        input: the corpus, written as any source is (data/sources.py).
        policy: what chooses (`select` of its texts).

    Raises:
        ConfigurationError: the corpus cannot be read or has no document, or the folder holds another selection.
        CptjaxError: a damaged file.
    """
    source = find_source("INPUT", input)
    if source.megatron:
        raise ConfigurationError(f"INPUT = {input!r} is a token cache; a selection needs text.")
    folder = epath.Path(output_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"OUTPUT_DIR = '{folder}' is a file; name a folder.")
    made_of = {
        "input": as_plain(input),
        "files": content_identity(source),
        "records": dataclasses.asdict(source.settings),
        "policy": {type(policy).__name__: dataclasses.asdict(policy)},
    }
    print(f"INPUT: {source.where}; {policy}")
    if (folder / RECORD).exists():
        _refuse_another(read_json(folder / RECORD), made_of, folder)
        print(f"{folder} holds this selection already.")
        return
    if dry_run:
        print(f"would write into {folder}: {MANIFEST}, {CORPUS}, {RECORD}")
        return

    with stop_at_once("while a corpus was selected; nothing of it is kept."):
        # --- What is kept ---
        names, sizes = [], []

        def texts():
            for document in documents(source):
                names.append(document.name)
                sizes.append(document.size)
                yield document.text

        fates, found = policy.select(texts())
        if not fates:
            raise ConfigurationError(f"INPUT is empty: there is no document with text in {source.where}.")
        print(found)

        # --- The manifest, the corpus, and then the record that they are whole ---
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(_line(names, i, fate), ensure_ascii=False) for i, fate in enumerate(fates)]
        write_file(folder / MANIFEST, "\n".join(lines) + "\n")
        with whole_file(folder / CORPUS) as stream:
            _write_kept(stream, documents(source), fates)
        kept = [size for size, fate in zip(sizes, fates, strict=True) if fate.kept]
        totals = {"documents": len(sizes), "bytes": sum(sizes), "kept_documents": len(kept), "kept_bytes": sum(kept)}
        write_file(folder / RECORD, json.dumps({**made_of, **totals, "found": found}, indent=2) + "\n")
    print(
        f"kept {len(kept):,} of {len(sizes):,} documents, {count(sum(kept))} of {count(sum(sizes))} bytes\n"
        f"wrote {folder / MANIFEST}, {folder / CORPUS}"
    )


def _line(names: list[str], unit: int, fate: Fate) -> dict[str, object]:
    reason = None if fate.instead is None else f"nearly the same as {names[fate.instead]!r}, or connected with it"
    return {
        "id": names[unit],
        "kept": fate.kept,
        "stage": fate.stage,
        "reason": reason,
        "cluster": fate.cluster,
        "score": fate.score,
    }


def _write_kept(stream: IO[bytes], every: Iterable[Document], fates: list[Fate]) -> None:
    """The kept documents as gzipped lines, the same bytes whenever they are written."""
    with gzip.GzipFile(fileobj=stream, mode="wb", mtime=0) as packed:
        for document, fate in zip(every, fates, strict=True):
            if fate.kept:
                record = {"id": document.name, **document.metadata, "text": document.text}
                packed.write((json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8"))


def _refuse_another(before: dict, now: dict, folder: epath.Path) -> None:
    written = json.loads(json.dumps(now))
    different = [name for name in ("files", "records", "policy") if before.get(name) != written[name]]
    if different:
        raise ConfigurationError(
            f"{folder} holds another selection: of other {' and other '.join(different)}, as selection.json there says.\n"
            "  Name another OUTPUT_DIR, or remove that folder."
        )
