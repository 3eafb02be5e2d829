"""A corpus cut into domains: k-means over the embeddings of its documents, a source for each cluster."""

import functools
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Int

from cptjax.configuration import resolved_config
from cptjax.configuration.values import whole_number
from cptjax.counts import count
from cptjax.data.records import as_written
from cptjax.data.sources import Where, content_identity, find_source
from cptjax.data.tokenizer import open_tokenizer
from cptjax.data.units import DOCUMENTS, Units, make_units
from cptjax.errors import ConfigurationError
from cptjax.files import write_file
from cptjax.reporting.folder import RunFolder
from cptjax.reporting.watch import watch
from cptjax.selection.agreement import adjusted_rand, contingency, purity
from cptjax.selection.blocks import Blocks
from cptjax.selection.corpus import Corpus
from cptjax.selection.embedders import Embedder
from cptjax.selection.kmeans import best_kmeans
from cptjax.selection.output import write_selected
from cptjax.selection.stages import Stages
from cptjax.sharding.mesh import build_mesh
from cptjax.training.signals import stop_at_once

STAGES, RECORD = "stages", "clusters.json"
_ROWS = 8192  # of vectors that a device holds of a block


def cluster_data(
    input: Where,
    output_dir: str,
    embedder: Embedder,
    clusters: float,
    label: str | None = None,
    tokenizer: str | None = None,
    start: str = "k-means++",
    iterations: float = 100,
    tries: float = 10,
    seed: float = 0,
    mesh: Mapping[str, int] | None = None,
    dry_run: bool = False,
) -> None:
    """Writes `cluster_0.jsonl.gz`, ... in `output_dir`, the largest first, and clusters.json; embeddings are kept in `stages`.

    Documents are whole; clusters are of their embeddings' directions (spherical). Every document is in one cluster.

    Args:
        input: the corpus, written as any source is (data/sources.py).
        clusters: how many; each a domain to specialise to.
        label: a field of the records that is known to say the domain: the clusters are held against it. None: nothing is known.
        tokenizer: what counts tokens; None: the embedder's, where it has one; without any, sizes are in bytes.
        start, iterations, tries, seed: of k-means (selection/kmeans.py), which is tried so often; the best clusters are kept.

    Raises:
        ConfigurationError: the corpus cannot be read, has fewer documents than clusters, or none with the label; the folder holds
            another clustering.
        CptjaxError: a damaged file.
    """
    wanted, seed = whole_number(clusters, "CLUSTERS", minimum=2), whole_number(seed, "SEED")
    iterations, tries = whole_number(iterations, "ITERATIONS", minimum=1), whole_number(tries, "TRIES", minimum=1)
    source, folder = find_source("INPUT", input), RunFolder(output_dir)
    if source.megatron:
        raise ConfigurationError(f"INPUT = {input!r} is a token cache; clustering needs text.")
    opened = open_tokenizer(tokenizer) if tokenizer else embedder.tokenizer
    files, fingerprint = content_identity(source), opened.fingerprint if opened else None
    identity = {
        "files": files,
        "records": as_written(source.settings),
        "cut": {"unit": DOCUMENTS, "tokenizer": fingerprint},
    }
    how = {"clusters": wanted, "start": start, "iterations": iterations, "tries": tries, "seed": seed}
    made_of = {**identity, **how, "label": label, "embedder": embedder.made_of()}
    print(f"INPUT: {source.where}; {wanted} clusters by {embedder.of}", flush=True)
    if folder.holds(RECORD, made_of):
        print(f"{folder.path} holds this clustering already.")
        return
    if dry_run:
        return
    lock = folder.hold()
    folder.start(resolved_config(), sys.argv, {})
    with stop_at_once("while a corpus was clustered; the embeddings that are made are kept."):
        stages = Stages(folder.path / STAGES, lambda line: print(line, flush=True))
        units = make_units(source, opened, DOCUMENTS, 1, stages.folder / "units", files)
        known = _labels(units, label)
        if len(units) < wanted:
            raise ConfigurationError(f"CLUSTERS = {wanted}, and INPUT has {len(units):,} documents.")
        devices = functools.cache(lambda: build_mesh(mesh))
        corpus = Corpus(units, np.arange(len(units)), identity, fingerprint, stages, devices, watch)
        blocks = Blocks(corpus.vectors(embedder), _ROWS * devices().size)
        found = best_kmeans(blocks, wanted, start, iterations, seed=seed, mesh=devices(), tries=tries)
        if empty := int((found.sizes == 0).sum()):
            raise ConfigurationError(
                f"CLUSTERS = {wanted}, and {empty} of them hold no document: there are fewer kinds than that. Lower CLUSTERS."
            )
        number = np.argsort(np.argsort(-found.sizes, kind="stable"))[found.labels]
        for stale in folder.path.glob("cluster_*.jsonl.gz"):  # of another clustering, whose record is gone
            stale.unlink()
        record = {"settings": made_of, "objective": list(found.objective)}
        _write(folder.path, units, number, record, "tokens" if opened else "bytes", known)
    folder.finish({"job": "cluster_data", "clusters": wanted})
    print(f"wrote {folder.path / RECORD}")
    if lock is not None:
        lock.close()


def _write(
    folder: epath.Path,
    units: Units,
    number: Int[np.ndarray, " units"],
    record: dict[str, Any],
    what: str,
    known: Sequence[str] | None,
) -> None:
    """A file for each cluster, and the record that all are there; says of each what is in it. `what` sizes are in."""
    wanted = int(number.max()) + 1
    sizes = [int(units.sizes[number == k].sum()) for k in range(wanted)]
    record |= {"documents": np.bincount(number).tolist(), what: sizes}
    names, table = (None, None) if known is None else contingency(number, known)
    for k in range(wanted):
        path = folder / f"cluster_{k}.jsonl.gz"
        write_selected(path, units, number == k)
        of = (
            ""
            if table is None
            else "; " + ", ".join(f"{name} {n:,}" for name, n in zip(names, table[k], strict=True) if n)
        )
        print(f"  {path.name}: {record['documents'][k]:,} documents, {count(sizes[k])} {what}{of}")
    if table is not None:
        record |= {"labels": names, "table": table.tolist()}
        record |= {"purity": purity(table), "adjusted_rand": adjusted_rand(table)}
        print(f"against the label: purity {record['purity']:.3f}, adjusted Rand index {record['adjusted_rand']:.3f}")
    write_file(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _labels(units: Units, label: str | None) -> list[str] | None:
    """What the field `label` of each document's record says."""
    if label is None:
        return None
    found = []
    for document, _ in units.with_documents():
        if document.metadata.get(label) is None:
            raise ConfigurationError(
                f"LABEL = {label!r}: document {document.name!r} has no such field; it has {', '.join(document.metadata) or 'none'}."
            )
        found.append(str(document.metadata[label]))
    return found
