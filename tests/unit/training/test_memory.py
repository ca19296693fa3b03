"""A training process keeps the memory it freed."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from instructrec_training.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    for _ in range(20):
        torch.ones(16 << 20)  # 64 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = faults()
print(faults() - first)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_handed_out_again_without_the_kernel() -> None:
    pytest.importorskip("resource")
    n_faults = {
        mode: int(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True
            ).stdout
        )
        for mode in ("keep", "plain")
    }
    assert n_faults["keep"] * 10 < n_faults["plain"]


HOLES = """
import torch
from instructrec_deploy.core.memory import return_freed_memory
from instructrec_training.memory import keep_freed_memory
def resident():  # MiB
    return int(open("/proc/self/statm").read().split()[1]) // 256
keep_freed_memory()
blocks = [torch.ones(1 << 20) for _ in range(64)]  # 4 MiB each
del blocks[::2]
before = resident()
assert return_freed_memory()
print(before - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_memory_between_what_is_used_goes_back_too() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 64  # of 128 MiB that were freed
