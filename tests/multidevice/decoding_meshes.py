"""The program behind `test_decoding_meshes.py`: prompts continued on one device and on eight."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from slm_jax.generation import decode
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import shardings_for
from tests.generation.small_models import ONE, ONE_PARAMS, SIZES, THREE, THREE_PARAMS, V

MESHES = {"ddp": MeshConfig(), "fsdp+tensor": MeshConfig(data=2, fsdp=2, tensor=2, rules="fsdp+tensor")}
SAMPLED = SamplingConfig(max_new=8, temperature=1.2, top_k=9, repetition_penalty=1.1, end=3)
ROWS, LENGTH = 5, 6
RNG = np.random.default_rng(0)
IDS, STREAMS = RNG.integers(0, V, (ROWS, LENGTH)), RNG.integers(0, SIZES, (ROWS, LENGTH, 3))
MASK = np.arange(LENGTH) < RNG.integers(1, LENGTH + 1, ROWS)[:, None]
FORCED = np.where(np.arange(8) == 2, 7, -1)[None].repeat(ROWS, 0)
CASES: dict[str, tuple[Any, Any, Any, SamplingConfig, dict[str, Any]]] = {
    "sampled": (ONE, ONE_PARAMS, IDS, SAMPLED, {"forced": FORCED}),
    "guided": (ONE, ONE_PARAMS, IDS, SAMPLED.replace(guidance=2.0), {"unconditional": (IDS[:, :1], MASK[:, :1])}),
    "three streams": (THREE, THREE_PARAMS, STREAMS, SAMPLED, {}),
}
TRIED = (("sampled", "ddp"), ("sampled", "fsdp+tensor"), ("guided", "ddp"), ("three streams", "fsdp+tensor"))


def placed(model: Any, params: Any, prompts: Any, config: MeshConfig, mesh: Mesh) -> Any:
    """The weights as the rules say."""
    ids = jnp.zeros((1, 2, *prompts.shape[2:]), jnp.int32)
    abstract = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]
    return jax.device_put(params, shardings_for(abstract, mesh, config.rules))


def made(case: str, where: str | None) -> dict[str, Any]:
    """What one case gives on one device, or over a mesh with the shapes of caches in the program of each device."""
    model, params, prompts, config, more = CASES[case]
    mesh, programs, run = None, [], decode._generate
    if where is not None:
        mesh = MESHES[where].make()
        params = placed(model, params, prompts, MESHES[where], mesh)

    def kept(*args: Any) -> Any:
        programs.append(run.lower(*args).compile().as_text())
        return run(*args)

    decode._generate = kept
    out = decode.generate(model, params, prompts, MASK, jax.random.key(3), config, mesh=mesh, **more)
    decode._generate = run
    caches = sorted(set(re.findall(r"f32\[\d+,\d+,64,8\]", programs[0])))
    return {"ids": np.asarray(out.ids).tolist(), "log_probs": np.asarray(out.log_probs).tolist(), "caches": caches}


def main(*cases: str) -> dict[str, Any]:
    results = {case: {"one": made(case, None)} for case in cases}
    for case, where in TRIED:
        if case in cases:
            results[case][where] = made(case, where)
    return results
