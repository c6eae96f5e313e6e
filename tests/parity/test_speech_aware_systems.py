"""WavPrompt and SALMONN against their parts in PyTorch put together: transformers, peft, torch; random weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.adapters.joined import JoinedConfig
from slm_jax.adapters.window_qformer import WindowQFormerConfig
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLM, SpeechAwareLMConfig, splice
from slm_jax.core.types import Frames
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.interop.engine import import_params, resolve
from slm_jax.interop.families import FAMILIES
from slm_jax.interop.salmonn import load_salmonn, save_salmonn
from slm_jax.nn.lora import with_lora
from slm_jax.systems.speech_aware.salmonn import LORA
from slm_jax.systems.speech_aware.wavprompt import shrinking

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

TOLERANCE = 5e-5
RATE, ASKED, TARGET = 8, 4, (3, 6)
"""Frames of a vector, words of the question, words of the target of each row."""
SAMPLES = (2_400, 1_500)
WIDTH, LM_WIDTH, WINDOW = 12, 16, 17


def redrawn(module: Any, seed: int = 0) -> Any:
    """A torch module with weights of a size that lets every part be felt."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for path, weight in module.named_parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:
                weight.copy_(0.2 * drawn + ("norm" in path.lower() and path.endswith("weight")))
            else:
                weight.copy_(drawn / weight[0].numel() ** 0.5)
    return module.eval()


def carried(module: Any, family: str) -> tuple[Any, dict]:
    """Our config and weights of a transformers model."""
    own = FAMILIES[family]
    config = own.read_config(module.config.to_dict())
    weights = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    table = own.table(config, own.spellings[0])
    plan = resolve(table, {name: value.shape for name, value in weights.items()}, own.abstract(config))
    return config, import_params(plan, weights.__getitem__)


def close(ours: Any, theirs: Any) -> None:
    theirs = theirs.detach().numpy()
    assert theirs.std() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * max(1, np.abs(theirs).max()))


class WavPrompt:
    """wav2vec 2.0, a convolution, GPT-2: as the original puts them together."""

    def __init__(self) -> None:
        sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": WIDTH, "intermediate_size": 24}
        convs = {"conv_dim": [8, 8], "conv_kernel": [10, 4], "conv_stride": [5, 4]}
        places = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
        config = transformers.Wav2Vec2Config(**sizes, **convs, **places)
        self.encoder = redrawn(transformers.Wav2Vec2Model(config))
        self.reduce = redrawn(torch.nn.Conv1d(WIDTH, WIDTH, RATE, RATE), 1)
        body = {"vocab_size": 41, "n_positions": 64, "n_embd": WIDTH, "n_layer": 2, "n_head": 2}
        self.lm = redrawn(transformers.GPT2LMHeadModel(transformers.GPT2Config(**body)), 2)

    def speech(self, samples: np.ndarray) -> Any:
        """Vectors [1, M, D] of one clip."""
        frames = self.encoder(torch.from_numpy(samples)[None]).last_hidden_state
        return self.reduce(frames.transpose(1, 2)).transpose(1, 2)

    def row(self, samples: np.ndarray, ids: np.ndarray) -> Any:
        """What GPT-2 reads: speech, then words."""
        return torch.cat([self.speech(samples), self.lm.transformer.wte(torch.from_numpy(ids))[None]], dim=1)


@pytest.fixture(scope="module")
def wavprompt() -> WavPrompt:
    return WavPrompt()


@pytest.fixture(scope="module")
def spoken() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two clips, and the question with the target of each."""
    rng = np.random.default_rng(0)
    clips = [rng.standard_normal(n).astype(np.float32) for n in SAMPLES]
    return clips, [rng.integers(1, 41, ASKED + n) for n in TARGET]


@pytest.fixture(scope="module")
def ours(wavprompt, spoken) -> tuple[np.ndarray, list[int]]:
    """Logits of both rows in one padded batch with garbage in its padding, and vectors of each clip."""
    encoder, heard = carried(wavprompt.encoder, "wav2vec2")
    lm, words = carried(wavprompt.lm, "gpt2")
    assert isinstance(encoder, SSLEncoderConfig) and not encoder.normalise_waveform
    config = SpeechAwareLMConfig(encoders=(encoder,), adapter=shrinking(WIDTH, WIDTH), lm=lm)
    reduce = {name: value.detach().numpy() for name, value in wavprompt.reduce.named_parameters()}
    conv = {"kernel": reduce["weight"].transpose(2, 1, 0), "bias": reduce["bias"]}
    params = {"encoder": heard, "adapter": {"conv_0": conv}, "lm": words}
    counts = [config.frames_out(n) for n in SAMPLES]
    longest, most = max(n + len(ids) for n, ids in zip(counts, spoken[1], strict=True)), max(counts)
    samples, mask = np.full((2, 1, max(SAMPLES)), np.nan, np.float32), np.zeros((2, 1, max(SAMPLES)), bool)
    ids, at = np.zeros((2, longest), np.int32), np.full((2, longest), -1, np.int32)
    for row, (clip, text) in enumerate(zip(*spoken, strict=True)):
        samples[row, 0, : len(clip)], mask[row, 0, : len(clip)] = clip, True
        at[row, : counts[row]] = np.arange(counts[row])
        ids[row, counts[row] : counts[row] + len(text)] = text
    assert most > min(counts)
    real = np.arange(longest) < np.array([n + len(text) for n, text in zip(counts, spoken[1], strict=True)])[:, None]
    logits = jax.jit(config.make().apply)({"params": params}, samples, mask, ids, at, real)
    return np.asarray(logits), counts


def test_wavprompt_equals_its_parts_row_by_row(wavprompt, spoken, ours):
    """One row alone has the same positions in training (none given) and in generation (counted by the mask)."""
    logits, counts = ours
    for row, (clip, ids) in enumerate(zip(*spoken, strict=True)):
        x = wavprompt.row(clip, ids)
        assert x.shape[1] == counts[row] + len(ids)
        with torch.no_grad():
            trained = wavprompt.lm(inputs_embeds=x).logits[0]
            mask = torch.ones(x.shape[:2], dtype=torch.long)
            made = wavprompt.lm(inputs_embeds=x, attention_mask=mask, position_ids=mask.cumsum(1) - 1).logits[0]
        close(logits[row, : len(trained)], trained)
        close(logits[row, : len(made)], made)


def test_in_padded_batches_the_two_conventions_differ_and_ours_is_that_of_generation(wavprompt, spoken, ours):
    """The second clip is shorter: between its vectors and its words lies padding, as in the original."""
    (logits, counts), ids = ours, spoken[1][1]
    missing = counts[0] - counts[1]
    x = wavprompt.row(spoken[0][1], ids)
    gap = torch.full((1, missing, WIDTH), 3.0)
    x = torch.cat([x[:, : counts[1]], gap, x[:, counts[1] :]], dim=1)
    mask = torch.ones(x.shape[:2], dtype=torch.long)
    mask[:, counts[1] : counts[0]] = 0
    with torch.no_grad():
        made = wavprompt.lm(inputs_embeds=x, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0))
        trained = wavprompt.lm(inputs_embeds=x, attention_mask=mask)
    words = logits[1, counts[1] : counts[1] + len(ids)]
    close(words, made.logits[0, counts[0] :])
    assert np.abs(words - trained.logits[0, counts[0] :].numpy()).max() > 0.05


class Salmonn:
    """What SALMONN trains, under its own names, around a LLaMA that `peft` adapts at its defaults."""

    def __init__(self) -> None:
        blip = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
        blip |= {"cross_attention_frequency": 1, "encoder_hidden_size": WIDTH + 4}
        self.qformer = redrawn(transformers.Blip2QFormerModel(transformers.Blip2QFormerConfig(**blip)))
        self.queries = torch.randn(1, 1, 8, generator=torch.Generator().manual_seed(5))
        self.project = redrawn(torch.nn.Linear(8, LM_WIDTH), 1)
        self.norms = [redrawn(torch.nn.LayerNorm(n), 2) for n in (WIDTH, 4)]
        llama = {"vocab_size": 41, "hidden_size": LM_WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
        base = redrawn(transformers.LlamaForCausalLM(transformers.LlamaConfig(**llama, intermediate_size=24)), 3)
        self.base = carried(base, "llama")
        lora = peft.LoraConfig(task_type="CAUSAL_LM", r=LORA.rank, lora_alpha=LORA.alpha, lora_dropout=LORA.dropout)
        self.lm = peft.get_peft_model(base, lora)
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for name, weight in self.lm.named_parameters():
                if "lora_" in name:
                    weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
        self.lm.eval()

    def named(self) -> dict[str, Any]:
        """The released names; those of the Q-Former are BLIP-2's, changed as its own code spells them."""
        found = {"speech_query_tokens": self.queries}
        for name, value in self.qformer.state_dict().items():
            old = name.replace("attention.attention.", "attention.self.").replace("layernorm.", "embeddings.LayerNorm.")
            found[f"speech_Qformer.bert.{old}"] = value
        found |= {f"speech_llama_proj.{name}": value for name, value in self.project.state_dict().items()}
        for module, norm in zip(("ln_speech", "ln_audio"), self.norms, strict=True):
            found |= {f"{module}.{name}": value for name, value in norm.state_dict().items()}
        lora = {name: value for name, value in self.lm.state_dict().items() if "lora_" in name}
        return found | {f"llama_model.{name}": value for name, value in lora.items()}

    def speech(self, first: Any, second: Any) -> Any:
        """Windows of both streams side by side, the shorter one filled up behind its norm, through the Q-Former."""
        first, second = self.norms[0](first), self.norms[1](second)
        second = torch.nn.functional.pad(second, (0, 0, 0, first.shape[1] - second.shape[1]))
        x = torch.cat([first, second], dim=-1)
        cut = x[:, : x.shape[1] // WINDOW * WINDOW].reshape(-1, WINDOW, x.shape[-1])
        looked = self.qformer(self.queries.expand(len(cut), -1, -1), encoder_hidden_states=cut).last_hidden_state
        return self.project(looked.reshape(1, -1, 8))


@pytest.fixture(scope="module")
def salmonn() -> Salmonn:
    return Salmonn()


@pytest.fixture(scope="module")
def config(salmonn) -> SpeechAwareLMConfig:
    """With encoders that are never asked."""
    qformer, _ = carried(salmonn.qformer, "blip_2_qformer")
    ears = tuple(
        SSLEncoderConfig(width=width, heads=1, position=SSLEncoderConfig().position.replace(groups=1))
        for width in (WIDTH, 4)
    )
    adapter = WindowQFormerConfig(width=LM_WIDTH, qformer=qformer, window=WINDOW)
    return SpeechAwareLMConfig(encoders=ears, join=JoinedConfig(widths=(WIDTH, 4)), adapter=adapter, lm=salmonn.base[0])


@pytest.fixture(scope="module")
def file(salmonn, tmp_path_factory):
    """A checkpoint as the trainer leaves it."""
    path = tmp_path_factory.mktemp("salmonn") / "salmonn_v1.pth"
    buffers = {"speech_Qformer.bert.embeddings.position_ids": torch.arange(4)[None]}
    torch.save(
        {"model": salmonn.named() | buffers, "optimizer": {"state": {}}, "config": {"lora_rank": 8}, "epoch": 3}, path
    )
    return path


def test_a_released_file_of_salmonn_gives_the_logits_of_its_parts(salmonn, config, file):
    rng = np.random.default_rng(1)
    first, second = (rng.standard_normal((1, n, width)).astype(np.float32) for n, width in ((40, WIDTH), (37, 4)))
    before, after = rng.integers(1, 41, 3), rng.integers(1, 41, 5)
    with torch.no_grad():
        words = salmonn.lm.get_input_embeddings()
        parts = [words(torch.from_numpy(before))[None], salmonn.speech(*map(torch.from_numpy, (first, second)))]
        x = torch.cat([*parts, words(torch.from_numpy(after))[None]], dim=1)
        wanted = salmonn.lm(inputs_embeds=x).logits
        with salmonn.lm.disable_adapter():
            unadapted = salmonn.lm(inputs_embeds=x).logits
    trained = load_salmonn(file, config, LORA)
    variables = {"params": trained["params"] | {"lm": salmonn.base[1]}, "lora": trained["lora"]}
    ids = jnp.asarray(np.concatenate([before, [0, 0], after])[None], jnp.int32)
    at = jnp.asarray([[-1, -1, -1, 0, 1, -1, -1, -1, -1, -1]])
    streams = [Frames(jnp.asarray(x), jnp.ones(x.shape[:2], bool)) for x in (first, second)]

    def read(model: SpeechAwareLM) -> Any:
        speech = model.adapter(model.join(*streams))
        return model.lm.head(model.lm.run(splice(model.lm.embed(ids), speech.values, at)))

    logits = jax.jit(lambda v: with_lora(config.make(), LORA).apply(v, method=read))(variables)
    close(logits, wanted)
    assert np.abs(np.asarray(logits) - unadapted.numpy()).max() > 0.05, "LoRA is felt"


def test_what_is_written_loads_into_the_parts_again(salmonn, config, file, tmp_path):
    written = save_salmonn(tmp_path / "again.pth", load_salmonn(file, config, LORA), config, LORA)
    found, wanted = torch.load(written, weights_only=True)["model"], salmonn.named()
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=0)
