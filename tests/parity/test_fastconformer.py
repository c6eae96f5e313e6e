"""FastConformer against `ParakeetForCTC` with random weights: spectra, layers, folders both ways."""

import jax
import numpy as np
import pytest

from slm_jax.core.trees import count_parameters
from slm_jax.encoders.fastconformer import FastConformerConfig, fastconformer
from slm_jax.interop.engine import export_params, import_params, resolve
from slm_jax.interop.families import FAMILIES
from slm_jax.interop.model import export, load

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
SHAPE = {
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 50,
    "conv_kernel_size": 5,
    "subsampling_conv_channels": 6,
    "num_mel_bins": 80,
}
LENGTHS = (27_000, 24_319, 13_440)
"""168, 151 and 84 spectra: 21, 19 and 11 frames, whole and begun ones."""


def redrawn(model):
    """With weights of a size that lets every part be felt, statistics of batch norms too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.ndim == 0:
                continue
            drawn = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.copy_(0.5 + drawn.abs())
            elif value.ndim == 1 or "bias_" in name:
                value.copy_(0.3 * drawn + ("norm" in name and name.endswith("weight")))
            else:
                value.copy_(drawn / value[0].numel() ** 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with a head as its authors would publish it, with its feature extractor."""
    place = tmp_path_factory.mktemp("published")
    config = transformers.ParakeetCTCConfig(vocab_size=23, pad_token_id=22, encoder_config=SHAPE)
    redrawn(transformers.ParakeetForCTC(config)).save_pretrained(place)
    transformers.ParakeetFeatureExtractor(feature_size=80).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def rows():
    """Noise and rising tones, right-padded, and their mask."""
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    time = np.arange(max(LENGTHS)) / 16_000
    tones = np.stack([np.sin(hz * time * (1 + time)) for hz in (1_800, 6_000, 900)])
    # Beside the loud tones a band of less noise has so little that float32 ends where the tolerance does: at 0.02 ours
    # and theirs are each 8e-5 from float64.
    noise = np.random.default_rng(0).standard_normal(mask.shape)
    return ((0.1 * tones + 0.05 * noise) * mask).astype(np.float32), mask


def inputs_of(folder, rows):
    """What the reference's own extractor makes of clips."""
    extract = transformers.ParakeetFeatureExtractor.from_pretrained(folder)
    return extract(rows, sampling_rate=16_000, return_tensors="pt")


def expected(folder, rows):
    """Hidden states [L + 1, B, T, D], logits and the mask of frames."""
    model, inputs = transformers.ParakeetForCTC.from_pretrained(folder).eval(), inputs_of(folder, rows)
    with torch.no_grad():
        out = model(**inputs, output_hidden_states=True)
        real = model.encoder(**inputs).attention_mask
    return np.stack([state.numpy() for state in out.hidden_states]), out.logits.numpy(), real.numpy().astype(bool)


def test_every_layer_and_the_head_equal_the_published_folder_padded_and_alone(rows, folder):
    samples, mask = rows
    config, params = load(folder)
    given = [row[real] for row, real in zip(samples, mask, strict=True)]
    hidden, logits, real = expected(folder, given)
    padded = np.where(mask, samples, 7.0)

    def ours(params, samples, mask):
        out = config.encoder.make().apply({"params": params["encoder"]}, samples, mask, collect=True)
        spectra = config.encoder.mel.make()(samples, mask)
        return out, spectra, config.make().apply({"params": params}, samples, mask)[0]

    out, spectra, scores = jax.jit(ours)(params, padded, mask)
    inputs = inputs_of(folder, given)
    there = inputs["attention_mask"].numpy().astype(bool)[:, : spectra.mask.shape[1]]
    np.testing.assert_array_equal(spectra.mask, there)
    theirs = inputs["input_features"].numpy()[:, : there.shape[1]]
    np.testing.assert_allclose(spectra.values[there], theirs[there], atol=TOLERANCE)
    count = out.mask.shape[1]
    np.testing.assert_array_equal(out.mask, real[:, :count])
    assert out.mask.sum(1).tolist() == [21, 19, 11] and not real[:, count:].any()
    assert hidden.std() > 0.5 and hidden.shape[0] == SHAPE["num_hidden_layers"] + 1
    np.testing.assert_allclose(np.asarray(out.hidden)[:, out.mask], hidden[:, real], atol=TOLERANCE)
    np.testing.assert_allclose(scores[out.mask], logits[real], atol=TOLERANCE)
    alone = expected(folder, given[2:])[1]
    np.testing.assert_allclose(scores[2, :11], alone[0, :11], atol=TOLERANCE)


def test_our_folder_is_read_by_transformers(rows, folder, tmp_path):
    config, params = load(folder)
    params = jax.tree.map(lambda leaf: leaf + 0.01, params)
    export(config, params, tmp_path)
    again = load(tmp_path)
    assert again[0] == config
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), again[1], params)
    _, found = transformers.ParakeetForCTC.from_pretrained(tmp_path, output_loading_info=True)
    assert all(name.endswith("num_batches_tracked") for name in found["missing_keys"])
    assert not found["unexpected_keys"] and not found["mismatched_keys"]
    samples = rows[0][:1]
    ours = jax.jit(lambda p, x: config.make().apply({"params": p}, x)[0])(params, samples)
    _, theirs, real = expected(tmp_path, list(samples))
    np.testing.assert_allclose(ours[0], theirs[0][: ours.shape[1]], atol=TOLERANCE)
    assert real.sum() == ours.shape[1]


def test_names_of_nemo_carry_the_same_weights(folder):
    config, params = load(folder)
    family = FAMILIES["parakeet_ctc"]
    named = dict(export_params(family.table(config, "nemo"), params))
    for name in (
        "encoder.pre_encode.conv.0.weight",
        "encoder.pre_encode.conv.6.bias",
        "encoder.pre_encode.out.weight",
        "encoder.layers.1.norm_feed_forward1.weight",
        "encoder.layers.0.self_attn.linear_pos.weight",
        "encoder.layers.0.self_attn.pos_bias_u",
        "encoder.layers.1.conv.batch_norm.running_mean",
        "decoder.decoder_layers.0.weight",
    ):
        assert name in named
    named |= {"preprocessor.featurizer.fb": np.zeros((1, 80, 257), np.float32)}
    shapes = {name: array.shape for name, array in named.items()}
    plan = resolve(family.table(config, "nemo"), shapes, family.abstract(config))
    again = import_params(plan, named.__getitem__)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), again, params)
    alone = FAMILIES["parakeet_encoder"]
    plan = resolve(alone.table(config.encoder, "nemo"), shapes, alone.abstract(config.encoder))
    assert import_params(plan, named.__getitem__).keys() == params["encoder"].keys()


def test_the_published_shape_has_the_parameters_of_the_class():
    published = transformers.ParakeetEncoderConfig()
    with torch.device("meta"):
        model = transformers.ParakeetEncoder(published)
    family = FAMILIES["parakeet_encoder"]
    config = family.read_config(published.to_dict())
    assert config == FastConformerConfig(layer_drop=0.1)
    assert config.replace(layer_drop=0.0) == fastconformer("xlarge")
    abstract = family.abstract(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    resolve(family.table(config, "transformers"), shapes, abstract)
    assert count_parameters(abstract) == sum(p.numel() for p in model.parameters())
    assert count_parameters(abstract) == 607_749_120
