"""Where TFDS keeps the records of a split before it knows how many shards they fill: a file, in place of memory."""

import contextlib
import struct
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

from tensorflow_datasets.core import shuffle

_changing = threading.Lock()
_SIZE = struct.Struct("<Q")


class Spool:
    """What `tensorflow_datasets.core.shuffle.Shuffler` is to a writer that does not shuffle, for records in order.

    TFDS's own (4.9.10) holds up to a gigabyte in memory and then wants TensorFlow for its files, so that without it no
    split of more than about nine hours at 16 kHz could be written.
    """

    def __init__(self, dirpath: Any, hash_salt: Any, disable_shuffling: bool = False, **_: Any) -> None:
        if not disable_shuffling:
            raise ValueError("records are kept in their order here: disable_shuffling must be True")
        self._file = tempfile.TemporaryFile(dir=dirpath)  # noqa: SIM115  (it is gone when nobody holds it)
        self.size, self.num_examples = 0, 0

    @property
    def bucket_lengths(self) -> list[int]:
        """One bucket, as that of records in memory."""
        return [self.num_examples]

    def add(self, key: int, data: bytes) -> None:
        """Put a record behind the others; keys count from 0."""
        if key != self.num_examples:
            raise ValueError(f"record {self.num_examples} has the key {key}: records come in order")
        self._file.write(_SIZE.pack(len(data)))
        self._file.write(data)
        self.size += len(data)
        self.num_examples += 1

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        self._file.seek(0)
        for key in range(self.num_examples):
            (size,) = _SIZE.unpack(self._file.read(_SIZE.size))
            yield key, self._file.read(size)


@contextlib.contextmanager
def spooled() -> Iterator[None]:
    """Let TFDS keep records in a `Spool` meanwhile; one thread at a time."""
    with _changing:
        kept = shuffle.Shuffler
        shuffle.Shuffler = Spool  # type: ignore[misc, assignment]
        try:
            yield
        finally:
            shuffle.Shuffler = kept  # type: ignore[misc]
