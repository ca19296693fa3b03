"""How a training process on a CPU keeps its memory.

Every step allocates the same large tensors and frees them again. glibc maps and unmaps each of
them, and the kernel fills their pages with zeros every time: up to a third of a step's CPU time on
long texts. Told to keep what was freed, it hands the same pages out again.

Batches of all lengths leave holes that nothing fits, and the process grows from step to step: now
and then what is free has to go back.
"""

from __future__ import annotations

import ctypes
import sys

RETURN_STEPS = 25  # between two calls of `return_freed_memory`
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of <malloc.h>
NEVER = 2**31 - 1  # bytes of free memory at the heap's end before it is given back


def keep_freed_memory() -> bool:
    """Ask the C library not to give large blocks back; True where it does (glibc on Linux)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, NEVER))
