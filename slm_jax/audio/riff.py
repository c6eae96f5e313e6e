"""WAV headers: does the file hold as much sample data as its header promises?

The decoding library shortens a cut WAV file without a word, so the promise is read here.
"""

import struct
from pathlib import Path

UNKNOWN_SIZES = {0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF}
"""Sizes written by programs that stream to a pipe and cannot go back to fill them in."""


def missing_bytes(path: Path) -> int:
    """Bytes lacking in the `data` chunk of a RIFF/WAVE file; 0 for whole files, streams and other formats.

    A header that is cut before its `data` chunk is left to the decoder, which refuses it. Raises OSError.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return 0
        while len(chunk := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", chunk)
            if name == b"data":
                return 0 if length in UNKNOWN_SIZES else max(0, length - (size - file.tell()))
            file.seek(length + length % 2, 1)
    return 0
