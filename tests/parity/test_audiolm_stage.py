"""A stage of AudioLM against the decoder of T5 with nothing to listen to: padded, whole and step by step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.interop.reference import draw_weights
from slm_jax.nn.relative_bias import RelativeBiasConfig
from slm_jax.nn.stack import unstack
from slm_jax.sequence_models.presets import audiolm_stage

torch = pytest.importorskip("torch")
t5 = pytest.importorskip("transformers.models.t5.modeling_t5")

V, S, LAYERS, HEADS, HEAD, WIDTH, HIDDEN = 41, 19, 3, 3, 10, 24, 40
LENGTHS = np.array([[19], [7], [2]])
IDS = np.random.default_rng(0).integers(0, V, (3, S))
MASKS = {"right": np.arange(S) < LENGTHS, "left": np.arange(S) >= S - LENGTHS}
FIELDS = {"layers": LAYERS, "width": WIDTH, "heads": HEADS, "head_width": HEAD, "hidden": HIDDEN}
BLOCKS = {"relu": ("relu", False), "gated-gelu": ("gelu_tanh", True)}


@pytest.fixture(scope="module", params=BLOCKS)
def pair(request):
    """The reference, our model with its weights, and our whole rows jitted."""
    activation, gated = BLOCKS[request.param]
    shape = {"vocab_size": V, "d_model": WIDTH, "d_kv": HEAD, "d_ff": HIDDEN, "num_heads": HEADS, "num_layers": LAYERS}
    distances = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
    config = t5.T5Config(**shape, **distances, feed_forward_proj=request.param, is_decoder=True, use_cache=False)
    theirs = t5.T5Stack(config)
    draw_weights(theirs, 0)
    bias = RelativeBiasConfig(buckets=8, max_distance=12, bidirectional=False)
    ours = audiolm_stage(V, **FIELDS, activation=activation, gated=gated, relative_bias=bias).make()
    params = taken({name: value.detach().numpy() for name, value in theirs.state_dict().items()}, gated)
    run = jax.jit(lambda params, ids, mask: ours.apply({"params": params}, ids, mask=mask, method="hidden"))
    return theirs, ours, params, partial(run, params)


def taken(weights: dict, gated: bool) -> dict:
    """Our parameters from the reference's, written out without the table of T5."""

    def stacked(name, *shape):
        each = [weights[f"block.{i}.layer.{name}.weight"] for i in range(LAYERS)]
        return np.stack([one.T.reshape(shape) if shape else one for one in each])

    into, maps = (WIDTH, HEADS, HEAD), {"gate": "wi_0", "up": "wi_1"} if gated else {"up": "wi"}
    attention = {name: {"kernel": stacked(f"0.SelfAttention.{name[0]}", *into)} for name in ("query", "key", "value")}
    attention["out"] = {"kernel": stacked("0.SelfAttention.o", HEADS, HEAD, WIDTH)}
    mlp = {ours: {"kernel": stacked(f"2.DenseReluDense.{theirs}", WIDTH, HIDDEN)} for ours, theirs in maps.items()}
    mlp["down"] = {"kernel": stacked("2.DenseReluDense.wo", HIDDEN, WIDTH)}
    layers = {"attention": attention, "mlp": mlp}
    layers |= {"attention_norm": {"scale": stacked("0.layer_norm")}, "mlp_norm": {"scale": stacked("2.layer_norm")}}
    tokens = weights["embed_tokens.weight"]
    return {
        "tokens": {"embedding": tokens},
        "relative_bias": {"embedding": weights["block.0.layer.0.SelfAttention.relative_attention_bias.weight"]},
        "blocks": {"layers": layers},
        "final_norm": {"scale": weights["final_layer_norm.weight"]},
        "head_kernel": tokens.T,
    }


def expected(theirs, mask: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        out = theirs(input_ids=torch.tensor(IDS), attention_mask=torch.tensor(mask.astype(np.int64)))
    return out.last_hidden_state.numpy()


@pytest.mark.parametrize("side", MASKS)
def test_a_padded_batch_equals_the_reference(pair, side):
    theirs, _, _, run = pair
    mask = MASKS[side]
    wanted = expected(theirs, mask)
    assert wanted[mask].std() > 0.3
    np.testing.assert_allclose(np.asarray(run(IDS, mask))[mask], wanted[mask], atol=1e-4)


def test_nothing_is_seen_before_it_comes(pair):
    run, whole = pair[3], np.ones((3, S), bool)
    later = np.where(np.arange(S) < 9, IDS, (IDS + 1) % V)
    before, after = (np.asarray(run(ids, whole)) for ids in (IDS, later))
    np.testing.assert_allclose(before[:, :9], after[:, :9], atol=1e-5)
    assert np.abs(before[:, 9:] - after[:, 9:]).max() > 0.1


def test_step_by_step_from_a_cache_equals_the_reference(pair):
    theirs, ours, params, _ = pair
    variables = {"params": unstack(jax.tree.map(jnp.asarray, params))}
    step = jax.jit(lambda ids, state, mask: ours.apply(variables, ids, state, mask, method="step"))
    state, found = ours.initial_state(3, 24), []
    for start in range(S):
        logits, state = step(IDS[:, start : start + 1], state, MASKS["right"][:, start : start + 1])
        found.append(logits)
    wanted = expected(theirs, MASKS["right"]) @ params["head_kernel"]
    real = MASKS["right"]
    np.testing.assert_allclose(np.concatenate(found, 1)[real], wanted[real], atol=1e-4 * np.abs(wanted[real]).max())
