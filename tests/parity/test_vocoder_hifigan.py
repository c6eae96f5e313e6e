"""HiFi-GAN, the unit vocoder and its duration predictor against transformers; discriminators against PyTorch layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.decoders.discriminators import DiscriminatorsConfig
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.decoders.predictors import PredictorConfig
from slm_jax.decoders.unit_vocoder import UnitVocoderConfig

torch = pytest.importorskip("torch")
TOLERANCE = 1e-4
SHAPES = {"upsample_rates": [5, 2], "upsample_kernel_sizes": [11, 4], "upsample_initial_channel": 16}
BLOCKS = {"resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 3], [1, 2]]}
OURS = HiFiGANConfig(
    upsample=(5, 2),
    upsample_kernels=(11, 4),
    channels=16,
    resblock_kernels=(3, 5),
    resblock_dilations=((1, 3), (1, 2)),
    weight_norm=False,
)


def louder(model, seed=0):
    """Weights large enough that every layer matters to the output."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        fan_in = p[0].numel() if p.ndim > 1 else 4
        p.data = torch.randn(p.shape, generator=generator) * (1.2 / fan_in**0.5 if p.ndim > 1 else 0.2)
    return model.eval()


def convolution(layer, transposed=False):
    axes = (2, 0, 1) if transposed else (2, 1, 0)
    arrays = {"kernel": layer.weight.detach().numpy().transpose(axes)}
    if layer.bias is not None:
        arrays["bias"] = layer.bias.detach().numpy()
    return jax.tree.map(jnp.asarray, arrays)


def hifigan_params(reference, config):
    params = {"conv_pre": convolution(reference.conv_pre), "conv_post": convolution(reference.conv_post)}
    per_stage = len(config.resblock_kernels)
    for stage, up in enumerate(reference.upsampler):
        params[f"up_{stage}"] = convolution(up, transposed=True)
        for index in range(per_stage):
            block = reference.resblocks[stage * per_stage + index]
            layers = {f"dilated_{i}": convolution(conv) for i, conv in enumerate(block.convs1)}
            params[f"block_{stage}_{index}"] = layers | {
                f"plain_{i}": convolution(c) for i, c in enumerate(block.convs2)
            }
    return params


def test_generator_equals_speecht5_hifigan_with_padding():
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    reference = louder(
        SpeechT5HifiGan(SpeechT5HifiGanConfig(model_in_dim=6, normalize_before=False, **SHAPES, **BLOCKS))
    )
    x = np.random.default_rng(0).normal(size=(2, 9, 6)).astype(np.float32)
    with torch.no_grad():
        full, short = reference(torch.from_numpy(x[:1]))[0], reference(torch.from_numpy(x[1:, :5]))[0]
    mask = jnp.arange(9) < jnp.array([[9], [5]])
    x[1, 5:] = 50.0
    got = np.asarray(OURS.make().apply({"params": hifigan_params(reference, OURS)}, jnp.asarray(x), mask))
    assert np.std(full.numpy()) > 0.05
    np.testing.assert_allclose(got[0], full, atol=TOLERANCE)
    np.testing.assert_allclose(got[1, : 5 * OURS.hop], short, atol=TOLERANCE)
    assert not got[1, 5 * OURS.hop :].any()


def seamless():
    from transformers import SeamlessM4TConfig
    from transformers.models.seamless_m4t.modeling_seamless_m4t import SeamlessM4TCodeHifiGan

    config = SeamlessM4TConfig(
        unit_hifi_gan_vocab_size=20,
        unit_embed_dim=8,
        lang_embed_dim=4,
        spkr_embed_dim=4,
        vocoder_num_langs=3,
        vocoder_num_spkrs=5,
        t2u_pad_token_id=0,
        variance_predictor_kernel_size=3,
        **SHAPES,
        **BLOCKS,
    )
    model = louder(SeamlessM4TCodeHifiGan(config))
    model.dur_predictor.proj.weight.data *= 5  # so that durations differ from the least one
    model.dur_predictor.proj.bias.data += 1.1
    return model


def seamless_params(model, language):
    """Ours has no language table: a speaker vector is the reference's (language, speaker) pair, unit first."""
    predictor = model.dur_predictor
    speakers = model.speaker_embedding.weight
    vectors = torch.cat([model.language_embedding.weight[language].expand(len(speakers), -1), speakers], dim=-1)
    generator = hifigan_params(model.hifi_gan, OURS)
    kernel = generator["conv_pre"]["kernel"]
    generator["conv_pre"]["kernel"] = jnp.concatenate([kernel[:, 4:12], kernel[:, :4], kernel[:, 12:]], axis=1)
    norms = {
        f"norm_{i}": {"scale": norm.weight.detach().numpy(), "bias": norm.bias.detach().numpy()}
        for i, norm in enumerate((predictor.ln1, predictor.ln2))
    }
    out = {"kernel": predictor.proj.weight.detach().numpy().T, "bias": predictor.proj.bias.detach().numpy()}
    return jax.tree.map(
        jnp.asarray,
        {
            "unit": {"embedding": model.unit_embedding.weight.detach().numpy()},
            "speaker": {"embedding": vectors.detach().numpy()},
            "generator": generator,
            "durations": {"conv_0": convolution(predictor.conv1), "conv_1": convolution(predictor.conv2), "out": out}
            | norms,
        },
    )


def test_unit_vocoder_and_durations_equal_seamless_code_hifigan():
    model = seamless()
    vocoder = UnitVocoderConfig(
        units=20,
        unit_dim=8,
        speakers=5,
        speaker_dim=8,
        pitch=False,
        generator=OURS,
        durations=PredictorConfig(),
        pitch_predictor=None,
    ).make()
    variables = {"params": seamless_params(model, language=2)}
    units = np.random.default_rng(1).integers(1, 20, size=(2, 12))
    with torch.no_grad():
        references = []
        for row, length in ((0, 12), (1, 7)):
            ids = torch.from_numpy(units[row : row + 1, :length])
            references.append(model(ids, spkr_id=torch.tensor([[3]]), lang_id=torch.tensor([[2]]))[0][0].numpy())
        embedded = model.unit_embedding(torch.from_numpy(units[:1]))
        log_durations = model.dur_predictor(embedded).numpy()
    got = vocoder.apply(variables, jnp.asarray(units[:1]), method=vocoder.log_durations)
    np.testing.assert_allclose(got, log_durations, atol=TOLERANCE)
    assert len(set(np.round(np.expm1(log_durations[0])))) > 2
    mask = jnp.arange(12) < jnp.array([[12], [7]])
    made = vocoder.apply(variables, jnp.asarray(units), mask, 120, speaker=jnp.array([3, 3]), method=vocoder.synthesise)
    for row, expected in enumerate(references):
        assert int(made.mask[row].sum()) == len(expected)
        assert expected.std() > 0.02
        np.testing.assert_allclose(made.samples[row, : len(expected)], expected, atol=TOLERANCE)


def weight_normed_conv(module):
    return torch.nn.utils.parametrizations.weight_norm(module)


class TorchPeriod(torch.nn.Module):
    """The published layer list, in two-dimensional form."""

    def __init__(self, period, widths):
        super().__init__()
        self.period, previous, layers = period, 1, []
        for index, width in enumerate(widths):
            stride = 3 if index < len(widths) - 1 else 1
            layers.append(weight_normed_conv(torch.nn.Conv2d(previous, width, (5, 1), (stride, 1), padding=(2, 0))))
            previous = width
        self.layers = torch.nn.ModuleList(layers)
        self.post = weight_normed_conv(torch.nn.Conv2d(previous, 1, (3, 1), 1, padding=(1, 0)))

    def forward(self, x):
        x = torch.nn.functional.pad(x[:, None], (0, -x.shape[-1] % self.period), "reflect")
        x, features = x.reshape(x.shape[0], 1, -1, self.period), []
        for layer in self.layers:
            x = torch.nn.functional.leaky_relu(layer(x), 0.1)
            features.append(x)
        x = self.post(x)
        return x.flatten(1), [*features, x]


class TorchScale(torch.nn.Module):
    def __init__(self, layers):
        super().__init__()
        previous, made = 1, []
        for width, kernel, stride, groups in layers:
            conv = torch.nn.Conv1d(previous, width, kernel, stride, kernel // 2, groups=groups)
            made.append(weight_normed_conv(conv))
            previous = width
        self.layers = torch.nn.ModuleList(made)
        self.post = weight_normed_conv(torch.nn.Conv1d(previous, 1, 3, padding=1))

    def forward(self, x):
        features = []
        for layer in self.layers:
            x = torch.nn.functional.leaky_relu(layer(x), 0.1)
            features.append(x)
        x = self.post(x)
        return x.flatten(1), [*features, x]


def normed(layer):
    weight = layer.parametrizations.weight
    arrays = {"weight_g": weight.original0, "weight_v": weight.original1, "bias": layer.bias}
    arrays = {name: a.detach().numpy() for name, a in arrays.items()}
    ours = {name: a.reshape(a.shape[:3]).transpose(2, 1, 0) if a.ndim > 1 else a for name, a in arrays.items()}
    return jax.tree.map(jnp.asarray, ours)


def all_normed(reference):
    layers = {f"conv_{i}": normed(layer) for i, layer in enumerate(reference.layers)}
    return layers | {"conv_post": normed(reference.post)}


def test_discriminators_equal_the_published_layers():
    torch.manual_seed(0)
    widths, layers = (4, 6), ((4, 15, 1, 1), (8, 11, 2, 4), (8, 5, 1, 1))
    config = DiscriminatorsConfig(
        periods=(2, 3), period_widths=widths, scales=2, scale_layers=layers, spectral_first=False
    )
    references = [TorchPeriod(2, widths), TorchPeriod(3, widths), TorchScale(layers), TorchScale(layers)]
    for reference in references:
        louder(reference)
    names = ("period_2", "period_3", "scale_0", "scale_1")
    params = {name: all_normed(reference) for name, reference in zip(names, references, strict=True)}
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 101)).astype(np.float32))
    pooled = torch.nn.AvgPool1d(4, 2, padding=2)(x[:, None])
    with torch.no_grad():
        expected = [references[0](x), references[1](x), references[2](x[:, None]), references[3](pooled)]
    judged = jax.jit(config.make().apply)({"params": params}, jnp.asarray(x.numpy()))
    for (scores, features), (wanted, wanted_features) in zip(judged, expected, strict=True):
        np.testing.assert_allclose(np.sort(scores), np.sort(wanted.numpy()), atol=TOLERANCE)
        assert len(features) == len(wanted_features)
        for ours, theirs in zip(features, wanted_features, strict=True):
            order = (0, 3, 2, 1) if theirs.ndim == 4 else (0, 2, 1)
            np.testing.assert_allclose(ours, theirs.numpy().transpose(order), atol=TOLERANCE)
