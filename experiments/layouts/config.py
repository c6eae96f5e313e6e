"""Four layouts of text and codes, three seeds each, as long as each other on one core: twelve small language models.

    python -m slm_jax train experiments/layouts/config.py --workdir runs/layouts
    python experiments/layouts/compare.py runs/layouts

One run: a streaming codec of four books of 256 at 50 frames a second (1.6 kb/s), its codes, and a model for each layout
and seed over the codes and the letters of what is said, of which nothing differs but `layout`. Books stand a step later
each (`Delay`), text half a second behind the speech that it belongs to where it is aligned in time. Steps are as many
as a core does in `MINUTES` minutes (`RATES`). A run that was stopped goes on where it was.
"""

from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.layouts.beside import FixedPadding, PaddingAfter, TimeAligned
from slm_jax.layouts.interleaved import ByRatio
from slm_jax.layouts.layout import MARKS, Layout
from slm_jax.schemes.delay import Delay
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.serving.text_code_speech_lm import TextCodeDecoding
from slm_jax.systems.recipes.code_run import TextCodeRunConfig
from slm_jax.systems.recipes.small_codec import small_codec
from slm_jax.text.tokenizers import CharacterTokenizerConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.text_code_lm import TextCodeLMConfig

BOOKS, CODES, FRAMES, TEXT = 4, 256, 200, 64
SEEDS = (0, 1, 2)
MINUTES = 5
LETTERS = CharacterTokenizerConfig(characters=" 'abcdefghijklmnopqrstuvwxyz", unknown="'")
LAYOUTS: dict[str, Layout] = {
    "after": PaddingAfter(),
    "fixed": FixedPadding(pads=2),
    "aligned": TimeAligned(ahead=-25),
    "interleaved": ByRatio(text=6, frames=18),
}
RATES = {"after": 2.7, "fixed": 2.7, "aligned": 1.9, "interleaved": 2.1}
"""Steps a second of one core: guesses from the length of rows, to be measured before the run."""
BODY = llama("7b", vocabulary=1, layers=4, width=192, heads=4, kv_heads=4, hidden=512, tied_head=True)
STREAMS = (len(LETTERS.characters) + MARKS, *[CODES] * BOOKS)


def language_model(name: str, seed: int) -> TextCodeLMConfig:
    """The model of one layout."""
    return TextCodeLMConfig(
        name=f"{name}_{seed}",
        tokens="codes",
        model=MultiStreamConfig(streams=STREAMS, body=BODY, blanks=True),
        scheme=Delay(delays=tuple(range(BOOKS))),
        layout=LAYOUTS[name],
        text_tokens=LETTERS,
        frames=FRAMES,
        text=TEXT,
        weights=(2.0, *[1.0] * BOOKS),
        train=TrainConfig(steps=round(60 * MINUTES * RATES[name]), evaluate_every=200, seed=seed),
        batches=PipelineConfig(batch=8, seed=seed),
        optimizer=OptimizerConfig(learning_rate=2e-3, betas=(0.9, 0.98), warmup_steps=50, weight_decay=0.01),
    )


config = TextCodeRunConfig(
    name="layouts",
    lm="aligned_0",
    corpus=WorldConfig(hours=1.5, speakers=4),
    stages=(*small_codec(BOOKS, CODES), *(language_model(name, seed) for seed in SEEDS for name in LAYOUTS)),
    prompt_s=1.2,
    decoding=TextCodeDecoding(seconds=1.8),
)
