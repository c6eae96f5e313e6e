"""Folders of encoders and vocoders: what transformers saves we load, what we export transformers loads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.interop.model import export, load

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SHAPE = {
    "hidden_size": 21,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 13,
    "conv_dim": [6, 5],
    "conv_kernel": [10, 3],
    "conv_stride": [5, 2],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 3,
}
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
ENCODERS = {
    "HubertModel": LARGE,
    "HubertForCTC": {"mask_time_prob": 0.0},
    "Wav2Vec2Model": {},
    "Wav2Vec2ForCTC": LARGE,
    "Wav2Vec2ForPreTraining": {"codevector_dim": 8, "proj_codevector_dim": 4, "num_codevectors_per_group": 5},
    "WavLMModel": {"num_buckets": 16, "max_bucket_distance": 9},
    "WavLMForXVector": {"tdnn_dim": [8, 8], "tdnn_kernel": [3, 1], "tdnn_dilation": [1, 1], "xvector_output_dim": 4},
}
GENERATOR = {
    "upsample_rates": [3, 2],
    "upsample_kernel_sizes": [7, 4],
    "upsample_initial_channel": 8,
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3], [1, 2]],
}


def made(name: str, settings: dict):
    """A model whose norms and biases are not what they start from."""
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def assert_same(one: dict, other: dict) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_with_and_without_heads(name, tmp_path):
    model = made(name, SHAPE | ENCODERS[name])
    model.save_pretrained(tmp_path / "theirs")
    config, params = load(tmp_path / "theirs")
    export(config, params, tmp_path / "ours", family=model.config.model_type)
    again, params_again = load(tmp_path / "ours")
    assert again == config
    assert_same(params, params_again)
    kind = getattr(transformers, name.split("For")[0].removesuffix("Model") + "Model")
    back, found = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"] and not found["mismatched_keys"]
    samples = torch.randn(1, 301)
    with torch.no_grad():
        theirs = model.base_model(samples, output_hidden_states=True).hidden_states
        ours = back.eval()(samples, output_hidden_states=True).hidden_states
    assert all(torch.equal(one, other) for one, other in zip(theirs, ours, strict=True))


def test_the_exported_preprocessor_normalises_as_the_encoder_does(tmp_path):
    model = made("HubertModel", SHAPE)
    model.save_pretrained(tmp_path / "theirs")
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path / "theirs")
    config, params = load(tmp_path / "theirs")
    assert config.normalise_waveform
    export(config, params, tmp_path / "ours")
    extract = transformers.Wav2Vec2FeatureExtractor.from_pretrained(tmp_path / "ours")
    samples = np.random.default_rng(0).normal(0.3, 0.1, 301).astype(np.float32)
    inputs = extract(samples, sampling_rate=16_000, return_tensors="pt")["input_values"]
    with torch.no_grad():
        expected = model(inputs).last_hidden_state.numpy()
    out = jax.jit(config.make().apply)({"params": params}, jnp.asarray(samples[None]))
    np.testing.assert_allclose(out.values, expected, atol=2e-5)


@pytest.mark.parametrize("name", ["SpeechT5HifiGan", "FastSpeech2ConformerHifiGan"])
def test_mel_vocoders(name, tmp_path):
    model = made(name, {"model_in_dim": 5, **GENERATOR})
    model.mean.copy_(torch.linspace(-1, 1, 5))
    model.save_pretrained(tmp_path / "theirs")
    config, params = load(tmp_path / "theirs")
    export(config, params, tmp_path / "ours")
    assert_same(params, load(tmp_path / "ours")[1])
    back = transformers.SpeechT5HifiGan.from_pretrained(tmp_path / "ours").eval()
    mels = torch.randn(2, 7, 5)
    with torch.no_grad():
        assert torch.equal(model(mels), back(mels))


def test_a_vocoder_saved_with_weight_norm_is_folded(tmp_path):
    model = made("SpeechT5HifiGan", {"model_in_dim": 5, **GENERATOR})
    mels = torch.randn(2, 7, 5)
    model.apply_weight_norm()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("original0"):
                parameter.mul_(1.5)
        expected = model(mels).numpy()
    model.save_pretrained(tmp_path / "theirs")
    config, params = load(tmp_path / "theirs")
    got = jax.jit(config.make().apply)({"params": params}, jnp.asarray(mels.numpy()))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_unit_vocoder_of_seamless(tmp_path):
    from transformers.models.seamless_m4t.modeling_seamless_m4t import SeamlessM4TCodeHifiGan

    embeddings = {"unit_embed_dim": 6, "lang_embed_dim": 2, "spkr_embed_dim": 3, "unit_hifi_gan_vocab_size": 11}
    settings = {**GENERATOR, **embeddings, "vocoder_num_langs": 3, "vocoder_num_spkrs": 2, "t2u_pad_token_id": 0}
    model = SeamlessM4TCodeHifiGan(transformers.SeamlessM4TConfig(**settings)).eval()
    model.save_pretrained(tmp_path / "theirs")
    config, params = load(tmp_path / "theirs")
    export(config, params, tmp_path / "ours")
    assert_same(params, load(tmp_path / "ours")[1])
    back = SeamlessM4TCodeHifiGan.from_pretrained(tmp_path / "ours").eval()
    inputs = (torch.tensor([[1, 4, 10]]), torch.tensor([[1]]), torch.tensor([[2]]))
    with torch.no_grad():
        assert torch.equal(model(*inputs)[0], back(*inputs)[0])
