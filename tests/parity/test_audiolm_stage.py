"""A stage of AudioLM against the decoder of T5 with nothing to listen to: padded, whole, step by step, as a folder."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.interop.engine import import_params, resolve
from slm_jax.interop.family_t5_stack import T5_STACK
from slm_jax.interop.model import export, load
from slm_jax.interop.reference import draw_weights, state_arrays
from slm_jax.interop.reference_t5_stack import stack_with_head, t5_config
from slm_jax.nn.relative_bias import RelativeBiasConfig
from slm_jax.nn.stack import unstack
from slm_jax.sequence_models.presets import audiolm_stage
from slm_jax.workbench.parity import compare_folder

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
    bias = RelativeBiasConfig(buckets=8, max_distance=12, bidirectional=False)
    config = audiolm_stage(V, **FIELDS, activation=activation, gated=gated, relative_bias=bias)
    theirs = draw_weights(stack_with_head()(t5_config(T5_STACK.write_config(config))), 0)
    weights = state_arrays(theirs)
    shapes = {name: value.shape for name, value in weights.items()}
    assert any(".layer.1.EncDecAttention." in name for name in shapes)
    plan = resolve(T5_STACK.table(config, "transformers"), shapes, T5_STACK.abstract(config))
    ours, params = config.make(), import_params(plan, weights.__getitem__)
    run = jax.jit(lambda params, ids, mask: ours.apply({"params": params}, ids, mask=mask))
    return theirs, ours, params, partial(run, params)


def expected(theirs, mask: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return theirs(torch.tensor(IDS), attention_mask=torch.tensor(mask.astype(np.int64)), use_cache=False).numpy()


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
    wanted, real = expected(theirs, MASKS["right"]), MASKS["right"]
    np.testing.assert_allclose(np.concatenate(found, 1)[real], wanted[real], atol=1e-4 * np.abs(wanted[real]).max())


def test_what_we_write_the_plain_stack_of_transformers_reads_with_equal_logits(pair, tmp_path):
    """Into a `T5Stack` without our head around it; only what would listen to a context is not in the file."""
    from safetensors.torch import load_file

    _, ours, params, run = pair
    folder = export(ours.config, params, tmp_path / "hub")
    weights = load_file(folder / "model.safetensors")
    head = weights.pop("lm_head.weight")
    plain = t5.T5Stack(t5_config(T5_STACK.write_config(ours.config))).eval()
    missing, unknown = plain.load_state_dict(weights, strict=False)
    assert not unknown and len(missing) == 5 * LAYERS and all(".layer.1." in name for name in missing)
    mask = MASKS["left"]
    with torch.no_grad():
        out = plain(input_ids=torch.tensor(IDS), attention_mask=torch.tensor(mask.astype(np.int64)), use_cache=False)
    wanted = (out.last_hidden_state @ head.T).numpy()
    np.testing.assert_allclose(np.asarray(run(IDS, mask))[mask], wanted[mask], atol=1e-4)
    assert load(folder)[0] == ours.config


def test_parity_reads_the_folder_and_agrees_place_by_place(pair, tmp_path):
    _, ours, params, _ = pair
    found = list(compare_folder(export(ours.config, params, tmp_path / "hub"), 0, "float32"))
    assert [item.case for item in found][-1] == "hub, negative control" and len(found) == 5
    assert [row.layer for row in found[2].rows] == [
        "embeddings",
        "layer_1",
        "layer_2",
        "layer_3",
        "final_norm",
        "logits",
    ]
    assert all(row.ok for item in found for row in item.rows)
