"""All PyTorch references that ours is compared with, built small with drawn weights or read from a hub folder."""

import json
from collections.abc import Callable
from pathlib import Path

from slm_jax.core.errors import UserError, nearest
from slm_jax.interop.reference import Reference
from slm_jax.interop.reference_decoders import DECODERS, decoder_from_folder, tiny_decoder
from slm_jax.interop.reference_encoders import ENCODERS, encoder_from_folder, tiny_encoder
from slm_jax.interop.reference_vocoders import VOCODERS, tiny_vocoder, vocoder_from_folder


def builders() -> dict[str, dict[str, Callable[[int, str], Reference]]]:
    """Family -> variant -> builder of (seed, dtype); nothing is built yet."""
    found: dict[str, dict[str, Callable[[int, str], Reference]]] = {}
    for names, build in ((DECODERS, tiny_decoder), (ENCODERS, tiny_encoder), (VOCODERS, tiny_vocoder)):
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
    if family in {name for name, _ in DECODERS}:
        return decoder_from_folder(Path(folder), family, hub_config, dtype)
    if family in {name for name, _ in ENCODERS}:
        return encoder_from_folder(Path(folder), family, hub_config, dtype)
    return vocoder_from_folder(Path(folder), family, hub_config, dtype)


def _bound(build: Callable[..., Reference], family: str, variant: str) -> Callable[[int, str], Reference]:
    return lambda seed, dtype: build(family, variant, seed, dtype)
