"""
Process-wide settings of the allocator, the garbage collector and the event loop.

Measured in the project's performance notes: glibc's trimming makes large responses 2 to 20 times
slower to assemble, and full collections over a loaded mesh stall pushes by tens of milliseconds.
Called by the composition root only: nothing here belongs into a library user's process.
"""

import asyncio
import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Final, cast

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_TRIM_THRESHOLD_BYTES: Final = 1 << 30
_MMAP_THRESHOLD_BYTES: Final = 32 << 20

_YOUNG_OBJECTS: Final = 50_000
"""
Collect the youngest generation after this many more container objects than at the last time.

Python's 700 makes a commit collect dozens of times; nearly all our garbage has no cycles.
"""


def tune_allocator() -> bool:
    """Keep freed memory for the next large response; return whether this C library can."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # not glibc: musl has no mallopt, macOS another name
        return False
    mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
    mallopt.restype = ctypes.c_int
    done = mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
    return bool(done and mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES))


def tune_collector() -> None:
    """Collect the youngest generation less often."""
    _, middle, old = gc.get_threshold()
    gc.set_threshold(_YOUNG_OBJECTS, middle, old)


@contextmanager
def without_collections() -> Iterator[None]:
    """Collect nothing meanwhile: loading makes much and drops little, and no cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def return_freed() -> bool:
    """Give freed memory back to the system; return whether this C library can."""
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError):
        return False


def freeze_loaded() -> int:
    """Take what is alive now out of all later collections; return how many objects that are."""
    gc.collect()
    gc.freeze()
    return gc.get_freeze_count()


def leave_out_rich() -> None:
    """
    Load structlog without rich, if neither is loaded yet.

    It wants it for tracebacks that show local variables, which our logs never do; it is three
    megabytes and a tenth of a second of every start.
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    absent: dict[str, ModuleType | None] = cast("dict[str, ModuleType | None]", sys.modules)
    absent["rich"] = None
    try:
        import_module("structlog")
    finally:
        del absent["rich"]


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the fastest event loop at hand: uvloop, or asyncio's where uvloop has no build."""
    try:
        import uvloop  # noqa: PLC0415 (absent on Windows)
    except ImportError:  # pragma: no cover (installed wherever the tests run)
        return asyncio.new_event_loop
    return uvloop.new_event_loop
