"""The program behind `test_lora_meshes.py`: adapters trained on one device and on eight arranged in many ways.

Arguments: names of `MESHES`, each with ", float" or ", int8". What is returned: losses and adapters after three steps
under each, and how some weights lay.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from slm_jax.core.trees import flatten_by_path
from slm_jax.nn.int8_base import quantise_int8
from slm_jax.nn.linear_sites import linear_sites
from slm_jax.nn.lora import LoRAConfig, lora_initialise, with_lora
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.placement import placed_on
from slm_jax.parallel.sharding import put_batch, shardings_for, unbox
from slm_jax.sequence_models.presets import llama

STEPS, ROWS, LENGTH, RATE = 3, 8, 16, 0.5
MODEL = llama(
    "7b",
    vocabulary=24,
    layers=2,
    width=16,
    heads=4,
    kv_heads=2,
    hidden=32,
    max_positions=LENGTH,
    unroll=False,
    init_scale=0.2,
).make()
CONFIGS = (
    LoRAConfig(targets=".*/attention/(query|value|out)", rank=2, alpha=4.0, name="speech"),
    LoRAConfig(targets=".*/mlp/(up|down)", rank=3, alpha=3.0, name="style"),
)
ADAPTED = with_lora(MODEL, CONFIGS)
MESHES = {
    "ddp": MeshConfig(),
    "tensor": MeshConfig(data=4, tensor=2, rules="tensor"),
    "slices": MeshConfig(slices=2, data=1, fsdp=4, rules="fsdp"),
    "sequence": MeshConfig(data=2, sequence=4),
    "fsdp": MeshConfig(data=2, fsdp=4, rules="fsdp"),
    "fsdp+tensor": MeshConfig(data=1, fsdp=4, tensor=2, rules="fsdp+tensor"),
    "all": MeshConfig(data=1, fsdp=2, sequence=2, tensor=2, rules="fsdp+tensor"),
}
LAYERS = "blocks/layers"
SHOWN = (
    f"params/{LAYERS}/attention/out/kernel",
    f"params/{LAYERS}/attention/out/kernel/q",
    f"params/{LAYERS}/attention/out/kernel/scale",
    f"lora/{LAYERS}/attention/out/speech/a",
    f"lora/{LAYERS}/attention/query/speech/b",
    f"lora/{LAYERS}/mlp/up/style/b",
)


def base(key: jax.Array) -> Any:
    return MODEL.init(key, jnp.zeros((1, 2), jnp.int32))


def base_in_int8(key: jax.Array) -> Any:
    sites = linear_sites(base)
    return {"params": quantise_int8(base(key)["params"], sites)}


def loss(lora: Any, params: Any, ids: jax.Array) -> jax.Array:
    variables = {"params": params, "lora": lora}
    features = ADAPTED.apply(variables, ids, method="hidden")
    logits = features @ ADAPTED.apply(variables, method="head_matrix")
    return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], ids[:, 1:]).mean()


def step(variables: Any, ids: jax.Array) -> tuple[Any, jax.Array]:
    value, gradients = jax.value_and_grad(loss)(variables["lora"], variables["params"], ids)
    moved = jax.tree.map(lambda leaf, gradient: leaf - RATE * gradient, variables["lora"], gradients)
    return {**variables, "lora": moved}, value


def trained(place: MeshConfig, devices: list, int8: bool) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Losses and adapters after the steps, and what one device held of some weights."""
    mesh, key = place.make(devices), jax.random.key(0)
    initialise = lora_initialise(base_in_int8 if int8 else base, CONFIGS)
    shardings = shardings_for(jax.eval_shape(initialise, key), mesh, place.rules)
    variables = jax.jit(lambda key: unbox(initialise(key)), out_shardings=shardings)(key)
    ids = np.random.default_rng(0).integers(0, 24, (ROWS, LENGTH)).astype(np.int32)
    losses = []
    with placed_on(mesh):
        run = jax.jit(step, out_shardings=(shardings, None))
        for _ in range(STEPS):
            variables, value = run(variables, put_batch({"ids": ids}, mesh)["ids"])
            losses.append(float(value))
    leaves = flatten_by_path(variables)
    found = {path: np.asarray(leaf).tolist() for path, leaf in leaves.items() if path.startswith("lora/")}
    lies = {path: list(leaves[path].addressable_shards[0].data.shape) for path in SHOWN if path in leaves}
    return found | {"losses": losses}, lies


def main(*cases: str) -> dict[str, Any]:
    devices = jax.devices()
    results: dict[str, Any] = {"shards": {}}
    for kind in {case.partition(", ")[2] for case in cases}:
        results[f"one, {kind}"] = trained(MeshConfig(), devices[:1], kind == "int8")[0]
    for case in cases:
        name, _, kind = case.partition(", ")
        results[case], results["shards"][case] = trained(MESHES[name], devices, kind == "int8")
    return results
