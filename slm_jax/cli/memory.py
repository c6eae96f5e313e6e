"""Memory that a process of ours has taken once stays with it."""

import contextlib
import ctypes
import sys

# Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_memory() -> None:
    """Let glibc hand freed memory out again instead of giving it back to the system; nothing elsewhere.

    XLA on CPU takes its scratch space anew for every call, and each page of it is then mapped and zeroed: 0.4 s of two
    cores' time in a call of HuBERT-base on ten seconds, a fifth of the CPU time of a small language model's step.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        never = -1
        for parameter, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, never), (_TOP_PAD, 2**26)):
            mallopt(parameter, value)
