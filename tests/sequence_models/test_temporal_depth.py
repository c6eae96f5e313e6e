"""A large model over time, a small one over the entries of a step: whole as step by step, in order, without a leak."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.types import EMPTY, Codes
from slm_jax.generation.advance import decoding
from slm_jax.generation.by_scheme import continue_codes
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.nn.stack import unstack
from slm_jax.objectives.streams import NextStreamsConfig
from slm_jax.schemes.parallel import TemporalDepth
from slm_jax.sequence_models.depth import DepthConfig
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.sequence_models.temporal_depth import TemporalDepthConfig
from slm_jax.serving.session import Session
from tests.contracts.checks import random_params

BODY = llama("7b", vocabulary=1, layers=2, width=16, heads=2, kv_heads=2, hidden=24, tied_head=True)
DEPTH = DepthConfig(width=12, layers=2, heads=2, hidden=20, init_scale=0.3)
SIZES = (19, 11, 11, 7)
CODES = MultiStreamConfig(streams=SIZES, body=BODY, blanks=True, heads=0)
CONFIGS = {
    "codes alone": TemporalDepthConfig(temporal=CODES, depth=DEPTH),
    "text by the large one, the last stream only read": TemporalDepthConfig(
        temporal=CODES.replace(heads=1, blanks=False), depth=DEPTH.replace(table_width=5, final_norm=True), written=3
    ),
    "one set of kernels": TemporalDepthConfig(temporal=CODES, depth=DEPTH.replace(per_step=False, positions=True)),
}
IDS = jnp.asarray(np.random.default_rng(0).integers(0, SIZES, (2, 5, 4)), jnp.int32).at[0, 1, 2].set(EMPTY)
KEYS = jax.random.split(jax.random.key(1), 2)
GREEDY = SamplingConfig(max_new=1, temperature=0.0)


@pytest.fixture(
    params=[
        "codes alone",
        *(pytest.param(name, marks=pytest.mark.slow(seconds=15)) for name in CONFIGS if name != "codes alone"),
    ],
    scope="module",
)
def case(request):
    config = CONFIGS[request.param]
    model = config.make()
    params = random_params(model, jax.random.key(3), IDS)
    whole = jax.jit(lambda ids: model.apply({"params": params}, ids))
    return config, model, params, whole


def test_entry_by_entry_gives_what_the_whole_gives(case):
    _, model, params, whole = case

    @jax.jit
    def step_of(params, features, ids):
        cut, kept, before, found = {"params": unstack(params)}, None, jnp.full(2, EMPTY), []
        for k in range(4):
            logits, kept = model.apply(cut, features, before, k, kept, method="entry")
            found.append(logits)
            before = ids[:, k]
        return jnp.stack(found, 1)

    features = jax.jit(lambda ids: model.apply({"params": params}, ids, method="hidden"))(IDS)
    for step in range(4):
        found = step_of(params, features[:, step], IDS[:, step + 1])
        np.testing.assert_allclose(found, whole(IDS)[:, step], atol=1e-5)


def test_an_entry_sees_those_before_it_in_its_step_and_no_later_one(case):
    config, _, _, whole = case
    before = whole(IDS)
    for k in range(config.count):
        after = whole(IDS.at[:, 3, k].set((IDS[:, 3, k] + 1) % 7))
        np.testing.assert_array_equal(before[:, :2], after[:, :2])
        np.testing.assert_array_equal(before[:, 2, : k + 1], after[:, 2, : k + 1])
        moved = [float(jnp.abs(before[:, 2, j, :7] - after[:, 2, j, :7]).max()) for j in range(k + 1, config.count)]
        assert min(moved, default=1.0) > 1e-5
        assert float(jnp.abs(before[:, 3, 0] - after[:, 3, 0])[:, :7].max()) > 1e-5


def test_what_is_drawn_is_likeliest_given_what_was_drawn_before_it(case):
    config, model, params, whole = case
    told = np.full((2, 4, 4), -1)
    told[..., config.count :] = np.asarray(IDS)[:, :4, config.count :]  # streams that are only read are forced
    start = np.full((2, 1, 4), EMPTY)
    out = generate(model, params, start, np.ones((2, 1), bool), KEYS, GREEDY.replace(max_new=4), forced=told)
    logits = whole(jnp.concatenate([jnp.asarray(start), out.ids], 1))[:, :-1]
    np.testing.assert_array_equal(out.ids[..., : config.count], logits.argmax(-1)[..., : config.count])
    np.testing.assert_array_equal(out.ids[..., config.count :], told[..., config.count :])
    ln_p = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits, -1)), np.asarray(out.ids)[..., None], -1)[..., 0]
    np.testing.assert_allclose(out.log_probs[:, :, : config.count], ln_p[:, :, : config.count], atol=1e-4)


def test_a_session_writes_what_is_written_offline_and_rows_are_as_alone():
    config = CONFIGS["codes alone"]
    model = config.make()
    params = random_params(model, jax.random.key(3), IDS)
    nothing = Codes(jnp.zeros((2, 0, 4), jnp.int32), jnp.zeros((2, 0), bool))
    sampled = GREEDY.replace(temperature=1.0)
    both = continue_codes(model, params, nothing, 4, TemporalDepth(), KEYS, sampled)
    alone = Codes(nothing.ids[:1], nothing.mask[:1])
    one = continue_codes(model, params, alone, 4, TemporalDepth(), KEYS[:1], sampled)
    np.testing.assert_array_equal(both.ids[:1], one.ids)
    session = Session(decoding(model, sampled), params, 2, 8, KEYS, start=(EMPTY,) * 4)
    pushed = np.stack([np.asarray(session.push().ids) for _ in range(4)], 1)
    np.testing.assert_array_equal(pushed, both.ids)
    session.reset(np.array([True, False]))
    again = [np.asarray(session.push(active=np.array([True, False])).ids) for _ in range(2)]
    np.testing.assert_array_equal(np.stack(again, 1)[0], both.ids[0, :2])


def test_weights_in_their_boxes_are_read_too_and_each_step_has_its_own(case):
    config, model, _, _ = case
    born = jax.jit(model.init)(jax.random.key(0), IDS)["params"]
    given = jnp.ones((2, 16)), IDS[:, 0, 0], config.count - 1, None
    read = jax.jit(lambda params: model.apply({"params": unstack(params)}, *given, method="entry"))
    np.testing.assert_array_equal(read(born)[0], read(meta.unbox(born))[0])
    steps = meta.unbox(born["depth"]["bring"]["steps"])
    assert len(steps) == (len(config.make_depth().writes) if config.depth.per_step else 1)
    assert len({float(step.std()) for step in steps}) == len(steps)


def test_its_loss_is_that_of_several_streams(case):
    config, model, params, whole = case
    weights = (1.0,) * config.count + (0.0,) * (4 - config.count)
    objective = NextStreamsConfig(names=("a", "b", "c", "d"), weights=weights).make(model)
    batch = {"ids": np.asarray(IDS), "mask": np.ones((2, 5), bool)}

    def loss_of(params):
        loss = objective({"params": params}, batch, None)
        return loss.value(), loss.terms["c"].total

    (value, total), slopes = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(params)
    ln_p = jax.nn.log_softmax(whole(IDS)[:, :-1, 2, :11], -1)
    nll = -np.take_along_axis(np.asarray(ln_p), np.maximum(IDS[:, 1:, 2:3], 0), -1)[..., 0]
    np.testing.assert_allclose(total, (nll * (IDS[:, 1:, 2] >= 0)).sum(), rtol=1e-5)
    assert np.isfinite(value) and all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(slopes))


def test_a_config_comes_back_and_what_has_no_meaning_is_refused():
    config = CONFIGS["codes alone"]
    assert from_json(config.to_json()) == config
    for changes, match in (
        ({"temporal": CODES.replace(heads=None)}, "temporal.heads is None"),
        ({"temporal": CODES.replace(heads=4)}, "temporal.heads is 4"),
        ({"written": 5}, "written is 5"),
    ):
        with pytest.raises(UserError, match=match):
            config.replace(**changes)
    with pytest.raises(UserError, match="heads is 5"):
        DEPTH.replace(heads=5)
