"""A run's plan, for people: printed before anything starts, and by --dry_run with every weight and where it lives."""

from collections.abc import Sequence

from cptjax.counts import count
from cptjax.data.plan_table import table
from cptjax.kernels.attention.choice import choose
from cptjax.models.config import DecoderConfig
from cptjax.models.flops import flops_per_token
from cptjax.models.model import abstract_weights, parameter_counts, weight_shardings
from cptjax.reporting.exposures import describe_exposures
from cptjax.training.freezing import describe_freezing
from cptjax.training.longer_context import describe_changes
from cptjax.training.plan import RunPlan
from cptjax.training.run import Run


def describe_plan(plan: RunPlan) -> list[str]:
    """The model, the mesh, the schedule and what will be read, as lines."""
    counts = parameter_counts(plan.config)
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.shape.items() if size > 1) or "one device"
    flops = flops_per_token(plan.config, plan.sequence_length).training
    device = plan.mesh.devices.flat[0]
    attention = choose(plan.run.numerics.attention, device.platform, device.device_kind)
    return [
        f"model     {plan.family.architecture}, {counts.total:,} parameters ({counts.non_embedding:,} non-embedding)",
        *(
            f"rows      {line}"
            for line in describe_vocabulary(plan.config, plan.tokenizer.size, plan.mesh.shape["tensor"])
        ),
        *describe_experts(plan),
        f"start     {plan.origin}",
        *([f"context   from here on {describe_changes(plan.longer_context)}"] if plan.longer_context else []),
        f"devices   {plan.mesh.devices.size} {device.device_kind}: {mesh}; {plan.run.numerics.compute_dtype} compute",
        f"attention {attention.name}: {attention.why}",
        f"steps     {plan.steps:,} of {plan.batch_rows} rows x {plan.sequence_length} = {plan.batch_tokens:,} tokens: "
        f"{plan.steps * plan.batch_tokens:,} tokens, {count(flops * plan.steps * plan.batch_tokens)} FLOPs counted "
        f"(causal attention halved)",
        f"schedule  {plan.learning_rate.describe(plan.steps)}",
        f"updates   {describe_update(plan.run)}",
        *(f"frozen    {line}" for line in describe_freezing(plan.thaw)),
        f"saves     every {plan.save_steps:,} steps; evaluates every {plan.eval_steps:,} steps",
        *describe_samples(plan),
        *([f"tokenizer loses of the text: {plan.tokenizer.loses}"] if plan.tokenizer.loses else []),
        *table(plan.data),
        *describe_exposures(plan.data, plan.run.sources, counts.total),
        *(
            f"{name}: {source.validation_manifest.documents:,} documents held out, {source.validation_manifest.tokens:,} tokens"
            for name, source in plan.prepared.items()
            if source.validation is not None
        ),
        *(
            f"{name}: no text is held out (it has one document, or validation_fraction is 0), so its loss is not measured"
            for name, source in plan.prepared.items()
            if source.validation is None
        ),
    ]


def describe_samples(plan: RunPlan) -> list[str]:
    """A line where the run continues prompts."""
    if plan.sample_steps is None:
        return []
    prompts, new = len(plan.sample_prompts), plan.run.samples.max_new_tokens
    return [
        f"samples   every {plan.sample_steps:,} steps {prompts} prompt(s) continued by at most {new} tokens, greedily"
    ]


def describe_vocabulary(config: DecoderConfig, tokens: int, ways: int) -> list[str]:
    """Rows of the embedding that are no token's, and rows that a mesh with `ways` on its tensor axis does not cut."""
    lines = []
    if tokens < config.vocabulary:
        lines.append(
            f"{config.vocabulary:,} in the embedding for {tokens:,} tokens: {config.vocabulary - tokens:,} are no token's. They "
            "came with the checkpoint: in the softmax, trained and exported like the others"
        )
    if config.padded_vocabulary is not None:
        added = config.padded_vocabulary - config.vocabulary
        lines.append(
            f"{config.padded_vocabulary:,}, {added:,} of them padding: zero, out of the softmax, not trained, not exported"
        )
    if config.vocabulary_rows % ways:
        lines.append(
            f"{config.vocabulary_rows:,}, which the mesh's tensor axis does not cut ({ways} ways): every device holds them all; "
            f"VOCABULARY_MULTIPLE = {ways} mends that"
        )
    return lines


def describe_experts(plan: RunPlan) -> list[str]:
    """What a token reads of a mixture of experts, and whether their load is balanced; nothing of another model."""
    config = plan.config
    if config.experts is None:
        return []
    trained = (
        f"load-balancing loss times {plan.router_loss:g} is trained on"
        if plan.router_loss
        else "load-balancing loss is measured, not trained on (ROUTER_LOSS)"
    )
    return [
        f"experts   {config.experts_per_token} of {config.experts} for each token, "
        f"{parameter_counts(config).active:,} parameters active; {trained}"
    ]


def describe_update(run: Run) -> str:
    """The optimizer, and what is done beside it."""
    parts = [type(run.optimizer).__name__]
    parts.append("gradients not clipped" if run.clip_norm is None else f"gradients clipped at norm {run.clip_norm:g}")
    if run.z_loss:
        parts.append(f"z-loss times {run.z_loss:g} is trained on")
    if run.guard.sigmas is not None:
        parts.append(f"steps {run.guard.sigmas:g} deviations above the last {run.guard.window} skipped")
    if run.average is not None:
        parts.append(f"an average of the weights that keeps {run.average:g} of itself at a step")
    if run.skip_steps:
        steps = (f"{first:,}" if first == last else f"{first:,} to {last:,}" for first, last in run.skip_steps)
        parts.append(f"steps passed over: {', '.join(steps)}")
    return "; ".join(parts)


def describe_weights(plan: RunPlan) -> list[str]:
    """Each weight's shape, the part of it on one device, and the axes of the mesh that cut it."""
    shardings = weight_shardings(plan.config, plan.mesh)
    lines = [f"{'weight':40} {'shape':>24} {'on a device':>24}  cut by"]
    for name, spec in abstract_weights(plan.config).items():
        part = shardings[name].shard_shape(spec.shape)
        cut = ", ".join(str(axis) for axis in shardings[name].spec if axis) or "-"
        lines.append(f"{name:40} {_by(spec.shape):>24} {_by(part):>24}  {cut}")
    return lines


def describe_late_skips(run: Run, begin: int, passed: Sequence[int]) -> str | None:
    """What to say of SKIP_STEPS that come too late: steps that were trained on before this start, at step `begin`."""
    late = [step + 1 for step in range(begin) if run.passes_over(step) and step not in passed]
    if not late:
        return None
    steps = f"step {late[0]:,}" if len(late) == 1 else f"{len(late):,} steps from {late[0]:,} to {late[-1]:,}"
    return (
        f"warning: SKIP_STEPS names {steps}, which this run has trained on already: its newest checkpoint is of step {begin:,}.\n"
        "  To go on without them, move the checkpoints after them away."
    )


def describe_refused(run: Run, documents: Sequence[str], steps: range) -> str:
    """What the guard's refused steps (counted from 0) read, and how to go on without them."""
    spans = [list(span) for span in run.skip_steps] + [[steps.start + 1, steps.stop]]
    return "\n".join(
        [
            "  They read:",
            *(f"    {line}" for line in documents),
            f"  To go on from the last checkpoint without these steps: --gin.SKIP_STEPS='{spans}'",
            "  If the text is not to blame: a lower PEAK_LEARNING_RATE; or a higher SPIKE_SIGMAS or SPIKE_PATIENCE.",
        ]
    )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
