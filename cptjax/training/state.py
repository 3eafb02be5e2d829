"""What a run is at a step: the counter, the parameters, the optimizer's moments. A plain dictionary, sharded.

    {"step": int32 scalar, "params": {dotted name: float32}, "optimizer": optax state}

Nothing else is carried from step to step: the schedule and the data are functions of the counter.
"""

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cptjax.models.config import DecoderConfig
from cptjax.models.model import Params, abstract_parameters

TrainState = dict


def abstract_state(config: DecoderConfig, transformation: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """The state's shapes, dtypes and shardings, with no memory behind them: what checkpoints are restored into."""
    params = abstract_parameters(config, mesh)
    everywhere = NamedSharding(mesh, PartitionSpec())

    def place(path, leaf):
        # Moments stand under their parameter's name and live where it lives; counters live everywhere.
        name = next((key.key for key in reversed(path) if isinstance(key, jax.tree_util.DictKey)), None)
        same = name in params and params[name].shape == leaf.shape
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=params[name].sharding if same else everywhere)

    optimizer = jax.tree_util.tree_map_with_path(place, jax.eval_shape(transformation.init, params))
    return {"step": jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere), "params": params, "optimizer": optimizer}


def state_shardings(abstract: TrainState):
    """The shardings of an abstract state, as jit takes them."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def fresh_state(params: Params, abstract: TrainState, transformation: optax.GradientTransformation) -> TrainState:
    """Step 0 with these parameters and empty moments. The parameters are taken over, not copied."""
    initialize = jax.jit(transformation.init, out_shardings=state_shardings(abstract)["optimizer"])
    return {"step": step_counter(0, abstract), "params": params, "optimizer": initialize(params)}


def step_counter(step: int, abstract: TrainState) -> jax.Array:
    """The counter as it lives on the mesh."""
    return jax.device_put(jnp.asarray(step, jnp.int32), abstract["step"].sharding)
