"""Destroys objects whose destruction free-threaded Python (PEP 703) has deferred."""

from __future__ import annotations

import gc
import sysconfig
import time
import weakref

__all__ = ["run_deferred_destructors"]

_IS_FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def run_deferred_destructors() -> None:
    """Destroy unreferenced objects, including those that other threads created.

    Free-threaded Python leaves the destruction of an object to the thread that created it ("biased reference
    counting"), and that thread destroys the object when it next runs Python code. A thread that waits for a
    lock of the caller runs no Python code until the caller is done. The garbage collector destroys such
    objects at once. With a GIL there are none.
    """
    if not _IS_FREE_THREADED:
        return
    witness = _Cycle()
    is_gone = weakref.ref(witness)
    del witness
    # gc.collect does nothing while another thread collects, and that collection may have begun too early to
    # see the objects. The number of attempts is limited, because a finalizer of the other collection may wait
    # for this thread.
    for _ in range(100):
        gc.collect()
        if is_gone() is None:
            return
        time.sleep(0.01)


class _Cycle:
    """An object that only the garbage collector can destroy."""

    def __init__(self) -> None:
        self.itself = self
