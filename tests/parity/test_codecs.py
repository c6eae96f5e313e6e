"""EnCodec and Mimi against transformers: codes the same, waveforms within 1e-4, with padding and odd lengths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.interop.engine import import_params, resolve
from slm_jax.interop.family_encodec import ENCODEC
from slm_jax.interop.family_mimi import MIMI
from slm_jax.interop.model import export

torch = pytest.importorskip("torch")
TOLERANCE = 1e-4
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


def drawn(model, seed=0):
    """Weights large enough that every layer matters, and codebooks of the size of what they are given."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if name.endswith("original0"):
            p.data = 1.2 + 0.2 * torch.rand(p.shape, generator=generator)
        elif p.ndim > 1:
            p.data = torch.randn(p.shape, generator=generator) * (1.5 / p[0].numel() ** 0.5)
        else:
            p.data = (0.0 if name.endswith("bias") else 1.0) + 0.2 * torch.randn(p.shape, generator=generator)
    for name, buffer in model.named_buffers():
        if name.endswith(("embed", "embed_avg", "embed_sum")):
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
        if name.endswith("cluster_usage"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.eval()


def imported(family, model, spelling="transformers"):
    config = family.read_config({key: value for key, value in model.config.to_dict().items() if key != "model_type"})
    arrays = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    plan = resolve(family.table(config, spelling), {n: a.shape for n, a in arrays.items()}, family.abstract(config))
    return config, jax.tree.map(jnp.asarray, import_params(plan, arrays.__getitem__)), arrays


@pytest.fixture(scope="module")
def encodec():
    from transformers import EncodecConfig, EncodecModel

    model = drawn(EncodecModel(EncodecConfig(**ENCODEC_SIZE)))
    return (model, *imported(ENCODEC, model)[:2])


@pytest.fixture(scope="module")
def mimi():
    from transformers import MimiConfig, MimiModel

    model = drawn(MimiModel(MimiConfig(**MIMI_SIZE)))
    return (model, *imported(MIMI, model)[:2])


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
        frames = wanted.shape[-1]
        assert int(codes.mask[row].sum()) == frames == -(-length // config.hop)
        np.testing.assert_array_equal(codes.ids[row, :frames].T, wanted[0])
        np.testing.assert_allclose(made[row, : frames * config.hop], sound[0, 0], atol=TOLERANCE)
    assert len(np.unique(codes.ids)) > 20 and float(np.std(made)) > 0.05


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
        frames = wanted.shape[-1]
        assert int(codes.mask[row].sum()) == frames == length // config.hop
        np.testing.assert_array_equal(codes.ids[row, :frames].T, wanted[0])
        np.testing.assert_allclose(made[row, : frames * config.hop], sound[0, 0], atol=TOLERANCE)
    assert len(np.unique(codes.ids)) > 20 and float(np.std(made)) > 0.05


def test_mimi_of_a_length_that_is_no_whole_frame(mimi):
    model, config, params = mimi
    samples, _ = waves(245)
    module = config.replace(whole=False).make()  # transformers completes layer by layer
    codes = module.apply({"params": params}, samples, method="encode")
    with torch.no_grad():
        wanted = model.encode(sound_of(samples)).audio_codes
    np.testing.assert_array_equal(codes.ids[0].T, wanted[0])


@pytest.mark.parametrize("name", ["encodec", "mimi"])
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
