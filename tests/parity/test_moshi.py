"""Moshi's two transformers: of `transformers` and of Kyutai's package, read and written, one step and many."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.types import ABSENT, EMPTY
from slm_jax.generation.by_scheme import filled_in
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.interop.engine import export_params, import_params, resolve
from slm_jax.interop.family_moshi import MOSHI, table
from slm_jax.interop.model import export, load
from slm_jax.interop.moshi_config import read_config, write_config
from slm_jax.interop.reference import draw_weights
from slm_jax.interop.reference_moshi import CODEC, DEPTH, SHAPE
from slm_jax.interop.stream_shapes import abstract_params
from slm_jax.sequence_models.presets import moshi
from slm_jax.workbench.parity import compare_folder

BOOKS, CODES, WORDS = 3, 17, 31
OWN = {
    "dim": 36,
    "text_card": WORDS,
    "n_q": 2 * BOOKS,
    "dep_q": BOOKS,
    "card": CODES,
    "num_heads": 3,
    "num_layers": 2,
    "hidden_scale": 3.0,
    "causal": True,
    "context": 6,
    "max_period": 10_000,
    "gating": "silu",
    "norm": "rms_norm_f32",
    "positional_embedding": "rope",
    "delays": [0, 0, 1, 1, 0, 1, 1],
    "depformer_dim": 24,
    "depformer_dim_feedforward": 72,
    "depformer_num_heads": 3,
    "depformer_num_layers": 2,
    "depformer_multi_linear": True,
    "depformer_context": BOOKS,
    "depformer_gating": "silu",
    "depformer_pos_emb": "none",
    "depformer_weights_per_step": True,
}
"""What Kyutai's package makes a model of."""
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, [WORDS, *[CODES] * (2 * BOOKS)], (2, 9, 1 + 2 * BOOKS))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The reference of transformers with every weight drawn anew, in a folder."""
    transformers = pytest.importorskip("transformers")
    config = transformers.MoshiConfig(**SHAPE, audio_encoder_config=dict(CODEC), depth_decoder_config=dict(DEPTH))
    folder = tmp_path_factory.mktemp("moshi") / "hub"
    draw_weights(transformers.MoshiForConditionalGeneration(config), 3).save_pretrained(folder)
    return folder


def test_every_layer_and_every_head_is_that_of_transformers(hub):
    found = list(compare_folder(hub, 0, "float32"))
    assert len(found) == 4
    for item in found[:-1]:
        assert {"layer_3", "final_norm", "logits_0", "logits_3"} <= {row.layer for row in item.rows}
        assert [row for row in item.rows if not row.ok or row.max_abs > 1e-4] == []
    assert found[-1].rows[0].ok, "the negative control is noticed"


def test_a_folder_written_is_the_folder_read(hub, tmp_path):
    config, params = load(hub)
    export(config, params, tmp_path / "out", family="moshi")
    again, same = load(tmp_path / "out")
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, same, params)


@pytest.fixture(scope="module")
def own() -> Any:
    """Kyutai's own model with drawn weights, our config and parameters."""
    lm = pytest.importorskip("moshi.models.lm")
    theirs = draw_weights(lm.LMModel(**OWN), 5)
    config = read_config(OWN)
    weights = {name: value.detach().numpy() for name, value in theirs.state_dict().items()}
    shapes = {name: value.shape for name, value in weights.items()}
    plan = resolve(table(config, "kyutai"), shapes, abstract_params(config))
    return theirs, config, import_params(plan, weights.__getitem__), weights


@pytest.mark.parametrize("absent", [0.0, 0.3])
def test_logits_are_those_of_kyutais_package(own, absent):
    """Some entries adding nothing, -1 there, as where a recording has no text."""
    import torch

    theirs, config, params, _ = own
    told = np.where(np.random.default_rng(1).random(IDS.shape) < absent, -1, IDS)
    with torch.no_grad():
        out = theirs(torch.tensor(told).permute(0, 2, 1))
    delays = np.array(OWN["delays"])
    ids = np.full((2, 1 + IDS.shape[1], IDS.shape[2]), EMPTY)
    for k, delay in enumerate(delays):
        ids[:, 1 + delay :, k] = np.where(told < 0, ABSENT, told)[:, : IDS.shape[1] - delay, k]
    logits = np.asarray(jax.jit(config.make().apply)({"params": params}, ids))
    np.testing.assert_allclose(logits[:, :-1, 0, :WORDS], out.text_logits[:, 0].numpy(), atol=1e-4)
    for k in range(1, 1 + BOOKS):
        steps = IDS.shape[1] - delays[k]
        wanted = out.logits[:, k - 1, :steps].numpy()
        np.testing.assert_array_equal(out.mask[:, k - 1, :steps], told[:, :steps, k] >= 0)
        np.testing.assert_allclose(logits[:, delays[k] : -1, k, :CODES], wanted, atol=1e-4)


def test_kyutais_names_are_written_as_they_are_read(own):
    """Files have the kernels of all steps in one matrix, which their loader takes apart."""
    import torch

    lm = pytest.importorskip("moshi.models.lm")
    _, config, params, weights = own
    written = dict(export_params(table(config, "kyutai"), params))
    assert written["depformer.layers.0.self_attn.in_proj_weight"].shape == (BOOKS * 3 * 24, 24)
    loaded = lm.LMModel(**OWN)
    loaded.load_state_dict({name: torch.tensor(value) for name, value in written.items()})
    for name, value in loaded.state_dict().items():
        np.testing.assert_array_equal(value, weights[name])
    plan = resolve(table(config, "kyutai"), {n: value.shape for n, value in written.items()}, abstract_params(config))
    jax.tree.map(np.testing.assert_array_equal, import_params(plan, written.__getitem__), params)


def test_what_it_writes_frame_by_frame_is_what_kyutais_streaming_writes(own):
    """Greedy. The user is heard from its second frame on, since its first step reads initial tokens throughout."""
    import torch

    lm = pytest.importorskip("moshi.models.lm")
    theirs, config, params, _ = own
    generator = lm.LMGen(theirs, use_sampling=False)
    heard, made = IDS[:1, :, 1 + BOOKS :], []
    with torch.no_grad(), generator.streaming(1):
        for step in range(IDS.shape[1]):
            out = generator.step(torch.tensor(heard[:, step, :, None]))
            if out is not None:
                made.append(out[0, :, 0].numpy())
    delays = np.array(OWN["delays"])
    told = np.full((1, IDS.shape[1], 1 + 2 * BOOKS), -1)
    for k, delay in enumerate(delays):
        told[:, :delay, k] = EMPTY
        if k > BOOKS:
            user = np.pad(heard[:, 1:, k - 1 - BOOKS], ((0, 0), (0, 1)), constant_values=EMPTY)
            told[:, delay:, k] = user[:, : told.shape[1] - delay]
    greedy = SamplingConfig(max_new=1, temperature=0.0)
    drawn = filled_in(config.make(), params, told, jax.random.key(0), greedy)[0]
    late = int(delays.max())
    aligned = np.stack([drawn[delay : len(drawn) - late + delay, k] for k, delay in enumerate(delays[: 1 + BOOKS])], 1)
    assert len(np.unique(aligned)) > 5
    np.testing.assert_array_equal(aligned, np.stack(made))


def test_the_published_size():
    published = {"model_type": "moshi", "audio_encoder_config": {}, "depth_decoder_config": {}}
    assert read_config(published) == moshi()
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(moshi())))
    assert round(count / 1e9, 3) == 7.688
    released = {**{name: OWN[name] for name in OWN if name not in SIZES}, "dep_q": 8, "depformer_dim_feedforward": 4224}
    assert read_config(released) == moshi()
    wider = moshi(written=16)
    with pytest.raises(UserError, match="moshi"):
        write_config(wider)


SIZES = ("dim", "text_card", "n_q", "card", "num_heads", "num_layers", "hidden_scale", "context", "depformer_dim")
SIZES += ("depformer_num_heads", "depformer_num_layers")


def test_other_kinds_are_refused_by_field():
    with pytest.raises(UserError, match="depformer_weights_per_step is False"):
        read_config({**OWN, "depformer_weights_per_step": False})
    with pytest.raises(UserError, match="sliding_window is 4"):
        read_config({"model_type": "moshi", "depth_decoder_config": {"sliding_window": 4}})
    assert MOSHI.matches(OWN) and MOSHI.matches({"model_type": "moshi"}) and not MOSHI.matches({"model_type": "mimi"})
    assert jnp.asarray(IDS).shape == (2, 9, 7)
