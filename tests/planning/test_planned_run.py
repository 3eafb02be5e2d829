"""Recipes planned with what planning needs, and no more."""

import jax
import pytest
from shardings import run_of

from cptjax.errors import ConfigurationError
from cptjax.planning.planned_run import planned_run
from cptjax.training.schedule import compile_schedule


@pytest.mark.parametrize("recipe, rows", [("reuse_llama_8b", 16), ("reuse_llama_70b", 512)])
def test_a_plan_needs_no_learning_rate_of_the_base_and_a_run_does(recipe, rows):
    """Llama's report gives the last learning rate of its 405B only; what is not known of these is not guessed."""
    run = run_of(recipe, '--gin.MESH={"fsdp": 8}', "--gin.PEAK_LEARNING_RATE='inherit'")
    assert run.base_final_lr is None
    outline = planned_run(run, None, jax.devices()[:8])
    assert outline.batch_rows == rows and outline.steps > 1000
    with pytest.raises(ConfigurationError, match="BASE_FINAL_LR"):
        compile_schedule(run.schedule, outline.steps, outline.batch_tokens, None)
