"""The cases of `bench`: published sizes, drawn weights, inputs of fixed seeds.

Each is built of the PyTorch side (`interop.reference_bench`), whose weights are carried over to ours.
"""

import gc
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.errors import UserError, nearest
from slm_jax.core.trees import count_bytes
from slm_jax.decoders.mel_vocoder import MelVocoderConfig
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.interop import reference_bench
from slm_jax.interop.reference_bench import TorchJob
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.parallel.chips import Chip, chip_of
from slm_jax.quantizers.nearest import assign
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.step import Player
from slm_jax.workbench import bench_codec_training, bench_codecs, bench_duplex, bench_streams
from slm_jax.workbench.bench import Arrays, BenchSettings, Job, Row, measure
from slm_jax.workbench.bench_ours import ADAM_TRAFFIC, array_of, carried, normal, training_step
from slm_jax.workbench.bench_shapes import GPT2_SMALL, HIFIGAN_V1, LLAMA_160M, OPT_1_3B, OPT_350M, QUICK, WHISPER_BASE
from slm_jax.workbench.bench_speech_aware import adapt, answer


def hubert_base(settings: BenchSettings, batch: int) -> Job:
    """HuBERT-base on ten seconds of noise."""
    shape = QUICK["hubert"] if settings.quick else {}
    samples = 0.1 * normal((batch, 16_000 if settings.quick else 160_000))
    torch_job = reference_bench.encoding(shape, samples, settings.compile, settings.dtype)
    model, params = carried(torch_job, settings.dtype)
    apply, inputs = jax.jit(model.apply), jnp.asarray(samples)
    return _job(torch_job, params, lambda: {"frames": array_of(apply({"params": params}, inputs).values)})


def hifigan(settings: BenchSettings) -> Job:
    """HiFi-GAN V1 on ten seconds of log-mel frames."""
    hub_config = HIFIGAN_V1 | (QUICK["hifigan"] if settings.quick else {})
    features = normal((1, 20 if settings.quick else 861, 80))
    torch_job = reference_bench.vocoding(hub_config, features, settings.compile, settings.dtype)
    model, params = carried(torch_job, settings.dtype, without_weight_norm)
    apply, inputs = jax.jit(model.apply), jnp.asarray(features)
    return _job(torch_job, params, lambda: {"samples": array_of(apply({"params": params}, inputs))})


def decoder_train(settings: BenchSettings, family: str, hub_config: dict[str, Any], length: int = 512) -> Job:
    """One AdamW step on 4 full rows of random tokens."""
    hub_config = hub_config | (QUICK[family] if settings.quick else {})
    ids = _tokens(hub_config, (2, 16) if settings.quick else (4, length))
    optimizer = OptimizerConfig(learning_rate=1e-4, schedule="constant", weight_decay=0.01, no_decay="$^", clip=None)
    same = {"lr": 1e-4, "weight_decay": 0.01, "betas": optimizer.betas, "eps": optimizer.eps}
    torch_job = reference_bench.training(family, hub_config, ids, same, settings.compile, settings.dtype)
    model, params = carried(torch_job, settings.dtype)
    player = Player(name="lm", objective=NextTokenConfig().make(model), optimizer=optimizer)
    step = training_step(player, {"params": params}, {"ids": jnp.asarray(ids, jnp.int32)})
    size = count_bytes(params)
    return Job(step, torch_job.ways, torch_job.flops, ADAM_TRAFFIC * size, compared=2)


def decoder_generate(settings: BenchSettings, family: str, hub_config: dict[str, Any]) -> Job:
    """The 256 likeliest tokens after a prompt of 8, one row, with a cache."""
    hub_config = hub_config | (QUICK[family] if settings.quick else {})
    prompt, new = _tokens(hub_config, (1, 8)), 24 if settings.quick else 256
    torch_job = reference_bench.generating(family, hub_config, prompt, new, settings.compile, settings.dtype)
    model, params = carried(torch_job, settings.dtype)
    sampling, key, mask = SamplingConfig(max_new=new, temperature=0.0), jax.random.key(0), np.ones(prompt.shape, bool)
    params = jax.tree.map(jnp.asarray, params)

    def ours() -> Arrays:
        tokens = generate(model, params, prompt.astype(np.int32), mask, key, sampling).ids
        return {"tokens": np.asarray(tokens).astype(np.int64)}

    return Job(ours, torch_job.ways, torch_job.flops, new * count_bytes(params))


def whisper_transcribe(settings: BenchSettings, batch: int) -> Job:
    """64 tokens for windows of 30 s of noise: log-mels, encoder, decoder with a cache."""
    hub_config = WHISPER_BASE | (QUICK["whisper"] if settings.quick else {})
    samples = 0.1 * normal((batch, 16_000 if settings.quick else 480_000))
    prefix, new = np.array([5, 6, 7, 8]), 8 if settings.quick else 64
    torch_job = reference_bench.transcribing(hub_config, samples, prefix, new, settings.compile, settings.dtype)
    model, params = carried(torch_job, settings.dtype)
    encode, decoder = jax.jit(partial(model.apply, method="encode")), model.config.decoder.make()
    sampling, key, prompts = (
        SamplingConfig(max_new=new, temperature=0.0),
        jax.random.key(0),
        np.tile(prefix, (batch, 1)),
    )
    mask, inputs = np.ones(prompts.shape, bool), jnp.asarray(samples)

    def ours() -> Arrays:
        heard = encode({"params": params}, inputs)
        made = generate(decoder, params["decoder"], prompts, mask, key, sampling, context=heard)
        return {"tokens": np.asarray(made.ids).astype(np.int64)}

    traffic = count_bytes(params["encoder"]) + new * count_bytes(params["decoder"])
    return Job(ours, torch_job.ways, torch_job.flops, traffic)


def kmeans_assign(settings: BenchSettings, clusters: int) -> Job:
    """The nearest of `clusters` centroids for ten minutes of HuBERT frames, against exact search of faiss."""
    frames, width = (300, 24) if settings.quick else (30_000, 768)
    rows, centroids = normal((frames, width)), normal((clusters // 10 if settings.quick else clusters, width), 1)
    inputs = jnp.asarray(rows), jnp.asarray(centroids)

    def farther(ours: Arrays, theirs: Arrays) -> tuple[float, float]:
        """By how much a chosen centroid lies farther off than the reference's; equally near ones may swap."""
        own, other = (np.square(rows - centroids[units["units"]]).sum(1) for units in (ours, theirs))
        return float(np.abs(own - other).max()), 1e-5 * float(other.max())

    flops = 2.0 * frames * width * len(centroids)
    ways = reference_bench.faiss_search(rows, centroids)
    return Job(lambda: {"units": np.asarray(assign(*inputs))}, ways, flops, rows.nbytes, difference=farther)


CASES: dict[str, Callable[[BenchSettings], Job]] = {
    "hubert_base_10s": lambda settings: hubert_base(settings, 1),
    "hubert_base_4x10s": lambda settings: hubert_base(settings, 4),
    "hifigan_v1_10s": hifigan,
    "gpt2_small_train": lambda settings: decoder_train(settings, "gpt2", GPT2_SMALL),
    "gpt2_small_generate": lambda settings: decoder_generate(settings, "gpt2", GPT2_SMALL),
    "llama_160m_train": lambda settings: decoder_train(settings, "llama", LLAMA_160M),
    "llama_160m_generate": lambda settings: decoder_generate(settings, "llama", LLAMA_160M),
    "whisper_base_transcribe": lambda settings: whisper_transcribe(settings, 1),
    "whisper_base_transcribe_8": lambda settings: whisper_transcribe(settings, 8),
    "musicgen_12x768_generate": bench_streams.delayed,
    "moshi_12x768_generate": bench_streams.framewise,
    "audiolm_coarse_generate": bench_streams.coarse,
    "moshi_mimi_frame_80ms": bench_duplex.frame,
    "mimi_encode_10s": lambda settings: bench_codecs.encode(settings, "mimi"),
    "mimi_decode_10s": lambda settings: bench_codecs.decode(settings, "mimi"),
    "mimi_stream_80ms": bench_codecs.stream,
    "encodec_encode_10s": lambda settings: bench_codecs.encode(settings, "encodec"),
    "encodec_decode_10s": lambda settings: bench_codecs.decode(settings, "encodec"),
    "dac_16khz_encode_10s": lambda settings: bench_codecs.encode(settings, "dac"),
    "dac_16khz_decode_10s": lambda settings: bench_codecs.decode(settings, "dac"),
    "encodec_gan_train": bench_codec_training.train,
    "speech_aware_lora_train": adapt,
    "speech_aware_generate": answer,
    "kmeans_assign_500": lambda settings: kmeans_assign(settings, 500),
    "kmeans_assign_2000": lambda settings: kmeans_assign(settings, 2000),
}
"""Name -> builder."""
BESIDE = {"mimi_stream_80ms": "moshi"}
"""Case -> package that no extra brings; where it is missing the case is measured only when it is named."""
LARGE_CASES: dict[str, Callable[[BenchSettings], Job]] = {
    "twist_350m_train": lambda settings: decoder_train(settings, "opt", OPT_350M, 2048),
    "twist_350m_generate": lambda settings: decoder_generate(settings, "opt", OPT_350M),
    "twist_1_3b_train": lambda settings: decoder_train(settings, "opt", OPT_1_3B, 2048),
    "twist_1_3b_generate": lambda settings: decoder_generate(settings, "opt", OPT_1_3B),
}
"""Cases for an accelerator, measured when they are named."""


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """The cases with these names, or what of `CASES` can run here; raises `UserError` for an unknown one."""
    known = CASES | LARGE_CASES
    for name in names:
        if name not in known:
            raise UserError(f"case is {name!r}: must be one of {', '.join(known)}{nearest(name, known)}")
    return tuple(names) or tuple(name for name in CASES if name not in BESIDE or find_spec(BESIDE[name]))


def run_case(name: str, settings: BenchSettings, limits: Mapping[str, float], on_pair: Callable[[], None]) -> Row:
    """Builds one case, measures it and forgets it again."""
    row = measure(name, (CASES | LARGE_CASES)[name](settings), settings, limits, on_pair)
    jax.clear_caches()
    gc.collect()
    return row | shares_of_peak(row, chip_of(jax.devices()[0]))


def shares_of_peak(row: Row, chip: Chip | None) -> dict[str, float]:
    """MFU of both sides, by the FLOPs that PyTorch counts; nothing in float32 or where the chip is not known."""
    if chip is None or row["dtype"] != "bfloat16" or row["ours_ms"] is None:
        return {}
    at_best_ms = 1e3 * 1e9 * row["gflop"] / chip.device_flops
    return {"mfu": at_best_ms / row["ours_ms"], "reference_mfu": at_best_ms / row["reference_ms"]}


def without_weight_norm(config: MelVocoderConfig) -> MelVocoderConfig:
    """The vocoder with plain kernels, as the PyTorch side has them."""
    return config.replace(generator=config.generator.replace(weight_norm=False))


def _job(torch_job: TorchJob, params: Any, ours: Callable[[], Arrays]) -> Job:
    """A job whose least traffic is reading the weights once."""
    return Job(ours, torch_job.ways, torch_job.flops, count_bytes(params))


def _tokens(hub_config: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(4, hub_config.get("vocab_size", 50257), shape)  # no special token of OPT
