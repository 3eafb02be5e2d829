"""Which steps each stage of a blend has, once the run's steps and its schedule are known."""

from collections.abc import Callable

from cptjax.data.blend import Blend, Fraction, Ramp, Stage, Tokens, Weights
from cptjax.errors import ConfigurationError


def resolve_stages(
    blend: Blend,
    total_steps: int,
    tokens_per_step: int,
    step_at_lr_fraction: Callable[[float], int | None] | None = None,
) -> list[tuple[str, Weights, int]]:
    """`(name, weights, steps)` of each stage for a run of `total_steps`; their steps add up to it.

    A trigger inside a step takes effect at the step's end. A stage's ramp is a stage of its own before it.

    Args:
        step_at_lr_fraction: the first step after the peak whose learning rate is at most that fraction of the peak;
            None where there is no such step.

    Raises:
        ConfigurationError: a trigger that is never reached, or one reached before the stage begins; a ramp longer than its
            stage.
    """
    ends = []
    for stage in blend.stages:
        until = stage.until
        if until is None:
            end = total_steps
        elif isinstance(until, Tokens):
            end = -(-int(until.n) // tokens_per_step)
        elif isinstance(until, Fraction):
            end = round(until.of_run * total_steps)
        else:
            end = step_at_lr_fraction(until.of_peak) if step_at_lr_fraction else None
            if end is None:
                raise ConfigurationError(
                    f"stage {stage.name!r} ends when the learning rate is {until.of_peak} of its peak, and this "
                    "schedule never gets there.\n  Lower FINAL_LEARNING_RATE, or end the stage with Tokens or Fraction."
                )
        begin = ends[-1] if ends else 0
        if not begin < end <= total_steps or (until is not None and end == total_steps):
            raise ConfigurationError(
                f"stage {stage.name!r} would last from step {begin} to step {end} of {total_steps} ({until}).\n"
                "  Each stage needs at least one step: set TRAIN_TOKENS higher, or move the triggers."
            )
        ends.append(end)
    resolved = []
    for n, (stage, begin, end) in enumerate(zip(blend.stages, [0, *ends[:-1]], ends, strict=True)):
        ramp = _ramp_steps(stage, end - begin, total_steps, tokens_per_step)
        if ramp:
            resolved.append((f"{stage.name} (ramp)", Ramp(blend.stages[n - 1].weights, stage.weights), ramp))
        if end - begin > ramp:
            resolved.append((stage.name, stage.weights, end - begin - ramp))
    return resolved


def _ramp_steps(stage: Stage, steps: int, total_steps: int, tokens_per_step: int) -> int:
    if stage.ramp is None:
        return 0
    by_tokens = isinstance(stage.ramp, Tokens)
    ramp = -(-int(stage.ramp.n) // tokens_per_step) if by_tokens else round(stage.ramp.of_run * total_steps)
    if not 1 <= ramp <= steps:
        raise ConfigurationError(
            f"the ramp of stage {stage.name!r} would last {ramp} of its {steps} steps ({stage.ramp}).\n"
            "  It needs at least one step, and ends within its stage: change its `ramp`, or move the triggers."
        )
    return ramp
