"""A speech-aware text LM in PyTorch at work for `bench`: Whisper's encoder, a small network, a LLaMA, with LoRA.

It is what one would write with `transformers` and `peft`: clips become vectors, which stand among those of the words.
"""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.errors import UserError
from slm_jax.interop.peft import load_peft
from slm_jax.interop.reference import Arrays, config_json, state_arrays
from slm_jax.interop.reference_bench import (
    RATE_HZ,
    TorchJob,
    Way,
    as_array,
    as_tensor,
    counted,
    drawn_model,
    inference,
    placed,
)
from slm_jax.nn.lora import LoRAConfig


class Shape(NamedTuple):
    """Fields of Whisper's and LLaMA's `config.json`; frames side by side and channels of the network between them."""

    whisper: Mapping[str, Any]
    llama: Mapping[str, Any]
    stack: int
    hidden: int


class Prompt(NamedTuple):
    """Ids in front of the clip, between it and the answer, and of the answer, `[B, S]` each."""

    before: np.ndarray
    between: np.ndarray
    answer: np.ndarray


class SpeechAwareTorch:
    """The parts, drawn with a fixed seed: `whisper`, `adapter`, `lm`."""

    def __init__(self, shape: Shape, dtype: str = "float32") -> None:
        import torch
        import transformers

        whisper = transformers.WhisperForConditionalGeneration, transformers.WhisperConfig(**shape.whisper)
        self.whisper = drawn_model(*whisper)
        self.lm = drawn_model(transformers.LlamaForCausalLM, transformers.LlamaConfig(**shape.llama))
        width, read = self.whisper.config.d_model * shape.stack, self.lm.config.hidden_size
        layers = (torch.nn.LayerNorm(width), torch.nn.Linear(width, shape.hidden), torch.nn.ReLU())
        self.adapter = torch.nn.Sequential(*layers, torch.nn.Linear(shape.hidden, read))
        self.stack = shape.stack
        self.jobs = {"encoder": _described("whisper", self.whisper), "lm": _described("llama", self.lm)}
        self.adapter_weights = state_arrays(self.adapter)
        self.whisper, self.adapter, self.lm = (placed(part, dtype) for part in (self.whisper, self.adapter, self.lm))

    def speech(self, samples: np.ndarray) -> Any:
        """Vectors of clips `[B, N]`, each as long as Whisper's window; the encoder is not trained."""
        import torch
        import transformers

        seconds, mels = samples.shape[1] // RATE_HZ, self.whisper.config.num_mel_bins
        extractor = transformers.WhisperFeatureExtractor(feature_size=mels, chunk_length=seconds)
        device = self.whisper.device
        with torch.autocast(device.type, enabled=False):  # a spectrum in bfloat16 is none
            found = extractor(list(samples), sampling_rate=RATE_HZ, return_tensors="pt", device=str(device))
        with torch.no_grad():
            features = found.input_features.to(device, self.whisper.dtype)
            frames = self.whisper.model.encoder(features).last_hidden_state
        rows, count = frames.shape[0], frames.shape[1] // self.stack
        return self.adapter(frames[:, : count * self.stack].reshape(rows, count, -1))

    def read(self, samples: np.ndarray, before: np.ndarray, after: np.ndarray) -> Any:
        """What the language model reads: words, the clip, words."""
        import torch

        table = self.lm.get_input_embeddings()
        return torch.cat([table(as_tensor(before)), self.speech(samples), table(as_tensor(after))], 1)


def adapting(
    shape: Shape,
    lora: LoRAConfig,
    samples: np.ndarray,
    prompt: Prompt,
    optimizer: Mapping[str, Any],
    dtype: str = "float32",
) -> tuple[SpeechAwareTorch, Callable[[Config], tuple[LoRAConfig, Any]], dict[str, Way], float]:
    """One AdamW step on adapter and LoRA of queries and values; gives the loss of the answers before the step.

    Returned are the model as drawn, what reads its LoRA for an LM of ours, the ways and the FLOPs. Of the two ways one
    makes the logits of the answers alone, as `Trainer` does not. Weights are float32; `dtype` is that of products.
    """
    first = SpeechAwareTorch(shape)
    folder = tempfile.TemporaryDirectory()
    adapted = _with_lora(first.lm, lora)
    adapted.save_pretrained(folder.name)

    def read_lora(config: Config) -> tuple[LoRAConfig, Any]:
        found = load_peft(Path(folder.name), config)
        folder.cleanup()
        return found

    first.lm = adapted
    second = SpeechAwareTorch(shape)
    second.lm = _with_lora(second.lm, lora)
    ways = {
        "eager": _step(first, optimizer, partial(_loss, first, samples, prompt, False, dtype)),
        "eager, logits of answers": _step(second, optimizer, partial(_loss, second, samples, prompt, True, dtype)),
    }
    flops = counted(lambda: _loss(second, samples, prompt, True, dtype).backward(), gradients=True)
    return first, read_lora, ways, flops


def answering(
    shape: Shape, samples: np.ndarray, before: np.ndarray, after: np.ndarray, new: int, compiled: bool, dtype: str
) -> tuple[SpeechAwareTorch, dict[str, Way], float]:
    """The `new` likeliest tokens after words, a clip and words."""
    import torch
    import transformers

    model = SpeechAwareTorch(shape, dtype)

    def whole() -> Arrays:
        settings: dict[str, Any] = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        read = model.read(samples, before, after)
        mask = torch.ones(read.shape[:2], dtype=torch.long, device=read.device)
        return {"tokens": as_array(model.lm.generate(inputs_embeds=read, attention_mask=mask, **settings))}

    def loop(call: Callable) -> Arrays:
        cache, tokens, read = transformers.DynamicCache(), [], {"inputs_embeds": model.read(samples, before, after)}
        for _ in range(new):
            out = call(**read, past_key_values=cache, use_cache=True, logits_to_keep=1)
            tokens.append(out.logits[:, -1:].argmax(-1))
            read = {"input_ids": tokens[-1]}
        return {"tokens": as_array(torch.cat(tokens, 1))}

    ways: dict[str, Way] = {"generate": whole, "loop, DynamicCache": partial(loop, model.lm)}
    if compiled:
        ways["loop, DynamicCache, torch.compile"] = partial(loop, torch.compile(model.lm))
    flops = counted(ways["loop, DynamicCache"])
    return model, {name: inference(way) for name, way in ways.items()}, flops


def _described(family: str, model: Any) -> TorchJob:
    return TorchJob(family, "transformers", config_json(model), state_arrays(model), {}, 0.0)


def _with_lora(lm: Any, lora: LoRAConfig) -> Any:
    """The language model with LoRA that has an effect: B would begin at zero, and A without a gradient."""
    try:
        import peft
    except ImportError:
        raise UserError("LoRA in PyTorch needs peft: pip install -e '.[bench]'") from None
    import torch

    settings = peft.LoraConfig(r=lora.rank, lora_alpha=round(lora.alpha), target_modules=["q_proj", "v_proj"])
    torch.manual_seed(1)
    adapted = peft.get_peft_model(lm, settings)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
    return adapted


def _loss(model: SpeechAwareTorch, samples: np.ndarray, prompt: Prompt, answers_only: bool, dtype: str) -> Any:
    import torch

    with torch.autocast(model.lm.device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        return _loss_of(model, samples, prompt, answers_only)


def _loss_of(model: SpeechAwareTorch, samples: np.ndarray, prompt: Prompt, answers_only: bool) -> Any:
    import torch

    after = np.concatenate([prompt.between, prompt.answer], 1)
    read, answer = model.read(samples, prompt.before, after), as_tensor(prompt.answer)
    count = answer.shape[1]
    if not answers_only:
        ignored = torch.full((len(answer), read.shape[1] - count), -100, device=answer.device)
        return model.lm(inputs_embeds=read, labels=torch.cat([ignored, answer], 1)).loss
    logits = model.lm(inputs_embeds=read, logits_to_keep=count + 1).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), answer.flatten())


def _step(model: SpeechAwareTorch, optimizer: Mapping[str, Any], loss: Callable[[], Any]) -> Way:
    import torch

    learnt = [*model.adapter.parameters(), *(p for p in model.lm.parameters() if p.requires_grad)]
    model.adapter.train()
    model.lm.train()
    adamw = torch.optim.AdamW(learnt, fused=True, **optimizer)

    def step() -> Arrays:
        adamw.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        adamw.step()
        return {"loss": as_array(value)}

    return step
