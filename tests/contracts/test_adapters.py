"""The contract of adapters: known lengths and widths, masks honoured, batched = single."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.adapters.alignformer import AlignFormerConfig
from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.cif import CIFConfig
from slm_jax.adapters.conformer import ConformerAdapterConfig
from slm_jax.adapters.conv import ConvAdapterConfig
from slm_jax.adapters.ctc import CTCAdapterConfig, CTCSegmentsConfig
from slm_jax.adapters.ends import EndsConfig
from slm_jax.adapters.gain import GainConfig
from slm_jax.adapters.joined import JoinedConfig
from slm_jax.adapters.layerwise_qformer import LayerwiseQFormerConfig
from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.adapters.mlp import MLPAdapterConfig
from slm_jax.adapters.pool import PoolAdapterConfig
from slm_jax.adapters.qformer import QFormerAdapterConfig, QFormerConfig
from slm_jax.adapters.tltr import TLTRConfig
from slm_jax.adapters.transformer import TransformerAdapterConfig
from slm_jax.adapters.window_qformer import WindowQFormerConfig
from slm_jax.core.config import from_json
from slm_jax.core.contracts import Adapter
from slm_jax.core.types import Frames
from slm_jax.nn.conformer import ConformerShape
from tests.contracts import checks

WIDTH, LENGTH, SECOND = 6, 12, 4
TRUNK = QFormerConfig(context_width=WIDTH, width=8, layers=2, heads=2, hidden=12, cross_every=2)
LABELS = {"vocabulary": 3}
CONVOLUTIONS = ConvAdapterConfig(layers=((6, 3, 2, 1), (8, 3, 2, 1)), activation="glu", bottleneck=3, projection=5)
LAYERS = TransformerAdapterConfig(width=5, inner=8, layers=2, heads=2, hidden=12)
CONFORMER = ConformerShape(layers=2, width=8, heads=2, hidden=12, kernel=3, dropout=0.0)
WINDOWS = WindowQFormerConfig(width=5, qformer=TRUNK, window=4, queries=2)
JOINED = JoinedConfig(widths=(WIDTH, SECOND))
CONTEXT_10 = TRUNK.replace(context_width=WIDTH + SECOND)
ADAPTERS: dict[str, Any] = {
    "linear": LinearAdapterConfig(width=5),
    "stacked": LinearAdapterConfig(width=5, stack=3),
    "mlp, tail dropped": MLPAdapterConfig(width=5, hidden=7, stack=3),
    "mlp, tail padded": MLPAdapterConfig(width=5, hidden=7, stack=3, tail="pad", norm=True),
    "pool": PoolAdapterConfig(width=5),
    "pool with ends": ChainConfig(parts=(PoolAdapterConfig(width=5), EndsConfig(width=5))),
    "linear with a gain": ChainConfig(parts=(LinearAdapterConfig(width=5), GainConfig(width=5, start=0.5))),
    "conv": ConvAdapterConfig(layers=((6, 4, 4, 0), (5, 3, 1, 2)), activation="silu"),
    "gated conv": CONVOLUTIONS,
    "transformer": LAYERS.replace(sinusoids=True),
    "tltr": TLTRConfig(width=5, layers=2, layer_heads=3),
    "chain": ChainConfig(parts=(CONVOLUTIONS, LAYERS.replace(inner=None, heads=1), LinearAdapterConfig(width=3))),
    "qformer": QFormerAdapterConfig(width=5, qformer=TRUNK, queries=3, norm="before"),
    "layer-wise qformer": LayerwiseQFormerConfig(
        width=5, layers=2, qformer=TRUNK.replace(context_width=WIDTH // 2, query_norm=False), queries=3
    ),
    "window qformer": WINDOWS,
    "window qformer, padded": WINDOWS.replace(tail="pad", norm=True),
    "window qformer, padding seen": WINDOWS.replace(tail="pad", fill_seen=True),
    "two encoders": ChainConfig(parts=(JOINED, WINDOWS.replace(qformer=CONTEXT_10))),
    "two encoders, shorter": ChainConfig(parts=(JOINED.replace(lasts="shorter", norms=False), LAYERS)),
    "conformer": ConformerAdapterConfig(width=5, inner=CONFORMER),
    "conformer, fewer frames": ConformerAdapterConfig(width=5, inner=CONFORMER, factor=2, channels=3),
    "cif": CIFConfig(width=5, keep=0.8, start=0.4),
    "ctc": CTCAdapterConfig(width=5, segments=CTCSegmentsConfig(rule="runs", **LABELS)),
    "ctc, few": CTCAdapterConfig(width=5, segments=CTCSegmentsConfig(rule="spoken_frames", keep=0.4, **LABELS)),
    "alignformer": AlignFormerConfig(
        width=5, segments=CTCSegmentsConfig(rule="spoken_spans", keep=0.4, **LABELS), qformer=TRUNK, queries=2
    ),
}
AT_MOST = ("cif", "ctc", "ctc, few", "alignformer")
"""Where the content says how many frames come out."""
VALUES = jax.random.normal(jax.random.key(0), (2, LENGTH, WIDTH))
MASK = jnp.arange(LENGTH) < jnp.array([[LENGTH], [7]])


@pytest.fixture(params=ADAPTERS, scope="module")
def part(request):
    """Name, config, parameters and jitted `run(values, mask) -> Frames`."""
    config = ADAPTERS[request.param]
    params = checks.random_params(config.make(), jax.random.key(1), *inputs(VALUES, MASK))
    return request.param, config, params, jax.jit(partial(applied, config, params))


def inputs(values, mask):
    """The frames, and as a second stream some channels of all but the first one."""
    return Frames(values, mask), Frames(values[:, 1:, -SECOND:], mask[:, 1:])


def applied(config, params, values, mask):
    return config.make().apply({"params": params}, *inputs(values, mask))


def real_of(run, mask):
    return run(VALUES[: len(mask), : mask.shape[1]], mask).mask


def in_bfloat16(config):
    """The config with every dtype in it changed."""

    def changed(data):
        if isinstance(data, dict):
            return {name: "bfloat16" if name == "dtype" else changed(value) for name, value in data.items()}
        return [changed(item) for item in data] if isinstance(data, list) else data

    return from_json(changed(config.to_json()))


def test_lengths_and_width_are_known_beforehand(part):
    name, config, _, run = part
    assert isinstance(config.make(), Adapter)
    assert config.frames_out(0) == 0
    for first in range(0, LENGTH, 2):
        counts = np.array([first, first + 1]) if "shorter" not in name else np.array([first + 1, first + 2])
        out = run(VALUES, jnp.arange(LENGTH) < counts[:, None])
        found = np.asarray(out.mask).sum(1).tolist()
        promised = [config.frames_out(int(n) - ("shorter" in name)) for n in counts]
        assert (np.diff(out.mask.astype(int), axis=1) <= 0).all(), "real frames stand on the left"
        assert all(0 < a <= b or a == b == 0 for a, b in zip(found, promised, strict=True))
        assert name in AT_MOST or found == promised
    assert out.values.shape[1:] == (config.frames_out(LENGTH - ("shorter" in name)), config.width)


def test_padding_has_no_effect_and_a_row_is_the_same_alone(part):
    _, _, _, run = part
    whole = lambda values, mask: run(values, mask).values  # noqa: E731
    real = partial(real_of, run)
    checks.padding_has_no_effect(whole, VALUES, MASK, jnp.nan * jnp.ones_like(VALUES), real=real)
    together = run(VALUES, MASK)
    length = int(MASK[1].sum())
    alone = run(VALUES[1:, :length], MASK[1:, :length])
    count = int(alone.mask.sum())
    assert together.mask[1].sum() == count > 0
    checks.assert_close(together.values[1, :count], alone.values[0, :count], 1e-5)
    heard = np.asarray(together.values)[np.asarray(together.mask)]
    assert np.median(heard.std(axis=0)) > 0.05, "what hears nothing would pass as well"


def test_a_row_without_frames_gives_none_and_is_finite(part):
    _, _, _, run = part
    mask = MASK & jnp.array([[True], [False]])
    out = run(jnp.where(mask[..., None], VALUES, jnp.nan), mask)
    assert np.isfinite(np.asarray(out.values)).all()
    assert not np.asarray(out.mask)[1].any()


def test_gradients_are_finite_and_nothing_is_idle(part):
    _, config, params, run = part
    mask = run(VALUES, MASK).mask
    garbage = jnp.where(MASK[..., None], VALUES, jnp.nan)

    def loss(params):
        values = applied(config, params, garbage, MASK).values
        return jnp.square(jnp.where(mask[..., None], values, 0) - 0.1).sum()

    # labels are picked, which has no gradient; what all keys have in common says nothing
    checks.gradients_are_finite(loss, params, without=["head", "key/bias"])


def test_bfloat16(part):
    _, config, params, run = part
    low = jax.jit(partial(applied, in_bfloat16(config), params))
    real = partial(real_of, run)
    whole = lambda values, mask: run(values, mask).values  # noqa: E731
    checks.runs_in_bfloat16(lambda values, mask: low(values, mask).values, whole, VALUES, MASK, real=real)


def test_all_are_trained_alike(part):
    _, config, params, _ = part

    def train(key):
        rngs = {"dropout": key}
        return config.make().apply({"params": params}, *inputs(VALUES, MASK), deterministic=False, rngs=rngs)

    assert jax.eval_shape(train, jax.random.key(0)).values.shape[-1] == config.width
