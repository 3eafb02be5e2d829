"""A corpus becomes a smaller one: what is kept, and of everything else why it went."""

import functools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from cptjax.configuration.values import whole_number
from cptjax.counts import count
from cptjax.data.records import as_written
from cptjax.data.sources import Where, as_plain, content_identity, find_source
from cptjax.data.splits import SplitSettings
from cptjax.data.tokenizer import open_tokenizer
from cptjax.data.units import DOCUMENTS, Units, check_units, make_units
from cptjax.errors import ConfigurationError
from cptjax.files import read_json, write_file
from cptjax.hosts.alone import together
from cptjax.reporting.selection_page import Costs, selection_page
from cptjax.reporting.watch import watch
from cptjax.scaling.repetition import Repetition, advice, repetition, sweep
from cptjax.selection.corpus import Corpus
from cptjax.selection.costs import selection_flops
from cptjax.selection.held_out import without_held_out
from cptjax.selection.output import CORPUS, MANIFEST, RECORD, write_manifest, write_selected
from cptjax.selection.policies import Policy, embedder_of
from cptjax.selection.regimes import FIXED_DATA, under
from cptjax.selection.stages import Stages
from cptjax.sharding.mesh import build_mesh
from cptjax.sharding.processes import all_say, first_then_others, is_first, join_processes, number_of_first
from cptjax.training.signals import stop_at_once
from cptjax.watching import unwatched

STAGES, BEGUN, REPORT = "stages", "begun.json", "report.html"


@together
def select_data(
    input: Where,
    output_dir: str,
    policy: Policy,
    unit: str = DOCUMENTS,
    passage_tokens: float = 512,
    tokenizer: str | None = None,
    regime: str = FIXED_DATA,
    train_tokens: float | None = None,
    train_params: float | None = None,
    held_out: SplitSettings | None = None,
    mesh: Mapping[str, int] | None = None,
    dry_run: bool = False,
) -> None:
    """Writes `manifest.jsonl`, a line for each unit of the corpus, the kept ones as `selected.jsonl.gz`, and `report.html`.

    What each stage found is kept in `stages`; a selection that was interrupted goes on behind the last one. `selection.json`
    says of what and how; it is written last. Where it is, the same selection is done already, and only advice is given anew.

    Several processes (processes.py) embed and cluster together, on the devices of all; all else the first does, and it alone writes
    and speaks.

    Args:
        input: the corpus, written as any source is (data/sources.py).
        policy: what chooses (selection/policies.py).
        unit: "documents", whole, or "passages" of `passage_tokens` tokens.
        tokenizer: what counts tokens: a folder or file; None: the tokenizer of the policy's embedder, where it has one. Without
            any, units are documents, and budgets are of units.
        regime: "fixed_data" or "fixed_compute" (selection/regimes.py).
        train_tokens, train_params: of the training that the selection is for: for advice on repetition, and to set the cost of the
            selection against it.
        held_out: what is held out of the corpus to measure runs by, and not chosen from (selection/held_out.py).
        mesh: of the devices that embed and cluster.

    Raises:
        ConfigurationError: the corpus cannot be read or has no document, the folder holds another selection, or not every process
            sees it.
        CptjaxError: a damaged file.
    """
    begin = time.monotonic()
    if not dry_run:
        join_processes()
    source = find_source("INPUT", input)
    if source.megatron:
        raise ConfigurationError(f"INPUT = {input!r} is a token cache; a selection needs text.")
    folder = epath.Path(output_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"OUTPUT_DIR = '{folder}' is a file; name a folder.")
    train_tokens = None if train_tokens is None else whole_number(train_tokens, "TRAIN_TOKENS", 1)
    policy = under(regime, policy, train_tokens)
    embedder = embedder_of(policy)
    opened = open_tokenizer(tokenizer) if tokenizer else embedder.tokenizer if embedder else None
    passage_tokens = whole_number(passage_tokens, "PASSAGE_TOKENS", 1)
    check_units(unit, passage_tokens, opened is not None)
    policy = without_held_out(policy, held_out, opened)
    if train_tokens is not None and opened is None:
        raise ConfigurationError("TRAIN_TOKENS needs to know what a token is: set TOKENIZER.")
    fingerprint = opened.fingerprint if opened else None
    cut = {"unit": unit, "passage_tokens": passage_tokens if unit != DOCUMENTS else None, "tokenizer": fingerprint}
    made_of = {
        "input": as_plain(input),
        "files": content_identity(source),
        "records": as_written(source.settings),
        "cut": cut,
        "policy": policy.made_of(),
    }
    first = dry_run or is_first()
    say = (lambda line: print(line, flush=True)) if first else (lambda line: None)
    say(f"INPUT: {source.where}; {policy}")
    done = (folder / RECORD).exists()
    if done if dry_run else number_of_first(done):
        before = read_json(folder / RECORD)
        _refuse_another(before, made_of, folder)
        say(f"{folder} holds this selection already.")
        if first:
            _advise_anew(before, train_tokens, train_params, folder)
        return
    if dry_run:
        print(f"would write into {folder}: {MANIFEST}, {CORPUS}, {REPORT}, {RECORD}")
        return

    with stop_at_once("while a corpus was selected; the stages that are done are kept."):
        # --- What is kept ---
        stages = Stages(folder / STAGES, say)
        given = (source, opened, unit, passage_tokens, stages.folder / "units", made_of["files"])
        units = first_then_others(lambda: _units(stages.folder / BEGUN, made_of, folder, lambda: make_units(*given)))
        if not all_say(units is not None):
            raise ConfigurationError(
                f"OUTPUT_DIR = '{output_dir}': what the first process writes there, another one does not find.\n"
                "  Name a folder that all hosts see, of a shared file system or a bucket (gs://...)."
            )
        say(f"{len(units):,} {unit}, {count(units.sizes.sum())} {'tokens' if opened else 'bytes'}")
        identity = {"files": made_of["files"], "records": made_of["records"], "cut": cut}
        everything, devices = np.arange(len(units)), functools.cache(lambda: build_mesh(mesh))
        corpus = Corpus(units, everything, identity, fingerprint, stages, devices, watch if first else unwatched)
        chosen = policy.choose(corpus)
        say("\n".join(chosen.found))

        def finish() -> None:
            """The manifest, the corpus, the report, and then the record that they are whole."""
            if not first:
                return
            write_manifest(folder / MANIFEST, units, chosen)
            write_selected(folder / CORPUS, units, chosen.kept)
            totals = _totals(units, chosen.kept)
            repeated, others, said = _repetition(totals, train_tokens, train_params)
            if said:
                say("\n".join(said))
            flops = selection_flops(stages, embedder)
            took = stages.seconds_of_all(), time.monotonic() - begin
            costs = Costs(*took, flops["embedding"], flops["comparing"], train_tokens, train_params)
            page = selection_page(str(folder), made_of, units, chosen, totals, costs, said, others, regime)
            write_file(folder / REPORT, page)
            record = {**made_of, **totals, "regime": regime, "found": list(chosen.found), "advice": said}
            record |= {"train_tokens": train_tokens, "train_params": train_params}
            record |= {"seconds": stages.seconds_of_all(), "flops": flops}
            if repeated is not None:
                record["epochs"], record["worth_tokens"] = repeated.epochs, repeated.worth
            write_file(folder / RECORD, json.dumps(record, indent=2) + "\n")
            _say_totals(totals, unit, say)
            say(f"wrote {folder / MANIFEST}, {folder / CORPUS}, {folder / REPORT}")

        first_then_others(finish)


def _units(
    begun: epath.Path, made_of: Mapping[str, Any], folder: epath.Path, make: Callable[[], Units]
) -> Units | None:
    """The units, and a note of what was begun here; None in a process that does not see the note of the first one."""
    if begun.exists():
        _refuse_another(read_json(begun), made_of, folder)
    elif not is_first():
        return None
    units = make()
    if not begun.exists():  # only now: a corpus that cannot be read leaves nothing behind
        write_file(begun, json.dumps(made_of, indent=2) + "\n")
    return units


def _say_totals(totals: Mapping[str, int], unit: str, say: Callable[[str], None]) -> None:
    parts = [
        f"{count(totals[f'kept_{what}'])} of {count(totals[what])} {what}"
        for what in ("bytes", "tokens")
        if what in totals
    ]
    say(f"kept {totals['kept_units']:,} of {totals['units']:,} {unit}, {', '.join(parts)}")


def _totals(units: Units, kept: np.ndarray) -> dict[str, int]:
    found = {
        "documents": len(units.names),
        "units": len(units),
        "bytes": int(units.bytes.sum()),
        "kept_documents": len(np.unique(units.document[kept])),
        "kept_units": int(kept.sum()),
        "kept_bytes": int(units.bytes[kept].sum()),
    }
    if units.tokens is not None:
        found |= {"tokens": int(units.sizes.sum()), "kept_tokens": int(units.sizes[kept].sum())}
    return found


def _repetition(
    totals: Mapping[str, int], train_tokens: int | None, train_params: float | None
) -> tuple[Repetition | None, list[Repetition], list[str]]:
    """What training on the selection repeats, what other shares would, and sentences on it."""
    if train_tokens is None:
        return None, [], []
    there, selected = totals["tokens"], totals["kept_tokens"]
    found = repetition(selected, train_tokens, there, train_params)
    return found, sweep(train_tokens, there, train_params), advice(found)


def _advise_anew(before: dict, train_tokens: int | None, train_params: float | None, folder: epath.Path) -> None:
    """Advice on a selection that is done, for a training that may be another than its report is of."""
    if train_tokens is None:
        return
    print("\n".join(_repetition(before, train_tokens, train_params)[2]))
    if (train_tokens, train_params) != (before.get("train_tokens"), before.get("train_params")):
        print(
            f"{REPORT} and {RECORD} there are of another training. To have them of this one, remove {folder / RECORD}\n"
            f"  and give the same command again: what {folder / STAGES} holds is not done again."
        )


def _refuse_another(before: dict, now: dict, folder: epath.Path) -> None:
    written = json.loads(json.dumps(now))
    names = {"files": "files", "records": "records", "cut": "units", "policy": "policy"}
    different = [said for name, said in names.items() if before.get(name) != written[name]]
    if different:
        raise ConfigurationError(
            f"{folder} holds another selection: of other {' and other '.join(different)}, as selection.json there says.\n"
            "  Name another OUTPUT_DIR, or remove that folder."
        )
