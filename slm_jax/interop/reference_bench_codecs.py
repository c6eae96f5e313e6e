"""Codecs in PyTorch at work for `bench`: EnCodec, Mimi and DAC of `transformers`, Mimi of Kyutai's package in pushes.

Weights are drawn so that every layer is felt. Codebooks, which begin as zeros, are drawn from what each of them is
given, so that many codes are chosen.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from slm_jax.core.errors import UserError
from slm_jax.interop.reference import Arrays, config_json, draw_weights, state_arrays
from slm_jax.interop.reference_bench import (
    TorchJob,
    as_array,
    as_tensor,
    cores,
    counted,
    drawn_model,
    inference,
    inferring,
    placed,
)

GAINS = {"encodec": 1.2, "mimi": 1.2, "dac": 0.7}
"""Of the drawn weights: what comes out is about as loud as what goes in."""
OF_FRAMES, OF_NOISE = 0.5, 0.7
"""A code is so much of a vector that its book is given, and so much noise of the spread of those."""


def coding(
    family: str,
    hub_config: Mapping[str, Any],
    samples: np.ndarray,
    decodes: bool,
    compiled: bool,
    dtype: str = "float32",
) -> tuple[TorchJob, np.ndarray]:
    """`samples` [B, N] to codes, or those codes to samples where it `decodes`; and the codes [B, T, K]."""
    import torch

    model = drawn_codec(family, hub_config)
    with torch.inference_mode(), fitted(model):
        _codes_of(model, torch.from_numpy(samples[:, None]))
    without_weight_norm(model)
    hub, weights = config_json(model), {name: value.copy() for name, value in state_arrays(model).items()}
    model, inputs = placed(model, dtype), as_tensor(samples[:, None], dtype)
    with torch.inference_mode():
        codes = _codes_of(model, inputs)

    def encode(whole: Any = model) -> Arrays:
        return {"codes": as_array(_codes_of(whole, inputs)).transpose(0, 2, 1)}

    def decode(whole: Any = model) -> Arrays:
        return {"samples": as_array(_samples_of(whole, codes))}

    run = decode if decodes else encode
    ways = inferring(run, model, False)
    if compiled:
        ways["torch.compile"] = inference(_compiled(run, model))
    job = TorchJob(family, "transformers", hub, weights, ways, counted(inference(run)))
    return job, as_array(codes).transpose(0, 2, 1)


def drawn_codec(family: str, hub_config: Mapping[str, Any]) -> Any:
    """A codec of `transformers`, always the same one."""
    import transformers

    name = {"encodec": "Encodec", "mimi": "Mimi", "dac": "Dac"}[family]
    kind, config = getattr(transformers, f"{name}Model"), getattr(transformers, f"{name}Config")
    model = draw_weights(drawn_model(kind, config(**hub_config)), seed=0, gain=GAINS[family])
    for path, parameter in model.named_parameters():
        if path.endswith("alpha"):  # of DAC's activation: it divides by it
            parameter.data.fill_(1.0)
    return model


@contextmanager
def fitted(model: Any) -> Iterator[None]:
    """While codes are made inside, each book is drawn anew from the first vectors it is asked for."""
    books = [module for module in model.modules() if type(module).__name__ in BOOKS]
    for place, book in enumerate(books):
        _, _, method = BOOKS[type(book).__name__]
        setattr(book, method, _fitting(book, getattr(book, method), place))
    try:
        yield
    finally:
        for book in books:
            delattr(book, BOOKS[type(book).__name__][2])


BOOKS = {
    "EncodecEuclideanCodebook": (("embed", "embed_avg"), "", "quantize"),
    "MimiEuclideanCodebook": (("embed_sum",), "_embed", "quantize"),
    "EuclideanCodebook": (("embedding_sum",), "_embedding", "_quantize"),
}
"""Class of a codebook -> its tables, what it remembers of them, what looks up; the last one is Kyutai's."""


def _fitting(book: Any, look_up: Callable, seed: int) -> Callable:
    tables, remembered, _ = BOOKS[type(book).__name__]

    def first(vectors: Any) -> Any:
        flat = vectors.reshape(-1, vectors.shape[-1])
        for name in tables:
            getattr(book, name).copy_(_drawn_table(flat, len(getattr(book, name)), seed))
        if remembered:
            setattr(book, remembered, None)
        return look_up(vectors)

    return first


def _drawn_table(vectors: Any, size: int, seed: int) -> Any:
    """`size` codes of what vectors [F, D] are like."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    centre, spread = vectors.mean(0), vectors.std(0)
    picked = vectors[torch.randint(len(vectors), (size,), generator=generator)] - centre
    noise = torch.randn(picked.shape, generator=generator).to(picked)
    return centre + OF_FRAMES * picked + OF_NOISE * spread * noise


def without_weight_norm(model: Any) -> None:
    """Plain kernels in place of normed ones, as one serves a model."""
    from torch.nn.utils import parametrize

    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")


def _codes_of(model: Any, samples: Any) -> Any:
    """[B, K, T]."""
    codes = model.encode(samples).audio_codes
    return codes[0] if codes.ndim == 4 else codes  # EnCodec gives them in one chunk


def _samples_of(model: Any, codes: Any) -> Any:
    """[B, N]."""
    if model.config.model_type == "encodec":
        return model.decode(codes[None], [None]).audio_values[:, 0]
    if model.config.model_type == "dac":
        return model.decode(audio_codes=codes).audio_values
    return model.decode(codes).audio_values[:, 0]


def _compiled(run: Callable[..., Arrays], model: Any) -> Callable[[], Arrays]:
    """Both sides of the model compiled, what stands between them as it is."""
    import copy

    import torch

    whole = copy.deepcopy(model)
    whole.encoder, whole.decoder = torch.compile(whole.encoder), torch.compile(whole.decoder)
    return lambda: run(whole)


def streaming(hub_config: Mapping[str, Any], frames: Sequence[np.ndarray], books: int, dtype: str) -> TorchJob:
    """The next of `frames` [1, hop] to codes and back through Kyutai's own Mimi, one a run, over and over."""
    model, weights = streaming_mimi(hub_config, frames, books, dtype)
    turn = 0
    inputs = [as_tensor(frame[:, None], dtype) for frame in frames]
    flops = counted(inference(lambda: {"samples": as_array(model.decode(model.encode(inputs[0])))}))
    model.streaming_forever(1)

    def push() -> Arrays:
        nonlocal turn
        codes = model.encode(inputs[turn % len(inputs)])
        turn += 1
        return {"codes": as_array(codes).transpose(0, 2, 1), "samples": as_array(model.decode(codes)[:, 0])}

    return TorchJob("mimi", "kyutai", dict(hub_config), weights, {"moshi, streaming": inference(push)}, flops)


def streaming_mimi(
    hub_config: Mapping[str, Any], frames: Sequence[np.ndarray], books: int, dtype: str
) -> tuple[Any, Arrays]:
    """Kyutai's own Mimi with weights drawn and books fit to `frames` [1, hop], and those weights."""
    import torch

    model = _kyutai_mimi(hub_config, books)
    with torch.inference_mode(), fitted(model):
        model.encode(torch.from_numpy(np.concatenate(frames, 1)[:, None]))
    weights = {name: value.copy() for name, value in state_arrays(model).items()}
    return placed(model, dtype), weights


def _kyutai_mimi(hub_config: Mapping[str, Any], books: int) -> Any:
    """Their Mimi of the shape that a `config.json` of `transformers` gives."""
    import torch

    os.environ.setdefault("NO_TORCH_COMPILE", "1")
    try:
        from moshi.models import loaders
    except ImportError:
        raise UserError("streaming is compared with Kyutai's package: pip install --no-deps moshi") from None
    c, width = hub_config, hub_config["hidden_size"]
    hop = int(np.prod(c["upsampling_ratios"])) * 2
    settings = {
        "sample_rate": 24_000,
        "channels": 1,
        "frame_rate": 24_000 / hop,
        "seanet": loaders._seanet_kwargs
        | {"dimension": width, "n_filters": c["num_filters"], "ratios": list(c["upsampling_ratios"])},
        "quantizer": {"dimension": c["codebook_dim"], "n_q": c["num_quantizers"], "bins": c["codebook_size"]}
        | {"input_dimension": width, "output_dimension": width},
        "transformer": loaders._transformer_kwargs
        | {"d_model": width, "num_heads": c["num_attention_heads"], "num_layers": c["num_hidden_layers"]}
        | {"context": c["sliding_window"], "dim_feedforward": c["intermediate_size"]}
        | {"input_dimension": width, "output_dimensions": [width]},
    }
    torch.set_num_threads(cores())
    torch.manual_seed(0)
    model = draw_weights(loaders.get_mimi(None, settings, num_codebooks=books), seed=0, gain=GAINS["mimi"])
    for name, buffer in model.named_buffers():
        if name.endswith(("_initialized", "cluster_usage")):
            buffer.fill_(1.0)
    return model
