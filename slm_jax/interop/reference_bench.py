"""PyTorch at work for `bench`: models of published sizes with drawn weights, and the ways of doing one job with them.

Sizes are given as a `config.json`, so that ours is made of the same one. Everything runs in float32 unless `dtype` says
otherwise, on the GPU when PyTorch sees one, else with as many threads as cores.
"""

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from slm_jax.core.errors import UserError
from slm_jax.interop.reference import Arrays, config_json, draw_weights, state_arrays
from slm_jax.interop.reference_vocoders import GAIN, original_generator

Way = Callable[[], Arrays]
RATE_HZ = 16_000
"""Of what Whisper hears."""


@dataclass(frozen=True)
class TorchJob:
    """A model and one job.

    `weights`: its arrays under the names of `spelling`, as they are before the job runs. `ways`: name -> a function
    that does the job once and gives what came out; each way has a model of its own where the job changes it.
    `flops` of the job, counted while it ran (products of matrices, convolutions, attention; 2 for a multiply-add).
    """

    family: str
    spelling: str
    hub_config: dict[str, Any]
    weights: Arrays
    ways: dict[str, Way]
    flops: float


def encoding(hub_config: Mapping[str, Any], samples: np.ndarray, compiled: bool, dtype: str = "float32") -> TorchJob:
    """Frames of `samples` [B, N] through a HuBERT of `transformers`."""
    from transformers import HubertConfig, HubertModel

    model = drawn_model(HubertModel, HubertConfig(**hub_config))
    weights = state_arrays(model)
    model, inputs = placed(model, dtype), as_tensor(samples, dtype)

    def run(call: Callable = model) -> Arrays:
        return {"frames": as_array(call(inputs).last_hidden_state)}

    return TorchJob(
        "hubert", "transformers", config_json(model), weights, inferring(run, model, compiled), counted(run)
    )


def vocoding(hub_config: Mapping[str, Any], features: np.ndarray, compiled: bool, dtype: str = "float32") -> TorchJob:
    """Samples of `features` [B, T, D] through HiFi-GAN's generator with its weight norm folded, as one serves it."""
    import torch

    torch.set_num_threads(cores())
    model = draw_weights(original_generator(hub_config, normed=False), seed=0, gain=GAIN)
    weights = state_arrays(model)
    model, inputs = placed(model, dtype), as_tensor(features.transpose(0, 2, 1), dtype)

    def run(call: Callable = model) -> Arrays:
        return {"samples": as_array(call(inputs)[:, 0])}

    return TorchJob("hifigan", "original", dict(hub_config), weights, inferring(run, model, compiled), counted(run))


def training(
    family: str,
    hub_config: Mapping[str, Any],
    ids: np.ndarray,
    optimizer: Mapping[str, Any],
    compiled: bool,
    dtype: str = "float32",
) -> TorchJob:
    """One AdamW step on the next tokens of `ids` [B, S]; gives the loss before the step."""
    import torch

    first = _decoder(family, hub_config)
    hub, weights = config_json(first), {name: value.copy() for name, value in state_arrays(first).items()}
    tokens, device = as_tensor(ids), _device()

    def loss(call: Callable) -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            return call(input_ids=tokens, labels=tokens).loss

    def way(model: Any, call: Callable) -> Way:
        adamw = torch.optim.AdamW(model.parameters(), fused=True, **optimizer)

        def step() -> Arrays:
            adamw.zero_grad(set_to_none=True)
            value = loss(call)
            value.backward()
            adamw.step()
            return {"loss": as_array(value)}

        return step

    model = first.to(device).train()
    flops = counted(lambda: loss(model).backward(), gradients=True)
    ways = {"eager": way(model, model)}
    if compiled:  # the same draw once more: steps change the weights
        second = _decoder(family, hub_config).to(device).train()
        ways["torch.compile"] = way(second, torch.compile(second))
    return TorchJob(family, "transformers", hub, weights, ways, flops)


def generating(
    family: str, hub_config: Mapping[str, Any], prompt: np.ndarray, new: int, compiled: bool, dtype: str = "float32"
) -> TorchJob:
    """The `new` likeliest tokens after `prompt` [B, L], one after the other, with a cache."""
    import torch
    import transformers

    model = _decoder(family, hub_config)
    hub, weights = config_json(model), state_arrays(model)
    model, ids = placed(model, dtype), as_tensor(prompt)
    mask = torch.ones_like(ids)

    def whole() -> Arrays:
        settings: dict[str, Any] = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        return {"tokens": as_array(model.generate(ids, attention_mask=mask, **settings)[:, ids.shape[1] :])}

    def loop(make_cache: Callable[[], Any], call: Callable = model) -> Arrays:
        cache, current, tokens = make_cache(), ids, []
        for _ in range(new):
            out = call(input_ids=current, past_key_values=cache, use_cache=True, logits_to_keep=1)
            current = out.logits[:, -1:].argmax(-1)
            tokens.append(current)
        return {"tokens": as_array(torch.cat(tokens, 1))}

    static = partial(transformers.StaticCache, config=model.config, max_cache_len=ids.shape[1] + new)
    ways: dict[str, Way] = {
        "generate": whole,
        "loop, DynamicCache": partial(loop, transformers.DynamicCache),
        "loop, StaticCache": partial(loop, static),
    }
    if compiled:
        ways["loop, StaticCache, torch.compile"] = partial(loop, static, torch.compile(model))
    flops = counted(ways["loop, DynamicCache"])
    return TorchJob(family, "transformers", hub, weights, {n: inference(w) for n, w in ways.items()}, flops)


def transcribing(
    hub_config: Mapping[str, Any],
    samples: np.ndarray,
    prefix: np.ndarray,
    new: int,
    compiled: bool,
    dtype: str = "float32",
) -> TorchJob:
    """The `new` likeliest tokens after `prefix` [L] for each window of `samples` [B, N]: log-mels, encoder, decoder."""
    import torch
    import transformers

    model = drawn_model(transformers.WhisperForConditionalGeneration, transformers.WhisperConfig(**hub_config))
    hub, weights = config_json(model), state_arrays(model)
    model, start = placed(model, dtype), as_tensor(np.tile(prefix, (len(samples), 1)))
    seconds = samples.shape[1] // RATE_HZ
    extractor = transformers.WhisperFeatureExtractor(feature_size=hub["num_mel_bins"], chunk_length=seconds)

    def mels() -> Any:
        found = extractor(list(samples), sampling_rate=RATE_HZ, return_tensors="pt", device=_device())
        return found.input_features.to(model.device, model.dtype)

    def whole() -> Arrays:
        settings: dict[str, Any] = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        # without the search for times and languages around it
        made = transformers.GenerationMixin.generate(model, mels(), decoder_input_ids=start, **settings)
        return {"tokens": as_array(made[:, start.shape[1] :])}

    def loop(call: Callable = model) -> Arrays:
        heard, tokens, current = model.model.encoder(mels()), [], start
        cache = transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache())
        for _ in range(new):
            out = call(encoder_outputs=heard, decoder_input_ids=current, past_key_values=cache, use_cache=True)
            current = out.logits[:, -1:].argmax(-1)
            tokens.append(current)
        return {"tokens": as_array(torch.cat(tokens, 1))}

    ways: dict[str, Way] = {"generate": whole, "loop, DynamicCache": loop}
    if compiled:
        ways["loop, DynamicCache, torch.compile"] = partial(loop, torch.compile(model))
    flops = counted(loop)
    return TorchJob("whisper", "transformers", hub, weights, {n: inference(w) for n, w in ways.items()}, flops)


def faiss_search(rows: np.ndarray, centroids: np.ndarray) -> dict[str, Way]:
    """Index of the nearest of `centroids` [K, D] for each of `rows` [T, D], by exact search."""
    try:
        import faiss
    except ImportError:
        raise UserError("the k-means cases need faiss: pip install -e '.[bench]'") from None

    faiss.omp_set_num_threads(cores())
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    return {"faiss IndexFlatL2": lambda: {"units": index.search(rows, 1)[1][:, 0]}}


def torch_ceilings(size: int, megabytes: int) -> dict[str, Callable[[], Any]]:
    """Functions that multiply two matrices of `size`, and that copy so many megabytes, in PyTorch."""
    import torch

    torch.set_num_threads(cores())
    a, b = torch.randn(size, size), torch.randn(size, size)
    source = torch.ones(megabytes * 2**18)
    target = torch.empty_like(source)
    return {"matmul": lambda: a @ b, "copy": lambda: target.copy_(source), "read": lambda: source.sum()}


def counted(run: Callable[[], Any], gradients: bool = False) -> float:
    """FLOPs of one run."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.set_grad_enabled(gradients):
        run()
    return float(counter.get_total_flops())


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _decoder(family: str, hub_config: Mapping[str, Any]) -> Any:
    import transformers

    configs = {"gpt2": transformers.GPT2Config, "llama": transformers.LlamaConfig, "opt": transformers.OPTConfig}
    models = {
        "gpt2": transformers.GPT2LMHeadModel,
        "llama": transformers.LlamaForCausalLM,
        "opt": transformers.OPTForCausalLM,
    }
    return drawn_model(models[family], configs[family](**hub_config))


def drawn_model(kind: type, config: Any) -> Any:
    """The model with its own initialisation, always the same one."""
    import torch

    torch.set_num_threads(cores())
    torch.manual_seed(0)
    return kind(config).eval()


def inferring(run: Callable[..., Arrays], model: Any, compiled: bool) -> dict[str, Way]:
    """The ways of a job that changes nothing: `run(model)`, and with the compiled model."""
    import torch

    ways = {"eager": inference(run)}
    if compiled:
        ways["torch.compile"] = inference(partial(run, torch.compile(model)))
    return ways


def inference(run: Way) -> Way:
    import torch

    def wrapped() -> Arrays:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run()

    return wrapped


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def placed(model: Any, dtype: str) -> Any:
    import torch

    return model.to(_device(), getattr(torch, dtype))


def as_tensor(array: np.ndarray, dtype: str | None = None) -> Any:
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(array)).to(_device())
    return tensor if dtype is None else tensor.to(getattr(torch, dtype))


def as_array(tensor: Any) -> np.ndarray:
    """Waits for the device."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
