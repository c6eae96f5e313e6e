"""Classifiers on wav2vec 2.0, HuBERT and WavLM against transformers: padded rows, windows, both directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.interop.engine import export_params
from slm_jax.interop.families import FAMILIES, family_of
from slm_jax.interop.model import export, load, open_model
from slm_jax.interop.parts import open_source

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8, 8],
    "conv_kernel": [10, 3],
    "conv_stride": [5, 2],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 12,
    "num_labels": 5,
}
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
KINDS = {
    "wav2vec2": ("Wav2Vec2", {}),
    "hubert": ("Hubert", LARGE),
    "wavlm": ("WavLM", {**LARGE, "num_buckets": 16, "max_bucket_distance": 20}),
}
LENGTHS = (800, 517)
WINDOW = 24
TOLERANCE = 2e-5


@pytest.fixture(
    scope="module", params=["wav2vec2", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("hubert", "wavlm"))]
)
def pair(request, tmp_path_factory):
    """The transformers model, and the folder that it wrote."""
    name, settings = KINDS[request.param]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SHAPE, **settings)
    model = getattr(transformers, f"{name}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        for path, weight in model.named_parameters():
            if weight.ndim > 1 and "original0" not in path:
                weight.copy_(torch.randn_like(weight) / weight[0].numel() ** 0.5)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return request.param, model, folder


@pytest.fixture(scope="module")
def rows():
    mask = np.arange(max(LENGTHS)) < np.asarray(LENGTHS)[:, None]
    return np.random.default_rng(0).standard_normal(mask.shape).astype(np.float32) * mask, mask


def run(config, params, samples, mask):
    return jax.jit(config.make().apply)({"params": jax.tree.map(jnp.asarray, params)}, samples, mask)


def test_a_padded_batch_scores_as_the_reference_does_with_its_attention_mask(pair, rows):
    """With group norm over the padding, which the reference does not leave out."""
    _, model, folder = pair
    (config, params), (samples, mask) = load(folder), rows
    with torch.no_grad():
        wanted = model(torch.from_numpy(samples), attention_mask=torch.from_numpy(mask).long()).logits.numpy()
    padded = config.replace(encoder=config.encoder.replace(reference_padding=True))
    found = run(padded, params, samples, mask)
    assert found.logits.shape == (2, 1, 5) and found.mask.all()
    np.testing.assert_allclose(found.logits[:, 0], wanted, atol=TOLERANCE)


def test_each_row_scores_as_it_does_alone(pair, rows):
    _, model, folder = pair
    (config, params), (samples, mask) = load(folder), rows
    found = run(config, params, np.where(mask, samples, np.float32(1e3)), mask)
    for row, length in enumerate(LENGTHS):
        with torch.no_grad():
            wanted = model(torch.from_numpy(samples[row : row + 1, :length])).logits.numpy()
        np.testing.assert_allclose(found.logits[row], wanted, atol=TOLERANCE)


def test_windows_are_those_of_the_style_encoder(pair, rows):
    """Projected frames in stretches, the last of which is shorter, each averaged and scored on its own."""
    kind, model, folder = pair
    (config, params), (samples, mask) = load(folder), rows
    found = run(config.replace(window=WINDOW), params, samples, mask)
    for row, length in enumerate(LENGTHS):
        with torch.no_grad():
            heard = getattr(model, kind)(torch.from_numpy(samples[row : row + 1, :length]))[0]
            parts = model.projector(heard)[0].split(WINDOW)
            wanted = model.classifier(torch.stack([part.mean(0) for part in parts])).numpy()
        assert len(parts[-1]) < WINDOW
        count = int(config.replace(window=WINDOW).frame_count(length))
        assert count == len(wanted) == int(found.mask[row].sum())
        np.testing.assert_allclose(found.logits[row, :count], wanted, atol=TOLERANCE)
        np.testing.assert_array_equal(found.logits[row, :count].argmax(-1), wanted.argmax(-1))


def test_weights_go_back_and_the_reference_reads_the_folder(pair, rows, tmp_path):
    kind, model, folder = pair
    opened, (config, params) = open_model(folder), load(folder)
    assert opened.family is FAMILIES[f"{kind}_classifier"]
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    written = dict(export_params(opened.family.table(config), params))
    assert written.keys() == state.keys()
    for name, value in written.items():
        np.testing.assert_array_equal(value, state[name], err_msg=name)
    if kind == "hubert":  # an encoder of either kind is the same to us, and wav2vec2 comes first
        return
    export(config, params, tmp_path / "written")
    again = type(model).from_pretrained(tmp_path / "written").eval()
    samples = torch.from_numpy(rows[0][:1])
    with torch.no_grad():
        assert torch.equal(again(samples).logits, model(samples).logits)


def test_the_released_style_encoder_is_told_by_its_architecture(pair, tmp_path):
    kind, model, folder = pair
    hub = model.config.to_dict() | {"architectures": ["Wav2Vec2StyleEncoder"], "model_type": kind}
    config = family_of(hub).read_config(hub)
    assert config.window == 50 and config.classes == 5 and config.projection == 12
    encoder, params = open_source(str(folder))
    assert isinstance(encoder.encoder, SSLEncoderConfig) and set(params) == {"encoder", "projector", "classifier"}
