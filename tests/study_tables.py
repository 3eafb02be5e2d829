"""A study's table of runs whose cost ratio and exchange rates are known, written as conclude writes it."""

import json
import math

SIZES = {"A": 252_144, "B": 450_000, "C": 1_000_000, "E": 2_500_000}


def table(ratio, sizes=SIZES, seeds=3, rates=(0.2, 0.5), scatter=0.0):
    """Rows of base, unfiltered and filtered. Target: 5 - ln(C / C0), of filtered at C x ratio(N); old: 2 + rate x (5 - target).

    Args:
        ratio: of N; rates: what is forgotten of the old domain per target gained, by the unfiltered and the filtered arm.
        scatter: by which the logarithm of the ratio differs between neighbouring seeds.
    """
    rows = []
    for size, params in sizes.items():
        common = {"size": size, "params": params, "params_non_embedding": params // 3, "annealed": True}
        for seed in range(seeds):
            base = f"runs_{size}_0_rewarm/base_100_seed{seed}"
            own = {
                "arm": "base",
                "budget": 100,
                "budget_prior": None,
                "trunk": "",
                "target": "general",
                "run": f"/gone/study/{base}",
                "flops": 10.0 * params,
            }
            own |= {"bits_per_byte": 2.0 + seed, "bits_per_byte_general": 2.0 + seed, "bits_per_byte_held_out": 9.0}
            rows.append({**common, "seed": seed, **own})
            for arm, rate, factor in (
                ("unfiltered", rates[0], 1.0),
                ("filtered", rates[1], ratio(params) * math.exp(scatter * (seed - 1))),
            ):
                for budget in (1000, 2000, 4000):
                    target = 5 - math.log(budget / 1000 * factor)
                    name = f"runs_{size}_1_rewarm/{arm}_after_100_{budget}_seed{seed}"
                    own = {
                        "arm": arm,
                        "budget": budget,
                        "budget_prior": 100,
                        "trunk": base,
                        "target": "held_out",
                        "run": f"/gone/study/{name}",
                    }
                    own |= {"flops": float(budget * params), "bits_per_byte": target, "bits_per_byte_held_out": target}
                    rows.append(
                        {**common, "seed": seed, **own, "bits_per_byte_general": 2 + seed + rate * (5 - target)}
                    )
    return rows


def write_study(folder, rows, smoke=False):
    """The folder of a study that has concluded with these rows."""
    (folder / "conclusion").mkdir(parents=True)
    (folder / "conclusion" / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "declaration.json").write_text(json.dumps({"declared": {"smoke": smoke}}))
    return folder
