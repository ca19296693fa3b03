"""ONNX Runtime as this project uses it: no telemetry, providers by availability, calm threads.

The only file that imports onnxruntime.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from instructrec_deploy.core.errors import BundleError, MissingExtra

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
GPU_PROVIDERS: dict[Provider, str] = {"cuda": CUDA, "tensorrt": TENSORRT}
TENSORRT_VARIABLE = "INSTRUCTREC_TENSORRT"  # where TensorRT keeps what it built
CGROUP = Path("/sys/fs/cgroup")
# With this fusion MiniLM int8 takes 17.6 ms instead of 15.5 (8 x 64 tokens, two threads): the
# fused kernel is slower than the parts.
SLOW_FUSIONS = ("SkipLayerNormFusion",)


def load_onnxruntime() -> Any:
    """The onnxruntime module, with its telemetry off.

    From 1.29 on it reports to a server by default on Linux; the variable has to be set before the
    first import.

    Raises:
        MissingExtra: it is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra(
            "onnxruntime is not installed",
            hint="pip install 'instructrec-deploy[cpu]' (or [gpu], never both)",
        ) from error
    return onnxruntime


def engine_errors() -> tuple[type[Exception], ...]:
    """What a session raises; the classes have no common base of their own."""
    load_onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "DeviceReset",
        "EPFail",
        "EngineError",
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoSuchFile",
        "NotFound",
        "NotImplemented",
        "RuntimeException",
    )
    return tuple(getattr(state, name) for name in names if hasattr(state, name))


def choose_providers(wanted: Provider, available: Sequence[str]) -> list[str]:
    """Execution providers in order of preference: each takes what those before it leave.

    `auto` never means TensorRT, which builds its engines for minutes at the first texts.

    Raises:
        MissingExtra: CUDA or TensorRT is asked for and this onnxruntime has none.
    """
    if wanted == "cpu" or (wanted == "auto" and CUDA not in available):
        return [CPU]
    name = GPU_PROVIDERS.get(wanted, CUDA)
    if name not in available:
        raise MissingExtra(
            f"the installed onnxruntime has no {name.removesuffix('ExecutionProvider')}",
            hint="pip uninstall onnxruntime, then pip install 'instructrec-deploy[gpu]'; "
            "or set engine.provider to cpu",
        )
    return list(dict.fromkeys([name, CUDA, CPU]))


def provider_options(name: str, *, is_half: bool = False) -> dict[str, str]:
    """What a provider is told beside its name; none of it was ever run on a GPU.

    Args:
        name: of the provider.
        is_half: the graph has products in 16-bit floats.
    """
    if name == CUDA:
        # The arena doubles otherwise. TF32 has ten bits of a number: no longer a 32-bit float.
        return {"arena_extend_strategy": "kSameAsRequested", "use_tf32": "0"}
    if name == TENSORRT:
        stated = os.environ.get(TENSORRT_VARIABLE)
        home = Path(stated).expanduser() if stated else Path.home() / ".cache/instructrec/tensorrt"
        return {
            "trt_fp16_enable": str(int(is_half)),
            "trt_engine_cache_enable": "1",  # an engine takes minutes, for each range of shapes
            "trt_engine_cache_path": str(home),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(home),
        }
    return {}


def available_cores(cgroup: Path = CGROUP) -> int:
    """Cores this process may use: its affinity, and less where a container's quota says so."""
    if hasattr(os, "sched_getaffinity"):
        n_cores = len(os.sched_getaffinity(0))
    else:
        n_cores = os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    return max(1, min(n_cores, round(quota))) if quota else n_cores


def open_session(
    path: Path,
    *,
    providers: Sequence[str],
    n_threads: int,
    use_spinning: bool = False,
    is_half: bool = False,
) -> Any:
    """Open one graph.

    Args:
        path: an ONNX file.
        providers: from `choose_providers`.
        n_threads: threads inside one operator; 1 means that the caller's own thread does it all.
        use_spinning: waiting threads burn their core. It makes a lone session faster and
            everything beside it slower.
        is_half: the graph has products in 16-bit floats.

    Raises:
        BundleError: not a graph this version of ONNX Runtime can run.
        MissingExtra: CUDA or TensorRT was to be used and does not work here.
    """
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Shapes differ from batch to batch: a memory plan kept for each of them only grows.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    spinning = "1" if use_spinning else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    try:
        session = ort.InferenceSession(
            str(path),
            options,
            providers=[(name, provider_options(name, is_half=is_half)) for name in providers],
            disabled_optimizers=list(SLOW_FUSIONS),
        )
    except engine_errors() as error:
        raise BundleError(
            f"{path.name}: ONNX Runtime {ort.__version__} cannot open it",
            hint="export the bundle again with this version",
        ) from error
    if missing := set(providers) - set(session.get_providers()):
        names = " and ".join(sorted(name.removesuffix("ExecutionProvider") for name in missing))
        raise MissingExtra(
            f"onnxruntime has {names} but cannot use it here (driver or its libraries missing)",
            hint="mend the driver, or set engine.provider to cpu",
        )
    return session


def shrinking_run() -> Any:
    """Options of a run after which the CPU's memory arena holds what is in use, and no more."""
    options = load_onnxruntime().RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _cpu_quota(cgroup: Path) -> float:
    """Cores a container may use by its quota; 0.0 where there is none."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()[:2]  # version 2
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()  # version 1
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return 0.0
    if quota == "max" or int(quota) <= 0:
        return 0.0
    return int(quota) / int(period)
