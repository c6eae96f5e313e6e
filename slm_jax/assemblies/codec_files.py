"""Codes of a codec in a small file: packed bits, what they are, and which weights made them."""

import itertools
import json
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Int

from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError, require
from slm_jax.core.token_spec import TokenSpec

FORMAT = "slm_jax codes 1"


def write_codes(path: Path, model: CodecTokenizer, ids: Int[np.ndarray, "T K"], samples: int) -> int:
    """Codes as a small file, each id in as many bits as its codebook needs; returns the bytes of the codes alone."""
    widths = [(size - 1).bit_length() for size in model.config.quantizer.sizes[: ids.shape[1]]]
    bits = [((column[:, None] >> np.arange(width)) & 1) for column, width in zip(ids.T, widths, strict=True)]
    packed = np.packbits(np.concatenate(bits, axis=1).astype(np.uint8).reshape(-1))
    told = {"format": FORMAT, "codec": model.hash(), "spec": model.spec.to_json(), "frames": len(ids), "bits": widths}
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(unfinished, "w") as file:
            file.writestr("codes.json", json.dumps(told | {"samples": samples}))
            file.writestr("codes.bin", packed.tobytes())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return len(packed)


def read_codes(path: Path, model: CodecTokenizer) -> tuple[Int[np.ndarray, "T K"], int]:
    """Codes and number of samples of a file; raises `UserError` for what is no such file, or of another codec."""
    try:
        with zipfile.ZipFile(path) as file:
            told, packed = json.loads(file.read("codes.json")), np.frombuffer(file.read("codes.bin"), np.uint8)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no file of codes ({error})") from error
    require(told.get("format") == FORMAT, f"format of {path}", told.get("format"), f"this version reads {FORMAT!r}")
    spec = from_json(told["spec"])
    made = spec.describe() if isinstance(spec, TokenSpec) else "unknown"
    rule = f"made by other weights than those of {model.spec.describe()}"
    require(told["codec"] == model.hash(), f"codec of {path}", made, rule)
    widths = told["bits"]
    flat = np.unpackbits(packed)[: told["frames"] * sum(widths)].reshape(told["frames"], -1).astype(np.int64)
    starts = np.cumsum([0, *widths])
    columns = [flat[:, a:b] @ (1 << np.arange(b - a)) for a, b in itertools.pairwise(starts)]
    return np.stack(columns, 1), int(told["samples"])
