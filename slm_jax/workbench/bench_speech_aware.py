"""Cases of `bench`: a text LM that hears, of Whisper-base, an adapter and SmolLM2-135M in their published shapes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.adapters.mlp import MLPAdapterConfig
from slm_jax.assemblies.speech_aware_lm import TEXT, SpeechAwareLM, SpeechAwareLMConfig
from slm_jax.core.trees import count_bytes
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.interop import reference_speech_aware
from slm_jax.interop.reference_speech_aware import Prompt, Shape, SpeechAwareTorch
from slm_jax.nn.lora import LoRAConfig, with_lora
from slm_jax.objectives.answers import Answers
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.serving.speech_aware import read_prompts
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.speech_aware import OWNED
from slm_jax.training.step import Player
from slm_jax.workbench.bench import Arrays, BenchSettings, Job
from slm_jax.workbench.bench_ours import carried, normal, training_step
from slm_jax.workbench.bench_shapes import QUICK, WHISPER_BASE

WINDOW_S = 10
"""PyTorch's Whisper hears whole windows only: this one is as long as an utterance, not 30 s."""
WHISPER = WHISPER_BASE | {"decoder_layers": 1, "max_source_positions": 50 * WINDOW_S}
"""Of the decoder, which nobody asks, as little as there can be."""
SMOLLM2 = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_theta": 100_000.0,
    "tie_word_embeddings": True,
}
SHAPE = Shape(WHISPER, SMOLLM2, stack=5, hidden=1024)
QUICK_SHAPE = Shape(
    QUICK["whisper"],
    QUICK["llama"] | {"num_key_value_heads": 1, "max_position_embeddings": 128, "tie_word_embeddings": True},
    stack=5,
    hidden=64,
)
LORA = LoRAConfig(targets="", rank=16, alpha=32.0)


def adapt(settings: BenchSettings) -> Job:
    """One AdamW step of adapter and LoRA on four clips of 10 s, each with 16 ids around it and an answer of 24."""
    shape, rows = (QUICK_SHAPE, 2) if settings.quick else (SHAPE, 4)
    samples, prompt = _clips(shape, rows), Prompt(*(_ids(shape, rows, count) for count in (4, 12, 24)))
    optimizer = OptimizerConfig(learning_rate=1e-4, schedule="constant", weight_decay=0.01, no_decay="$^", clip=None)
    same = {"lr": 1e-4, "weight_decay": 0.01, "betas": optimizer.betas, "eps": optimizer.eps}
    torch_side, read_lora, ways, flops = reference_speech_aware.adapting(
        shape, LORA, samples, prompt, same, settings.dtype
    )
    model, params = _carried(torch_side, shape, settings.dtype)
    found, lora = read_lora(model.config.lm)
    adapted = with_lora(model, found.replace(targets="|".join(f"lm/{place}" for place in found.targets.split("|"))))
    variables = {"params": {"adapter": params.pop("adapter")}, "lora": {"lm": jax.tree.map(jnp.asarray, lora)}}
    player = Player(name="answers", objective=Answers(adapted, NextTokenConfig()), optimizer=optimizer, owns=OWNED)
    batch = {name: jnp.asarray(value) for name, value in _batch(model.config, samples, prompt).items()}
    step = training_step(player, variables, batch, {"frozen": params})
    return Job(step, ways, flops, 2 * count_bytes(params), compared=2)


def answer(settings: BenchSettings) -> Job:
    """The 128 likeliest ids after words, a clip of 10 s and words, one row, with a cache."""
    shape, new = (QUICK_SHAPE, 16) if settings.quick else (SHAPE, 128)
    samples, before, after = _clips(shape, 1), _ids(shape, 1, 4), _ids(shape, 1, 12)
    torch_side, ways, flops = reference_speech_aware.answering(
        shape, samples, before, after, new, settings.compile, settings.dtype
    )
    model, params = _carried(torch_side, shape, settings.dtype)
    batch = _batch(model.config, samples, Prompt(before, after, after[:, :0]))
    inputs = {name: jnp.asarray(value) for name, value in batch.items()}
    sampling, key = SamplingConfig(max_new=new, temperature=0.0), jax.random.key(0)

    def ours() -> Arrays:
        read, _ = read_prompts(model, {"params": params}, inputs)
        made = generate(model, {"params": params}, read.values, read.mask, key, sampling)
        return {"tokens": np.asarray(made.ids).astype(np.int64)}

    return Job(ours, ways, flops, count_bytes(params["encoder"]) + new * count_bytes(params["lm"]))


def _carried(torch_side: SpeechAwareTorch, shape: Shape, dtype: str) -> tuple[SpeechAwareLM, dict[str, Any]]:
    """Our model and its parameters with the weights of the other side."""
    whisper, heard = carried(torch_side.jobs["encoder"], dtype)
    lm, read = carried(torch_side.jobs["lm"], dtype)
    adapter = MLPAdapterConfig(width=lm.config.width, hidden=shape.hidden, stack=shape.stack, norm=True, dtype=dtype)
    config = SpeechAwareLMConfig(encoders=(whisper.config.encoder,), adapter=adapter, lm=lm.config)
    params = {"encoder": heard["encoder"], "adapter": _adapter(torch_side.adapter_weights), "lm": read}
    return config.make(), params


def _adapter(weights: Any) -> dict[str, Any]:
    """The layers of the sequence: norm, map, ReLU, map."""
    norm = {"scale": jnp.array(weights["0.weight"]), "bias": jnp.array(weights["0.bias"])}
    maps = {
        name: {"kernel": jnp.array(weights[f"{place}.weight"].T), "bias": jnp.array(weights[f"{place}.bias"])}
        for name, place in (("up", 1), ("map", 3))
    }
    return {"norm": norm, **maps}


def _batch(config: SpeechAwareLMConfig, samples: np.ndarray, prompt: Prompt) -> dict[str, np.ndarray]:
    """The rows as `data.examples.speech_prompts` lays them out: no padding anywhere."""
    rows, frames = len(samples), config.frames_out(samples.shape[1])
    words = np.concatenate([prompt.before, np.zeros((rows, frames), int), prompt.between, prompt.answer], 1)
    at, first = np.full(words.shape, TEXT), prompt.before.shape[1]
    at[:, first : first + frames] = np.arange(frames)
    learnt = np.arange(words.shape[1]) >= words.shape[1] - prompt.answer.shape[1]
    return {
        "samples": samples[:, None],
        "sample_mask": np.ones((rows, 1, samples.shape[1]), bool),
        "ids": words.astype(np.int32),
        "speech_at": at.astype(np.int32),
        "mask": np.ones(words.shape, bool),
        "target_weight": np.tile(learnt, (rows, 1)).astype(np.float32),
    }


def _clips(shape: Shape, rows: int) -> np.ndarray:
    return 0.1 * normal((rows, 320 * shape.whisper["max_source_positions"]))


def _ids(shape: Shape, rows: int, count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(4, shape.llama["vocab_size"], (rows, count))
