"""Systems beside single models: each text is routed on its first tokens and scored on all that follow, by everyone."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from cptjax.data.rows import RowReader
from cptjax.data.tokenizer import Tokenizer
from cptjax.errors import ConfigurationError
from cptjax.evaluation.bootstrap import paired_interval, ratio_interval
from cptjax.evaluation.compared import Compared, labelled
from cptjax.evaluation.documents import DocumentLosses
from cptjax.evaluation.measure import Rows, Say
from cptjax.evaluation.own_samples import Model
from cptjax.evaluation.result_row import result_row
from cptjax.evaluation.results import DOCUMENTS
from cptjax.evaluation.routing import embed_prefixes, nearest_expert
from cptjax.evaluation.strided import strided_losses, whole_documents
from cptjax.evaluation.systems import System, open_system, system_file
from cptjax.evaluation.table import AFTER_PREFIX, CHANGE
from cptjax.models.flops import flops_per_token
from cptjax.models.numerics import Numerics
from cptjax.watching import Watch


@dataclasses.dataclass(frozen=True)
class _Scored:
    """What stands in the rows of one checkpoint or system: by source and metric a ratio of sums over documents."""

    label: str
    step: int | None
    tokens: int | None
    losses: Mapping[str, DocumentLosses]
    oracle: Mapping[str, DocumentLosses]
    flops: Mapping[str, float]
    router_flops: Mapping[str, float]


def without_systems(
    checkpoints: Mapping[str, str] | Sequence[str] | str, base: str | None = None
) -> tuple[Mapping[str, str], dict[str, System]]:
    """CHECKPOINTS by label in two: those that are single models, and the systems, opened.

    Raises:
        ConfigurationError: as `compared.labelled` and `open_system`; systems and nothing to compare them with; a system as `base`.
    """
    named = labelled(checkpoints)
    systems = {label: open_system(file) for label, path in named.items() if (file := system_file(path)) is not None}
    single = {label: path for label, path in named.items() if label not in systems}
    if base in systems or base is not None and base not in single and system_file(base) is not None:
        raise ConfigurationError(f"BASE = {base!r} is a system; what the others are compared with is a single model.")
    if not single:
        raise ConfigurationError(
            f"CHECKPOINTS names nothing but systems ({', '.join(systems)}): name the model that they are compared with too."
        )
    return single, systems


def check_systems(
    systems: Mapping[str, System], base: Compared, sources: Mapping[str, Any], select_on: str | None = None
) -> None:
    """Refuses systems that cannot be compared with `base`, or with one another.

    Raises:
        ConfigurationError: another tokenizer, other prefixes, or the label of `base`; no text to compare them on, or one of which
            half is not reported.
    """
    if systems and not sources:
        raise ConfigurationError("CHECKPOINTS names a system, which is evaluated on SOURCES; these are empty.")
    if systems and select_on in sources:
        raise ConfigurationError(
            f"CHECKPOINTS names a system, and SELECT_ON = {select_on!r} a source that it is evaluated on: half of its documents "
            "are not reported.\n  Evaluate the system apart, or select on an exam."
        )
    if base.label in systems:  # a base that is none of CHECKPOINTS has a label that nobody gave
        raise ConfigurationError(
            f"the base and the system '{systems[base.label].path}' would both be called {base.label!r}; give one another label."
        )
    for label, system in systems.items():
        if system.tokenizer.fingerprint != base.tokenizer.fingerprint:
            raise ConfigurationError(
                f"{label!r} has another tokenizer than {base.label!r}; a system is compared token by token."
            )
    prefixes = {label: system.prefix for label, system in systems.items()}
    if len(set(prefixes.values())) > 1:
        raise ConfigurationError(f"the systems route on different prefixes ({prefixes}); evaluate them apart.")


def refuse_short_texts(systems: Mapping[str, System], rows: Rows) -> None:
    """Refuses sources of which nothing is left to be scored after the systems' prefix.

    Raises:
        ConfigurationError: no held-out document of a source is longer; rows whose documents are not one after another.
    """
    if not systems:
        return
    prefix = next(iter(systems.values())).prefix
    for name, source in rows.items():
        if not any(weights[prefix - 1 :].any() for *_, weights in whole_documents(RowReader(source.validation))):
            raise ConfigurationError(
                f"{next(iter(systems))!r} routes on {prefix} tokens, and no held-out document of source {name!r} is longer: "
                "nothing of it is left to compare on.\n  Lower prefix_tokens, or leave the source out."
            )


def system_rows(
    systems: Mapping[str, System],
    compared: Sequence[Compared],
    base: Compared,
    load: Callable[[Compared], Model],
    rows: Rows,
    numerics: Numerics,
    mesh: Mesh,
    stride: int | None,
    seed: int,
    say: Say,
    watch: Watch,
) -> list[dict[str, Any]]:
    """The rows of evaluation.jsonl, suite "after_prefix": of each system routed and, apart, by an oracle that knows which expert
    is best on each document; of each checkpoint of the same tokenizer on the same tokens.

    One model is held at a time. Documents that are no longer than the prefix are left out.
    """
    readers = {name: RowReader(source.validation) for name, source in rows.items()}
    skip = next(iter(systems.values())).prefix - 1

    counted = {name: _bytes_after(reader, skip, base.tokenizer) for name, reader in readers.items()}

    def losses(model: Model) -> dict[str, DocumentLosses]:
        given = (model.params, model.config, model.numerics)
        return {
            name: dataclasses.replace(
                strided_losses(*given, reader, mesh, stride or reader.manifest.sequence_length, watch, skip),
                bytes=counted[name],
            )
            for name, reader in readers.items()
        }

    length = {name: reader.manifest.sequence_length for name, reader in readers.items()}
    scored = []
    for one in compared:
        if one.tokenizer.fingerprint == base.tokenizer.fingerprint:
            flops = {name: flops_per_token(one.opened.config, length[name]).forward for name in readers}
            nothing = dict.fromkeys(readers, 0.0)
            scored.append(_Scored(one.label, one.opened.step, one.tokens, losses(load(one)), {}, flops, nothing))
    for label, system in systems.items():
        params = system.embedder.load_parameters(mesh)
        chosen = {name: _route(system, params, numerics, mesh, reader) for name, reader in readers.items()}
        del params
        each = []
        for number, expert in enumerate(system.experts):
            each.append(losses(Model(expert.load_parameters(mesh), expert.config, numerics)))  # no name keeps it
            say(
                f"  {label}, expert {number}: {', '.join(f'{name} {found.total.loss:.4f}' for name, found in each[-1].items())}"
            )
        routed = {name: _picked([found[name] for found in each], chosen[name]) for name in readers}
        best = {name: np.argmin([found[name].nats for found in each], axis=0) for name in readers}
        oracle = {name: _picked([found[name] for found in each], best[name]) for name in readers}
        router = {name: _router_flops(system, routed[name], skip) for name in readers}
        flops = {name: _expert_flops(system, routed[name], chosen[name], length[name]) for name in readers}
        scored.append(_Scored(label, None, None, routed, oracle, flops, router))
    origin = next(found for found in scored if found.label == base.label)
    return [row for found in scored for row in _rows(found, origin, seed)]


def _route(system: System, params: Any, numerics: Numerics, mesh: Mesh, reader: RowReader) -> np.ndarray:
    """The expert of each document, by its ordinal."""
    chosen = np.zeros(reader.manifest.documents, np.int64)
    ordinals, prefixes = [], []
    for ordinal, tokens, _ in whole_documents(reader):
        ordinals.append(ordinal)
        prefixes.append(tokens[: system.prefix].tolist())
    vectors = embed_prefixes(system.reader, params, numerics, mesh, prefixes)
    chosen[ordinals] = nearest_expert(vectors, system.centroids, system.distance)
    return chosen


def _bytes_after(reader: RowReader, skip: int, tokenizer: Tokenizer) -> np.ndarray:
    """Raw bytes of each document, by its ordinal, without those that its first `skip` targets say where they count."""
    found = np.array([document["bytes"] for document in reader.documents(range(reader.manifest.documents))], np.int64)
    for ordinal, tokens, weights in whole_documents(reader):
        read = tokens[1 : skip + 1][weights[:skip] > 0].tolist()
        text = tokenizer.decode([token for token in read if token != tokenizer.eos])
        found[ordinal] -= len(text.rstrip("\ufffd").encode("utf-8"))  # what a cut character decodes to
    return found


def _picked(each: Sequence[DocumentLosses], chosen: np.ndarray) -> DocumentLosses:
    """Of each document what its expert makes of it."""
    nats = np.stack([found.nats for found in each])[chosen, np.arange(len(chosen))]
    return dataclasses.replace(each[0], nats=nats)


def _router_flops(system: System, routed: DocumentLosses, skip: int) -> float:
    """Per scored token, over the documents that have one; these are longer than the prefix."""
    return system.router_flops([skip + 1] * int((routed.tokens > 0).sum())) / routed.tokens.sum()


def _expert_flops(system: System, routed: DocumentLosses, chosen: np.ndarray, length: int) -> float:
    """Per scored token, of the experts that the texts were given to."""
    forward = np.array([flops_per_token(expert.config, length).forward for expert in system.experts])
    return float((forward[chosen] * routed.tokens).sum() / routed.tokens.sum())


def _rows(found: _Scored, base: _Scored, seed: int) -> list[dict[str, Any]]:
    rows = []
    for source, losses in found.losses.items():
        counted = np.flatnonzero(losses.tokens > 0)
        for metric, of in (("loss", losses), ("oracle_loss", found.oracle.get(source))):
            if of is None:
                continue
            mine, theirs = of.take(counted), base.losses[source].take(counted)
            interval = ratio_interval(mine.nats, mine.tokens, seed)
            rows.append(_row(found, source, metric, mine.total.loss, interval, len(mine)))
            if (mine.bytes > 0).all():  # an end of text alone says no byte
                bits = metric.replace("loss", "bits_per_byte")
                in_bytes = ratio_interval(mine.nats / math.log(2), mine.bytes, seed)
                rows.append(_row(found, source, bits, mine.total.bits_per_byte, in_bytes, len(mine)))
            if found is not base:
                four = (mine.nats, mine.tokens, theirs.nats, theirs.tokens)
                change = mine.total.loss - theirs.total.loss
                rows.append(_row(found, source, metric + CHANGE, change, paired_interval(*four, seed), len(mine)))
        router, expert = found.router_flops[source], found.flops[source]
        rows.append(_row(found, source, "flops_per_token", expert + router, (None, None), len(counted)))
        rows.append(_row(found, source, "router_flops_per_token", router, (None, None), len(counted)))
    return rows


def _row(found: _Scored, source: str, metric: str, value: float, interval: tuple, n: int) -> dict[str, Any]:
    return result_row(found, AFTER_PREFIX, source, metric, value, interval, DOCUMENTS, n)
