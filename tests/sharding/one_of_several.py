"""One of several processes that read a run's steps together; test_several_processes.py starts it.

python one_of_several.py PLAN.json OUTPUT.npz STEP STEP ...      (with JAX_* set as for any job of several processes)
"""

import json
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np

from cptjax.data.batch import batch
from cptjax.data.plan import DataPlan
from cptjax.data.rows import RowReader
from cptjax.sharding.batches import batches
from cptjax.sharding.mesh import build_mesh
from cptjax.sharding.processes import join_processes
from cptjax.training.batch_hash import batch_hash


def main(plan_file: str, output: str, *steps: str) -> None:
    """Writes this process's rows of each step: `<step>/<array>/<first row>`, and `<step>/hash`."""
    join_processes()
    mesh = build_mesh({"fsdp": -1})
    found = json.loads(Path(plan_file).read_text(encoding="utf-8"))
    plan = DataPlan.from_json(json.dumps(found["plan"]))
    readers = {name: RowReader(folder) for name, folder in found["rows"].items()}
    hashed, arrays = jax.jit(batch_hash), {}
    for step, rows in batches(partial(batch, readers, plan), [int(step) for step in steps], plan.batch_rows, mesh):
        arrays[f"{step}/hash"] = np.asarray(hashed(rows))
        for name, array in rows.items():
            for shard in array.addressable_shards:
                arrays[f"{step}/{name}/{shard.index[0].start or 0}"] = np.asarray(shard.data)
    np.savez(output, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
