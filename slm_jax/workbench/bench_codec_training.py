"""A case of `bench`: one step of adversarial training of EnCodec, codec and judges, on noise."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.core.contracts import Batch
from slm_jax.core.trees import count_bytes
from slm_jax.decoders.spectral_discriminators import JudgesConfig, STFTDiscriminatorsConfig
from slm_jax.interop import reference_codec_training
from slm_jax.interop.reference_codec_training import Begun, JudgesShape, LossShape
from slm_jax.objectives.codec import CodecLossConfig, CodecObjective, JudgesObjective, moved
from slm_jax.quantizers.codebooks import COLLECTION, CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.step import Player, Statistics
from slm_jax.workbench.bench import BenchSettings, Job
from slm_jax.workbench.bench_ours import ADAM_TRAFFIC, carried, normal, players_step
from slm_jax.workbench.bench_shapes import ENCODEC_6KBPS, QUICK

ADAM = OptimizerConfig(
    name="adam", learning_rate=3e-4, schedule="constant", betas=(0.5, 0.9), weight_decay=0.0, clip=None
)
JUDGES = STFTDiscriminatorsConfig()
LOSSES = CodecLossConfig(
    resolutions=((2048, 512, 0), (1024, 256, 0), (512, 128, 0)), hinge=True, squared=True, commitment=1.0
)


def train(settings: BenchSettings) -> Job:
    """EnCodec of 6 kb/s and its five judges on a second; the revival of codes, a lottery, is off on both sides."""
    shape, judges, losses, size = ENCODEC_6KBPS, JUDGES, LOSSES, (1, 24_000)
    if settings.quick:
        shape, size = ENCODEC_6KBPS | QUICK["encodec"], (2, 800)
        judges, losses = small(judges, losses)
    samples = 0.1 * normal(size)
    torch_shapes = JudgesShape(judges.n_ffts, judges.filters, judges.dilations), _loss_shape(losses)
    same = {"lr": ADAM.learning_rate, "betas": ADAM.betas, "eps": ADAM.eps}
    torch_job, begun = reference_codec_training.training(shape, *torch_shapes, samples, same)
    model, params = carried(torch_job, "float32")
    config = _averaged(model.config)
    variables = _variables(params, begun)
    batch: Batch = {
        "samples": jnp.asarray(samples),
        "sample_mask": jnp.ones(size, bool),
        "example": jnp.arange(size[0]),
    }
    step = players_step(_players(config, losses, judges), variables, batch)
    return Job(step, torch_job.ways, torch_job.flops, ADAM_TRAFFIC * count_bytes(variables["params"]), compared=2)


def small(
    judges: STFTDiscriminatorsConfig, losses: CodecLossConfig
) -> tuple[STFTDiscriminatorsConfig, CodecLossConfig]:
    """Shapes for trying the command."""
    few = judges.replace(n_ffts=(256, 128), filters=3, dilations=(1, 2))
    return few, losses.replace(resolutions=((256, 64, 0), (128, 32, 0)))


def _players(config: CodecConfig, losses: CodecLossConfig, judges: STFTDiscriminatorsConfig) -> tuple[Player, ...]:
    """The judges, then the codec with its averages."""
    codec, module = config.make(), JudgesConfig(parts=(judges,)).make()
    judging, making = JudgesObjective(losses, codec, module), CodecObjective(losses, codec, module)
    counted = Statistics(collections=(COLLECTION,), update=partial(moved, config, losses))
    return (
        Player(name="judges", objective=judging, owns=judging.owns, optimizer=ADAM),
        Player(
            name="codec",
            objective=making,
            owns=making.owns,
            optimizer=ADAM,
            statistics=counted,
            shows=making.shows,
        ),
    )


def _variables(params: dict[str, Any], begun: Begun) -> dict[str, Any]:
    """What both players change, as the other side begins."""
    entries = jnp.asarray(begun.entries)
    books = {"entries": entries, "usage": jnp.ones(entries.shape[:2]), "sums": jnp.array(entries)}
    judges = {f"scale_{place}": jax.tree.map(jnp.asarray, layers) for place, layers in enumerate(begun.judges)}
    codec = {side: params[side] for side in ("encoder", "decoder")}
    return {
        "params": {"generator": codec, "discriminator": {"parts_0": judges}},
        COLLECTION: {"generator": {"quantizer": {"codebooks": books}}},
    }


def _averaged(config: CodecConfig) -> CodecConfig:
    """The codec with codebooks that averages move."""
    quantizer = config.quantizer
    assert isinstance(quantizer, ResidualVQConfig)  # for the type checker
    codebook: CodebookConfig = quantizer.codebook.replace(learning="averages", revive=0.0)
    return config.replace(quantizer=quantizer.replace(codebook=codebook))


def _loss_shape(c: CodecLossConfig) -> LossShape:
    names = ("spectral", "waveform", "adversarial", "features", "commitment")
    book = CodebookConfig()
    sizes = [(n_fft, hop) for n_fft, hop, _ in c.resolutions]
    return LossShape(sizes, {name: getattr(c, name) for name in names}, book.decay, book.epsilon)
