"""Mimi push by push against Kyutai's own package, under Kyutai's own names."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.interop.engine import export_params, import_params, resolve
from slm_jax.interop.family_mimi import MIMI
from slm_jax.serving.codec import CodecSession
from tests.parity.test_codecs import MIMI_SIZE, drawn, waves

torch = pytest.importorskip("torch")
os.environ.setdefault("NO_TORCH_COMPILE", "1")
loaders = pytest.importorskip("moshi.models.loaders")
WINDOW = 64
"""More than the frames here: of two that come at once their ring (0.2.13) hides what the first should still see."""
SHAPE = {
    "seanet": {**loaders._seanet_kwargs, "dimension": 16, "n_filters": 4, "ratios": [3, 2]},
    "quantizer": {"dimension": 6, "n_q": 4, "bins": 32, "input_dimension": 16, "output_dimension": 16},
    "transformer": {
        **loaders._transformer_kwargs,
        "d_model": 16,
        "num_heads": 2,
        "num_layers": 2,
        "context": WINDOW,
        "dim_feedforward": 24,
        "input_dimension": 16,
        "output_dimensions": [16],
    },
}


@pytest.fixture(scope="module")
def mimi():
    """Their model, our config and weights."""
    hop = 12
    settings = {"sample_rate": 24_000, "channels": 1, "frame_rate": 24_000 / hop, **SHAPE}
    model = drawn(loaders.get_mimi(None, settings, num_codebooks=4))
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if name.endswith("embedding_sum"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
        if name.endswith("_initialized"):
            buffer.fill_(1.0)
    config = MIMI.read_config({"model_type": "mimi", **MIMI_SIZE, "sliding_window": WINDOW})
    arrays = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    shapes = {name: value.shape for name, value in arrays.items()}
    plan = resolve(MIMI.table(config, "kyutai"), shapes, MIMI.abstract(config))
    return model, config, jax.tree.map(jnp.asarray, import_params(plan, arrays.__getitem__))


def test_every_push_gives_what_theirs_gives(mimi):
    model, config, params = mimi
    samples, _ = waves(240, 240)
    session = CodecSession(config, {"params": params}, batch=2)
    everyone = np.ones(2, bool)
    codes, sounds = [], []
    with torch.no_grad(), model.streaming(2):
        for start in range(0, 240, config.hop):
            part = np.array(samples[:, start : start + config.hop])
            wanted = model.encode(torch.from_numpy(part)[:, None])
            sound = model.decode(wanted)[:, 0].numpy()
            ids = np.stack(session.encode(part, everyone))
            np.testing.assert_array_equal(ids.swapaxes(1, 2), wanted)
            made = np.stack(session.decode(ids, everyone))
            np.testing.assert_allclose(made, sound, atol=1e-4)
            codes.append(ids)
            sounds.append(sound)
    assert len(np.unique(codes)) > 20 and np.std(sounds) > 0.05


def test_their_names_are_written(mimi):
    model, config, params = mimi
    written = dict(export_params(MIMI.table(config, "kyutai"), params))
    theirs = model.state_dict()
    for name, value in written.items():
        there = name.replace("in_proj_weight", "in_projs.0.weight").replace("out_proj.weight", "out_projs.0.weight")
        if not name.endswith(("embedding_sum", "cluster_usage")):
            np.testing.assert_allclose(value, theirs[there].numpy().reshape(value.shape), rtol=1e-6)
    assert len(written) == len(theirs)
