"""The promise of a WAV header against the bytes in the file."""

import struct

import pytest

from slm_jax.audio.riff import missing_bytes


def wav(promised, present, before=b""):
    data = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16) + before
    return b"RIFF" + struct.pack("<I", 0) + b"WAVE" + data + b"data" + struct.pack("<I", promised) + bytes(present)


@pytest.mark.parametrize(
    "content, lacking",
    [
        (wav(100, 100), 0),
        (wav(100, 40), 60),
        (wav(100, 120), 0),
        (wav(0xFFFFFFFF, 40), 0),
        (wav(0, 40), 0),
        (wav(100, 90, before=b"LIST" + struct.pack("<I", 3) + b"abc\0"), 10),  # odd chunks are padded to even
        (b"RIFF", 0),
        (b"fLaC" + bytes(50), 0),
    ],
)
def test_missing_bytes(tmp_path, content, lacking):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    assert missing_bytes(path) == lacking
