"""Whisper against `transformers`: every layer, trimmed clips, greedy and beam search under its rules, LoRA, sizes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.assemblies.whisper import SIZES, whisper
from slm_jax.core.trees import count_parameters
from slm_jax.generation.beam import BeamConfig, beam_search
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.interop.family_whisper import WHISPER, abstract_params
from slm_jax.interop.model import load
from slm_jax.interop.reference import draw_weights
from slm_jax.serving.transcriber import Transcriber, Transcription
from slm_jax.text.whisper_tokens import WhisperTokens
from tests.serving.drawn import noise
from tests.whisper_folder import LANGUAGES, NO_TIMES, SETTINGS, START, TRANSCRIBE, write_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 2e-5
RATE, WINDOW, FRAMES = 16_000, 16_000, 50
SHAPE = {
    "vocab_size": 41,
    "d_model": 36,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 50,
    "decoder_ffn_dim": 44,
    "num_mel_bins": 24,
    "max_source_positions": FRAMES,
    "max_target_positions": 24,
    "decoder_start_token_id": START,
    "bos_token_id": 30,
    "eos_token_id": 30,
    "pad_token_id": 30,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
SAMPLES = np.stack([noise(1.0, 0), noise(1.0, 1), noise(1.0, 2)])
LENGTHS = np.array([16_000, 9_777, 320])
SAMPLE_MASK = np.arange(WINDOW) < LENGTHS[:, None]
IDS = np.random.default_rng(0).integers(0, 41, (3, 9))
MASK = np.arange(9) < np.array([9, 5, 2])[:, None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The reference in its folder with its tokenizer."""
    config = transformers.WhisperConfig(**SHAPE)
    model = draw_weights(transformers.WhisperForConditionalGeneration(config), seed=4, gain=1.4)
    with torch.no_grad():  # heard enough that rows differ
        for layer in model.model.decoder.layers:
            layer.encoder_attn.v_proj.weight.mul_(3.0)
    folder = tmp_path_factory.mktemp("whisper")
    model.save_pretrained(folder)
    ids = {name: number for name, number in SHAPE.items() if name.endswith("token_id")}
    known = {"task_to_id": {"transcribe": TRANSCRIBE, "translate": 35}, "no_timestamps_token_id": NO_TIMES}
    (folder / "generation_config.json").write_text(json.dumps(SETTINGS | ids | known | {"max_length": 24}))
    transformers.WhisperFeatureExtractor(feature_size=24, chunk_length=1).save_pretrained(folder)
    return write_tokenizer(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    return transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def ours(folder):
    """Config and weights."""
    config, params = load(folder)
    return config, jax.tree.map(jnp.asarray, params)


def features(samples, mask=SAMPLE_MASK):
    extractor = transformers.WhisperFeatureExtractor(feature_size=24, chunk_length=1)
    rows = [row[real] for row, real in zip(samples, mask, strict=True)]
    return extractor(rows, sampling_rate=RATE, return_tensors="pt").input_features


def encoded(config, params, samples=SAMPLES, mask=SAMPLE_MASK):
    run = jax.jit(lambda s, m: config.make().apply({"params": params["encoder"]}, s, m, collect=True))
    return run(samples, mask)


def test_every_layer_of_the_encoder(ours, theirs):
    config, params = ours
    out = encoded(config.encoder, params)
    with torch.no_grad():
        wanted = theirs.model.encoder(features(SAMPLES), output_hidden_states=True)
    assert len(wanted.hidden_states) == 4 and out.values.shape == (3, FRAMES, 36)
    for layer, hidden in enumerate(wanted.hidden_states[:-1]):  # its last one comes after the final norm
        assert 0.1 < hidden.std() < 10
        np.testing.assert_allclose(
            out.hidden[layer], hidden.numpy(), atol=TOLERANCE * max(1, float(hidden.abs().max()))
        )
    np.testing.assert_allclose(out.values, wanted.last_hidden_state.numpy(), atol=TOLERANCE * 10)
    assert count_parameters(params) == sum(p.numel() for p in theirs.parameters())


def test_logits_of_padded_ids(ours, theirs):
    config, params = ours
    run = jax.jit(lambda s, m, i, k: config.make().apply({"params": params}, s, i, m, k))
    logits = run(SAMPLES, SAMPLE_MASK, IDS, MASK)
    with torch.no_grad():
        given = {"decoder_input_ids": torch.tensor(IDS), "decoder_attention_mask": torch.tensor(MASK.astype(int))}
        wanted = theirs(features(SAMPLES), **given).logits.numpy()
    assert wanted.std() > 0.3
    np.testing.assert_allclose(np.asarray(logits)[MASK], wanted[MASK], atol=TOLERANCE * np.abs(wanted).max())


def masked_twin(model, samples, length):
    """A clip through the layers by hand: the mel cut behind it, positions from 0, nothing beyond its frames."""
    encoder, frames = model.model.encoder, -(-length // 320)
    mel = features(samples[None], np.ones((1, length), bool))[:, :, : 2 * frames + 1]
    x = torch.nn.functional.gelu(encoder.conv2(torch.nn.functional.gelu(encoder.conv1(mel))))
    x = x[:, :, :frames].transpose(1, 2) + encoder.embed_positions.weight[:frames]
    for layer in encoder.layers:
        x = layer(x, None)
        x = x[0] if isinstance(x, tuple) else x
    return encoder.layer_norm(x)[0].detach().numpy()


def test_a_trimmed_clip_is_the_same_layers_on_its_own_frames(ours, theirs):
    config, params = ours
    trimmed = config.encoder.replace(trim=True)
    out = encoded(trimmed, params)
    for row, length in enumerate(LENGTHS):
        wanted = masked_twin(theirs, SAMPLES[row, :length], length)
        assert len(wanted) == out.mask[row].sum() == trimmed.frame_count(int(length))
        np.testing.assert_allclose(out.values[row, : len(wanted)], wanted, atol=1e-4)
    whole = encoded(config.encoder, params)
    assert np.abs(np.asarray(whole.values - out.values))[1:2, :31].max() > 1e-2, "trimming changes a short clip"


def test_a_trimmed_clip_is_what_qwen2_audio_makes_of_it(ours, theirs):
    """Its encoder hides what is behind a clip in a whole window; what it pools afterwards is left out."""
    config, params = ours
    shape = {name: SHAPE[name] for name in ("d_model", "num_mel_bins", "max_source_positions", "encoder_layers")}
    shape |= {"encoder_attention_heads": 3, "encoder_ffn_dim": 50}
    other = transformers.Qwen2AudioEncoder(transformers.Qwen2AudioEncoderConfig(**shape)).eval()
    other.load_state_dict(theirs.model.encoder.state_dict())
    other.avg_pooler = torch.nn.Identity()
    extractor = transformers.WhisperFeatureExtractor(feature_size=24, chunk_length=1)
    rows = [row[:length] for row, length in zip(SAMPLES, LENGTHS, strict=True)]
    given = extractor(rows, sampling_rate=RATE, return_attention_mask=True, return_tensors="pt")
    frames, _ = other._get_feat_extract_output_lengths(given.attention_mask.sum(-1))
    hidden = (torch.arange(FRAMES) >= frames[:, None])[:, None, None].expand(-1, 1, FRAMES, -1)
    with torch.no_grad():
        far = torch.zeros(hidden.shape).masked_fill(hidden, float("-inf"))
        wanted = other(given.input_features, attention_mask=far).last_hidden_state.numpy()
    out = encoded(config.encoder.replace(trim=True), params)
    assert out.mask.sum(1).tolist() == frames.tolist() == [50, 31, 1]
    np.testing.assert_allclose(np.asarray(out.values)[out.mask], wanted[np.asarray(out.mask)], atol=1e-4)


def new_tokens(model, beams, **more):
    """What `generate` says behind the prefix, row by row up to the end."""
    settings = {"num_beams": beams, "language": "cs", "task": "transcribe", "max_new_tokens": 16, "do_sample": False}
    with torch.no_grad():
        out = model.generate(features(SAMPLES), **settings, **more)
    rows = [row.tolist() for row in out]
    rows = [row[4:] if row[:2] == [START, LANGUAGES["cs"]] else row for row in rows]
    return [row[: row.index(30) + 1] if 30 in row else row for row in rows]


@pytest.mark.parametrize("beams", [1, 3])
def test_generate_says_the_same_under_its_rules(ours, theirs, folder, beams):
    wanted = new_tokens(theirs, beams)
    config, params = ours
    system = Transcriber(config, params, WhisperTokens(folder))
    prefix = system.tokens.prefix("cs")
    frames = encoded(config.encoder, params).frames
    made = beam_search(
        config.decoder.make(),
        params["decoder"],
        np.tile(prefix, (3, 1)),
        np.ones((3, 4), bool),
        SamplingConfig(max_new=16, temperature=0.0),
        BeamConfig(beams=beams),
        rules=system.rules,
        context=frames,
    )
    ours_said = [
        ids[real].tolist() for ids, real in zip(np.asarray(made.ids[:, 0]), np.asarray(made.mask[:, 0]), strict=True)
    ]
    assert len(set(map(tuple, wanted))) == 3 and max(map(len, wanted)) > 4
    assert ours_said == wanted
    said = system.transcribe(
        [row[real] for row, real in zip(SAMPLES, SAMPLE_MASK, strict=True)],
        Transcription(language="cs", max_new=16, beam=BeamConfig(beams=beams)),
    )
    assert [one.text for one in said] == [system.tokens.decode(row) for row in wanted]


def test_languages_are_told_as_detect_language_does(ours, theirs, folder):
    config, params = ours
    with torch.no_grad():
        wanted = theirs.detect_language(features(SAMPLES)).tolist()
    said = Transcriber(config, params, WhisperTokens(folder)).transcribe([SAMPLES[0], SAMPLES[1, :9_777]])
    assert [LANGUAGES[one.language] for one in said] == wanted[:2]


@pytest.mark.parametrize("size", ["tiny", "base", "large-v3", "large-v3-turbo"])
def test_parameters_of_all_sizes(size):
    encoder, decoder, width, heads, mels, vocabulary = SIZES[size]
    shape = {
        "vocab_size": vocabulary,
        "d_model": width,
        "num_mel_bins": mels,
        **{f"{name}_layers": count for name, count in {"encoder": encoder, "decoder": decoder}.items()},
        **{f"{name}_attention_heads": heads for name in ("encoder", "decoder")},
        **{f"{name}_ffn_dim": 4 * width for name in ("encoder", "decoder")},
    }
    with torch.device("meta"):
        model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**shape))
    assert count_parameters(abstract_params(whisper(size))) == sum(p.numel() for p in model.parameters())
    assert WHISPER.read_config(model.config.to_dict()).encoder == whisper(size).encoder
