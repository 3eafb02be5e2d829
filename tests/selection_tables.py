"""A study of selections whose gains and charges are known: its table, and its folder as the jobs leave it."""

import gzip
import hashlib
import json
import math

from study_tables import write_study

BUDGETS, PARAMS = (1000, 2000, 4000), 1000


def selection_table(factors, seeds=3, scatter=0.0, size="A", params=PARAMS):
    """Rows of `random` and of arms that take 1 / factor of its FLOPs: 5 - ln(C x factor / C0).

    scatter: by which the logarithm of an arm's factor differs between neighbouring seeds.
    """
    rows = []
    for arm, factor in {"random": 1.0, **factors}.items():
        for seed in range(seeds):
            own = factor * (math.exp(scatter * (seed - 1)) if arm != "random" else 1.0)
            for budget in BUDGETS:
                loss = 5 - math.log(budget / 1000 * own)
                rows.append(
                    {
                        "arm": arm,
                        "size": size,
                        "seed": seed,
                        "params": params,
                        "params_non_embedding": params // 3,
                        "budget": budget,
                        "budget_prior": None,
                        "trunk": "",
                        "target": "held_out",
                        "annealed": True,
                        "flops": float(budget * params),
                        "bits_per_byte": loss,
                        "bits_per_byte_held_out": loss,
                        "run": f"/gone/study/runs_{size}_0_rewarm/{arm}_{budget}_seed{seed}",
                    }
                )
    return rows


def write_selection_study(folder, rows, flops, smoke=False):
    """The folder of a study that has concluded, each arm of which reads the selection of its name.

    flops: what each selection's record has, None: no such record; an arm that is not in it reads a file that is no selection.
    """
    study = write_study(folder, rows)
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    declared = {"smoke": smoke, "arms": [{"name": arm, "blend": {arm: 1.0}, "then": None} for arm in arms]}
    (study / "declaration.json").write_text(json.dumps({"declared": declared}))
    data = {}
    for arm in arms:
        path = f"/gone/study/{arm}/selected.jsonl.gz" if arm in flops else f"/data/{arm}.jsonl"
        content = gzip.compress(arm.encode(), mtime=0)
        data[arm] = {"files": [{"path": path, "sha256": hashlib.sha256(content).hexdigest()}]}
        if arm in flops:
            (study / arm).mkdir()
            (study / arm / "selected.jsonl.gz").write_bytes(content)
            record = {"kept_units": 1} if flops[arm] is None else {"flops": flops[arm]}
            (study / arm / "selection.json").write_text(json.dumps(record))
    for size in dict.fromkeys(row["size"] for row in rows):
        (study / f"runs_{size}_0_rewarm").mkdir()
        (study / f"runs_{size}_0_rewarm" / "data.json").write_text(json.dumps(data))
    return study


def flops_of(embedding=0.0, comparing=0.0, training=None, checkpoint="weights", base=None):
    """What selection.json keeps; training: of its embedder, None without one."""
    made = None if training is None else {"checkpoint": checkpoint, "training": training, "base": base}
    return {"embedding": embedding, "comparing": comparing, "embedder": made}
