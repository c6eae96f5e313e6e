import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from slm_jax.core.config import from_json
from slm_jax.core.contracts import Steppable
from slm_jax.core.errors import UserError
from slm_jax.nn.positions import RopeScaling
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.presets import llama, opt
from tests.contracts.checks import assert_close, random_params

SMALL = {"vocabulary": 17, "layers": 2, "width": 16, "heads": 4, "hidden": 24}
IDS = jax.random.randint(jax.random.key(1), (2, 8), 0, 17)
MODEL = llama(**SMALL, kv_heads=2, rope_base=50.0).make()
PARAMS = random_params(MODEL, jax.random.key(2), IDS)
compiled = jax.jit(lambda params, ids, mask: MODEL.apply({"params": params}, ids, mask=mask))
prefill = jax.jit(lambda params, ids, state, mask: MODEL.apply({"params": params}, ids, state, mask, method="prefill"))


def test_packed_segments_stand_alone():
    segments = jnp.array([[1] * 5 + [2] * 3, [1] * 2 + [2] * 6])
    packed = jax.jit(lambda p: MODEL.apply({"params": p}, IDS, segment_ids=segments))(PARAMS)
    parts = [(0, slice(0, 5)), (0, slice(5, 8)), (1, slice(0, 2)), (1, slice(2, 8))]
    rows = [jnp.pad(IDS[row, part], (0, 8 - (part.stop - part.start))) for row, part in parts]
    alone = compiled(PARAMS, jnp.stack(rows), jnp.ones((4, 8), bool))
    for (row, part), logits in zip(parts, alone, strict=True):
        assert_close(packed[row, part], logits[: part.stop - part.start], 1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_prefill_gives_the_logits_after_the_last_real_entry(side):
    lengths = jnp.array([8, 3])[:, None]
    mask = jnp.arange(8) < lengths if side == "right" else jnp.arange(8) >= 8 - lengths
    state = MODEL.initial_state(2, 9)
    last, state = prefill(PARAMS, IDS, state, mask)
    whole = compiled(PARAMS, IDS, mask)
    at = [7, 2] if side == "right" else [7, 7]
    assert_close(last, whole[jnp.arange(2), jnp.array(at)], 1e-5)
    assert state[0].length.tolist() == [8, 3]


def test_vectors_and_ids_enter_by_the_same_door():
    vectors = MODEL.apply({"params": PARAMS}, IDS, method="embed")
    features = jax.jit(lambda x: MODEL.apply({"params": PARAMS}, x, method="run"))(vectors)
    wanted = compiled(PARAMS, IDS, jnp.ones(IDS.shape, bool))
    assert_close(MODEL.apply({"params": PARAMS}, features, method="head"), wanted, 1e-5)
    assert_close(features @ MODEL.apply({"params": PARAMS}, method="head_matrix"), wanted, 1e-5)


def test_every_weight_has_a_name_for_every_axis_and_starts_finite():
    model = opt("350m", **SMALL, embed_width=8, max_positions=32).make()
    boxed = jax.jit(model.init)(jax.random.key(0), IDS)["params"]
    for leaf in jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, meta.AxisMetadata)):
        assert len(leaf.names) == leaf.value.ndim
        assert np.isfinite(np.asarray(leaf.value)).all()
    kernel = boxed["blocks"]["layers"]["attention"]["query"]["kernel"]
    assert kernel.names == ("layers", "embed", "heads", "head")


def test_dtypes_parameters_and_logits_are_float32_and_caches_follow_the_compute_dtype():
    model = MODEL.clone(config=MODEL.config.replace(dtype="bfloat16"))
    shapes = meta.unbox(jax.eval_shape(model.init, jax.random.key(0), IDS))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    assert model.initial_state(2, 4)[0].keys.dtype == jnp.bfloat16
    hidden = jax.eval_shape(lambda p: model.apply({"params": p}, IDS, method="hidden"), PARAMS)
    assert hidden.dtype == jnp.bfloat16


def test_it_is_steppable_and_its_config_survives_json():
    assert isinstance(MODEL, Steppable)
    config = MODEL.config.replace(rope_scaling=RopeScaling(kind="linear", factor=2.0))
    assert from_json(config.to_json()) == config


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"heads": 3}, "heads"),
        ({"kv_heads": 3}, "kv_heads"),
        ({"norm": "batch"}, "norm"),
        ({"positions": "learned"}, "max_positions"),
        ({"activation": "sin"}, "activation"),
        ({"dtype": "float16"}, "dtype"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_configs_without_meaning_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        DecoderConfig(**{**SMALL, "positions": "rope", **wrong})


def test_rows_longer_than_the_positions_are_refused():
    model = opt(**SMALL, max_positions=4).make()
    with pytest.raises(UserError, match="4 positions"):
        jax.eval_shape(model.init, jax.random.key(0), IDS)
    with pytest.raises(UserError, match="4 positions"):
        model.initial_state(1, 5)
