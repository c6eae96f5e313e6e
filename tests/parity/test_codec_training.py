"""What codecs are trained by against torch twins: judges of spectrograms, and a step of residual quantization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from slm_jax.core.types import Frames
from slm_jax.decoders.spectral_discriminators import BandDiscriminatorsConfig, STFTDiscriminatorsConfig
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig

torch = pytest.importorskip("torch")
F = torch.nn.functional


def drawn(config, samples, seed=0):
    shapes = meta.unbox(jax.eval_shape(config.make().init, jax.random.key(0), samples))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.standard_normal(leaf.shape), jnp.float32), shapes)


def convolved(x, weights, **settings):
    """A weight-normalised convolution of `[B, C, T, F]` with our kernel `[K, L, I, O]`."""
    direction = torch.from_numpy(np.array(weights["weight_v"])).permute(3, 2, 0, 1)
    length = torch.from_numpy(np.array(weights["weight_g"])).permute(3, 2, 0, 1)
    kernel = length * direction / direction.pow(2).sum((1, 2, 3), keepdim=True).sqrt()
    return F.conv2d(x, kernel, torch.from_numpy(np.array(weights["bias"])), **settings)


def spectrogram(samples, n_fft, centred, normalised):
    window = torch.hann_window(n_fft)
    made = torch.stft(
        torch.from_numpy(np.array(samples)), n_fft, n_fft // 4, window=window, center=centred, return_complex=True
    )
    made = made / window.pow(2).sum().sqrt() if normalised else made
    return torch.stack([made.real, made.imag], 1).transpose(2, 3)


def compared(found, scores, features):
    np.testing.assert_allclose(found[0], scores.reshape(len(scores), -1), atol=1e-4, rtol=1e-4)
    assert len(found[1]) == len(features)
    for ours, theirs in zip(found[1], features, strict=True):
        np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1), atol=1e-4, rtol=1e-4)


SAMPLES = jnp.asarray(np.random.default_rng(0).standard_normal((2, 301)), jnp.float32)


def test_judges_of_several_resolutions_are_those_of_encodec():
    config = STFTDiscriminatorsConfig(n_ffts=(64, 32), filters=3, dilations=(1, 2))
    params = drawn(config, SAMPLES)["params"]
    judged = jax.jit(config.make().apply)({"params": params}, SAMPLES)
    for index, n_fft in enumerate(config.n_ffts):
        own, features = params[f"scale_{index}"], []
        x = spectrogram(SAMPLES, n_fft, centred=False, normalised=True)
        settings = [{"padding": (1, 4)}]
        settings += [{"padding": (d, 4), "stride": (1, 2), "dilation": (d, 1)} for d in config.dilations]
        for layer, setting in enumerate([*settings, {"padding": (1, 1)}]):
            x = F.leaky_relu(convolved(x, own[f"Conv2d_{layer}"], **setting), 0.2)
            features.append(x)
        compared(judged[index], convolved(x, own["conv_post"], padding=(1, 1))[:, 0], features)


def test_judges_of_bands_are_those_of_dac():
    config = BandDiscriminatorsConfig(n_ffts=(64,), bands=((0.0, 0.3), (0.3, 1.0)), filters=3)
    params = drawn(config, SAMPLES)["params"]
    judged = jax.jit(config.make().apply)({"params": params}, SAMPLES)
    own, features, bands = params["scale_0"], [], []
    whole = spectrogram(SAMPLES, 64, centred=True, normalised=False)
    for band, (low, high) in enumerate(config.bands):
        x = whole[..., int(low * 33) : int(high * 33)]
        for layer in range(5):
            setting = {"padding": (1, 4 if layer < 4 else 1), "stride": (1, 2 if 0 < layer < 4 else 1)}
            x = F.leaky_relu(convolved(x, own[f"band_{band}_{layer}"], **setting), 0.1)
            features.append(x)
        bands.append(x)
    last = convolved(torch.cat(bands, -1), own["conv_post"], padding=(1, 1))
    compared(judged[0], last[:, 0], [*features, last])


def test_a_step_of_residual_quantization():
    """Losses, the gradient of the latents, and new averages, as EnCodec's own training has them."""
    codebook = CodebookConfig(size=16, width=6, revive=0.0)
    config = ResidualVQConfig(width=6, books=3, codebook=codebook)
    rng = np.random.default_rng(0)
    values, mask = rng.standard_normal((2, 10, 6)).astype(np.float32), np.arange(10) < np.array([[10], [7]])
    frames = Frames(jnp.asarray(values), jnp.asarray(mask))
    variables = config.make().init(jax.random.key(0), frames)

    def loss(values):
        found = config.make().apply(variables, Frames(values, frames.mask))
        pull = jnp.sum(jnp.sin(found.values) * frames.mask[..., None])
        return pull + found.commitment.sum(), found

    gradient, found = jax.grad(loss, has_aux=True)(frames.values)
    after = config.moved(variables["codebooks"], found.seen)["codebooks"]

    books = variables["codebooks"]["codebooks"]
    x = torch.from_numpy(values[mask]).requires_grad_()
    left, total, commitment = x, torch.zeros_like(x), 0.0
    for book in range(3):
        entries = torch.from_numpy(np.array(books["entries"][book]))
        ids = torch.cdist(left, entries).argmin(-1)
        chosen = entries[ids]
        np.testing.assert_array_equal(found.ids[mask][:, book], ids)
        commitment = commitment + ((left - chosen) ** 2).mean(-1).sum()
        one_hot = F.one_hot(ids, 16).float()
        usage = 0.99 * torch.from_numpy(np.array(books["usage"][book])) + 0.01 * one_hot.sum(0)
        sums = 0.99 * torch.from_numpy(np.array(books["sums"][book])) + 0.01 * one_hot.T @ left.detach()
        smoothed = (usage + 1e-5) / (usage.sum() + 16e-5) * usage.sum()
        np.testing.assert_allclose(after["entries"][book], sums / smoothed[:, None], atol=1e-5)
        total, left = total + chosen, left - chosen
    passed = x + (total - x).detach()
    (torch.sin(passed).sum() + commitment).backward()
    np.testing.assert_allclose(found.commitment.sum(), commitment.item(), rtol=1e-5)
    np.testing.assert_allclose(found.values[mask], total, atol=1e-5)
    np.testing.assert_allclose(np.asarray(gradient)[mask], x.grad, atol=1e-5)
