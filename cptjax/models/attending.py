"""How a decoder's layers attend within documents: the plan made once for all of them, and the mesh that kernels run under."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from cptjax.kernels.attention import attention, plan_attention
from cptjax.kernels.attention.choice import check_platform, choose, chosen
from cptjax.kernels.attention.local import check_kernels
from cptjax.models.config import DecoderConfig
from cptjax.models.context import CONTEXT, around_ring, attend_around, check_pieces, ring_of
from cptjax.models.layers import Attend
from cptjax.models.numerics import Numerics
from cptjax.models.shared_heads import with_copies
from cptjax.sharding.rules import is_cut, partition_spec


def check_attention(config: DecoderConfig, numerics: Numerics, mesh: Mesh, length: int) -> None:
    """Refuses, before anything starts, an implementation that the mesh's devices cannot run, or not this model, or not
    around a ring, and rows that the mesh does not cut evenly.

    Raises:
        ConfigurationError: with what would do.
    """
    device = mesh.devices.flat[0]
    choice = choose(numerics.attention, device.platform, device.device_kind)
    check_platform(choice, device.platform)
    if choice.name == "pallas_tpu":
        check_kernels(device.device_kind, config.head_dim)
    if mesh.shape[CONTEXT] > 1:
        check_pieces(length, mesh.shape[CONTEXT])
        around_ring(choice.name, numerics)


def attend_within_documents(
    config: DecoderConfig, numerics: Numerics, segment_ids: jax.Array, balanced: bool = False
) -> Attend:
    """What layers attend by, for rows with these int32 [batch, length] segment ids. To be made outside the loop over layers.

    XLA cannot cut a kernel of ours over a mesh: it runs in `shard_map`, each device with its rows and its heads. Plain JAX
    is left to XLA.

    Args:
        balanced: queries, keys and values come in the order of `context.balanced` (segment ids in the row's own): over a
            mesh that cuts rows they meet around a ring.
    """
    implementation = chosen(numerics.attention)
    if balanced and ring_of(segment_ids.shape[1]) is not None:
        return attend_around(config, numerics, segment_ids, implementation)
    mesh = jax.sharding.get_abstract_mesh()
    mapped = implementation != "reference" and is_cut()
    rows = partition_spec(mesh, ("batch", None), segment_ids.shape) if mapped else None

    def planned(window: int | None) -> Any:
        plan = functools.partial(
            plan_attention,
            head_dim=config.head_dim,
            dtype=jnp.dtype(numerics.compute_dtype),
            window=window,
            implementation=implementation,
        )
        # Every array of a plan begins with a dimension of the rows that it was made for: each device has its own.
        if mapped:
            plan = jax.shard_map(plan, mesh=mesh, in_specs=(rows,), out_specs=PartitionSpec(rows[0]), check_vma=False)
        return plan(segment_ids)

    plans = {window: planned(window) for window in dict.fromkeys(config.windows)}

    def attend(query: jax.Array, key: jax.Array, value: jax.Array, window: int | None) -> jax.Array:
        def local(query, key, value, segment_ids, plan):
            return attention(
                query,
                key,
                value,
                segment_ids=segment_ids,
                window=window,
                soft_cap=config.attention_soft_cap,
                scale=config.attention_scale,
                plan=plan,
                implementation=implementation,
            )

        if not mapped:
            return local(query, key, value, segment_ids, plans[window])
        cut = partition_spec(mesh, ("batch", None, "heads", None), query.shape)
        key, value = with_copies(query, key, value)
        rows = PartitionSpec(cut[0])
        over_mesh = jax.shard_map(
            local, mesh=mesh, in_specs=(cut, cut, cut, rows, rows), out_specs=cut, check_vma=False
        )
        return over_mesh(query, key, value, segment_ids, plans[window])

    return attend
