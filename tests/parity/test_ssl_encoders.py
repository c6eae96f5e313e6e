"""wav2vec 2.0, HuBERT and WavLM against the transformers classes with random weights: every layer, padded or not."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.trees import count_parameters
from slm_jax.encoders import ssl_presets
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.interop.engine import import_params, resolve
from slm_jax.interop.families import FAMILIES
from slm_jax.interop.family import Family
from slm_jax.interop.model import load
from slm_jax.nn.relative_bias import RelativeBiasConfig, buckets_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 2e-5
LONG_TOLERANCE = 1e-4
LONG, SHORT = 1_600, 977
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [16, 16, 16],
    "conv_kernel": [10, 3, 2],
    "conv_stride": [5, 2, 2],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
VARIANTS = {
    "wav2vec2_base": ("Wav2Vec2", {}),
    "wav2vec2_large": ("Wav2Vec2", {**LARGE, "conv_bias": True}),
    "hubert_base": ("Hubert", {}),
    "hubert_large": ("Hubert", {**LARGE, "conv_bias": True, "num_conv_pos_embeddings": 7}),
    "wavlm_base": ("WavLM", {"num_buckets": 32, "max_bucket_distance": 40}),
    "wavlm_large": ("WavLM", {**LARGE, "num_buckets": 32, "max_bucket_distance": 40}),
}


def reference(variant: str):
    """The transformers model of a variant."""
    name, settings = VARIANTS[variant]
    return drawn(name, SHAPE | settings)


def drawn(name: str, settings: dict):
    """A transformers model with weights of a size that lets every part be felt."""
    config = getattr(transformers, f"{name}Config")(**settings)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(config).eval()
    with torch.no_grad():
        for path, weight in model.named_parameters():
            fan_in = max(weight[0].numel(), 1) if weight.ndim > 1 else 1
            is_norm = "layer_norm.weight" in path
            weight.copy_(1 + 0.2 * torch.randn_like(weight) if is_norm else torch.randn_like(weight) / fan_in**0.5)
            if path.endswith("original0"):
                weight.copy_(1 + 0.5 * torch.rand_like(weight))
            if path.endswith("bias"):
                weight.mul_(0.1)
    return model


def family_of_variant(variant: str) -> Family:
    return FAMILIES[VARIANTS[variant][0].lower()]


def imported(model, family: Family, **changes) -> tuple[SSLEncoderConfig, dict]:
    """Our config and weights of a transformers model, by the family's table."""
    config = family.read_config(model.config.to_dict()).replace(**changes)
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    shapes = {name: value.shape for name, value in weights.items()}
    plan = resolve(family.table(config, "transformers"), shapes, family.abstract(config))
    return config, jax.tree.map(jnp.asarray, import_params(plan, weights.__getitem__))


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Two rows, the second padded with zeros, and their mask."""
    mask = np.arange(LONG) < np.array([LONG, SHORT])[:, None]
    samples = np.random.default_rng(0).standard_normal((2, LONG)).astype(np.float32)
    return samples * mask, mask


def run(config: SSLEncoderConfig, params: dict, samples: np.ndarray, mask: np.ndarray, span_mask=None):
    apply = jax.jit(lambda p, s, m, spans: config.make().apply({"params": p}, s, m, spans, collect=True))
    return apply(params, samples, mask, span_mask)


def expected_layers(model, samples: np.ndarray, **inputs) -> tuple[np.ndarray, np.ndarray]:
    """All hidden states [L+1, B, T, D] and the last one after the final norm."""
    with torch.no_grad():
        out = model(torch.from_numpy(samples), output_hidden_states=True, **inputs)
    return np.stack([h.numpy() for h in out.hidden_states]), out.last_hidden_state.numpy()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_layer_equals_the_reference_row_by_row(variant, rows):
    """Batched and padded on our side, each row alone on the reference's."""
    samples, mask = rows
    model = reference(variant)
    config, params = imported(model, family_of_variant(variant))
    assert count_parameters(params) == sum(p.numel() for p in model.parameters())
    out = run(config, params, samples, mask)
    for row, length in enumerate((LONG, SHORT)):
        hidden, last = expected_layers(model, samples[row : row + 1, :length])
        frames = last.shape[1]
        assert out.mask[row].sum() == frames == config.frame_count(length)
        assert hidden.shape[0] == 4
        assert hidden.std() > 0.1
        np.testing.assert_allclose(out.hidden[:, row, :frames], hidden[:, 0], atol=TOLERANCE)
        np.testing.assert_allclose(out.values[row, :frames], last[0], atol=TOLERANCE)


FAIRSEQ = (
    (r"feature_extractor\.conv_layers\.(\d+)\.conv\.", r"feature_extractor.conv_layers.\1.0."),
    (r"feature_extractor\.conv_layers\.(\d+)\.layer_norm\.", r"feature_extractor.conv_layers.\1.2."),
    (r"feature_projection\.layer_norm", "layer_norm"),
    (r"feature_projection\.projection", "post_extract_proj"),
    (r"masked_spec_embed", "mask_emb"),
    (r"encoder\.pos_conv_embed\.conv\.bias", "encoder.pos_conv.0.bias"),
    (r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original0", "encoder.pos_conv.0.weight_g"),
    (r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original1", "encoder.pos_conv.0.weight_v"),
    (r"(encoder\.layers\.\d+)\.layer_norm", r"\1.self_attn_layer_norm"),
    (r"(encoder\.layers\.\d+)\.attention\.rel_attn_embed", r"\1.self_attn.relative_attention_bias"),
    (r"(encoder\.layers\.\d+)\.attention\.gru_rel_pos_linear", r"\1.self_attn.grep_linear"),
    (r"(encoder\.layers\.\d+)\.attention\.gru_rel_pos_const", r"\1.self_attn.grep_a"),
    (r"(encoder\.layers\.\d+)\.attention\.", r"\1.self_attn."),
    (r"(encoder\.layers\.\d+)\.feed_forward\.intermediate_dense", r"\1.fc1"),
    (r"(encoder\.layers\.\d+)\.feed_forward\.output_dense", r"\1.fc2"),
)
"""What fairseq calls each weight of the transformers classes: written down from its modules, not from our table."""


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_checkpoint_of_fairseq_is_the_same_model(variant, tmp_path):
    """The reference's weights under fairseq's names, in a file as its trainer writes it: the same parameters."""
    family, model = family_of_variant(variant), reference(variant)
    norms_are_inner = model.config.feat_extract_norm == "layer"
    renamed = {}
    for name, value in model.state_dict().items():
        for pattern, new in FAIRSEQ:
            name = re.sub(f"^{pattern}", new, name)
        if norms_are_inner:  # between two transpositions
            name = re.sub(r"(conv_layers\.\d+\.2)\.", r"\1.1.", name)
        renamed[name] = value
    torch.save({"model": renamed, "args": None, "epoch": 3}, tmp_path / "checkpoint_best.pt")
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_diff_dict()))
    config, params = load(tmp_path)
    wanted = imported(model, family)
    assert config == wanted[0]
    jax.tree.map(np.testing.assert_array_equal, params, jax.tree.map(np.asarray, wanted[1]))


CONVS = {"conv_dim": [8] * 7, "conv_kernel": [10, 3, 3, 3, 3, 2, 2], "conv_stride": [5, 2, 2, 2, 2, 2, 2]}
EIGHT_CONVS = {
    "conv_dim": [8] * 8,
    "conv_kernel": [*CONVS["conv_kernel"], 2],
    "conv_stride": [*CONVS["conv_stride"], 2],
}
PRIME = {"hidden_size": 31, "num_attention_heads": 1, "intermediate_size": 53, "num_hidden_layers": 1}
SHAPES = {
    "published strides": ("Hubert", CONVS, {160_000: 499, 16_080: 50, 16_000: 49}),
    "layer norms": ("WavLM", CONVS | LARGE, {160_000: 499, 16_080: 50, 16_000: 49}),
    # the eight convolutions of the published mHuBERT of 25 Hz
    "25 Hz": ("Hubert", EIGHT_CONVS | {"feat_proj_layer_norm": False}, {16_080: 25, 16_000: 24}),
    "prime widths": ("Wav2Vec2", CONVS | PRIME | {"num_conv_pos_embedding_groups": 31}, {16_080: 50, 16_000: 49}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_other_shapes_and_lengths_equal_the_reference_row_by_row(shape):
    """Ten seconds lie beside one second in one batch of ours; on the reference's side each row is alone.

    At 499 frames PyTorch's own float32 is 2.4e-5 off its float64, which ours meets to 5e-14 in float64.
    """
    name, changes, counts = SHAPES[shape]
    model = drawn(name, SHAPE | changes)
    config, params = imported(model, FAMILIES[name.lower()])
    mask = np.arange(max(counts)) < np.array(list(counts))[:, None]
    samples = (np.random.default_rng(1).standard_normal(mask.shape) * mask).astype(np.float32)
    out = run(config, params, samples, mask)
    assert out.mask.sum(1).tolist() == list(counts.values())
    for row, (length, frames) in enumerate(counts.items()):
        hidden, last = expected_layers(model, samples[row : row + 1, :length])
        assert hidden.std() > 0.1
        np.testing.assert_allclose(out.hidden[:, row, :frames], hidden[:, 0], atol=LONG_TOLERANCE)
        np.testing.assert_allclose(out.values[row, :frames], last[0], atol=LONG_TOLERANCE)


@pytest.mark.parametrize("variant", ["hubert_base", "wavlm_large"])
def test_reference_padding_equals_the_padded_reference(variant, rows):
    samples, mask = rows
    model = reference(variant)
    config, params = imported(model, family_of_variant(variant), reference_padding=True)
    hidden, _ = expected_layers(model, samples, attention_mask=torch.from_numpy(mask.astype(np.int64)))
    out = run(config, params, samples, mask)
    kept = np.asarray(out.mask)
    np.testing.assert_allclose(np.asarray(out.hidden)[:, kept], hidden[:, kept], atol=TOLERANCE)
    safe = run(config.replace(reference_padding=False), params, samples, mask)
    differs = np.abs(np.asarray(safe.hidden - out.hidden))[:, kept].max() > 1e-2
    assert differs == (config.extractor_norm == "group")


@pytest.mark.parametrize("variant", ["hubert_base", "wavlm_large"])
def test_mask_embedding_replaces_what_the_reference_replaces(variant, rows):
    samples = rows[0][:1]
    model = reference(variant)
    config, params = imported(model, family_of_variant(variant))
    spans = np.zeros((1, config.frame_count(LONG)), bool)
    spans[0, 5:15] = spans[0, 30:33] = True
    hidden, _ = expected_layers(model, samples, mask_time_indices=torch.from_numpy(spans))
    out = run(config, params, samples, np.ones(samples.shape, bool), spans)
    np.testing.assert_allclose(out.hidden, hidden, atol=TOLERANCE)


@pytest.mark.parametrize("variant", ["hubert_base", "wavlm_large"])
def test_stopping_at_a_layer_gives_that_hidden_state(variant, rows):
    samples, mask = (jnp.asarray(x[:1]) for x in rows)
    model = reference(variant)
    config, params = imported(model, family_of_variant(variant))
    hidden, _ = expected_layers(model, rows[0][:1])
    apply = jax.jit(lambda layer: config.make().apply({"params": params}, samples, mask, layer=layer), static_argnums=0)
    for layer in (0, 2, 3):
        out = apply(layer)
        np.testing.assert_allclose(out.values, hidden[layer], atol=TOLERANCE)


def test_normalised_waveform_equals_the_reference_feature_extractor(rows):
    from slm_jax.encoders.feature_extractor import normalise_rows

    samples, mask = rows[0] * 0.03 + 0.5, rows[1]
    extract = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    ours = normalise_rows(jnp.asarray(samples), jnp.asarray(mask))
    for row, length in enumerate((LONG, SHORT)):
        theirs = extract(samples[row, :length], sampling_rate=16_000, return_tensors="np")["input_values"][0]
        np.testing.assert_allclose(ours[row, :length], theirs, atol=1e-4)
        assert not np.asarray(ours[row, length:]).any()


@pytest.mark.parametrize("buckets, distance", [(320, 800), (32, 40)])
def test_relative_buckets_equal_the_reference(buckets, distance):
    attention = transformers.models.wavlm.modeling_wavlm.WavLMAttention(
        8, 2, num_buckets=buckets, max_distance=distance
    )
    offsets = np.arange(-1500, 1501)
    ours = buckets_of(offsets, RelativeBiasConfig(buckets=buckets, max_distance=distance))
    np.testing.assert_array_equal(ours, attention._relative_positions_bucket(torch.from_numpy(offsets)).numpy())


def test_frame_counts_equal_the_reference():
    with torch.device("meta"):
        model = transformers.HubertModel(transformers.HubertConfig(num_hidden_layers=1))
    samples = [400, 719, 720, 16_000, 16_080, 160_000]
    theirs = [int(model._get_feat_extract_output_lengths(torch.tensor(n))) for n in samples]
    assert theirs == [1, 1, 2, 49, 50, 499]
    for config in (ssl_presets.hubert_base(), ssl_presets.log_mel_tiny()):
        assert [config.frame_count(n) for n in samples] == theirs


PUBLISHED = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


@pytest.mark.parametrize(
    "preset", ["wav2vec2_base", "wav2vec2_large", "hubert_base", "hubert_large", "wavlm_base", "wavlm_large"]
)
def test_published_sizes_have_the_reference_parameter_count(preset):
    name = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}[preset.split("_")[0]]
    settings = {**PUBLISHED, **LARGE, "conv_bias": name != "WavLM"} if preset.endswith("large") else {}
    with torch.device("meta"):
        model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**settings))
    ours = jax.eval_shape(getattr(ssl_presets, preset)().make().init, jax.random.key(0), jnp.zeros((1, 16_000)))
    assert count_parameters(ours) == sum(p.numel() for p in model.parameters())
