"""Freed memory back to the system: the C library keeps it otherwise, between what is in use."""

from __future__ import annotations

import ctypes
import sys


def return_freed_memory() -> bool:
    """Give free pages back to the system, those between used ones too; True where it is done."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # another C library
        return False
    return bool(trim(0))
