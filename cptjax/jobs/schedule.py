"""A learning-rate schedule before anything is trained with it: its borders, where it falls, and a picture."""

import math

import numpy as np
from etils import epath

from cptjax.configuration.values import whole_number
from cptjax.counts import count
from cptjax.errors import ConfigurationError
from cptjax.files import write_file
from cptjax.training.learning_rate import LearningRate
from cptjax.training.lengths import steps_for_tokens
from cptjax.training.schedule import Schedule, compile_schedule, switch_step

FRACTIONS = (1 / 2, 1 / 5, 1 / 10, 1 / 50, 1 / 100)  # of the peak, at which switches are told
_POINTS = 1000


def schedule(
    schedule: Schedule,
    tokens: float,
    batch_tokens: float,
    output: str,
    base_final_lr: float | None = None,
    dry_run: bool = False,
) -> None:
    """Prints each phase's borders and where the learning rate has fallen to 1/2, 1/5, ... of its peak; draws it as SVG.

    Args:
        tokens, batch_tokens: of the run and of a step.
        output: the SVG file to write.

    Raises:
        ConfigurationError: a schedule that cannot be, or an output that is no SVG file.
    """
    if not str(output).lower().endswith(".svg"):
        raise ConfigurationError(f"OUTPUT = {output!r}: the picture is an SVG file; name one that ends in .svg.")
    batch_tokens = whole_number(batch_tokens, "BATCH_TOKENS", minimum=1)
    steps = steps_for_tokens(whole_number(tokens, "TRAIN_TOKENS", minimum=1), batch_tokens)
    rate = compile_schedule(schedule, steps, batch_tokens, base_final_lr)
    print(f"{steps:,} steps of {batch_tokens:,} tokens; peak {rate.peak:.4g}")
    print("\n".join(_table(rate, steps, batch_tokens)))
    if dry_run:
        return
    path = epath.Path(output).expanduser()
    write_file(path, _picture(rate, steps, batch_tokens))
    print(f"wrote {path}")


def _table(rate: LearningRate, steps: int, batch_tokens: int) -> list[str]:
    lines = [f"{'':34} {'step':>14} {'tokens':>10} {'of the run':>11} {'rate':>11}"]

    def line(what: str, step: float) -> str:
        tokens = count(step * batch_tokens)
        return f"{what:34} {step:>14,.1f} {tokens:>10} {step / steps:>11.4f} {float(rate.at(step)):>11.4g}"

    for segment in rate.segments:
        lines.append(line(f"{segment.shape} begins", segment.first_step))
    lines.append(line("the phases end", rate.end))
    if steps - rate.end > 0.5:
        lines.append(line("the run ends; the rate has held", steps))
    for fraction in FRACTIONS:
        try:
            lines.append(line(f"first at 1/{round(1 / fraction)} of the peak", switch_step(rate, fraction, steps)))
        except ConfigurationError:
            lines.append(f"no step at 1/{round(1 / fraction)} of the peak")
    return lines


def _picture(rate: LearningRate, steps: int, batch_tokens: int) -> str:
    from cptjax.reporting.palette import style  # matplotlib, only now
    from cptjax.reporting.plots import Series, lines

    borders = [
        border for s in rate.segments for border in (s.first_step, math.nextafter(s.first_step, -1), s.last_step)
    ]
    at = np.unique(np.clip([*np.linspace(0, steps, _POINTS), *borders], 0, steps))
    series = Series("learning rate", at * batch_tokens, rate.at(at), style(0), markers=False)
    switches = [s.first_step * batch_tokens for s in rate.segments[1:]]
    chart = lines(
        "schedule", "Learning rate", [series], "tokens", switches=switches, zero=True, format_y="{:.3g}".format
    )
    return chart.svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"
