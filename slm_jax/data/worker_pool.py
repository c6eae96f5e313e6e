"""Processes of this machine that share work: fresh interpreters which end when the one that started them does."""

import contextlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def new_pool(processes: int) -> ProcessPoolExecutor:
    """Fresh interpreters: a fork of a process that runs JAX's threads may hang."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent)


@contextlib.contextmanager
def without_main(work: Any) -> Iterator[None]:
    """Let processes that start meanwhile not run the caller's script again.

    A fresh interpreter imports `__main__` first, and a script without `if __name__ == "__main__":` would then do its
    work once more in every process, which Python refuses. Workers need what is in this package only; `work`, which
    they are handed, may itself be of the script.
    """
    main = sys.modules["__main__"]
    kept = {name: getattr(main, name) for name in ("__spec__", "__file__") if hasattr(main, name)}
    if getattr(work, "__module__", None) == "__main__":
        yield
        return
    try:
        main.__spec__ = None
        main.__dict__.pop("__file__", None)
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)


def _end_with_parent() -> None:
    """Let a worker end when its parent is killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: Any) -> None:
    parent.join()
    os._exit(1)
