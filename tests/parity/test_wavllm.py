"""WavLLM against a PyTorch twin with the published names: both encoders, the factors, logits, decoding, the file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.conv import ConvAdapterConfig
from slm_jax.adapters.layer_mix import LayerMixConfig
from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.adapters.prompt_scale import PromptScaleConfig
from slm_jax.adapters.streams import StreamsConfig
from slm_jax.assemblies.prompt_scaled import with_factors
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.core.trees import flatten_by_path
from slm_jax.encoders.layer_states import LayerStatesConfig
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.interop.family_ssl import WAVLM
from slm_jax.interop.family_whisper import WHISPER
from slm_jax.interop.reference import draw_weights
from slm_jax.interop.wavllm import ROTATED, adapters, held_parts, load_wavllm, save_wavllm
from slm_jax.nn.lora import ROW_FACTORS, with_lora
from slm_jax.sequence_models.presets import llama
from slm_jax.serving.speech_aware import read_prompts
from tests.parity.test_ltu_as import EAR
from tests.serving.drawn import noise

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
twin = pytest.importorskip("tests.parity.wavllm_twin")

TOLERANCE = 1e-4
RANK, NEW = 3, 4
LM = {"vocabulary": 41, "layers": 2, "width": 16, "heads": 2, "hidden": 24}
BASE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
BASE |= {"conv_dim": [8, 8, 8], "conv_kernel": [10, 8, 8], "conv_stride": [5, 8, 8], "num_buckets": 8}
BASE |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "max_bucket_distance": 10}
LORA = adapters(RANK, 0.0)
CLIPS = [noise(0.9, 0), noise(0.9, 1)[:9_777]]
DRAWN = np.random.default_rng(0)
LEFT, RIGHT, ASKED = ([DRAWN.integers(1, 41, n) for n in sizes] for sizes in ((3, 3), (6, 4), (5, 7)))


@pytest.fixture(scope="module")
def theirs():
    ear = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**EAR)).model.encoder
    body = twin.Llama(LM["vocabulary"], LM["layers"], LM["width"], LM["heads"], LM["hidden"], RANK, 8)
    whole = twin.WavLLM(ear, transformers.WavLMModel(transformers.WavLMConfig(**BASE)), body)
    model = draw_weights(whole, seed=7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "_lora_" in name:
                weight.mul_(0.5)
        body.scale_fc_2.bias.add_(1.0)
    return model


@pytest.fixture(scope="module")
def config():
    whisper = WHISPER.read_config(transformers.WhisperConfig(**EAR).to_dict()).encoder
    wavlm = WAVLM.read_config(transformers.WavLMConfig(**BASE).to_dict())
    convs = ConvAdapterConfig(layers=((12, 3, 2, 1), (14, 3, 2, 1)), activation="glu", bottleneck=6, projection=10)
    second = convs.replace(layers=((5, 3, 2, 1), (14, 3, 2, 1)))
    mix = LayerMixConfig(layers=3, width=16)
    return SpeechAwareLMConfig(
        encoders=(whisper.replace(cut=True), LayerStatesConfig(encoder=wavlm, first=True)),
        join=StreamsConfig(first=convs, second=ChainConfig(parts=(mix, second))),
        adapter=LinearAdapterConfig(width=16),
        lm=llama("7b", norm_epsilon=1e-6, kv_heads=2, **LM),
        prompt_scale=PromptScaleConfig(width=16, hidden=8, paired=ROTATED, heads=2),
    )


@pytest.fixture(scope="module")
def file(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("wavllm") / "final.pt"
    torch.save({"model": theirs.state_dict(), "cfg": None, "args": None}, path)
    return path


@pytest.fixture(scope="module")
def ours(config, file):
    """The model and its variables out of the file."""
    return with_lora(config.make(), LORA), jax.tree.map(jnp.asarray, load_wavllm(file, config, LORA))


@pytest.fixture(scope="module")
def batch(config):
    """Both rows, padded with garbage: words, the clip, words; the bare instruction beside them."""
    counts = [config.frames_out(len(clip)) for clip in CLIPS]
    rows = [n + len(a) + len(b) for n, a, b in zip(counts, LEFT, RIGHT, strict=True)]
    most, asked, stride = max(rows), max(map(len, ASKED)), max(counts)
    made = {
        "samples": np.full((2, 1, 14_400), np.nan, np.float32),
        "sample_mask": np.zeros((2, 1, 14_400), bool),
        "ids": np.zeros((2, most), np.int32),
        "speech_at": np.full((2, most), -1, np.int32),
        "mask": np.arange(most) < np.array(rows)[:, None],
        "asked_ids": np.full((2, asked), 9, np.int32),
        "asked_mask": np.arange(asked) < np.array([len(words) for words in ASKED])[:, None],
    }
    for row, clip in enumerate(CLIPS):
        made["samples"][row, 0, : len(clip)], made["sample_mask"][row, 0, : len(clip)] = clip, True
        end = len(LEFT[row]) + counts[row]
        made["ids"][row, : len(LEFT[row])], made["ids"][row, end : rows[row]] = LEFT[row], RIGHT[row]
        made["speech_at"][row, len(LEFT[row]) : end] = np.arange(counts[row])
        made["asked_ids"][row, : len(ASKED[row])] = ASKED[row]
    assert stride == config.frames_out(14_400) and min(counts) < stride
    return {name: jnp.asarray(value) for name, value in made.items()}


@pytest.fixture(scope="module")
def scaled(ours, batch):
    return jax.jit(lambda v: with_factors(ours[0], v, batch))(ours[1])


def reference(theirs, row):
    """What is heard of a clip alone, the row that is read, and the factors of its instruction."""
    clip = CLIPS[row]
    extractor = transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=1)
    mel = extractor([clip], sampling_rate=16_000, return_tensors="pt").input_features
    with torch.no_grad():
        frames = -(-len(clip) // 320)  # those of 20 ms that are begun
        heard = theirs.heard(mel, frames, torch.from_numpy(clip)[None])
        left, right, asked = (torch.from_numpy(words[row])[None] for words in (LEFT, RIGHT, ASKED))
        return heard, theirs.row(heard, left, right), theirs.gpt_model.model_llama.factors(asked)


def test_both_encoders_of_a_padded_batch(theirs, config, ours, batch):
    def heard(model, batch):
        return model.heard(batch["samples"], batch["sample_mask"])

    found = jax.jit(lambda v: ours[0].apply(v, batch, method=heard))(ours[1])
    for row in range(2):
        wanted = reference(theirs, row)[0][0].numpy()
        assert found.mask[row].sum() == len(wanted) and wanted.std() > 0.1
        np.testing.assert_allclose(found.values[row, : len(wanted)], wanted, atol=TOLERANCE)


def test_factors_and_logits(theirs, ours, batch, scaled):
    model = ours[0]
    args = [batch[name] for name in ("samples", "sample_mask", "ids", "speech_at", "mask")]
    run = jax.jit(lambda v: model.apply(v, *args))
    logits, plain = np.asarray(run(scaled)), np.asarray(run(ours[1]))
    for row in range(2):
        _, read, factors = reference(theirs, row)
        assert factors.min() == 0 < factors.std(), "some are cut"
        np.testing.assert_allclose(scaled[ROW_FACTORS]["plain"][row], factors[0].numpy(), atol=TOLERANCE)
        with torch.no_grad():
            wanted = theirs.gpt_model.model_llama(read, factors)[0].numpy()
        ends = len(wanted)
        np.testing.assert_allclose(logits[row, :ends], wanted, atol=TOLERANCE * max(1, np.abs(wanted).max()))
        assert np.abs(plain[row, :ends] - wanted).max() > 0.05, "the factors are felt"


@pytest.mark.slow(seconds=20)
def test_every_step_of_decoding_takes_them(theirs, ours, batch, scaled):
    model, variables = ours
    read, _ = read_prompts(model, variables, batch)
    sampling = SamplingConfig(max_new=NEW, temperature=0.0)
    made = generate(model, scaled, read.values, read.mask, jax.random.key(0), sampling)
    body = theirs.gpt_model.model_llama
    for row in range(2):
        _, x, factors = reference(theirs, row)
        said = []
        with torch.no_grad():
            for _ in range(NEW):
                said.append(int(body(x, factors)[0, -1].argmax()))
                x = torch.cat([x, body.tok_embeddings(torch.tensor([[said[-1]]]))], 1)
        assert np.asarray(made.ids)[row].tolist() == said


def test_what_is_written_is_what_was_read(theirs, config, ours, file, tmp_path):
    """Names and weights, with the frozen parts or without them."""
    whole = load_wavllm(file, config, LORA)
    assert held_parts(theirs.state_dict()) == ("encoder", "encoder_1", "lm")
    again = torch.load(save_wavllm(tmp_path / "again.pt", whole, config), weights_only=True)["model"]
    known = {n: v for n, v in theirs.state_dict().items() if not n.startswith("audio_proj")}
    assert again.keys() == known.keys()
    for name, value in again.items():
        torch.testing.assert_close(value, known[name], rtol=0, atol=0)
    trained = {name: tree for name, tree in whole["params"].items() if name in ("join", "adapter", "prompt_scale")}
    small = save_wavllm(tmp_path / "trained.pt", whole | {"params": trained}, config)
    found = load_wavllm(small, config, LORA)
    assert flatten_by_path(found).keys() == flatten_by_path(whole | {"params": trained}).keys()
