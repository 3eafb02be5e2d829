"""What a run is at a step: the counter, the parameters, the optimizer's moments. A plain dictionary, sharded.

    {"step": int32 scalar, "params": {dotted name: float32}, "optimizer": optax state, "watch": what the guard remembers}

and "average", like "params", where the run keeps one. Nothing else is carried from step to step: the schedule and the data
are functions of the counter.
"""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cptjax.models.config import DecoderConfig
from cptjax.models.model import Params, abstract_parameters
from cptjax.training.update import TrainState, Update


def abstract_state(config: DecoderConfig, update: Update, mesh: Mesh) -> TrainState:
    """The state's shapes, dtypes and shardings, with no memory behind them: what checkpoints are restored into."""
    params = abstract_parameters(config, mesh)
    everywhere = NamedSharding(mesh, PartitionSpec())

    def place(path, leaf):
        # Moments stand under their parameter's name and live where it lives; counters live everywhere.
        name = next((key.key for key in reversed(path) if isinstance(key, jax.tree_util.DictKey)), None)
        same = name in params and params[name].shape == leaf.shape
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=params[name].sharding if same else everywhere)

    beside = jax.tree_util.tree_map_with_path(place, jax.eval_shape(update.beside_parameters, params))
    return {"step": jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere), "params": params, **beside}


def state_shardings(abstract: TrainState):
    """The shardings of an abstract state, as jit takes them."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def fresh_state(params: Params, abstract: TrainState, update: Update) -> TrainState:
    """Step 0 with these parameters and empty moments. The parameters are taken over, not copied."""
    places = {name: place for name, place in state_shardings(abstract).items() if name not in ("step", "params")}
    beside = jax.jit(update.beside_parameters, out_shardings=places)(params)
    return {"step": counter(0, abstract), "params": params, **beside}


def at_step(state: TrainState, step: int, abstract: TrainState) -> TrainState:
    """The state as it is, its counter at `step`: what lies between was passed over."""
    watch = {**state["watch"], "refused": counter(0, abstract)}  # refused steps on both sides are not one after another
    return {**state, "step": counter(step, abstract), "watch": watch}


def counter(value: int, abstract: TrainState) -> jax.Array:
    """A whole number as it lives on the mesh."""
    return jax.device_put(jnp.asarray(value, jnp.int32), abstract["step"].sharding)
