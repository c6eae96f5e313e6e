"""The F0 VQ-VAE against a PyTorch twin with the released names: rows alone and padded, both directions of weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.trees import count_parameters
from slm_jax.core.types import Frames
from slm_jax.interop.engine import export_params, import_params, resolve
from slm_jax.interop.families import family_of
from slm_jax.interop.family_f0_vqvae import F0_VQVAE
from slm_jax.interop.model import load
from slm_jax.nn.conv import length_mask

torch = pytest.importorskip("torch")
twins = pytest.importorskip("tests.parity.f0_vqvae_twin")

SIDE = {"input_emb_width": 2, "output_emb_width": 8, "levels": 1, "width": 6, "m_conv": 1.0}
SHAPES = {
    "as released": {"downs_t": [2], "strides_t": [2], "depth": 2, "dilation_growth_rate": 3},
    "all settings": {
        "downs_t": [[1, 1]],
        "strides_t": [[4, 2]],
        "depth": 4,
        "dilation_growth_rate": 2,
        "dilation_cycle": 2,
        "res_scale": True,
        "m_conv": 0.5,
        "reverse_decoder_dilation": True,
    },
}
TOLERANCE = 1e-5
LENGTHS = (64, 41)


def hub_of(shape: dict) -> dict:
    encoder = {name: value for name, value in (SIDE | shape).items() if name != "reverse_decoder_dilation"}
    book = {"l_bins": 16, "emb_width": 8, "mu": 0.99, "levels": 1}
    return {
        "features": "norm_f0_interp,vuv",
        "encoder_params": encoder,
        "decoder_params": SIDE | shape,
        "vq_params": book,
    }


@pytest.fixture(scope="module", params=[pytest.param("as released", marks=pytest.mark.slow), "all settings"])
def pair(request):
    """The twin, our config, and our weights of it."""
    torch.manual_seed(0)
    hub = hub_of(SHAPES[request.param])
    twin = twins.F0VQVAE(hub).eval()
    with torch.no_grad():  # entries near the latents, so that many of them are chosen
        latents = twin.encoder(torch.randn(1, 2, 1024))[0].T
        twin.vq.level_blocks[0].k.copy_(latents[:16])
    config = F0_VQVAE.read_config(hub)
    arrays = {name: value.numpy() for name, value in twin.state_dict().items()}
    plan = resolve(
        F0_VQVAE.table(config, "original"), {n: a.shape for n, a in arrays.items()}, F0_VQVAE.abstract(config)
    )
    return twin, config, jax.tree.map(jnp.asarray, import_params(plan, arrays.__getitem__))


def test_rows_of_any_length_give_what_the_twin_gives_of_each_alone(pair):
    twin, config, params = pair
    tracks = np.random.default_rng(0).standard_normal((2, max(LENGTHS), 2)).astype(np.float32)
    mask = length_mask(jnp.asarray(LENGTHS), max(LENGTHS))
    garbage = np.where(np.asarray(mask)[..., None], tracks, np.nan)
    model, given = config.make(), Frames(jnp.asarray(garbage), mask)
    codes = model.apply({"params": params}, given, method="encode")
    made = model.apply({"params": params}, codes, method="decode")
    latents = model.apply({"params": params}, given, method="latents")
    chosen = set()
    for row, length in enumerate(LENGTHS):
        with torch.no_grad():
            wanted = twin(torch.tensor(tracks[row, :length].T[None]))
        count = length // config.hop
        assert int(codes.mask[row].sum()) == count == wanted[0].shape[1]
        np.testing.assert_array_equal(codes.ids[row, :count, 0], wanted[0][0])
        np.testing.assert_allclose(latents.values[row, :count], wanted[2][0].T, atol=TOLERANCE)
        np.testing.assert_allclose(made.values[row, : count * config.hop], wanted[1][0].T, atol=TOLERANCE)
        assert not np.asarray(made.values[row, count * config.hop :]).any()
        chosen |= set(wanted[0][0].tolist())
    assert len(chosen) > 3


def test_weights_go_back_to_the_bit(pair):
    twin, config, params = pair
    written = dict(export_params(F0_VQVAE.table(config, "original"), params))
    wanted = {name: value.numpy() for name, value in twin.state_dict().items()}
    assert written.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(written[name], value, err_msg=name)


def test_a_folder_with_its_checkpoint_is_read(pair, tmp_path):
    twin, config, params = pair
    hub = F0_VQVAE.write_config(config)
    (tmp_path / "config.json").write_text(json.dumps(hub))
    torch.save({"model": twin.state_dict()}, tmp_path / "model.pt")
    assert family_of(hub) is F0_VQVAE
    found, read = load(tmp_path)
    assert found == config
    jax.tree.map(np.testing.assert_array_equal, read, params)


def test_the_published_shape_has_a_fifth_of_a_million_weights():
    side = SIDE | {"output_emb_width": 128, "width": 32, "downs_t": [4], "strides_t": [2], "depth": 4}
    side |= {"dilation_growth_rate": 3}
    book = {"l_bins": 64, "emb_width": 128, "mu": 0.99, "levels": 1}
    hub = {"features": "norm_f0,vuv", "encoder_params": side, "decoder_params": side, "vq_params": book}
    config = F0_VQVAE.read_config(hub)
    assert count_parameters(F0_VQVAE.abstract(config)) == 200_194 + 64 * 128
    assert sum(value.numel() for value in twins.F0VQVAE(hub).state_dict().values()) == 200_194 + 64 * 128
