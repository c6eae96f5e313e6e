"""w2v-BERT 2.0 against the transformers class with random weights: features, every layer, folders both ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.trees import count_parameters
from slm_jax.encoders.stacked_fbank import stacked_fbank
from slm_jax.encoders.w2v_bert import W2VBERTConfig, w2v_bert_2
from slm_jax.interop.engine import resolve
from slm_jax.interop.families import FAMILIES
from slm_jax.interop.model import export, load
from slm_jax.interop.reference import draw_weights
from slm_jax.interop.reference_w2v_bert import SHAPE, features_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FAMILY = FAMILIES["wav2vec2-bert"]
TOLERANCE = 1e-4
LENGTHS = (8_080, 8_000, 5_441)
"""48, 48 and 32 frames of 10 ms in whole pairs; the first and the last leave one over."""


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Noise and rising tones, right-padded, and their mask."""
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    time = np.arange(max(LENGTHS)) / 16_000
    tones = np.stack([np.sin(hz * time * (1 + time)) for hz in (1_800, 6_000, 900)])
    noise = np.random.default_rng(0).standard_normal(mask.shape)
    return ((0.1 * tones + 0.02 * noise) * mask).astype(np.float32), mask


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model as its authors would publish it, with its feature extractor."""
    place = tmp_path_factory.mktemp("published")
    model = transformers.Wav2Vec2BertModel(transformers.Wav2Vec2BertConfig(**SHAPE))
    draw_weights(model, 3).save_pretrained(place)
    transformers.SeamlessM4TFeatureExtractor(padding_value=1).save_pretrained(place)
    return place


def expected(folder, rows: list[np.ndarray]):
    """Hidden states [L+1, B, T, D] and the mask, by the reference's own extractor and model."""
    extract = transformers.SeamlessM4TFeatureExtractor.from_pretrained(folder)
    model = transformers.Wav2Vec2BertModel.from_pretrained(folder).eval()
    inputs = extract(rows, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        out = model(**inputs, output_hidden_states=True)
    return np.stack([state.numpy() for state in out.hidden_states]), inputs["attention_mask"].numpy().astype(bool)


def test_features_are_those_of_the_extractor(rows):
    samples, mask = rows
    extract = transformers.SeamlessM4TFeatureExtractor()
    given = [row[real] for row, real in zip(samples, mask, strict=True)]
    theirs = extract(given, sampling_rate=16_000, return_tensors="np")
    real = theirs["attention_mask"].astype(bool)
    ours = jax.jit(lambda *xs: stacked_fbank(*xs, 80, 2))(samples, mask)
    exact, exact_real = features_of(samples, mask, {})
    count = exact_real.shape[1]
    for values, found in ((ours.values, ours.mask), (exact, exact_real)):
        np.testing.assert_array_equal(found, real[:, :count])
        np.testing.assert_allclose(values[found], theirs["input_features"][real], atol=TOLERANCE)
    assert real.sum(1).tolist() == [24, 24, 16] and not real[:, count:].any()


def test_every_layer_equals_the_published_folder_padded_and_alone(rows, folder):
    samples, mask = rows
    config, params = load(folder)
    assert (config.mels, config.stacked, config.mask_embedding) == (80, 2, True)
    out = jax.jit(lambda p, *xs: config.make().apply({"params": p}, *xs, collect=True))(params, samples, mask)
    given = [row[real] for row, real in zip(samples, mask, strict=True)]
    hidden, real = expected(folder, given)
    count = out.mask.shape[1]
    np.testing.assert_array_equal(out.mask, real[:, :count])
    assert hidden.std() > 0.5 and hidden.shape[0] == SHAPE["num_hidden_layers"] + 1
    np.testing.assert_allclose(np.asarray(out.hidden)[:, out.mask], hidden[:, real], atol=TOLERANCE)
    alone, _ = expected(folder, given[2:])
    np.testing.assert_allclose(out.hidden[:, 2, :16], alone[:, 0, :16], atol=TOLERANCE)


def test_our_folder_is_read_by_transformers(rows, folder, tmp_path):
    config, params = load(folder)
    params = jax.tree.map(lambda leaf: leaf + 0.01, params)
    export(config, params, tmp_path)
    again = load(tmp_path)
    assert again[0] == config
    jax.tree.map(np.testing.assert_array_equal, again[1], params)
    _, found = transformers.Wav2Vec2BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"] and not found["mismatched_keys"]
    samples = rows[0][:1]
    ours = jax.jit(lambda p, x: config.make().apply({"params": p}, x).values)(params, samples)
    theirs, real = expected(tmp_path, list(samples))
    np.testing.assert_allclose(ours[0], theirs[-1][real], atol=TOLERANCE)


def test_the_published_shape_has_the_parameters_of_the_class():
    published = transformers.Wav2Vec2BertConfig()
    with torch.device("meta"):
        model = transformers.Wav2Vec2BertModel(published)
    config = FAMILY.read_config(published.to_dict())
    assert config == w2v_bert_2() == W2VBERTConfig()
    abstract = FAMILY.abstract(config)
    resolve(FAMILY.table(config, "transformers"), {n: tuple(w.shape) for n, w in model.state_dict().items()}, abstract)
    assert count_parameters(abstract) == sum(p.numel() for p in model.parameters())
    assert 580_000_000 < count_parameters(abstract) < 581_000_000


def test_a_head_is_left_aside(tmp_path):
    model = transformers.Wav2Vec2BertForCTC(transformers.Wav2Vec2BertConfig(**SHAPE, vocab_size=7))
    model.save_pretrained(tmp_path)
    config, params = load(tmp_path)
    wanted = model.wav2vec2_bert.feature_projection.projection.weight.detach().numpy().T
    np.testing.assert_array_equal(jnp.asarray(params["feature_projection"]["kernel"]), wanted)
    assert config.width == SHAPE["hidden_size"]
