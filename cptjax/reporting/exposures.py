"""What a run reads more than once, and what that is worth by the data-constrained law (arXiv 2305.16264)."""

from collections.abc import Mapping

from etils import epath

from cptjax.counts import count
from cptjax.data.plan import DataPlan
from cptjax.data.sources import SELECTION, Where, find_source
from cptjax.files import read_json
from cptjax.reporting.wording import percent
from cptjax.scaling.repetition import advice, repetition


def describe_exposures(plan: DataPlan, sources: Mapping[str, Where], params: float) -> list[str]:
    """Lines on each source of a run that is a selection, or is read more than once: in all its epochs, also those before this run.

    The law is of one text, repeated whole; beside other text in a blend repeating costs less.

    Args:
        sources: as the run was told them, by name.
        params: of the model: what repeating costs in nats is said from 7M to 9B, where the law was fitted.
    """
    found = []
    for name, epochs in plan.epochs(plan.steps).items():
        chosen = of_selection(sources[name])
        if chosen is None and epochs <= 1:
            continue
        tokens = plan.sources[name].tokens
        # The tokens that the law counts are those that are read: of the rows that train, by this run's own tokenizer.
        what = "tokens" if chosen is None else "selected tokens"
        said = advice(repetition(tokens, epochs * tokens, tokens, params), what)
        found += [f"repeats   {name}{'' if chosen is None else f', {chosen}'}: {said[0]}"]
        found += [f"          {sentence}" for sentence in said[1:]]
    return found


def of_selection(where: Where) -> str | None:
    """What a source that `select_data` wrote is a selection of, in a few words; None of any other source."""
    files = find_source("source", where).files
    if len(files) != 1 or not (record := epath.Path(files[0]).parent / SELECTION).exists():
        return None
    told = read_json(record)
    what = "tokens" if "tokens" in told else "bytes"
    kept, whole = told[f"kept_{what}"], told[what]
    policies = " then ".join(policy_names(told["policy"]))
    return f"a selection of {percent(kept / max(1, whole))} of {count(whole)} {what} ({policies}, {told['regime']})"


def policy_names(policy: Mapping[str, object]) -> list[str]:
    """The names of the policies in a selection's record, those of a chain one by one."""
    return [name for part in policy["Chain"] for name in policy_names(part)] if "Chain" in policy else list(policy)
