"""How the hosts of one machine end together: one that fails tells the others, which would wait for it forever.

A host that is killed cannot tell. The others see their connection to it break, at once over gloo, else JAX ends them
after `hosts.HEARTBEAT_S` seconds. When the first host is killed, with which the store goes, JAX ends the others at once
with a message of its own ("another task died").
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

import jax

from slm_jax.parallel.hosts import store

KEY = "slm_jax/failed"
POLL_S = 1.0
LOST = ("gloo", "connection", "unavailable", "coordination", "heartbeat", "deadline_exceeded", "cancelled", "aborted")
"""Words of errors that mean that another host is gone (in lower case)."""


class HostLost(ConnectionError):
    """Another host of the machine failed or was killed."""


class _Ending:
    """Whoever claims the end of this process says why; `failed` is True from then on."""

    def __init__(self) -> None:
        self._claim = threading.Lock()
        self.failed = False

    def claim(self) -> bool:
        self.failed = True
        return self._claim.acquire(blocking=False)


_ending = _Ending()


@contextlib.contextmanager
def together(say: Callable[[str], None]) -> Iterator[None]:
    """What all hosts run inside of: an error on one ends every one, each with a line that says what happened.

    Raises `HostLost` where another host has failed or vanished. When another one fails while this one waits inside a
    library, `say` gets the line and the process ends with code 1. On one host it does nothing.
    """
    if store() is None:
        yield
        return
    over = threading.Event()
    threading.Thread(target=_watch, args=(over, say), daemon=True).start()
    try:
        yield
    except BaseException as error:
        _claim_or_wait()
        lost = _loss(error)
        if lost is not None:
            raise HostLost(_told(2 * POLL_S) or _vanished(lost)) from error
        _tell(error)
        raise
    finally:
        over.set()


def leave_if_failed(code: int) -> None:
    """End the process now if this or another host failed.

    An ordinary exit would wait for the others, who may be waiting for this one.
    """
    if _ending.failed:
        _end(code)


def _watch(over: threading.Event, say: Callable[[str], None]) -> None:
    while not over.wait(POLL_S):
        message = _read()
        if message is not None and _ending.claim():
            say(f"\nerror: {message}")  # a bar may stand on the line
            _end(1)


def _claim_or_wait() -> None:
    """Return when it is for this thread to say why the process ends; else the watcher is about to end it."""
    if not _ending.claim():
        time.sleep(60)


def _loss(error: BaseException | None) -> BaseException | None:
    """The error, of those that led to `error`, that means that another host is gone."""
    while error is not None:
        if isinstance(error, jax.errors.JaxRuntimeError) and any(word in str(error).lower() for word in LOST):
            return error
        error = error.__cause__
    return None


def _vanished(error: BaseException) -> str:
    why = str(error).strip().splitlines()[0][:200]
    return f"another host has vanished ({why}); the same command on all hosts goes on from the last checkpoint"


def _tell(error: BaseException) -> None:
    """Write down for the others why this host ends; the first of several keeps its word."""
    lines = str(error).strip().splitlines()
    why = lines[0] if lines else type(error).__name__
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        store().key_value_set(KEY, f"host {jax.process_index()} has ended: {why}")


def _told(seconds: float) -> str | None:
    """What a host that failed has written down, waiting a little for it."""
    end = time.monotonic() + seconds
    while (message := _read()) is None and time.monotonic() < end:
        time.sleep(POLL_S / 5)
    return message


def _read() -> str | None:
    try:
        return store().key_value_try_get(KEY)
    except jax.errors.JaxRuntimeError:  # nothing written, or the store is gone
        return None


def _end(code: int) -> None:
    if jax.process_index() == 0:  # with it goes the store: stay until the others have read
        time.sleep(2 * POLL_S)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
