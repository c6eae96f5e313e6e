"""The encoder family apart from parity with PyTorch: padding, precision, training, the log-mel front end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.encoders.feature_extractor import WaveformFrontEnd
from slm_jax.encoders.positional_conv import PositionalConvConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.encoders.ssl_presets import log_mel_tiny
from tests.shapes import ENCODERS

N, SHORT = 3760, 2100


@pytest.fixture(scope="module")
def rows() -> tuple[jax.Array, jax.Array]:
    """One full row and one padded with noise."""
    samples = np.random.default_rng(0).standard_normal((2, N)).astype(np.float32) * 0.1
    mask = np.arange(N) < np.array([N, SHORT])[:, None]
    return jnp.asarray(samples), jnp.asarray(mask)


@pytest.fixture(scope="module")
def params(rows) -> dict[str, dict]:
    init = {name: jax.jit(c.make().init)(jax.random.key(0), rows[0]) for name, c in ENCODERS.items()}
    return {name: meta.unbox(variables)["params"] for name, variables in init.items()}


def encode(config: SSLEncoderConfig, params: dict, *inputs, **settings):
    return jax.jit(lambda p, *xs: config.make().apply({"params": p}, *xs, **settings))(params, *inputs)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_padded_row_gives_what_it_gives_alone(name, rows, params):
    samples, mask = rows
    config = ENCODERS[name]
    spoilt = jnp.where(mask, samples, jnp.nan)
    together = encode(config, params[name], spoilt, mask, collect=True)
    alone = encode(config, params[name], samples[1:, :SHORT], mask[1:, :SHORT], collect=True)
    frames = config.frame_count(SHORT)
    assert together.mask.sum(1).tolist() == [config.frame_count(N), frames]
    assert alone.values.shape[1] == frames
    np.testing.assert_allclose(together.hidden[:, 1, :frames], alone.hidden[:, 0], atol=1e-5)
    np.testing.assert_allclose(together.values[1, :frames], alone.values[0], atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_scanned_equals_unrolled_and_remat(name, rows, params):
    outputs = [
        encode(ENCODERS[name].replace(unroll=unroll, remat=remat), params[name], *rows, collect=True).hidden
        for unroll, remat in ((True, False), (False, False), (False, True))
    ]
    for other in outputs[1:]:
        np.testing.assert_allclose(outputs[0], other, atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_bfloat16_stays_near_float32(name, rows, params):
    exact = encode(ENCODERS[name], params[name], *rows).frames
    coarse = encode(ENCODERS[name].replace(dtype="bfloat16"), params[name], *rows).frames
    assert coarse.values.dtype == jnp.bfloat16
    kept = np.asarray(exact.mask)
    a, b = np.asarray(exact.values)[kept], np.asarray(coarse.values, np.float32)[kept]
    assert np.isfinite(b).all()
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.995


def test_gradients_are_finite_and_scaled_into_the_front_end(rows, params):
    def total(params, config):
        out = config.make().apply({"params": params}, *rows)
        return jnp.square(jnp.where(out.mask[..., None], out.values, 0)).sum()

    config, slow = ENCODERS["log_mel"], ENCODERS["log_mel"].replace(feature_gradient=0.1)
    full, scaled = (jax.jit(jax.grad(total), static_argnums=1)(params["log_mel"], c) for c in (config, slow))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(full))
    front = full["front_end"]["conv_1"]["kernel"]
    assert np.abs(front).max() > 0
    np.testing.assert_allclose(scaled["front_end"]["conv_1"]["kernel"], 0.1 * front, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(scaled["final_norm"]["scale"], full["final_norm"]["scale"], rtol=1e-4, atol=1e-6)


def test_dropout_and_layer_drop_act_in_training_only(rows, params):
    config = ENCODERS["log_mel"].replace(dropout=0.0, attention_dropout=0.0, layer_drop=0.6)

    @jax.jit
    def trained(key):
        out = config.make().apply({"params": params["log_mel"]}, *rows, deterministic=False, rngs={"dropout": key})
        return out.values

    draws = [np.asarray(trained(jax.random.key(seed)))[0] for seed in range(8)]
    distinct = {draw.tobytes() for draw in draws}
    assert 1 < len(distinct) <= 4  # two layers, each kept or skipped
    still = [encode(config, params["log_mel"], *rows).values for _ in range(2)]
    np.testing.assert_array_equal(*still)


def test_span_mask_hides_what_is_under_it(rows, params):
    """Frames under the mask no longer depend on the sound that lies only under them."""
    samples, mask = rows[0][:1], rows[1][:1]
    config = ENCODERS["log_mel"]
    spans = jnp.ones((1, config.frame_count(N)), bool)
    hidden = [encode(config, params["log_mel"], s, mask, spans).values for s in (samples, -3 * samples)]
    np.testing.assert_array_equal(*hidden)
    seen = encode(config, params["log_mel"], samples, mask).values
    assert np.abs(seen - hidden[0]).max() > 0.1


def test_without_a_mask_embedding_nothing_can_be_masked(rows, params):
    config = ENCODERS["log_mel"].replace(mask_embedding=False)
    samples, mask = rows[0][:1], rows[1][:1]
    bare = {name: leaf for name, leaf in params["log_mel"].items() if name != "mask_embedding"}
    kept = encode(ENCODERS["log_mel"], params["log_mel"], samples, mask).values
    np.testing.assert_array_equal(encode(config, bare, samples, mask).values, kept)
    with pytest.raises(UserError, match="no mask embedding"):
        encode(config, bare, samples, mask, jnp.ones((1, config.frame_count(N)), bool))


def test_log_mel_frames_look_at_the_samples_that_waveform_frames_look_at(rows, params):
    """Frame t is centred on samples 320 t to 320 t + 400: one 10 ms frame of context more on each side."""
    samples, mask = rows[0][:1], rows[1][:1]
    config = ENCODERS["log_mel"]
    base = encode(config, params["log_mel"], samples, mask).features
    touched = 5 * 320 + 200
    changed = encode(config, params["log_mel"], samples.at[0, touched].add(1.0), mask).features
    moved = np.flatnonzero(np.abs(changed - base).max((0, 2)) > 1e-6)
    assert 5 in moved
    assert set(moved) <= {3, 4, 5, 6, 7}
    assert np.abs(changed - base)[0].sum(-1).argmax() == 5


@pytest.mark.parametrize("groups", [0, 1, 4])
def test_both_forms_of_the_positional_convolution_are_equal(groups, rows, params):
    def config(form: str) -> SSLEncoderConfig:
        position = PositionalConvConfig(kernel=6, groups=groups, form=form)
        return ENCODERS["log_mel"].replace(position=position, layers=1)

    variables = meta.unbox(jax.jit(config("lax").make().init)(jax.random.key(1), rows[0]))["params"]
    outputs = [encode(config(form), variables, *rows, layer=0).values for form in ("lax", "unfold")]
    kept = np.asarray(encode(config("lax"), variables, *rows).mask)
    np.testing.assert_allclose(np.asarray(outputs[0])[kept], np.asarray(outputs[1])[kept], atol=1e-5)


def test_parameters_carry_logical_axes():
    variables = jax.eval_shape(log_mel_tiny().make().init, jax.random.key(0), jnp.zeros((1, 1600)))
    boxes = jax.tree.leaves(variables["params"], is_leaf=lambda x: isinstance(x, meta.AxisMetadata))
    assert all(isinstance(box, meta.AxisMetadata) for box in boxes)
    query = variables["params"]["stack"]["layers"]["attention"]["query"]["kernel"]
    assert query.names == ("layers", "embed", "heads", "head")


def test_presets_travel_as_json():
    for config in (log_mel_tiny(), ENCODERS["waveform"]):
        assert from_json(config.to_json()) == config


def test_wrong_settings_are_refused_by_name(rows, params):
    for field, value in (("front_end", "mel"), ("extractor_norm", "batch"), ("heads", 3), ("dtype", "float16")):
        with pytest.raises(UserError, match=field):
            ENCODERS["waveform"].replace(**{field: value})
    with pytest.raises(UserError, match="conv_layers"):
        SSLEncoderConfig(conv_layers=())
    with pytest.raises(UserError, match="shorter than one frame"):
        ENCODERS["waveform"].make().apply({"params": params["waveform"]}, rows[0][:, :50])


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_the_gradient_keeps_of_each_convolution_what_it_reads_and_makes(norm):
    """Not what the norm and GELU make on the way: several times as much, in float32, at the longest layers."""
    front = WaveformFrontEnd(((8, 10, 5), (8, 8, 4)), False, norm, False)
    samples, mask = jnp.zeros((2, 2000)), jnp.ones((2, 2000), bool)
    params = jax.eval_shape(front.init, jax.random.key(0), samples, mask)
    pulled = jax.eval_shape(lambda p: jax.vjp(lambda p: front.apply(p, samples, mask)[0], p)[1], meta.unbox(params))
    longest = (2000 - 10) // 5 + 1
    kept = [leaf.shape for leaf in jax.tree.leaves(pulled) if leaf.dtype == jnp.float32]
    assert kept.count((2, longest, 8)) <= 3, kept  # its output, and what the next one reads, twice
