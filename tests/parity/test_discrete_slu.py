"""DiscreteSLU whole, from the waveform to the probability of a reply, against PyTorch and the `tokenizers` library.

WavLM -> nearest centroid in NumPy -> `itertools.groupby` -> byte pairs over characters of our own choice -> embedding,
strided convolution, Transformer encoder, linear map -> Mistral from vectors.
"""

from itertools import groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer, models, trainers

from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.conv import ConvAdapterConfig
from slm_jax.adapters.transformer import TransformerAdapterConfig
from slm_jax.assemblies.phonetic_tokenizer import EncoderFeaturesConfig, PhoneticTokenizer
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.assemblies.unit_sequences import BytePairTokenizer, UnitSequences
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.data.examples.speech_prompts import PromptLayout
from slm_jax.encoders.unit_embedding import UnitEmbeddingConfig
from slm_jax.interop.families import FAMILIES
from slm_jax.interop.model import load
from slm_jax.quantizers.postprocess import Postprocess
from slm_jax.serving.speech_aware import AnswerDecoding, SpeechAwareSystem
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.templates import PLAIN
from slm_jax.token_compression.bpe import UnitBPE
from tests.parity.test_adapters import convolved, dense, of_layer, redrawn, scaled
from tests.parity.test_ssl_encoders import LARGE, SHAPE, drawn, imported

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LAYER, UNITS, PAIRS, WIDTH, LM_WIDTH, V = 2, 6, 12, 16, 24, 264
CLIPS = (1_600, 977, 2_400)
REPLIES = ("ab", "c", "")
ASK, NEW = "hi", 5
MISTRAL = {
    "vocab_size": V,
    "hidden_size": LM_WIDTH,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "sliding_window": None,
}


class Reference(NamedTuple):
    """The parts in PyTorch, and the merges."""

    wavlm: Any
    centroids: np.ndarray
    merges: Tokenizer
    table: Any
    conv: Any
    transformer: Any
    project: Any
    lm: Any

    def units(self, samples: np.ndarray) -> list[int]:
        """The unit of every frame of a clip that is alone."""
        hidden = self.hidden(samples)
        distances = ((hidden[:, None] - self.centroids[None]) ** 2).sum(-1)
        first, second = np.sort(distances, axis=1)[:, :2].T
        assert (second - first).min() > 1e-3, "no frame lies between two centroids"
        return distances.argmin(1).tolist()

    def hidden(self, samples: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found = self.wavlm(torch.from_numpy(samples[None]), output_hidden_states=True)
        return found.hidden_states[LAYER][0].numpy().astype(np.float64)

    def read(self, units: list[int], compression: str) -> list[int]:
        if compression == "none":
            return units
        runs = [unit for unit, _ in groupby(units)]
        return self.merges.encode(written(runs)).ids if compression == "bpe" else runs

    def prompt(self, samples: np.ndarray, compression: str) -> Any:
        """What Mistral reads before its reply: `<s>`, the clip, a space and the question, a new line."""
        ids = torch.tensor(self.read(self.units(samples), compression))
        x = torch.nn.functional.gelu(self.conv(self.table(ids)[None].transpose(1, 2))).transpose(1, 2)
        speech = self.project(self.transformer(x + sinusoids(x.shape[1])))[0]
        words = self.lm.get_input_embeddings()
        after = torch.tensor([3 + byte for byte in f" {ASK}\n".encode()])
        return torch.cat([words(torch.tensor([1])), speech, words(after)])


def written(runs: list[int]) -> str:
    """Units as Chinese characters, which no rule of the library touches."""
    return "".join(chr(0x4E00 + unit) for unit in runs)


def sinusoids(frames: int) -> Any:
    """Sines, then cosines, of `WIDTH` / 2 rates each (fairseq's table)."""
    half = WIDTH // 2
    rates = torch.exp(-np.log(10_000.0) * torch.arange(half) / (half - 1))
    angles = torch.arange(frames)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def clip(samples: int, seed: int) -> np.ndarray:
    """Noise whose colour changes, so that units repeat and change."""
    rng = np.random.default_rng(seed)
    loud = np.repeat(10.0 ** rng.uniform(-2, 0.5, size=samples // 200 + 1), 200)[:samples]
    return (rng.standard_normal(samples) * loud).astype(np.float32)


SPOKEN = [clip(count, seed) for seed, count in enumerate(CLIPS)]


@pytest.fixture(scope="module")
def reference() -> Reference:
    wavlm = drawn("WavLM", SHAPE | LARGE | {"num_buckets": 32, "max_bucket_distance": 40})
    layer = torch.nn.TransformerEncoderLayer(WIDTH, 4, 24, 0.0, "gelu", batch_first=True, norm_first=True)
    stack = torch.nn.TransformerEncoder(layer, 1, torch.nn.LayerNorm(WIDTH), enable_nested_tensor=False)
    lm = transformers.MistralForCausalLM(transformers.MistralConfig(**MISTRAL))
    parts = (torch.nn.Embedding(PAIRS, WIDTH), torch.nn.Conv1d(WIDTH, WIDTH, 3, 2, 1), stack)
    table, conv, transformer, project, lm = map(redrawn, (*parts, torch.nn.Linear(WIDTH, LM_WIDTH), lm))
    without = Reference(wavlm, np.zeros(0), Tokenizer(models.BPE()), table, conv, transformer, project, lm)
    frames = np.concatenate([without.hidden(one) for one in SPOKEN])
    centroids = frames[np.random.default_rng(0).choice(len(frames), UNITS, replace=False)]
    made = without._replace(centroids=centroids.astype(np.float32).astype(np.float64))
    heard = [written([unit for unit, _ in groupby(made.units(one))]) for one in SPOKEN]
    trainer = trainers.BpeTrainer(
        vocab_size=PAIRS, min_frequency=2, show_progress=False, initial_alphabet=list(written(list(range(UNITS))))
    )
    made.merges.train_from_iterator(heard, trainer)
    return made


@pytest.fixture(scope="module")
def tokenizer(reference) -> PhoneticTokenizer:
    config, params = imported(reference.wavlm, FAMILIES["wavlm"])
    features = EncoderFeaturesConfig(encoder=config, layer=LAYER)
    plain = Postprocess(jnp.zeros(config.width), jnp.eye(config.width))
    return PhoneticTokenizer(features, params, plain, jnp.asarray(reference.centroids, jnp.float32))


@pytest.fixture(scope="module", params=["none", "dedup", "bpe"])
def system(request, reference, tokenizer, tmp_path_factory) -> tuple[str, SpeechAwareSystem]:
    """Ours with the weights of the reference, in one of the compressions."""
    runs = [np.array([unit for unit, _ in groupby(reference.units(one))], np.int32) for one in SPOKEN]
    bpe = UnitBPE.train(runs, units=UNITS, vocabulary=PAIRS)
    sequences = UnitSequences(BytePairTokenizer(tokenizer, bpe))
    if request.param != "bpe":
        sequences = UnitSequences(tokenizer, runs=request.param == "dedup")
    folder = tmp_path_factory.mktemp(request.param) / "lm"
    reference.lm.save_pretrained(folder)
    lm, lm_params = load(folder)
    conv = ConvAdapterConfig(layers=((WIDTH, 3, 2, 1),), activation="gelu")
    transformer = TransformerAdapterConfig(width=LM_WIDTH, layers=1, heads=4, hidden=24, sinusoids=True)
    config = SpeechAwareLMConfig(
        encoders=(UnitEmbeddingConfig(units=PAIRS, width=WIDTH),), adapter=ChainConfig(parts=(conv, transformer)), lm=lm
    )
    (layer,) = reference.transformer.layers
    stack = {"layers": jax.tree.map(lambda leaf: np.asarray(leaf)[None], of_layer(layer))}
    norm = scaled(reference.transformer.norm)
    params = {
        "encoder": {"units": {"embedding": reference.table.weight.detach().numpy()}},
        "adapter": {
            "parts_0": {"conv_0": convolved(reference.conv)},
            "parts_1": {"stack": stack, "final_norm": norm, "map": dense(reference.project)},
        },
        "lm": lm_params,
    }
    layout = PromptLayout(SpecialsConfig().make(), PLAIN, config.frames_out)
    decoding = AnswerDecoding(max_new=NEW)
    return request.param, SpeechAwareSystem(config.make(), {"params": params}, layout, 16_000, decoding, sequences)


def asked(samples: np.ndarray) -> tuple[Message, ...]:
    return (Message("user", (Speech(samples, 16_000), Text(ASK))),)


def test_units_and_their_compressions_are_those_of_the_reference(reference, system):
    compression, ours = system
    wanted = [reference.read(reference.units(one), compression) for one in SPOKEN]
    assert [ids.tolist() for ids in ours.units.of_clips(SPOKEN)] == wanted
    longest = max(CLIPS)
    samples = np.stack([np.pad(one, (0, longest - len(one)), constant_values=3.0) for one in SPOKEN])
    batched = ours.units.of_batch(samples, np.arange(longest) < np.array(CLIPS)[:, None])
    assert [ids.tolist() for ids in batched] == wanted
    if compression == "bpe":
        assert max(max(ids) for ids in wanted) >= UNITS, "no pair was merged"
    assert sum(map(len, wanted)) < sum(len(reference.units(one)) for one in SPOKEN) or compression == "none"


def test_replies_are_as_likely_as_in_the_reference(reference, system):
    """All clips at once, padded; each alone in PyTorch. The clip of another would be felt."""
    compression, ours = system
    said = [(*asked(one), Message("assistant", (Text(reply),))) for one, reply in zip(SPOKEN, REPLIES, strict=True)]
    found = ours.log_prob(said)
    for place, reply in enumerate(REPLIES):
        ids = [*(3 + byte for byte in reply.encode()), 2]
        wanted = likelihood(reference, SPOKEN[place], compression, ids)
        np.testing.assert_allclose(found[place], wanted, atol=1e-4 * max(1.0, np.abs(wanted).max()))
        other = likelihood(reference, SPOKEN[place - 1], compression, ids)
        assert np.abs(found[place] - other).max() > 1e-2


def likelihood(reference: Reference, samples: np.ndarray, compression: str, ids: list[int]) -> np.ndarray:
    """ln p of each id of a reply."""
    with torch.no_grad():
        prompt = reference.prompt(samples, compression)
        reply = reference.lm.get_input_embeddings()(torch.tensor(ids))
        logits = reference.lm(inputs_embeds=torch.cat([prompt, reply])[None]).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].numpy()


@pytest.mark.parametrize("system", ["bpe"], indirect=True)
def test_greedy_replies_are_those_of_generate(reference, system):
    compression, ours = system
    replies = ours.respond([asked(one) for one in SPOKEN], None, jax.random.key(0))
    for reply, samples in zip(replies, SPOKEN, strict=True):
        with torch.no_grad():
            vectors = reference.prompt(samples, compression)[None]
            made = reference.lm.generate(
                inputs_embeds=vectors,
                attention_mask=torch.ones(vectors.shape[:2], dtype=torch.long),
                max_new_tokens=NEW,
                do_sample=False,
                eos_token_id=2,
                pad_token_id=0,
            )
        assert reply.trace["ids"].tolist() == made[0].tolist()
