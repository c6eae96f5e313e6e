"""The depth transformer beside `MoshiDepthDecoder` of transformers: teacher-forced, entry by entry, greedily."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from slm_jax.core.types import EMPTY
from slm_jax.interop.reference import draw_weights
from slm_jax.nn.stack import unstack
from slm_jax.sequence_models.depth import Depth, DepthConfig

BOOKS, CODES, WORDS, WIDE = 4, 17, 23, 32
CONFIG = DepthConfig(width=24, layers=2, heads=3, hidden=20)
MODEL = Depth(CONFIG, (CODES,) * BOOKS, (WORDS, *(CODES,) * (BOOKS - 1)), blanks=True)
RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((3, WIDE)).astype(np.float32)
BEFORE = np.concatenate([RNG.integers(0, WORDS, (3, 1)), RNG.integers(0, CODES, (3, BOOKS - 1))], 1)


@pytest.fixture(scope="module")
def pair() -> Any:
    """The reference with weights drawn anew, and ours with the same."""
    pytest.importorskip("transformers")
    from transformers.models.moshi.configuration_moshi import MoshiDepthConfig
    from transformers.models.moshi.modeling_moshi import MoshiDepthDecoder

    shape = {"hidden_size": 24, "input_size": WIDE, "num_hidden_layers": 2, "num_attention_heads": 3, "ffn_dim": 40}
    sizes = {"vocab_size": WORDS, "audio_vocab_size": CODES, "num_codebooks": BOOKS}
    theirs = draw_weights(MoshiDepthDecoder(MoshiDepthConfig(**shape, **sizes)), 1)
    return theirs, carried({name: value.numpy() for name, value in theirs.state_dict().items()})


def carried(weights: dict[str, np.ndarray]) -> dict[str, Any]:
    """Parameters of `MODEL`: kernels `[J, out, in]` turned, gate and up cut apart, layers stacked."""

    def layer(i: int) -> dict[str, Any]:
        at, turned = f"layers.{i}", lambda name: weights[f"layers.{i}.{name}"].swapaxes(1, 2)
        maps = {n: turned(f"self_attn.{n[0]}_proj.linear.weight") for n in ("query", "key", "value")}
        heads = {name: kernel.reshape(BOOKS, 24, 3, 8) for name, kernel in maps.items()}
        out = turned("self_attn.o_proj.linear.weight").reshape(BOOKS, 3, 8, 24)
        gate, up = np.split(turned("mlp.fc1.weight"), 2, axis=2)
        return {
            **{name: {"steps": kernel} for name, kernel in heads.items()},
            "out": {"steps": out},
            "gate": {"steps": gate},
            "up": {"steps": up},
            "down": {"steps": turned("mlp.fc2.weight")},
            "attention_norm": {"scale": weights[f"{at}.input_layernorm.weight"]},
            "mlp_norm": {"scale": weights[f"{at}.post_attention_layernorm.weight"]},
        }

    tables = ["text_embed_tokens.weight", *(f"embed_tokens.{k}.weight" for k in range(BOOKS - 1))]
    return {
        "bring": {"steps": weights["input_projections.weight"].swapaxes(1, 2)},
        **{f"tables_{j}": {"embedding": weights[name]} for j, name in enumerate(tables)},
        **{f"head_{j}": kernel.T for j, kernel in enumerate(weights["lm_heads.weight"])},
        "blocks": {"layers": jax.tree.map(lambda *leaves: np.stack(leaves), *(layer(i) for i in range(2)))},
    }


def theirs_of(theirs: Any, before: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        given = torch.tensor(FEATURES)[:, None].expand(-1, before.shape[1], -1)
        mask = torch.ones(before.shape, dtype=torch.long)
        return theirs(input_ids=torch.tensor(before), last_hidden_state=given, attention_mask=mask).logits.numpy()


def test_logits_of_a_whole_step_are_the_references(pair):
    theirs, params = pair
    born = jax.eval_shape(MODEL.init, jax.random.key(0), jnp.asarray(FEATURES), jnp.asarray(BEFORE))["params"]
    same = jax.tree.map(lambda ours, given: ours.shape == given.shape, meta.unbox(born), params)
    assert all(jax.tree.leaves(same))
    found = jax.jit(MODEL.apply)({"params": params}, FEATURES, BEFORE)
    np.testing.assert_allclose(found, theirs_of(theirs, BEFORE), atol=1e-5)


def test_an_empty_entry_is_the_references_padding_id(pair):
    theirs, params = pair
    before = BEFORE.copy()
    before[0, 0], before[1, 2] = WORDS, CODES
    empty = np.where(before == [WORDS, CODES, CODES, CODES], EMPTY, before)
    found = jax.jit(MODEL.apply)({"params": params}, FEATURES, empty)
    np.testing.assert_allclose(found, theirs_of(theirs, before), atol=1e-5)


def test_entry_by_entry_it_writes_what_the_reference_writes(pair):
    theirs, params = pair
    cut, before, kept, written = (
        {"params": unstack(jax.tree.map(jnp.asarray, params))},
        jnp.asarray(BEFORE[:, 0]),
        None,
        [],
    )
    for entry in range(BOOKS):
        logits, kept = MODEL.apply(cut, jnp.asarray(FEATURES), before, entry, kept, method="step")
        before = logits.argmax(-1)
        written.append(np.asarray(before))
    whole = BEFORE[:, :1]
    for _ in range(BOOKS):
        whole = np.concatenate([whole, theirs_of(theirs, whole)[:, -1:].argmax(-1)], 1)
    np.testing.assert_array_equal(np.stack(written, 1), whole[:, 1:])
    assert len(np.unique(whole[:, 1:])) > 4
