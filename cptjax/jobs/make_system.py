"""A split system made of runs: a centroid for each expert, where the prefixes of its own training text are."""

import io
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from cptjax.checkpoints.source import OpenedCheckpoint, open_checkpoint
from cptjax.configuration import resolved_config
from cptjax.configuration.values import whole_number
from cptjax.data.prepare import PreparedSource, ensure_rows
from cptjax.data.rows import RowReader
from cptjax.data.sources import Where, content_identity, find_source
from cptjax.data.splits import SplitSettings
from cptjax.errors import ConfigurationError
from cptjax.evaluation.routing import centroid_of, embed_prefixes, nearest_expert
from cptjax.evaluation.strided import whole_documents
from cptjax.evaluation.systems import DISTANCES, SYSTEM, PrefixReader, system_tokenizer
from cptjax.files import is_local, write_file
from cptjax.models.layer_states import POOLINGS
from cptjax.models.numerics import Numerics
from cptjax.reporting.folder import RunFolder
from cptjax.sharding.mesh import build_mesh, describe_devices
from cptjax.training.signals import stop_at_once

CENTROIDS, RECORD = "centroids.npy", "routing.json"


def make_system(
    experts: Mapping[str, str],
    sources: Mapping[str, Where],
    embedder: str,
    sequence_length: float,
    output_dir: str,
    prefix_tokens: float = 32,
    distance: str = "cosine",
    pooling: str = "mean",
    documents: float = 1000,
    rows_dir: str | None = None,
    validation_fraction: float = SplitSettings.fraction,
    validation_tokens: float = SplitSettings.tokens,
    near_duplicates: float | None = SplitSettings.near_duplicates,
    decontaminate: Sequence[str] = (),
    numerics: Numerics = Numerics(),
    mesh: Mapping[str, int] | None = None,
    dry_run: bool = False,
) -> None:
    """Writes `output_dir`/system.json and centroids.npy, which `evaluate` and `score` take for a checkpoint.

    Args:
        experts: by the name of the source that each was specialised to, a checkpoint.
        sources: of those names, as the runs had them; only what they trained on is read, by the settings that follow.
        embedder: the checkpoint whose last layer the router looks at (the trunk that all of them share).
        prefix_tokens, distance, pooling: of the router (evaluation/systems.py).
        documents: of each source, at most, the first of its training rows.
        sequence_length, rows_dir, validation_*, near_duplicates, decontaminate: as the runs had them: then rows are shared, and
            nothing that an evaluation holds out has a say in where an expert is.

    Raises:
        ConfigurationError: experts and sources of other names, a setting or a checkpoint that cannot be used, tokenizers that
            differ; the folder holds another system.
    """
    prefix, most = whole_number(prefix_tokens, "PREFIX_TOKENS", 1), whole_number(documents, "DOCUMENTS", 1)
    length = whole_number(sequence_length, "SEQUENCE_LENGTH", minimum=1)
    reader = _checked(experts, sources, embedder, distance, pooling, prefix)
    split = {"validation_fraction": validation_fraction, "near_duplicates": near_duplicates}
    split["validation_tokens"] = whole_number(validation_tokens, "VALIDATION_TOKENS", minimum=1)
    described = {
        "router": {"prefix_tokens": prefix, "distance": distance},
        "embedder": {"checkpoint": _absolute(embedder), "pooling": pooling},
        "centroids": CENTROIDS,
        "experts": [_absolute(path) for path in experts.values()],
    }
    files = {name: content_identity(find_source(name, where)) for name, where in sources.items()}
    settings = described | split | {"sources": files, "sequence_length": length, "documents": most}
    folder = RunFolder(output_dir)
    print(f"a system of {len(experts)} experts ({', '.join(experts)}), routed on {prefix} tokens by {reader.path}")
    if folder.holds(RECORD, settings):
        print(f"{folder.path} holds this system already.")
        return
    if dry_run:
        return
    lock = folder.hold()
    with stop_at_once("while a system was made; run the same command again."):
        root = str(epath.Path(rows_dir or folder.path / "rows").expanduser())
        rows = ensure_rows(sources, str(reader.model_folder), length, root, exams=decontaminate, **split)
        mesh = build_mesh(mesh)
        folder.start(resolved_config(), sys.argv, describe_devices(mesh.devices.flat))
        seen, params = PrefixReader(reader.config, prefix, pooling), reader.load_parameters(mesh)
        texts = {name: _prefixes(rows[name], prefix, most) for name in experts}
        vectors = {name: embed_prefixes(seen, params, numerics, mesh, texts[name]) for name in experts}
    _write(folder.path, described, {"settings": settings}, vectors, distance)
    folder.finish({"job": "make_system", "experts": list(experts)})
    if lock is not None:
        lock.close()


def _checked(
    experts: Mapping[str, str], sources: Mapping[str, Where], embedder: str, distance: str, pooling: str, prefix: int
) -> OpenedCheckpoint:
    """The embedder, opened, after everything that was named has been looked at."""
    if not experts or set(experts) != set(sources):
        raise ConfigurationError(
            f"EXPERTS are of {', '.join(experts) or 'nothing'}, SOURCES of {', '.join(sources) or 'nothing'}: each expert "
            "is named by the source whose text it is for."
        )
    for name, value, known in (("DISTANCE", distance, DISTANCES), ("POOLING", pooling, POOLINGS)):
        if value not in known:
            raise ConfigurationError(f"{name} = {value!r}; it is {' or '.join(map(repr, known))}.")
    reader = open_checkpoint(embedder)
    opened = {f"expert {name!r}": open_checkpoint(path) for name, path in experts.items()}
    system_tokenizer("EXPERTS", opened, reader, prefix)
    return reader


def _prefixes(source: PreparedSource, prefix: int, most: int) -> list[list[int]]:
    """The first tokens of the first documents of a source's training rows, each with what begins a document."""
    found = itertools.islice(whole_documents(RowReader(source.train)), most)
    return [tokens[:prefix].tolist() for _, tokens, _ in found]


def _write(
    folder: epath.Path,
    described: Mapping[str, Any],
    record: Mapping[str, Any],
    vectors: Mapping[str, Float[np.ndarray, "texts width"]],
    distance: str,
) -> None:
    """Centroids, then the system that has them, then the record that both are there; and says how the training text is routed."""
    centroids = np.stack([centroid_of(each, distance) for each in vectors.values()])
    stored = io.BytesIO()
    np.save(stored, centroids.astype(np.float32))
    write_file(folder / CENTROIDS, stored.getvalue())
    write_file(folder / SYSTEM, json.dumps(described, indent=1, ensure_ascii=False) + "\n")
    facts = {}
    for number, (name, each) in enumerate(vectors.items()):
        share = float(np.mean(nearest_expert(each, centroids, distance) == number))
        facts[name] = {"documents": len(each), "routed_to_its_expert": share}
        print(f"  {name}: {len(each):,} training documents, {share:.1%} of them nearest to their own expert")
    write_file(folder / RECORD, json.dumps({**record, "routed": facts}, indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {folder / SYSTEM}")


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path)) if is_local(path) else path
