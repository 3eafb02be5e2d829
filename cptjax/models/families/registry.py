"""The families of Hugging Face checkpoints that cptjax reads and writes."""

from collections.abc import Mapping
from typing import Any

from cptjax.errors import ConfigurationError
from cptjax.models.families.family import Family
from cptjax.models.families.gemma import GEMMA, GEMMA_2, GEMMA_3
from cptjax.models.families.gpt2 import GPT_2
from cptjax.models.families.gpt_neox import GPT_NEOX
from cptjax.models.families.llama import LLAMA
from cptjax.models.families.mistral import MISTRAL
from cptjax.models.families.mixtral import MIXTRAL
from cptjax.models.families.nemotron import NEMOTRON
from cptjax.models.families.olmo2 import OLMO_2
from cptjax.models.families.opt import OPT
from cptjax.models.families.phi3 import PHI_3
from cptjax.models.families.qwen2 import QWEN2
from cptjax.models.families.qwen3 import QWEN3
from cptjax.models.families.qwen3_moe import QWEN3_MOE

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        LLAMA,
        MISTRAL,
        MIXTRAL,
        QWEN2,
        QWEN3,
        QWEN3_MOE,
        GEMMA,
        GEMMA_2,
        GEMMA_3,
        OLMO_2,
        PHI_3,
        NEMOTRON,
        GPT_NEOX,
        GPT_2,
        OPT,
    )
}


def family_of(hugging_face: Mapping[str, Any], source: str = "config.json") -> Family:
    """The family that a config.json belongs to.

    Raises:
        ConfigurationError: it names no `model_type`, or one that is not supported; lists those that are.
    """
    model_type = hugging_face.get("model_type")
    if isinstance(model_type, str) and model_type in FAMILIES:
        return FAMILIES[model_type]
    supported = ", ".join(f"{family.model_type} ({family.architecture})" for family in FAMILIES.values())
    what = f"model_type {model_type!r} is not supported" if model_type else "names no model_type"
    raise ConfigurationError(f"{source}: {what}.\n  cptjax reads {supported}.")
