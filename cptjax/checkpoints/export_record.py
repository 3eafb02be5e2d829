"""What a folder that we exported was made of, kept in it: so that it is known again, and never taken for another."""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from cptjax.checkpoints.digests import digest_file
from cptjax.checkpoints.hugging_face import tokenizer_files
from cptjax.checkpoints.source import OpenedCheckpoint, open_checkpoint
from cptjax.errors import ConfigurationError, CptjaxError
from cptjax.files import read_json

RECORD = "cptjax_export.json"  # in the exported folder: what it was made of, and how


def made_of(source: OpenedCheckpoint) -> dict[str, Any]:
    """Digests of all that an export is made of, wherever it is: the weights and the tokenizer's files."""
    tokenizer = {f.name: digest_file(f).sha256 for f in tokenizer_files(source.model_folder)}
    return {"weights": source.identity, "tokenizer": tokenizer}


def write_record(folder: epath.Path, record: Mapping[str, Any]) -> None:
    """Writes the record of an export: its `source` for people to read, and what `refuse_another` compares."""
    (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def refuse_another(destination: epath.Path, wanted: Mapping[str, Any]) -> None:
    """Refuses a destination that is anything else than a whole export whose record says all that `wanted` does.

    Raises:
        ConfigurationError: saying what it holds.
    """
    holds = "something that no export of ours finished"
    if (destination / RECORD).exists():
        held = dict(read_json(destination / RECORD))
        if held == {**held, **wanted}:
            try:
                open_checkpoint(destination)  # every tensor is there still
                return
            except CptjaxError as error:
                holds = f"this export, but no longer whole: {str(error).splitlines()[0]}"
        else:
            step = "" if held.get("step") is None else f", step {held['step']}"
            holds = f"another export, of {held.get('source')}{step} ({held.get('dtype')}), or of what that was before"
    raise ConfigurationError(
        f"OUTPUT_DIR = '{destination}' exists already; an export never overwrites. Name a new folder.\n  It holds {holds}."
    )
