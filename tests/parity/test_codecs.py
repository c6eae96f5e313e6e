"""Codecs against transformers and their own packages: codes the same, waveforms within 1e-4, padded, of odd lengths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.interop.engine import import_params, resolve
from slm_jax.interop.family_dac import DAC, SNAC
from slm_jax.interop.family_encodec import ENCODEC
from slm_jax.interop.family_mimi import MIMI
from slm_jax.interop.model import export

torch = pytest.importorskip("torch")
TOLERANCE = 1e-4
SLOW = pytest.mark.slow(seconds=15)
ENCODEC_SIZE = {
    "num_filters": 4,
    "hidden_size": 12,
    "codebook_size": 32,
    "upsampling_ratios": [4, 2],
    "target_bandwidths": [30.0, 60.0],
}
MIMI_SIZE = {
    "num_filters": 4,
    "hidden_size": 16,
    "codebook_dim": 6,
    "vector_quantization_hidden_dimension": 6,
    "codebook_size": 32,
    "num_quantizers": 4,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 24,
    "upsampling_ratios": [3, 2],
    "sliding_window": 5,
    "upsample_groups": 16,
}


def drawn(model, seed=0, gain=1.5):
    """Weights large enough that every layer matters, and codebooks of the size of what they are given."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if name.endswith("original0"):
            p.data = gain * (0.8 + 0.2 * torch.rand(p.shape, generator=generator))
        elif p.ndim > 1:
            p.data = torch.randn(p.shape, generator=generator) * (gain / p[0].numel() ** 0.5)
        else:
            centre, spread = (0.0, 0.05 * gain) if name.endswith("bias") else (1.0, 0.2)
            p.data = centre + spread * torch.randn(p.shape, generator=generator)
    for name, buffer in model.named_buffers():
        if name.endswith(("embed", "embed_avg", "embed_sum")):
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
        if name.endswith("cluster_usage"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.eval()


def imported(family, model, spelling="transformers"):
    return weighed(family, model, model.config.to_dict(), spelling)


def weighed(family, model, hub_config, spelling):
    """Our config and weights of a model, by the family's table."""
    config = family.read_config(hub_config)
    arrays = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    plan = resolve(family.table(config, spelling), {n: a.shape for n, a in arrays.items()}, family.abstract(config))
    return config, jax.tree.map(jnp.asarray, import_params(plan, arrays.__getitem__))


DAC_SIZE = {
    "encoder_hidden_size": 4,
    "decoder_hidden_size": 16,
    "downsampling_ratios": [2, 5],
    "n_codebooks": 3,
    "codebook_size": 32,
    "codebook_dim": 4,
}
SNAC_SIZE = {
    "sampling_rate": 24_000,
    "encoder_dim": 32,
    "encoder_rates": [2, 3],
    "decoder_dim": 128,
    "decoder_rates": [3, 2],
    "attn_window_size": 8,
    "codebook_size": 32,
    "codebook_dim": 4,
    "vq_strides": [4, 2, 1],
    "noise": True,
}


@pytest.fixture(scope="module")
def encodec():
    from transformers import EncodecConfig, EncodecModel

    model = drawn(EncodecModel(EncodecConfig(**ENCODEC_SIZE)))
    return (model, *imported(ENCODEC, model))


@pytest.fixture(scope="module")
def mimi():
    from transformers import MimiConfig, MimiModel

    model = drawn(MimiModel(MimiConfig(**MIMI_SIZE)))
    return (model, *imported(MIMI, model))


@pytest.fixture(scope="module")
def dac():
    from transformers import DacConfig, DacModel

    model = drawn(DacModel(DacConfig(**DAC_SIZE)), gain=0.6)
    return (model, *imported(DAC, model))


@pytest.fixture(scope="module", params=[8, None], ids=["with attention", "without"])
def snac(request):
    package = pytest.importorskip("snac")
    settings = {**SNAC_SIZE, "attn_window_size": request.param}
    model = drawn(package.SNAC(**settings), gain=0.85)
    return (model, *weighed(SNAC, model, settings, "original"))


def waves(*lengths):
    """Rows of noise with a tone, right-padded with what must not be heard."""
    rng, longest = np.random.default_rng(0), max(lengths)
    time = np.arange(longest)
    samples = 0.3 * rng.standard_normal((len(lengths), longest)) + 0.5 * np.sin(time / 7.0)
    mask = time < np.array(lengths)[:, None]
    return jnp.asarray(np.where(mask, samples, 9.0), jnp.float32), jnp.asarray(mask)


def sound_of(samples):
    """A row as transformers reads it."""
    return torch.from_numpy(np.array(samples))[:, None]


def same_row(codes, made, row, wanted, sound, frames):
    """One row of a batch has the codes [K, T] and the sound [N] that the reference makes of it alone."""
    assert int(codes.mask[row].sum()) == wanted.shape[-1] == frames
    np.testing.assert_array_equal(codes.ids[row, :frames].T, wanted)
    np.testing.assert_allclose(made[row, : len(sound)], sound, atol=TOLERANCE)


def test_encodec(encodec):
    model, config, params = encodec
    lengths = (401, 245, 16, 5)
    samples, mask = waves(*lengths)
    module = config.make()
    encode = jax.jit(lambda s, m: module.apply({"params": params}, s, m, method="encode"))
    decode = jax.jit(lambda codes: module.apply({"params": params}, codes, method="decode"))
    codes = encode(samples, mask)
    made = decode(codes)
    for row, length in enumerate(lengths):
        with torch.no_grad():
            wave = sound_of(samples[row : row + 1, :length])
            wanted = model.encode(wave, bandwidth=60.0).audio_codes[0]
            sound = model.decode(wanted[None], [None]).audio_values
        same_row(codes, made, row, wanted[0], sound[0, 0], -(-length // config.hop))
    assert len(np.unique(codes.ids)) > 20 and float(np.std(made)) > 0.05


@SLOW
def test_encodec_at_half_the_bandwidth(encodec):
    model, config, params = encodec
    samples, _ = waves(200)
    module, books = config.make(), config.quantizer.books // 2
    codes = module.apply({"params": params}, samples, None, books, method="encode")
    with torch.no_grad():
        wanted = model.encode(sound_of(samples), bandwidth=30.0).audio_codes[0]
        sound = model.decode(wanted[None], [None]).audio_values
    np.testing.assert_array_equal(codes.ids[0].T, wanted[0])
    made = module.apply({"params": params}, codes, method="decode")
    np.testing.assert_allclose(made[0], sound[0, 0], atol=TOLERANCE)


def test_mimi(mimi):
    model, config, params = mimi
    lengths = (240, 156, 36)
    samples, mask = waves(*lengths)
    module = config.make()
    codes = jax.jit(lambda s, m: module.apply({"params": params}, s, m, method="encode"))(samples, mask)
    made = jax.jit(lambda codes: module.apply({"params": params}, codes, method="decode"))(codes)
    for row, length in enumerate(lengths):
        with torch.no_grad():
            wanted = model.encode(sound_of(samples[row : row + 1, :length])).audio_codes
            sound = model.decode(wanted).audio_values
        same_row(codes, made, row, wanted[0], sound[0, 0], length // config.hop)
    assert len(np.unique(codes.ids)) > 20 and float(np.std(made)) > 0.05


@SLOW
def test_mimi_of_a_length_that_is_no_whole_frame(mimi):
    model, config, params = mimi
    samples, _ = waves(245)
    module = config.replace(whole=False).make()  # transformers completes layer by layer
    codes = module.apply({"params": params}, samples, method="encode")
    with torch.no_grad():
        wanted = model.encode(sound_of(samples)).audio_codes
    np.testing.assert_array_equal(codes.ids[0].T, wanted[0])


def completed(samples, unit):
    """As `DacFeatureExtractor` and SNAC do: silence up to a whole number of frames."""
    return np.pad(np.array(samples), ((0, 0), (0, -samples.shape[1] % unit)))


@SLOW
def test_dac(dac):
    model, config, params = dac
    lengths = (401, 95, 30)
    samples, mask = waves(*lengths)
    module = config.make()
    codes = jax.jit(lambda s, m: module.apply({"params": params}, s, m, method="encode"))(samples, mask)
    made = jax.jit(lambda codes: module.apply({"params": params}, codes, method="decode"))(codes)
    for row, length in enumerate(lengths):
        with torch.no_grad():
            wave = sound_of(completed(samples[row : row + 1, :length], config.hop))
            wanted = model.encode(wave).audio_codes
            sound = model.decode(audio_codes=wanted).audio_values
        same_row(codes, made, row, wanted[0], sound[0], -(-length // config.hop))
    assert len(np.unique(codes.ids)) > 12 and float(np.std(made)) > 0.05


@SLOW
def test_dac_with_fewer_books(dac):
    model, config, params = dac
    samples, _ = waves(400)
    module = config.make()
    codes = module.apply({"params": params}, samples, None, 2, method="encode")
    with torch.no_grad():
        wanted = model.encode(sound_of(samples), n_quantizers=2).audio_codes
        sound = model.decode(audio_codes=wanted).audio_values
    np.testing.assert_array_equal(codes.ids[0].T, wanted[0])
    made = module.apply({"params": params}, codes, method="decode")[0]
    np.testing.assert_allclose(made[: sound.shape[-1]], sound[0], atol=TOLERANCE)
    assert len(made) == len(codes.ids[0]) * config.hop and not np.asarray(made[sound.shape[-1] :]).any()


@SLOW
def test_snac(snac):
    model, config, params = snac
    lengths = (config.latent_hop * 64, config.latent_hop * 40 - 7)
    samples, mask = waves(*lengths)
    module = config.make()
    codes = jax.jit(lambda s, m: module.apply({"params": params}, s, m, method="encode"))(samples, mask)
    made = jax.jit(lambda codes: module.apply({"params": params}, codes, method="decode"))(codes)
    for block in [m for m in model.modules() if type(m).__name__ == "NoiseBlock"]:
        block.forward = lambda x: x
    for row, length in enumerate(lengths):
        with torch.no_grad():
            wanted = model.encode(sound_of(samples[row : row + 1, :length]))
            sound = model.decode(wanted)
        frames = wanted[0].shape[-1]
        side_by_side = np.concatenate([level[0].reshape(frames, -1) for level in wanted], -1)
        assert int(codes.mask[row].sum()) == frames == config.frame_count(length)
        np.testing.assert_array_equal(codes.ids[row, :frames], side_by_side)
        np.testing.assert_allclose(made[row, : frames * config.hop], sound[0, 0], atol=TOLERANCE)
    assert len(np.unique(codes.ids)) > 12 and float(np.std(made)) > 0.05


@SLOW
def test_noise_of_snac_is_heard_with_a_key_only(snac):
    _, config, params = snac
    samples, _ = waves(config.unit)
    module = config.make()
    codes = module.apply({"params": params}, samples, method="encode")
    plain = module.apply({"params": params}, codes, method="decode")
    keys = {"noise": jax.random.key(0)}, {"noise": jax.random.key(1)}
    one, other = (module.apply({"params": params}, codes, method="decode", rngs=key) for key in keys)
    assert float(jnp.abs(one - plain).max()) > 0.01 and float(jnp.abs(one - other).max()) > 0.01


@SLOW
@pytest.mark.parametrize("name", ["encodec", "mimi", "dac"])
def test_what_is_written_is_read_by_transformers(name, request, tmp_path):
    model, config, params = request.getfixturevalue(name)
    export(config, params, tmp_path / "out")
    again, report = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    samples, _ = waves(240)
    codes = config.make().apply({"params": params}, samples, method="encode")
    with torch.no_grad():
        found = again.eval().encode(sound_of(samples)).audio_codes.reshape(-1, codes.ids.shape[1])
    np.testing.assert_array_equal(codes.ids[0, :, : len(found)].T, found)
