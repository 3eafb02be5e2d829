"""In a step of Slurm a process that has its host to itself has all its GPUs; JAX would take one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from free_ports import free_port

from cptjax.sharding.processes import has_host_to_itself

ROOT = Path(__file__).parents[2]
SHOWS = """
from cptjax.sharding.processes import join_processes
join_processes()
from jax._src import xla_bridge
print("visible:", xla_bridge.CUDA_VISIBLE_DEVICES.value)
"""


@pytest.mark.parametrize(
    "tasks, alone", [("1(x4)", True), ("1", True), ("1,1(x2)", True), ("8(x4)", False), ("1(x3),2", False), ("", False)]
)
def test_tasks_per_node(tasks, alone):
    assert has_host_to_itself({"SLURM_STEP_TASKS_PER_NODE": tasks}) == alone


@pytest.mark.slow
@pytest.mark.parametrize("settings", [False, True], ids=["by Slurm", "by JAX_*"])
def test_the_task_of_a_host_sees_all_its_gpus(settings):
    port = free_port()
    running = []
    for index in range(2):
        environment = {
            "SLURM_JOB_ID": "1",
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_NTASKS": "2",
            "SLURM_PROCID": str(index),
            "SLURM_LOCALID": "0",
            "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
            "JAX_COORDINATOR_PORT": str(port),
        }
        if settings:
            given = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"}
            environment |= given | {"JAX_PROCESS_ID": str(index)}
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", SHOWS],
                env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    printed = [process.communicate(timeout=120)[0] for process in running]
    assert all("visible: all" in said for said in printed), printed
