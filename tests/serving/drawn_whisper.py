"""A small Whisper with tasks on drawn weights: all its parts are real, and nobody trained them."""

from slm_jax.serving.task_whisper import TaskDecoding, TaskWhisper
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.task_prompts import TaskPrompts
from slm_jax.text.tokenizers import CharacterTokenizerConfig
from slm_jax.text.whisper_tokens import PlainPromptsConfig
from tests.shapes import WHISPER
from tests.whisper_folder import drawn_params

PLAIN = SpecialsConfig(specials=(), tokenizer=CharacterTokenizerConfig(characters="abcdefghijklmnopqrstuvwxyz .:"))
TOKENS = PlainPromptsConfig(plain=PLAIN)
SPECIFIERS = ("<|rate|>", "<|mood|>", "<|world|>")
PROMPTS = TaskPrompts(TOKENS.make(), SPECIFIERS)
ENCODER = WHISPER.encoder.replace(max_frames=50)


def drawn_task_whisper(trim: bool = False, **changes: object) -> TaskWhisper:
    """Of the shape of `tests.shapes.WHISPER` with windows of a second, over letters; answers of up to seven."""
    config = WHISPER.replace(
        encoder=ENCODER.replace(trim=trim), decoder=WHISPER.decoder.replace(vocabulary=PROMPTS.size)
    )
    params = drawn_params(config)
    return TaskWhisper(config, params, PROMPTS, TaskDecoding(**{"max_new": 7, "beams": 3, **changes}))
