"""All PyTorch references that ours is compared with, built small with drawn weights or read from a hub folder."""

import json
from collections.abc import Callable
from pathlib import Path

from slm_jax.core.errors import UserError, nearest
from slm_jax.interop.reference import Reference
from slm_jax.interop.reference_decoders import DECODERS, decoder_from_folder, tiny_decoder
from slm_jax.interop.reference_encoders import ENCODERS, encoder_from_folder, tiny_encoder
from slm_jax.interop.reference_moshi import MOSHIS, moshi_from_folder, tiny_moshi
from slm_jax.interop.reference_musicgen import MUSICGENS, musicgen_from_folder, tiny_musicgen
from slm_jax.interop.reference_pgslm import PGSLMS, pgslm_from_folder, tiny_pgslm
from slm_jax.interop.reference_t5_stack import T5_STACKS, t5_stack_from_folder, tiny_t5_stack
from slm_jax.interop.reference_vocoders import VOCODERS, tiny_vocoder, vocoder_from_folder
from slm_jax.interop.reference_w2v_bert import W2V_BERTS, tiny_w2v_bert, w2v_bert_from_folder
from slm_jax.interop.reference_whisper import WHISPERS, tiny_whisper, whisper_from_folder

KINDS: tuple[tuple[tuple[tuple[str, str], ...], Callable[..., Reference], Callable[..., Reference]], ...] = (
    (DECODERS, tiny_decoder, decoder_from_folder),
    (MUSICGENS, tiny_musicgen, musicgen_from_folder),
    (MOSHIS, tiny_moshi, moshi_from_folder),
    (PGSLMS, tiny_pgslm, pgslm_from_folder),
    (T5_STACKS, tiny_t5_stack, t5_stack_from_folder),
    (ENCODERS, tiny_encoder, encoder_from_folder),
    (W2V_BERTS, tiny_w2v_bert, w2v_bert_from_folder),
    (VOCODERS, tiny_vocoder, vocoder_from_folder),
    (WHISPERS, tiny_whisper, whisper_from_folder),
)
"""(family, variant) of each kind of model, what builds one small, and what reads one from a folder."""


def builders() -> dict[str, dict[str, Callable[[int, str], Reference]]]:
    """Family -> variant -> builder of (seed, dtype); nothing is built yet."""
    found: dict[str, dict[str, Callable[[int, str], Reference]]] = {}
    for names, build, _ in KINDS:
        for family, variant in names:
            found.setdefault(family, {})[variant] = _bound(build, family, variant)
    return found


def builders_named(names: tuple[str, ...]) -> list[Callable[[int, str], Reference]]:
    """The builders of these families, or of all; raises `UserError` for an unknown one."""
    known = builders()
    for name in names:
        if name not in known:
            raise UserError(f"family is {name!r}: must be one of {', '.join(known)}{nearest(name, known)}")
    return [build for family in names or known for build in known[family].values()]


def reference_from_folder(folder: str | Path, family: str, dtype: str) -> Reference:
    """The PyTorch model of a folder as the hub lays it out, whose `config.json` belongs to `family`."""
    hub_config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    read = next(read for names, _, read in KINDS if family in {name for name, _ in names})
    return read(Path(folder), family, hub_config, dtype)


def _bound(build: Callable[..., Reference], family: str, variant: str) -> Callable[[int, str], Reference]:
    return lambda seed, dtype: build(family, variant, seed, dtype)
