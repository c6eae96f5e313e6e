"""LTU-AS against its parts in PyTorch: all layers of Whisper pooled, TLTR, a LLaMA with LoRA, the released file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.adapters.tltr import TLTRConfig
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.core.types import Frames
from slm_jax.encoders.layer_states import LayerStatesConfig
from slm_jax.interop.family_llama import LLAMA
from slm_jax.interop.ltu_as import load_ltu_as, save_ltu_as
from slm_jax.interop.reference import draw_weights
from slm_jax.nn.lora import with_lora
from slm_jax.systems.speech_aware.ltu_as import LORA
from tests.parity.test_speech_aware_systems import carried
from tests.serving.drawn import noise

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
twin = pytest.importorskip("tests.parity.ltu_as_twin")

TOLERANCE = 1e-4
WIDTH, LAYERS, HEADS, POOL, LONGEST = 24, 3, 4, 5, 25
EAR = {"d_model": WIDTH, "encoder_layers": LAYERS, "encoder_attention_heads": 3, "encoder_ffn_dim": 40}
EAR |= {"num_mel_bins": 20, "max_source_positions": 50, "vocab_size": 41, "decoder_layers": 1, "pad_token_id": 0}
EAR |= {"decoder_attention_heads": 3, "decoder_ffn_dim": 40, "max_target_positions": 24}
EAR |= dict.fromkeys(("bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
LM = {"vocab_size": 41, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
CLIPS = [noise(0.5, 0), noise(0.5, 1)[:5_000]]
WORDS = [np.random.default_rng(place).integers(1, 41, count) for place, count in enumerate((9, 6))]


@pytest.fixture(scope="module")
def ear():
    return draw_weights(transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**EAR)), seed=2)


@pytest.fixture(scope="module")
def theirs():
    return twin.LTUAS(LM, WIDTH, HEADS, LORA.rank, LORA.alpha)


@pytest.fixture(scope="module")
def ours(ear):
    """The config and the frozen parts."""
    whisper, heard = carried(ear, "whisper")
    lm = LLAMA.read_config(transformers.LlamaConfig(**LM).to_dict())
    states = LayerStatesConfig(encoder=whisper.encoder, pool=POOL, longest=LONGEST)
    adapter = TLTRConfig(width=16, layers=LAYERS, layer_heads=HEADS)
    return SpeechAwareLMConfig(encoders=(states,), adapter=adapter, lm=lm), heard["encoder"]


@pytest.fixture(scope="module")
def file(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("ltu_as") / "ltuas_long_noqa_a6.bin"
    torch.save(theirs.published(), path)
    return path


def pooled(ear, clip):
    """States [1, L, 5, D]: means of five frames of each layer, half a second of the whole window that is heard."""
    extractor = transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=1)
    mel = extractor([clip], sampling_rate=16_000, return_tensors="pt").input_features
    outputs = []
    hooks = [layer.register_forward_hook(lambda *args: outputs.append(first(args[-1]))) for layer in layers_of(ear)]
    with torch.no_grad():
        ear.model.encoder(mel)
    for hook in hooks:
        hook.remove()
    return torch.stack([x[0, :LONGEST].unflatten(0, (-1, POOL)).mean(1) for x in outputs])[None]


def layers_of(ear):
    return ear.model.encoder.layers


def first(output):
    return output[0] if isinstance(output, tuple) else output


def logits(config, variables):
    """Of both rows in one batch, padded with garbage."""
    count, longest = LONGEST // POOL, LONGEST // POOL + max(map(len, WORDS))
    samples, heard = np.full((2, 1, 8_000), np.nan, np.float32), np.zeros((2, 1, 8_000), bool)
    ids, at = np.zeros((2, longest), np.int32), np.full((2, longest), -1, np.int32)
    for row, (clip, words) in enumerate(zip(CLIPS, WORDS, strict=True)):
        samples[row, 0, : len(clip)], heard[row, 0, : len(clip)] = clip, True
        at[row, :count] = np.arange(count)
        ids[row, count : count + len(words)] = words
    real = np.arange(longest) < np.array([count + len(words) for words in WORDS])[:, None]
    model = with_lora(config.make(), LORA)
    return np.asarray(jax.jit(model.apply)(variables, samples, heard, ids, at, real))


def test_a_released_file_gives_the_logits_of_its_parts(ear, theirs, ours, file):
    config, heard = ours
    assert config.window == 8_000 and config.frames_out(8_000) == config.frames_out(320) == 5
    trained = load_ltu_as(file, config, LORA)
    lm = import_lm(config, theirs)
    params = trained["params"] | {"encoder": heard, "lm": lm}
    found = logits(config, {"params": params, "lora": trained["lora"]})
    for row, (clip, words) in enumerate(zip(CLIPS, WORDS, strict=True)):
        states = pooled(ear, clip)
        with torch.no_grad():
            wanted = theirs(states, torch.from_numpy(words)[None])[0].numpy()
            other = theirs(states.flip(1), torch.from_numpy(words)[None])[0].numpy()
        assert wanted.std() > 0.1
        np.testing.assert_allclose(found[row, : len(wanted)], wanted, atol=TOLERANCE * max(1, np.abs(wanted).max()))
        # neither block has positions: the order of layers is not told apart, which is the published form
        np.testing.assert_allclose(other, wanted, atol=TOLERANCE * 10)
        silent = theirs(torch.zeros_like(states), torch.from_numpy(words)[None])[0].detach().numpy()
        assert np.abs(silent - wanted).max() > 0.05, "speech is felt"


def import_lm(config, theirs):
    from slm_jax.interop.engine import import_params, resolve

    weights = {name: value.numpy() for name, value in theirs.before.items()}
    shapes = {name: value.shape for name, value in weights.items()}
    plan = resolve(LLAMA.table(config.lm, "transformers"), shapes, LLAMA.abstract(config.lm))
    return import_params(plan, weights.__getitem__)


def test_tltr_of_padded_states(theirs, ours):
    """A clip that is trimmed is what it is alone, whatever stands behind it."""
    config = ours[0]
    states = np.random.default_rng(0).standard_normal((2, LAYERS, 7, WIDTH)).astype(np.float32)
    mask = np.arange(7) < np.array([7, 4])[:, None]
    beside = np.where(mask[:, None, :, None], states, np.nan).transpose(0, 2, 1, 3).reshape(2, 7, -1)
    trained = load_ltu_as_params(theirs, config)
    out = jax.jit(config.adapter.make().apply)({"params": trained}, Frames(jnp.asarray(beside), jnp.asarray(mask)))
    model = theirs.whole.base_model.model.model
    for row, length in enumerate((7, 4)):
        with torch.no_grad():
            wanted = model.audio_proj(model.audio_encoder(torch.from_numpy(states[row : row + 1, :, :length])))[0]
        np.testing.assert_allclose(out.values[row, :length], wanted.numpy(), atol=TOLERANCE)


def load_ltu_as_params(theirs, config):
    from slm_jax.interop.engine import import_params, resolve
    from slm_jax.interop.ltu_as import abstract_trained, table

    weights = {name: value.numpy() for name, value in theirs.published().items()}
    plan = resolve(table(config, LORA), {n: v.shape for n, v in weights.items()}, abstract_trained(config, LORA))
    return import_params(plan, weights.__getitem__)["params"]["adapter"]


def test_what_is_written_has_the_published_names_and_weights(theirs, ours, file, tmp_path):
    """The adapters of an early `peft` have no name of their own."""
    config = ours[0]
    written = save_ltu_as(tmp_path / "again.bin", load_ltu_as(file, config, LORA), config, LORA)
    found = torch.load(written, weights_only=True)
    wanted = {name.replace(".default.weight", ".weight"): value for name, value in theirs.published().items()}
    assert found.keys() == wanted.keys()
    assert "base_model.model.model.audio_encoder.time_tr.attn.query.weight" in found
    assert "base_model.model.model.audio_proj.1.bias" in found
    assert "base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight" in found
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=0)
