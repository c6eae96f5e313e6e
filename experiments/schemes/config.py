"""Six orders of the same codes, three seeds each, as long as each other on one core: eighteen small language models.

    python -m slm_jax train experiments/schemes/config.py --workdir runs/schemes
    python experiments/schemes/compare.py runs/schemes

One run: a streaming codec of four books of 256 at 50 frames a second (1.6 kb/s), its codes, and a model for each scheme
and seed, of which nothing differs but `scheme` (and, where the books of a frame are written in order, the small
transformer that does it). All read stretches of 3 s. Steps are as many as a core does in `MINUTES` minutes (`RATES`).
A run that was stopped goes on where it was.
"""

from typing import Any

from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.schemes.coarse_first import CoarseFirst
from slm_jax.schemes.delay import Delay
from slm_jax.schemes.flattened import Flattened
from slm_jax.schemes.parallel import Parallel, TemporalDepth
from slm_jax.schemes.table import Scheme
from slm_jax.sequence_models.depth import DepthConfig
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.sequence_models.temporal_depth import TemporalDepthConfig
from slm_jax.serving.code_speech_lm import CodeDecoding
from slm_jax.systems.recipes.code_run import CodeRunConfig
from slm_jax.systems.recipes.small_codec import small_codec
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.code_lm import CodeLMConfig

BOOKS, CODES, FRAMES = 4, 256, 150
SEEDS = (0, 1, 2)
MINUTES = 5
SCHEMES: dict[str, Scheme] = {
    "parallel": Parallel(),
    "delay": Delay(delays=tuple(range(BOOKS))),
    "partly_flattened": Flattened(groups=(0, *[1] * (BOOKS - 1))),
    "interleaved": Flattened(),
    "coarse_first": CoarseFirst(coarse=1, chunk=50),
    "temporal_depth": TemporalDepth(),
}
RATES = {
    "parallel": 3.7,
    "delay": 3.6,
    "partly_flattened": 1.7,
    "interleaved": 0.75,
    "coarse_first": 0.75,
    "temporal_depth": 2.15,
}
"""Steps a second of one core of an AMD EPYC whose other core trained something else, over sixty steps of each."""
BODY = llama("7b", vocabulary=1, layers=4, width=192, heads=4, kv_heads=4, hidden=512, tied_head=True)
FLAT = MultiStreamConfig(streams=(CODES,) * BOOKS, body=BODY, blanks=True)
DEEP = TemporalDepthConfig(temporal=FLAT.replace(heads=0), depth=DepthConfig(width=96, layers=2, heads=2, hidden=256))


def language_model(name: str, seed: int) -> CodeLMConfig:
    """The model of one scheme."""
    scheme = SCHEMES[name]
    model: Any = DEEP if scheme.ordered else FLAT
    return CodeLMConfig(
        name=f"{name}_{seed}",
        tokens="codes",
        model=model,
        scheme=scheme,
        frames=FRAMES,
        train=TrainConfig(steps=round(60 * MINUTES * RATES[name]), evaluate_every=200, seed=seed),
        batches=PipelineConfig(batch=8, seed=seed),
        optimizer=OptimizerConfig(learning_rate=2e-3, betas=(0.9, 0.98), warmup_steps=50, weight_decay=0.01),
    )


config = CodeRunConfig(
    name="schemes",
    lm="delay_0",
    corpus=WorldConfig(hours=1.5, speakers=4),
    stages=(*small_codec(BOOKS, CODES), *(language_model(name, seed) for seed in SEEDS for name in SCHEMES)),
    prompt_s=1.2,
    decoding=CodeDecoding(seconds=1.8),
)
