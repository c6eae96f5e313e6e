"""The program behind `test_decoder_meshes.py`: a decoder trained on one device and on eight arranged in many ways.

Arguments: names of `MESHES`, each perhaps with ", chunks". What is returned: the parameters after two steps under each,
and how some weights lay. `attention` and `convolution` compare these layers
alone.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.nn import self_attention
from slm_jax.nn.conv_forms import conv_lax, conv_transpose
from slm_jax.nn.self_attention import attend_self
from slm_jax.nn.visibility import Visibility
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.placement import placed_on
from slm_jax.parallel.sharding import put_batch
from slm_jax.sequence_models.presets import llama
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.step import Player
from tests.multidevice.steps import shards, take_steps

STEPS, ROWS, LENGTH = 2, 8, 16
MODEL = llama(
    "7b", vocabulary=24, layers=2, width=16, heads=4, kv_heads=2, hidden=32, max_positions=LENGTH, unroll=False
).make()
ADAM = OptimizerConfig(learning_rate=1e-2)
PLAIN = OptimizerConfig(name="sgd", learning_rate=0.1, schedule="constant")
"""Does not enlarge the rounding of gradients that are nearly nothing."""
MESHES = {
    "ddp": MeshConfig(),
    "fsdp": MeshConfig(data=2, fsdp=4, rules="fsdp"),
    "tensor": MeshConfig(data=4, tensor=2, rules="tensor"),
    "fsdp+tensor": MeshConfig(data=1, fsdp=4, tensor=2, rules="fsdp+tensor"),
    "slices": MeshConfig(slices=2, data=1, fsdp=4, rules="fsdp"),
    "sequence": MeshConfig(data=2, sequence=4),
    "all": MeshConfig(data=1, fsdp=2, sequence=2, tensor=2, rules="fsdp+tensor"),
}
SHOWN = ("blocks/layers/mlp/up/kernel", "blocks/layers/attention/query/kernel", "tokens/embedding")


def batches() -> list[dict[str, np.ndarray]]:
    """Packed rows with padding at their ends."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(STEPS):
        lengths = rng.integers(LENGTH // 2, LENGTH + 1, ROWS)
        segments = np.where(np.arange(LENGTH) < lengths[:, None], 1 + (np.arange(LENGTH) >= LENGTH // 3), 0)
        ids = rng.integers(0, 24, (ROWS, LENGTH))
        made.append({"ids": ids.astype(np.int32), "segment_ids": segments.astype(np.int32)})
    return made


def trained(
    config: MeshConfig, devices: list, chunk: int | None, model: Any = MODEL, optimizer: OptimizerConfig = ADAM
) -> tuple[dict[str, Any], Any]:
    objective = NextTokenConfig(chunk=chunk).make(model)
    players = [Player(name="lm", objective=objective, optimizer=optimizer)]

    def initialise(key: jax.Array) -> Any:
        return model.init(key, jnp.zeros((1, 2), jnp.int32))

    state, outputs = take_steps(initialise, players, batches(), config, devices)
    losses = [float(out.sums["loss"][0]) for out in outputs]
    found = {path: np.asarray(leaf).tolist() for path, leaf in flatten_by_path(state.params).items()}
    return found | {"losses": losses}, state


def spread_attention() -> dict[str, float]:
    """Largest difference from one device of both backends over a mesh, forward and in all gradients."""
    keys = jax.random.split(jax.random.key(1), 3)
    q = jax.random.normal(keys[0], (2, 256, 4, 8))
    k, v = (jax.random.normal(key, (2, 256, 2, 8)) for key in keys[1:])
    segments = jnp.where(jnp.arange(256) < jnp.array([[250], [150]]), jnp.arange(256) // 100 + 1, 0)
    real, prefix = (segments > 0)[..., None, None], jnp.arange(256) % 100 < jnp.array([[70], [30]])
    rules = {
        "prefix": Visibility(segments, prefix=prefix),
        "blocks": Visibility(segments, block=48, window=2),
    }

    def differentiated(sees: Visibility, backend: str) -> Any:
        def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return jnp.square(jnp.where(real, attend_self(q, k, v, sees, backend=backend), 0.0)).sum()

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(q, k, v)

    mesh, found = MeshConfig(data=2, sequence=2, tensor=2, rules="tensor").make(), {}
    for name, sees in rules.items():
        wanted = differentiated(sees, "xla")
        for backend in ("xla", "splash"):
            with placed_on(mesh):
                value, gradients = differentiated(sees, backend)
            apart = (float(jnp.abs(one - other).max()) for one, other in zip(gradients, wanted[1], strict=True))
            found[f"{backend}, {name}"] = max(float(abs(value / wanted[0] - 1)), *apart)
    return found


def refused_over_spread_time() -> str:
    """What is said of blocks that the splash kernel cannot do over spread time."""
    q, sees = jnp.zeros((2, 256, 4, 8)), Visibility(block=self_attention.LANES)
    with placed_on(MeshConfig(data=2, sequence=2, tensor=2, rules="tensor").make()):
        try:
            jax.eval_shape(partial(attend_self, sees=sees, backend="splash"), q, q, q)
        except UserError as error:
            return str(error)
    return ""


def convolution(*meshes: str) -> dict[str, float]:
    """By how much the gradients of grouped convolutions differ from one device's over each mesh, at most."""
    keys = jax.random.split(jax.random.key(2), 2)
    x, kernel = jax.random.normal(keys[0], (8, 24, 8)), jax.random.normal(keys[1], (5, 2, 8))

    def loss(form: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
        if form == "plain":
            y = conv_lax(x, kernel, (2, 2), 1, 1, 4)
        else:
            y = conv_transpose(x, kernel, 2, (2, 3), 4)
        return jnp.square(y).sum()

    found = {}
    for form in ("plain", "transposed"):
        gradients = jax.jit(jax.grad(lambda x, kernel, form=form: loss(form, x, kernel), argnums=(0, 1)))
        wanted = gradients(x, kernel)
        for name in meshes:
            mesh = MESHES[name].make()
            placed = put_batch({"x": np.asarray(x)}, mesh)["x"]
            with placed_on(mesh):
                made = jax.jit(lambda x, kernel, form=form: jax.grad(partial(loss, form), argnums=(0, 1))(x, kernel))
                pairs = zip(made(placed, kernel), wanted, strict=True)
                found[f"{form}, {name}"] = max(apart(one, other) for one, other in pairs)
    return found


def apart(one: jax.Array, other: jax.Array) -> float:
    """Largest difference, as a share of the largest value."""
    return float(jnp.abs(one - other).max() / jnp.abs(other).max())


def main(*cases: str) -> dict[str, Any]:
    devices = jax.devices()
    results: dict[str, Any] = {"shards": {}, "one": trained(MeshConfig(), devices[:1], None)[0]}
    for case in cases:
        name, _, chunks = case.partition(", ")
        results[case], state = trained(MESHES[name], devices, 3 if chunks else None)
        lies = shards(state)
        results["shards"][case] = {path: lies[path] for path in SHOWN}
    return results


def tied(*meshes: str) -> dict[str, Any]:
    """The same of a model whose head is its table of embeddings, with logits in chunks on every mesh."""
    model, devices = MODEL.config.replace(tied_head=True).make(), jax.devices()
    one = {"one": trained(MeshConfig(), devices[:1], None, model, PLAIN)[0]}
    return one | {name: trained(MESHES[name], devices, 3, model, PLAIN)[0] for name in meshes}


def attention() -> dict[str, Any]:
    """Attention alone, over time that is spread."""
    assert self_attention.platform() == "cpu"
    return {"apart": spread_attention(), "refused": refused_over_spread_time()}
