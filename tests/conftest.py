"""Shared by all tests: eight virtual CPU devices, a persistent compilation cache, and the material beside the project."""

import os
from collections import Counter
from pathlib import Path

# Before JAX is imported anywhere: sharding is tested on eight virtual devices of this CPU. Most of the time of tests in this
# process is LLVM's, which takes half as long if it does not optimise; XLA_FLAGS=--xla_backend_optimization_level=3 has it
# do so. Jobs are run as commands, as users' are (tests/jobs/commands.py).
os.environ.setdefault("JAX_PLATFORMS", "cpu")
flags = (
    "--xla_backend_optimization_level=0",
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
)
os.environ["XLA_FLAGS"] = " ".join(flags)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")

import pytest  # noqa: E402
from absent import absent  # noqa: E402
from hypothesis import settings  # noqa: E402

# The first call of a jitted function compiles, so single examples have no deadline. CI draws the same examples each time.
settings.register_profile("cptjax", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("cptjax")

# Files that take minutes, the longest first: begun last, one of them would keep one core busy and leave the others idle.
LONGEST = [
    *(
        "test_kills",
        "test_update_settings",
        "test_train",
        "test_benchmarks",
        "test_verbs",
        "test_elastic",
        "test_study",
    ),
    *("test_processes", "test_vocabulary_jobs", "test_reproduce", "test_convert_export_score", "test_harness"),
    *("test_longer_context_runs", "test_evaluate", "test_selection_policies", "test_law_coverage"),
    *(
        "test_update",
        "test_experts",
        "test_attention",
        "test_context",
        "test_step",
        "test_attending",
        "test_attention_kernels",
    ),
    *("test_parity", "test_replicas", "test_linear_cross_entropy", "test_generate", "test_systems"),
]


def pytest_configure(config: pytest.Config) -> None:
    """Keeps our order of the files when pytest-xdist deals them out; its own counts their tests, not their time."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take longest first, then those with the most tests; those of one file stay together, in their order."""
    place = {name: number for number, name in enumerate(LONGEST)}
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (place.get(item.path.stem, len(place)), -tests[item.path], str(item.path)))


SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real text, exams and a real tiny checkpoint, kept beside the project and never committed to it."""
    if not SHARED_DATA.is_dir():
        absent(f"the test material beside the project is absent: {SHARED_DATA}", "CPTJAX_REQUIRE_SHARED")
    return SHARED_DATA
