"""Adapters from outside: on a decoder of two layers, however its stack runs."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import meta

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.trees import count_bytes, flatten_by_path
from slm_jax.nn.int8 import dequantised
from slm_jax.nn.int8_base import quantise_int8
from slm_jax.nn.linear import Linear
from slm_jax.nn.linear_sites import linear_sites
from slm_jax.nn.lora import (
    ROW_FACTORS,
    LoRAConfig,
    init_lora,
    lora_initialise,
    merge_lora,
    unmerge_lora,
    with_lora,
)
from slm_jax.nn.stack import Stack, unstack
from slm_jax.sequence_models.presets import llama

CONFIG = llama(vocabulary=23, layers=2, width=32, heads=4, kv_heads=2, hidden=48, max_positions=16, unroll=False)
MODEL = CONFIG.make()
IDS = jnp.array(np.random.default_rng(0).integers(0, 23, (2, 7)))
SPEECH = LoRAConfig(targets=r".*/attention/(query|value|out)", rank=4, alpha=8.0, name="speech")
STYLE = LoRAConfig(targets=r".*/mlp/(up|down)", rank=3, alpha=3.0, rslora=True, name="style")
BOTH = (SPEECH, STYLE)
FORMS = [{"unroll": True}, {"unroll": True, "remat": True}, {"unroll": False, "remat": True}]


def initialise(key):
    return MODEL.init(key, IDS)


def drawn(tree, seed, scale=0.2):
    """With every leaf anew, so that no `b` is zero."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * generator.standard_normal(leaf.shape), leaf.dtype), tree)


@pytest.fixture(scope="module")
def born():
    return meta.unbox(jax.jit(lora_initialise(initialise, BOTH))(jax.random.key(0)))


@pytest.fixture(scope="module")
def variables(born):
    return {"params": born["params"], "lora": drawn(born["lora"], 1)}


@jax.jit
def by_hand(params, lora):
    """Logits with the adapters' products added to the kernels one by one."""
    layers, changes = params["blocks"]["layers"], lora["blocks"]["layers"]
    names = {"query": "ldr,lrhc->ldhc", "value": "ldr,lrhc->ldhc", "out": "lhcr,lrd->lhcd"}
    attention = dict(layers["attention"])
    for name, equation in names.items():
        pair = changes["attention"][name]["speech"]
        kernel = attention[name]["kernel"] + 2.0 * jnp.einsum(equation, pair["a"], pair["b"])
        attention[name] = {"kernel": kernel}
    mlp = dict(layers["mlp"])
    for name in ("up", "down"):
        pair = changes["mlp"][name]["style"]
        mlp[name] = {"kernel": mlp[name]["kernel"] + 3.0**0.5 * jnp.einsum("ldr,lrf->ldf", pair["a"], pair["b"])}
    blocks = {"layers": {**layers, "attention": attention, "mlp": mlp}}
    return MODEL.apply({"params": {**params, "blocks": blocks}}, IDS)


@partial(jax.jit, static_argnums=0)
def applied_to(model, variables):
    return model.apply(variables, IDS)


def logits(variables, configs=BOTH, model=MODEL, **factors):
    adapted = with_lora(model, configs)
    return applied_to(adapted.at(**factors) if factors else adapted, variables)


def plain(params):
    """Logits of the model without adapters."""
    return applied_to(MODEL, {"params": params})


def test_base_is_as_without_and_new_adapters_change_nothing(born):
    base = meta.unbox(jax.jit(initialise)(jax.random.key(0)))["params"]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), born["params"], base))
    np.testing.assert_array_equal(logits(born), plain(base))
    query = born["lora"]["blocks"]["layers"]["attention"]["query"]["speech"]
    assert query["a"].shape == (2, 32, 4)
    assert query["b"].shape == (2, 4, 4, 8)
    assert 0.15 < float(jnp.abs(query["a"]).max()) < 32**-0.5
    assert float(jnp.abs(query["a"][0] - query["a"][1]).max()) > 0.01


def test_axes_are_named_so_that_a_mesh_can_cut_them():
    lora = jax.eval_shape(with_lora(MODEL, BOTH).init, jax.random.key(0), IDS)["lora"]["blocks"]["layers"]
    out, query = lora["attention"]["out"]["speech"], lora["attention"]["query"]["speech"]
    assert out["a"].names == ("layers", "heads", "head", None)
    assert out["b"].names == ("layers", None, "embed")
    assert query["b"].names == ("layers", None, "heads", "head")


def test_scanned_is_the_equation(variables):
    found = logits(variables)
    np.testing.assert_allclose(found, by_hand(**variables), atol=1e-5)
    assert np.abs(found - plain(variables["params"])).max() > 0.1, "no effect"


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_stack_applies_them(form, variables):
    found = logits(variables, model=CONFIG.replace(**form).make())
    np.testing.assert_allclose(found, by_hand(**variables), atol=1e-5)


def test_layers_cut_apart_and_decoding_step_by_step_apply_them(variables):
    model, cut = with_lora(MODEL, BOTH), unstack(variables)
    assert "1" in cut["lora"]["blocks"]["layers"]
    wanted = by_hand(**variables)
    np.testing.assert_allclose(logits(cut), wanted, atol=1e-5)
    np.testing.assert_allclose(logits({"params": cut["params"], "lora": variables["lora"]}), wanted, atol=1e-5)
    prefill = jax.jit(partial(model.apply, method="prefill"))
    last, state = prefill(cut, IDS[:, :5], model.initial_state(2, 8))
    np.testing.assert_allclose(last, wanted[:, 4], atol=1e-5)
    stepped, _ = jax.jit(partial(model.apply, method="step"))(cut, IDS[:, 5:], state)
    np.testing.assert_allclose(stepped, wanted[:, 5:], atol=1e-5)


def test_factors_choose_and_weigh_at_run_time(variables):
    np.testing.assert_array_equal(logits(variables, speech=0.0, style=0.0), plain(variables["params"]))
    without = {"params": variables["params"], "lora": jax.tree.map(jnp.copy, variables["lora"])}
    del without["lora"]["blocks"]["layers"]["mlp"]
    np.testing.assert_array_equal(logits(variables, speech=0.5), logits(without, SPEECH, speech=0.5))
    assert np.abs(logits(variables, speech=0.5) - logits(variables, speech=1.0)).max() > 0.01

    def traced(factor):
        return with_lora(MODEL, BOTH).at(speech=factor).apply(variables, IDS)

    np.testing.assert_allclose(jax.jit(traced)(0.5), logits(variables, speech=0.5), atol=1e-6)


def test_merged_is_unmerged_and_comes_apart_again(variables):
    params = merge_lora(**variables, configs=BOTH)
    np.testing.assert_allclose(plain(params), logits(variables), atol=1e-5)
    cut = merge_lora(**unstack(variables), configs=BOTH)
    np.testing.assert_allclose(plain(cut), logits(variables), atol=1e-5)
    back = unmerge_lora(params, variables["lora"], BOTH)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.allclose(a, b, atol=1e-6)), back, variables["params"]))
    half = merge_lora(**variables, configs=BOTH, factors={"speech": 0.5})
    np.testing.assert_allclose(plain(half), logits(variables, speech=0.5), atol=1e-5)


@pytest.mark.parametrize("unroll", [False, True])
def test_one_step_of_optax_moves_the_adapters_alone(unroll, variables):
    model, optimizer = with_lora(CONFIG.replace(unroll=unroll, remat=True).make(), BOTH), optax.sgd(0.1)

    def loss(lora):
        features = model.apply({"params": variables["params"], "lora": lora}, IDS, method="hidden")
        matrix = model.apply({"params": variables["params"], "lora": lora}, method="head_matrix")
        return optax.softmax_cross_entropy_with_integer_labels(features[:, :-1] @ matrix, IDS[:, 1:]).mean()

    stepped = jax.jit(jax.value_and_grad(loss))
    before, gradients = stepped(variables["lora"])
    assert all(float(jnp.abs(leaf).max()) > 1e-6 for leaf in jax.tree.leaves(gradients))
    updates, _ = optimizer.update(gradients, optimizer.init(variables["lora"]))
    after, _ = stepped(optax.apply_updates(variables["lora"], updates))
    assert after < before - 1e-3


@pytest.mark.parametrize("unroll", [False, True])
def test_dropout_acts_in_training_only(unroll, variables):
    model = with_lora(CONFIG.replace(unroll=unroll).make(), SPEECH.replace(dropout=0.5))
    undropped = logits(variables, SPEECH, model=model.model)
    np.testing.assert_array_equal(applied_to(model, variables), undropped)

    def dropped(variables, seed):
        return model.apply(variables, IDS, deterministic=False, rngs={"dropout": jax.random.key(seed)})

    dropped = jax.jit(dropped)
    assert np.abs(dropped(variables, 0) - undropped).max() > 1e-3
    assert np.abs(dropped(variables, 0) - dropped(variables, 1)).max() > 1e-3
    np.testing.assert_array_equal(dropped(variables, 0), dropped(variables, 0))


class Doubling(nn.Module):
    """A block of one `Linear`, whose adapter alone does something."""

    @nn.compact
    def __call__(self, x, cache):
        return x + Linear(x.shape[-1], in_names=("embed",), out_names=("mlp",), name="dense")(x), cache


@pytest.mark.parametrize("unroll", [False, True])
def test_dropout_differs_between_layers(unroll):
    stack, config = Stack(Doubling, 3, unroll=unroll), LoRAConfig(targets=".*/dense", rank=8, alpha=8.0, dropout=0.5)
    eye, zeros = jnp.broadcast_to(jnp.eye(8), (3, 8, 8)), jnp.zeros((3, 8, 8))
    lora = {"layers": {"dense": {"default": {"a": eye, "b": eye}}}}
    variables = {"params": {"layers": {"dense": {"kernel": zeros, "bias": zeros[:, 0]}}}, "lora": lora}
    x, rngs = jnp.ones((2, 5, 8)), {"dropout": jax.random.key(0)}
    hidden = with_lora(stack, config).apply(variables, x, collect=True, rngs=rngs).hidden
    kept = np.diff(np.concatenate([np.asarray(x)[None], np.asarray(hidden)]), axis=0) != 0
    assert 0.3 < kept.mean() < 0.7
    assert (kept[0] != kept[1]).any() and (kept[1] != kept[2]).any()
    np.testing.assert_array_equal(np.unique(hidden[0]), [1.0, 3.0])


def test_base_in_bfloat16_keeps_adapters_in_float32(variables):
    low = {**variables, "params": jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables["params"])}
    exact = {**variables, "params": jax.tree.map(lambda leaf: leaf.astype(jnp.float32), low["params"])}
    np.testing.assert_allclose(logits(low), logits(exact), atol=1e-5)
    model = with_lora(CONFIG.replace(dtype="bfloat16").make(), BOTH)
    gradients = jax.jit(jax.grad(lambda lora: jnp.square(model.apply({**low, "lora": lora}, IDS)).mean()))(low["lora"])
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_base_in_int8_is_small_near_and_left_alone(variables):
    sites = linear_sites(initialise)
    stored = jax.jit(lambda params: quantise_int8(params, sites))(variables["params"])
    kernels = {path: leaf for path, leaf in flatten_by_path(variables["params"]).items() if path.endswith("/kernel")}
    floats = flatten_by_path(dequantised(stored))
    leaves = flatten_by_path(stored)
    for path, kernel in kernels.items():
        apart = jnp.abs(floats[path] - kernel)
        assert (apart <= leaves[f"{path}/scale"] * 0.501).all()
        assert apart.max() > 0
    assert leaves["blocks/layers/attention/out/kernel/scale"].shape == (2, 1, 1, 32)
    held = sum(count_bytes(leaves[f"{path}/q"]) + count_bytes(leaves[f"{path}/scale"]) for path in kernels)
    assert held < 0.3 * count_bytes(kernels)
    low = {**variables, "params": stored}
    np.testing.assert_allclose(logits(low), logits({**low, "params": dequantised(stored)}), atol=1e-5)
    np.testing.assert_allclose(logits(unstack(low)), logits(low), atol=1e-5)
    assert 0 < np.abs(logits(low) - logits(variables)).max() < 0.1
    merged = merge_lora(stored, variables["lora"], BOTH)
    np.testing.assert_allclose(plain(merged), logits(low), atol=1e-5)

    model = with_lora(MODEL, BOTH)
    gradients = jax.jit(jax.grad(lambda lora: jnp.square(model.apply({**low, "lora": lora}, IDS)).mean()))(low["lora"])
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradients))


def test_int8_keeps_logical_names_and_can_be_born_under_a_jit():
    sites = linear_sites(initialise)
    boxed = jax.eval_shape(lambda key: quantise_int8(initialise(key)["params"], sites, ".*/out"), jax.random.key(0))
    out = boxed["blocks"]["layers"]["attention"]["out"]["kernel"]
    assert out["q"].names == ("layers", "heads", "head", "embed")
    assert out["scale"].names == ("layers", None, None, "embed")
    assert meta.unbox(out["scale"]).shape == (2, 1, 1, 32)


def test_what_is_missing_or_misspelt_is_named(variables):
    with pytest.raises(UserError, match=r"module path is 'blocks/layers/attention/query': .*'speech'"):
        with_lora(MODEL, SPEECH).apply({"params": variables["params"]}, IDS)
    sites = linear_sites(initialise)
    with pytest.raises(UserError, match=r"targets is '.*/q_proj'.*blocks/layers/attention/query"):
        init_lora(sites, variables["params"], LoRAConfig(targets=".*/q_proj"), jax.random.key(0))
    stored = quantise_int8(variables["params"], sites, ".*/out")
    with pytest.raises(UserError, match="kernel dtype is 'int8'"):
        quantise_int8(stored, sites, ".*/out")
    with pytest.raises(UserError, match="regular expression"):
        LoRAConfig(targets="(")
    with pytest.raises(UserError, match="different names"):
        with_lora(MODEL, (SPEECH, SPEECH))
    with pytest.raises(UserError, match="did you mean 'speech'"):
        with_lora(MODEL, BOTH).at(speach=1.0)
    with pytest.raises(UserError, match="rank"):
        SPEECH.replace(rank=0)


def test_configs_travel_as_json_and_models_are_static_arguments():
    assert from_json(SPEECH.to_json()) == SPEECH
    assert hash(with_lora(MODEL, BOTH).at(speech=0.5)) == hash(with_lora(MODEL, BOTH).at(speech=0.5))
    assert with_lora(MODEL, BOTH).config is MODEL.config


def test_what_would_leave_the_adapters_out_is_not_offered(variables):
    with pytest.raises(AttributeError, match="leave the adapters out"):
        with_lora(MODEL, BOTH).bind(variables)
    cloned = with_lora(MODEL, BOTH).clone(config=CONFIG.replace(unroll=True))
    assert cloned.config.unroll is True and cloned.configs == BOTH


def test_numpy_trees_as_files_give_them_will_do(variables):
    held = jax.tree.map(np.asarray, variables)
    np.testing.assert_allclose(
        logits({**held, "params": merge_lora(**held, configs=BOTH)}, speech=0.0), by_hand(**held), atol=1e-5
    )
    sites, at = linear_sites(initialise), "blocks/layers/attention/out/kernel/q"
    stored, wanted = (quantise_int8(tree, sites, ".*/out") for tree in (held["params"], variables["params"]))
    np.testing.assert_array_equal(flatten_by_path(stored)[at], flatten_by_path(wanted)[at])


@pytest.mark.parametrize("unroll", [True, False])
def test_every_row_has_factors_for_its_outputs(unroll, variables):
    """As if B of each row were times its factors; rows that follow each other share them, as beams do."""
    some = SPEECH.replace(targets=r".*/attention/(query|out)")
    model = with_lora(CONFIG.replace(unroll=unroll).make(), some)
    factors = jnp.asarray(np.random.default_rng(3).uniform(0, 3, (2, 32)), jnp.float32)
    rows = {**variables, ROW_FACTORS: {"speech": factors}}
    found = jax.jit(model.apply)(rows, jnp.repeat(IDS, 2, axis=0))[::2]
    for row in range(2):
        attention = variables["lora"]["blocks"]["layers"]["attention"]
        lora = {
            "query": {"speech": weighed(attention["query"]["speech"], factors[row].reshape(4, 8))},
            "out": {"speech": weighed(attention["out"]["speech"], factors[row])},
        }
        own = {"params": variables["params"], "lora": {"blocks": {"layers": {"attention": lora}}}}
        wanted = jax.jit(model.apply)(own, IDS[row : row + 1])
        np.testing.assert_allclose(found[row], wanted[0], atol=1e-5)
    assert np.abs(found - jax.jit(model.apply)(variables, IDS)).max() > 1e-2
    half = {**variables, ROW_FACTORS: {"speech": factors / 2}}
    np.testing.assert_allclose(model.at(speech=0.5).apply(rows, IDS), model.apply(half, IDS), atol=1e-5)


def weighed(pair, factors):
    return {"a": pair["a"], "b": pair["b"] * factors}


def test_factors_that_fit_no_outputs_are_refused(variables):
    rows = {**variables, ROW_FACTORS: {"speech": jnp.ones((2, 32))}}
    with pytest.raises(UserError, match=r"factors of blocks/layers/attention/value is \(2, 32\)"):
        with_lora(MODEL, SPEECH).apply(rows, IDS)
    with pytest.raises(UserError, match="did you mean 'speech'"):
        with_lora(MODEL, SPEECH).apply({**variables, ROW_FACTORS: {"speec": jnp.ones((2, 32))}}, IDS)
