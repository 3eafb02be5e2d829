"""gin/models holds the published models: their config.json, and their parameters to the last digit that was published."""

import functools
import re
from pathlib import Path

import gin
import jax
import pytest
from published_models import CONFIGS, COUNTS, ROUNDED, WITHOUT_EMBEDDINGS

from cptjax.configuration.configured import configure
from cptjax.configuration.flags import parse_command
from cptjax.errors import ConfigurationError
from cptjax.models.families.registry import FAMILIES
from cptjax.models.ladder import LADDER, cross_lingual
from cptjax.models.model import abstract_parameters, parameter_counts
from cptjax.sharding.mesh import build_mesh
from cptjax.training.start import Random

ROOT = Path(__file__).parents[2]
FILES = {path.stem: path for path in sorted((ROOT / "gin/models").glob("*.gin"))}
OUR_OWN = {"llama_260k", "llama_1m"}
NEEDED = ["TOKENIZER='t'", "GENERAL='g'", "TRAIN_TOKENS=1", "OUTPUT_DIR='o'"]


@functools.cache
def start_of(name: str, *settings: str) -> Random:
    """What a run of gin/recipes/pretrain.gin with this MODEL starts from."""
    flags = [f"--gin.{setting}" for setting in (f"MODEL='{name}'", *NEEDED, *settings)]
    configured = configure(parse_command(["--gin_file=gin/recipes/pretrain.gin", *flags]))
    gin.clear_config()
    try:
        gin.parse_config(configured.gin_text)
        return gin.get_configurable(Random)()
    finally:
        gin.clear_config()


def test_every_model_is_checked_here():
    assert set(FILES) == set(CONFIGS) | OUR_OWN | {"ladder"}
    assert set(CONFIGS) == set(COUNTS) | set(ROUNDED)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_is_what_its_config_json_says(name):
    start = start_of(name)
    assert start.family == CONFIGS[name]["model_type"]
    assert start.model == FAMILIES[start.family].read_config(CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_has_the_parameters_that_were_published(name):
    model = FAMILIES[CONFIGS[name]["model_type"]].read_config(CONFIGS[name])
    counts = parameter_counts(model)
    weights = abstract_parameters(model, build_mesh({"fsdp": 1}, jax.devices()[:1]))
    assert sum(weight.size for weight in weights.values()) == counts.total
    if name in COUNTS:
        assert counts.total == COUNTS[name]
    if name in WITHOUT_EMBEDDINGS:
        assert counts.non_embedding == WITHOUT_EMBEDDINGS[name]
    if name in ROUNDED:
        number, unit, which = ROUNDED[name]
        assert round(getattr(counts, which) / unit) == number


@pytest.mark.parametrize("name", [name for name in FILES if name != "ladder"])
def test_the_header_says_how_many_parameters_there_are(name):
    total = parameter_counts(start_of(name).model).total
    header = " ".join(line.lstrip("# ") for line in FILES[name].read_text().split("\nfrom ")[0].split("\n"))
    assert f"{total:,} parameters" in header
    assert name in OUR_OWN or f"--gin.MODEL=\"'{name}'\"" in header


@pytest.mark.parametrize("size", LADDER)
def test_the_labels_of_the_ladder_count_an_mlp_of_four_times_hidden(size):
    model = cross_lingual(size)
    assert parameter_counts(model).total // 10**6 == size
    h, layers = model.hidden, model.layers
    assert parameter_counts(model).total == 16 * h * h * layers + 32000 * h + (2 * layers + 1) * h
    printed = cross_lingual(size, "printed")
    assert printed.mlp == LADDER[size][1] and printed.hidden == h and printed.heads == model.heads
    assert 1.22 < parameter_counts(printed).total / parameter_counts(model).total < 1.33


def test_the_ladder_by_gin():
    assert start_of("ladder", "LADDER_SIZE=125.0").model == cross_lingual(125)
    assert start_of("ladder", "LADDER_SIZE=4016", "LADDER_WIDTH='printed'").model == cross_lingual(4016, "printed")
    with pytest.raises(ConfigurationError, match="LADDER_SIZE"):
        start_of("ladder")
    with pytest.raises(ConfigurationError, match="near it are 125 and 137"):
        cross_lingual(130)
    with pytest.raises(ConfigurationError, match="LADDER_WIDTH = '8h'"):
        cross_lingual(125, "8h")


def test_a_flag_changes_a_part_of_a_model():
    vocabulary = start_of("pythia_70m", "DecoderConfig.vocabulary=512").model.vocabulary
    assert vocabulary == 512 and start_of("pythia_70m").model.vocabulary == 50304


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_counts_as_many(name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    known = CONFIGS[name]
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**known))
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == parameter_counts(FAMILIES[known["model_type"]].read_config(known)).total


def test_no_header_is_left_without_its_source():
    for name in CONFIGS:
        header = FILES[name].read_text().split("\nfrom ")[0]
        assert "Sizes: " in header and re.search(r"arXiv \d{4}\.\d{5}", header)
