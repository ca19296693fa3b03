"""The machine: processor, memory, open files, the engine."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from instructrec_deploy.runtime import openvino_session, providers
from instructrec_deploy.runtime.engine import EngineSettings
from instructrec_deploy.server.checkup.finding import Finding, ok, tried, warn

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
MIN_MEMORY_MB = 400  # a server with a small int8 model takes 150; a second version beside it, too
MIN_OPEN_FILES = 4096  # a connection each
FAST_INT8 = {"avx512_vnni", "avx_vnni", "asimddp", "i8mm"}  # multiply and add bytes in one step


def check_machine(
    engine: EngineSettings = EngineSettings(), *, proc: Path = PROC, cgroup: Path = CGROUP
) -> Iterator[Finding]:
    """Everything that does not hang on a bundle or on settings."""
    yield ok("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield _cores(cgroup)
    yield _processor(proc)
    yield _memory(proc, cgroup)
    yield _open_files()
    if engine.runtime == "openvino":
        yield tried("openvino", _openvino)
    else:
        yield tried("onnxruntime", lambda: _engine(engine.provider))


def memory_mb(proc: Path = PROC, cgroup: Path = CGROUP) -> float | None:
    """What may still be taken: of the machine, and of the container; None where nobody says."""
    left = []
    for line in _read(proc / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            left.append(int(line.split()[1]) / 1024)
    limit, used = _read(cgroup / "memory.max").strip(), _read(cgroup / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        left.append((int(limit) - int(used)) / (1 << 20))
    return min(left, default=None)


def _cores(cgroup: Path) -> Finding:
    n_cores = providers.available_cores(cgroup)
    if n_cores > 1:
        return ok("cores", f"{n_cores} may be used")
    return warn(
        "cores", "one core may be used", "inference and everything else share it: give it two"
    )


def _processor(proc: Path) -> Finding:
    info = _read(proc / "cpuinfo")
    lines = [line for line in info.splitlines() if line.startswith(("flags", "Features"))]
    if not lines:
        return ok("processor", f"{platform.machine()}; its features are not told here")
    features = set(lines[0].partition(":")[2].split())
    if found := sorted(features & FAST_INT8):
        return ok("processor", f"int8 is fast ({', '.join(found)})")
    if features & {"avx2", "asimd"}:
        hint = "int8 bundles answer right, but gain less: compare with fp32 by `instructrec bench`"
        return warn("processor", "no instructions for int8 products (VNNI)", hint)
    return warn("processor", "no AVX2", "inference will be slow: use a newer machine")


def _memory(proc: Path, cgroup: Path) -> Finding:
    left = memory_mb(proc, cgroup)
    if left is None:
        return ok("memory", "what is left is not told here")
    told = f"{left:,.0f} MB left"
    if left >= MIN_MEMORY_MB:
        return ok("memory", told)
    return warn("memory", told, "a server takes 150 MB and more: free some, or raise the limit")


def _open_files() -> Finding:
    if sys.platform == "win32":
        return ok("open files", "no limit is told here")
    import resource

    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= MIN_OPEN_FILES:
        return ok("open files", f"up to {limit if limit != resource.RLIM_INFINITY else 'any'}")
    return warn(
        "open files",
        f"up to {limit}: one for each connection",
        f"ulimit -n {most if most != resource.RLIM_INFINITY else 65536}",
    )


def _engine(provider: providers.Provider) -> Finding:
    ort = providers.load_onnxruntime()
    chosen = providers.choose_providers(provider, ort.get_available_providers())
    names = ", ".join(name.removesuffix("ExecutionProvider") for name in chosen)
    return ok("onnxruntime", f"{ort.__version__}, {names}")


def _openvino() -> Finding:
    ov = openvino_session.load_openvino()
    return ok("openvino", f"{ov.__version__.partition('-')[0]}, CPU, as engine.runtime says")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
