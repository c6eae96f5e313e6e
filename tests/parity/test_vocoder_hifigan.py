"""HiFi-GAN, unit vocoders and duration predictors against transformers and the published layouts; discriminators."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.decoders.discriminators import DiscriminatorsConfig
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.interop.engine import import_params, resolve
from slm_jax.interop.family_hifigan import HIFIGAN, SPEECHT5_HIFIGAN
from slm_jax.interop.family_unit_hifigan import CODE_HIFIGAN, UNIT_HIFIGAN
from slm_jax.interop.reference_vocoders import original_generator
from slm_jax.nn.conv import fold_weight_norm

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


def imported(family, hub_config, weights, spelling):
    """Our config and weights of a state dict, by the family's table."""
    config = family.read_config(hub_config)
    arrays = {name: value.detach().numpy() for name, value in weights.items()}
    shapes = {name: value.shape for name, value in arrays.items()}
    plan = resolve(family.table(config, spelling), shapes, family.abstract(config))
    return config, jax.tree.map(jnp.asarray, import_params(plan, arrays.__getitem__))


@pytest.mark.parametrize("normalise", [False, True])
def test_generator_equals_speecht5_hifigan_with_padding(normalise):
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    settings = SpeechT5HifiGanConfig(model_in_dim=6, normalize_before=normalise, **SHAPES, **BLOCKS)
    reference = louder(SpeechT5HifiGan(settings))
    reference.mean.copy_(torch.linspace(-1, 1, 6))
    reference.scale.copy_(torch.linspace(0.5, 2, 6))
    config, params = imported(SPEECHT5_HIFIGAN, settings.to_dict(), reference.state_dict(), "transformers")
    assert config.generator == OURS
    x = np.random.default_rng(0).normal(size=(2, 9, 6)).astype(np.float32)
    with torch.no_grad():
        full, short = reference(torch.from_numpy(x[:1]))[0], reference(torch.from_numpy(x[1:, :5]))[0]
    mask = jnp.arange(9) < jnp.array([[9], [5]])
    x[1, 5:] = 50.0
    got = np.asarray(jax.jit(config.make().apply)({"params": params}, jnp.asarray(x), mask))
    assert np.std(full.numpy()) > 0.05
    np.testing.assert_allclose(got[0], full, atol=TOLERANCE)
    np.testing.assert_allclose(got[1, : 5 * OURS.hop], short, atol=TOLERANCE)
    assert not got[1, 5 * OURS.hop :].any()


ORIGINAL = {**SHAPES, "num_mels": 7, "n_fft": 64, "hop_size": 10, "win_size": 40, "sampling_rate": 16_000}
V1_BLOCKS = {"resblock": "1", **BLOCKS}
V3_BLOCKS = {"resblock": "2", "resblock_kernel_sizes": [3, 5, 7], "resblock_dilation_sizes": [[1, 2], [2, 6], [3, 12]]}
NEW_SPELLING = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}


@pytest.mark.parametrize("blocks", [V1_BLOCKS, V3_BLOCKS], ids=["V1", "V3"])
def test_generator_equals_the_original_layout_however_weights_are_normed(blocks):
    hub_config = ORIGINAL | blocks
    reference = louder(original_generator(hub_config))
    x = np.random.default_rng(0).normal(size=(2, 12, 7)).astype(np.float32)
    with torch.no_grad():
        expected = reference(torch.from_numpy(x).transpose(1, 2))[:, 0].numpy()
    old = reference.state_dict()
    new = {re.sub("weight_[gv]$", lambda found: NEW_SPELLING[found[0]], name): w for name, w in old.items()}
    config, params = imported(HIFIGAN, hub_config, old, "original")
    jax.tree.map(np.testing.assert_array_equal, params, imported(HIFIGAN, hub_config, new, "original")[1])
    for layer in [m for m in reference.modules() if hasattr(m, "weight_g")]:
        torch.nn.utils.remove_weight_norm(layer)
    _, plain = imported(HIFIGAN, hub_config, reference.state_dict(), "original")
    apply = jax.jit(config.make().apply)
    assert expected.std() > 0.05
    np.testing.assert_allclose(apply({"params": params}, jnp.asarray(x)), expected, atol=TOLERANCE)
    np.testing.assert_allclose(apply({"params": plain}, jnp.asarray(x)), expected, atol=TOLERANCE)
    folded = config.replace(generator=config.generator.replace(weight_norm=False))
    got = jax.jit(folded.make().apply)({"params": fold_weight_norm(params)}, jnp.asarray(x))
    np.testing.assert_allclose(got, expected, atol=TOLERANCE)


UNITS = {"num_embeddings": 19, "embedding_dim": 6, "code_hop_size": 10, "sampling_rate": 16_000}
DURATIONS = {"encoder_embed_dim": 6, "var_pred_hidden_dim": 5, "var_pred_kernel_size": 3, "var_pred_dropout": 0.5}


class TorchPredictor(torch.nn.Module):
    """fairseq's duration predictor under its names."""

    def __init__(self, width, hidden):
        super().__init__()
        self.conv1 = torch.nn.Sequential(torch.nn.Conv1d(width, hidden, 3, padding=1), torch.nn.ReLU())
        self.conv2 = torch.nn.Sequential(torch.nn.Conv1d(hidden, hidden, 3, padding=1), torch.nn.ReLU())
        self.ln1, self.ln2 = torch.nn.LayerNorm(hidden), torch.nn.LayerNorm(hidden)
        self.proj = torch.nn.Linear(hidden, 1)

    def forward(self, x):
        x = self.ln1(self.conv1(x.transpose(1, 2)).transpose(1, 2))
        return self.proj(self.ln2(self.conv2(x.transpose(1, 2)).transpose(1, 2)))[..., 0]


@pytest.mark.parametrize("more", ["units alone", "f0 and speaker"])
def test_unit_vocoder_equals_the_fairseq_layout(more):
    """fairseq concatenates unit, F0 and speaker; F0 is a number that the caller has normalised."""
    hub_config = SHAPES | V1_BLOCKS | UNITS | {"dur_predictor_params": DURATIONS, "model_in_dim": 6}
    if more != "units alone":
        statistics = {"log_f0_mean": 5.0, "log_f0_std": 0.5}
        hub_config |= {"f0": True, "multispkr": "_", "num_speakers": 4, "model_in_dim": 13, **statistics}
    model = original_generator(hub_config, inputs=hub_config["model_in_dim"])
    model.dict, model.dur_predictor = torch.nn.Embedding(19, 6), TorchPredictor(6, 5)
    if more != "units alone":
        model.spkr = torch.nn.Embedding(4, 6)
    louder(model)
    config, params = imported(UNIT_HIFIGAN, hub_config, model.state_dict(), "fairseq")
    vocoder, rng = config.make(), np.random.default_rng(3)
    units, speaker = rng.integers(0, 19, (2, 9)), np.array([3, 1])
    f0_hz, voiced = rng.uniform(80, 300, (2, 9)).astype(np.float32), rng.uniform(size=(2, 9)) < 0.7
    with torch.no_grad():
        parts = [model.dict(torch.from_numpy(units))]
        log_durations = model.dur_predictor(parts[0]).numpy()
        if more != "units alone":
            f0 = np.where(voiced, (np.log(f0_hz) - 5.0) / 0.5, 0.0).astype(np.float32)
            parts += [torch.from_numpy(f0)[..., None], model.spkr(torch.from_numpy(speaker))[:, None].expand(-1, 9, -1)]
        expected = model(torch.cat(parts, -1).transpose(1, 2))[:, 0].numpy()
    inputs = {"f0_hz": jnp.asarray(f0_hz), "voiced": jnp.asarray(voiced), "speaker": jnp.asarray(speaker)}
    got = jax.jit(vocoder.apply)({"params": params}, jnp.asarray(units), **inputs)
    assert expected.std() > 0.05
    np.testing.assert_allclose(got, expected, atol=TOLERANCE)
    got = vocoder.apply({"params": params}, jnp.asarray(units), method=vocoder.log_durations)
    np.testing.assert_allclose(got, log_durations, atol=TOLERANCE)


def seamless():
    from transformers import SeamlessM4TConfig
    from transformers.models.seamless_m4t.modeling_seamless_m4t import SeamlessM4TCodeHifiGan

    config = SeamlessM4TConfig(
        unit_hifi_gan_vocab_size=20,
        unit_embed_dim=8,
        lang_embed_dim=4,
        spkr_embed_dim=5,
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


def test_unit_vocoder_and_durations_equal_seamless_code_hifigan():
    model = seamless()
    config, params = imported(CODE_HIFIGAN, model.config.to_dict(), model.state_dict(), "transformers")
    assert config.generator == OURS
    vocoder, variables = config.make(), {"params": params}
    units = np.random.default_rng(1).integers(1, 20, size=(2, 12))
    speakers, languages = jnp.array([3, 1]), jnp.array([2, 0])
    with torch.no_grad():
        references = []
        for row, length in ((0, 12), (1, 7)):
            ids = torch.from_numpy(units[row : row + 1, :length])
            voice = {"spkr_id": torch.tensor([[int(speakers[row])]]), "lang_id": torch.tensor([[int(languages[row])]])}
            references.append(model(ids, **voice)[0][0].numpy())
        embedded = model.unit_embedding(torch.from_numpy(units[:1]))
        log_durations = model.dur_predictor(embedded).numpy()
    got = vocoder.apply(variables, jnp.asarray(units[:1]), method=vocoder.log_durations)
    np.testing.assert_allclose(got, log_durations, atol=TOLERANCE)
    assert len(set(np.round(np.expm1(log_durations[0])))) > 2
    mask = jnp.arange(12) < jnp.array([[12], [7]])
    made = vocoder.apply(
        variables, jnp.asarray(units), mask, 120, speaker=speakers, language=languages, method=vocoder.synthesise
    )
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
