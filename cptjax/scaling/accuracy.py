"""The law from a loss to the accuracy of a task."""

import dataclasses

import jax
import jax.numpy as jnp

from cptjax.scaling.law import Law, Parameter, scale


@dataclasses.dataclass(frozen=True)
class LossToAccuracy(Law):
    """accuracy(L) = floor + rise / (1 + exp(k (L - L0))).   (the second step of arXiv 2412.04403 and others)

    L: nats per token, or per byte, of one text or of the right answers. Predicts the column `accuracy`, between 0 and 1;
    `floor` is what guessing has and `floor` + `rise` what the best models have. Freeze `floor` at chance where the runs are
    all far above it. A law of a loss and this one in turn predict a task: the errors add up, so take the intervals of
    both. Valid between the runs' losses: above them a task may still be all guesswork.
    """

    name = "loss_to_accuracy"
    target = "accuracy"
    columns = ("loss",)
    parameters = (
        Parameter("floor", True, (-8.0, 0.0), (-3.0, -0.5)),
        Parameter("rise", True, (-8.0, 0.0), (-2.0, -0.1)),
        scale("k", (-1.0, 3.0), (-4.0, 8.0)),
        Parameter("L0", False, (0.0, 20.0), (0.5, 6.0)),
    )
    axes = {"loss": ("floor", "rise", "k", "L0")}

    def log_terms(self, p, runs):
        past = jnp.exp(p["log_k"]) * (runs["loss"] - p["L0"])
        return [p["log_floor"], p["log_rise"] - jax.nn.softplus(past)]
