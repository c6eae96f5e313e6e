"""Four devices and one leave out the same batches and end with the same parameters, also when weights are spread."""

import jax
import numpy as np

from slm_jax.core.trees import flatten_by_path
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import put_batch
from slm_jax.training.spikes import SpikeConfig, nothing_seen
from slm_jax.training.state import abstract_state, new_state
from slm_jax.training.step import make_step, optimizer_init
from tests.training.small_run import SeededBatches, initialise, plain_objective, player

POLICY = SpikeConfig(window=8, least=4, sigmas=100.0)


def run(config, devices):
    players, mesh = [player(objective=plain_objective)], config.make(devices)
    opt = optimizer_init(players, 8)
    parts = {"ema": None, "memory": lambda: nothing_seen(POLICY, ["net"])}
    _, shardings = abstract_state(initialise, opt, mesh=mesh, rules=config.rules, **parts)
    state = new_state(initialise, opt, key=jax.random.key(0), shardings=shardings, **parts)
    step = make_step(players, 8, mesh=mesh, shardings=shardings, spike=POLICY)
    left_out = []
    for number, batch in zip(range(8), SeededBatches(), strict=False):
        if number == 5:
            batch = {**batch, "y": batch["y"] + 1000}
        state, output = step(state, put_batch(batch, mesh), None, ("net",))
        left_out.append(bool(output.verdict.left_out))
    arrays = {path: np.asarray(leaf).tolist() for path, leaf in flatten_by_path((state.params, state.spikes)).items()}
    return {"left_out": left_out, "arrays": arrays}


def on_four():
    devices = jax.devices()[:4]
    return {
        "one": run(MeshConfig(data=1), devices[:1]),
        "ddp": run(MeshConfig(data=4), devices),
        "fsdp": run(MeshConfig(data=2, fsdp=2, rules="fsdp"), devices),
    }


def test_four_devices_leave_out_what_one_leaves_out(eight):
    found = eight("test_spike_policy:on_four")
    one = found.pop("one")
    assert one["left_out"] == [number == 5 for number in range(8)]
    for name, other in found.items():
        assert other["left_out"] == one["left_out"], name
        for path, values in one["arrays"].items():
            np.testing.assert_allclose(other["arrays"][path], values, rtol=1e-4, atol=1e-5, err_msg=f"{name}: {path}")
