"""ONNX Runtime is loaded quietly, with the providers there are and the cores we may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from instructrec_deploy.core.errors import BundleError, MissingExtra
from instructrec_deploy.runtime import providers

# Printed: files made under the home folder, sockets, threads that Python does not know, modules.
PROBE = """
import os, sys, threading
from pathlib import Path
from instructrec_deploy.runtime import providers
session = providers.open_session(Path(sys.argv[1]), providers=["CPUExecutionProvider"], n_threads=1)
home = Path(os.environ["HOME"])
links = []
for name in os.listdir("/proc/self/fd"):
    try:
        links.append(os.readlink(f"/proc/self/fd/{name}"))
    except OSError:
        pass
print(sorted(str(p.relative_to(home)) for p in home.rglob("*")))
print([link for link in links if link.startswith("socket") or str(home) in link])
print(len(os.listdir("/proc/self/task")))
print([m for m in ("torch", "transformers", "onnx", "optimum") if m in sys.modules])
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc")
def test_onnxruntime_writes_no_file_opens_no_socket_and_starts_no_sender(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    hiding = ("CI", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    environ = {k: v for k, v in os.environ.items() if k not in hiding}
    environ |= {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(tiny_bundle / "graphs" / "encoder.onnx")],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    files, links, n_threads, modules = done.stdout.splitlines()
    assert (files, links, modules) == ("[]", "[]", "[]")
    # The main thread, and one that ONNX Runtime keeps with telemetry off, too; its sender has more.
    assert int(n_threads) <= 2


def test_cuda_is_used_where_it_is_there_unless_told_otherwise() -> None:
    both = [providers.CUDA, providers.CPU]
    assert providers.choose_providers("auto", both) == both
    assert providers.choose_providers("auto", [providers.CPU]) == [providers.CPU]
    assert providers.choose_providers("cpu", both) == [providers.CPU]


def test_asking_for_cuda_where_there_is_none_says_what_to_install() -> None:
    with pytest.raises(MissingExtra) as caught:
        providers.choose_providers("cuda", [providers.CPU])
    assert "[gpu]" in caught.value.hint


def test_tensorrt_takes_what_it_can_and_leaves_the_rest_to_cuda() -> None:
    all_three = [providers.TENSORRT, providers.CUDA, providers.CPU]
    assert providers.choose_providers("tensorrt", all_three) == all_three
    assert providers.choose_providers("auto", all_three) == all_three[1:]
    with pytest.raises(MissingExtra, match="no Tensorrt"):
        providers.choose_providers("tensorrt", [providers.CUDA, providers.CPU])


def test_floats_of_32_bits_stay_so_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(providers.TENSORRT_VARIABLE, "/engines")
    assert providers.provider_options(providers.CUDA)["use_tf32"] == "0"
    for is_half in (False, True):
        options = providers.provider_options(providers.TENSORRT, is_half=is_half)
        assert options["trt_fp16_enable"] == str(int(is_half))
        assert options["trt_engine_cache_path"] == "/engines"
    assert providers.provider_options(providers.CPU) == {}


@pytest.mark.parametrize(
    ("content", "most"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", 10_000)]
)
def test_a_container_quota_bounds_the_cores(tmp_path: Path, content: str, most: int) -> None:
    (tmp_path / "cpu.max").write_text(content + "\n")
    assert 1 <= providers.available_cores(tmp_path) <= most


def test_a_quota_of_the_first_cgroup_version_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert providers.available_cores(tmp_path) == 1


def test_a_file_that_is_no_graph_is_a_bundle_error(tmp_path: Path) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(BundleError):
        providers.open_session(path, providers=[providers.CPU], n_threads=1)
