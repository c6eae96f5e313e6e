"""The shared contracts, held by an encoder-decoder with relative biases, and by its decoder step by step."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from slm_jax.nn.relative_bias import RelativeBiasConfig
from slm_jax.nn.stack import unstack
from slm_jax.sequence_models.t5 import t5, t5_v1_1
from tests.contracts import checks

SMALL = {"vocabulary": 23, "layers": 2, "width": 16, "heads": 2, "head_width": 6, "hidden": 24}
SMALL |= {"relative_bias": RelativeBiasConfig(buckets=8, max_distance=5)}
CONFIGS = {"t5": t5(**SMALL), "t5_v1_1": t5_v1_1(**SMALL)}
IDS, WRITTEN = (jax.random.randint(jax.random.key(k), (3, 7 + k), 0, 23) for k in (1, 0))
MASK = jnp.arange(8) < jnp.array([8, 3, 5])[:, None]
WRITTEN_MASK = jnp.arange(7) < jnp.array([7, 4, 6])[:, None]


@pytest.fixture(params=CONFIGS, scope="module")
def part(request: pytest.FixtureRequest) -> tuple:
    """Config, parameters, and a jitted whole function."""
    config = CONFIGS[request.param]
    params = checks.random_params(config.make(), jax.random.key(2), IDS, WRITTEN)
    return config, params, jax.jit(partial(whole, config.make()))


def whole(model, params, ids, written, mask=MASK, written_mask=WRITTEN_MASK):
    return model.apply({"params": params}, ids, written, mask, written_mask)


def test_padding_of_either_sequence_has_no_effect_and_rows_stand_alone(part):
    _, params, run = part

    def written(ids, mask):
        rows = IDS[: len(ids)], MASK[: len(ids)]
        return run(params, rows[0], ids, rows[1], mask)

    checks.padding_has_no_effect(written, WRITTEN, WRITTEN_MASK, garbage=(WRITTEN + 5) % 23)
    garbage = jnp.where(MASK, IDS, (IDS + 5) % 23)
    checks.assert_close(run(params, garbage, WRITTEN), run(params, IDS, WRITTEN), 1e-6, where=WRITTEN_MASK)
    alone = run(params, IDS[1:2, :3], WRITTEN[1:2, :4], None, None)
    checks.assert_close(run(params, IDS, WRITTEN)[1, :4], alone[0], 1e-5)


def test_padding_may_stand_on_the_left(part):
    _, params, run = part
    turned = [
        jnp.stack([jnp.roll(row, row.size - real.sum()) for row, real in zip(rows, mask, strict=True)])
        for rows, mask in ((IDS, MASK), (WRITTEN, WRITTEN_MASK))
    ]
    left, right = run(params, *turned, MASK[:, ::-1], WRITTEN_MASK[:, ::-1]), run(params, IDS, WRITTEN)
    for row, length in enumerate([7, 4, 6]):
        checks.assert_close(left[row, 7 - length :], right[row, :length], 1e-5)


def test_vectors_and_ids_enter_by_the_same_door(part):
    config, params, run = part
    vectors = config.make().apply({"params": params}, IDS, method="embed")
    checks.assert_close(run(params, vectors, WRITTEN), run(params, IDS, WRITTEN), 1e-6, where=WRITTEN_MASK)
    spoilt = jnp.where(MASK[..., None], vectors, jnp.nan)
    checks.assert_close(run(params, spoilt, WRITTEN), run(params, IDS, WRITTEN), 1e-6, where=WRITTEN_MASK)


def test_the_decoder_step_by_step_equals_the_whole(part):
    config, params, run = part
    decoder, own = config.decoder.make(), {"params": params["decoder"]}
    context = config.make().apply({"params": params}, IDS, MASK, method="encode")

    @jax.jit
    def advance(ids, mask, state):
        kept = state[0].context.mask.shape[1] > 0  # from the first piece on
        vectors, heard = decoder.apply(own, ids, method="embed"), None if kept else context
        features, state = decoder.apply(own, vectors, state, mask, heard, method="extend")
        return decoder.apply(own, features, method="head"), state

    def at_once(ids, mask):
        return run(params, IDS, ids, MASK, mask)

    state = decoder.initial_state(3, 10)
    state = checks.stepwise_equals_whole(at_once, advance, state, WRITTEN, WRITTEN_MASK, sizes=(1, 3))
    assert state[0].own.length.tolist() == [7, 4, 6]


@pytest.mark.parametrize("part", ["t5_v1_1"], indirect=True)
@pytest.mark.parametrize("changes", [{"unroll": False}, {"unroll": False, "remat": True}])
def test_every_form_of_the_stacks_is_one_function(part, changes):
    config, params, _ = part
    other = config.replace(encoder=config.encoder.replace(**changes), decoder=config.decoder.replace(**changes))

    def loss(model, params):
        return jnp.square(whole(model, params, IDS, WRITTEN)).mean()

    checks.same_function(partial(loss, other.make()), partial(loss, config.make()), params)


@pytest.mark.parametrize("part", ["t5_v1_1"], indirect=True)
def test_unstacked_parameters_give_the_same_and_gradients_are_finite(part):
    config, params, run = part
    checks.assert_close(run(unstack(params), IDS, WRITTEN), run(params, IDS, WRITTEN), 1e-5, where=WRITTEN_MASK)
    checks.gradients_are_finite(lambda params: jnp.square(run(params, IDS, WRITTEN)).mean(), params)


@pytest.mark.parametrize("part", ["t5"], indirect=True)
def test_bfloat16_is_near(part):
    config, params, run = part
    low = config.replace(
        encoder=config.encoder.replace(dtype="bfloat16"), decoder=config.decoder.replace(dtype="bfloat16")
    )
    rounded = jax.jit(partial(whole, low.make()))(params, IDS, WRITTEN)
    assert rounded.dtype == jnp.float32
    checks.assert_close(rounded, run(params, IDS, WRITTEN), 0.1, where=WRITTEN_MASK)
