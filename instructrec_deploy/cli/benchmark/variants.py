"""What a comparison of compressed models compares: each bundle with each runtime, and PyTorch."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from instructrec_deploy.core.bundle import (
    ENCODER_FILE,
    FUSION_FILE,
    MANIFEST_FILE,
    Bundle,
    open_bundle,
)
from instructrec_deploy.core.errors import ConfigError, MissingExtra
from instructrec_deploy.runtime.engine import refuse_writer

EngineName = Literal["onnxruntime", "openvino", "pytorch"]
STOCK = "stock dynamic int8"
TITLES: dict[EngineName, str] = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "pytorch": "PyTorch eager",
}


@dataclass(frozen=True, slots=True)
class Variant:
    """A model in one precision, and what computes it."""

    model: str  # a bundle's folder name, `STOCK`, or the run's
    engine: EngineName
    precision: str
    folder: str  # the bundle, or the run
    size_bytes: int  # on disk: all files of a bundle, or of the run's checkpoint

    @property
    def name(self) -> str:
        """Unique among the variants of a run."""
        return f"{self.model}, {TITLES[self.engine]} {self.precision}"

    def facts(self) -> dict[str, Any]:
        """Plain data, the folder's place apart."""
        told = asdict(self)
        del told["folder"]
        return {"name": self.name, **told}


def list_variants(
    bundles: Sequence[Path], *, checkpoint: Path | None = None, work: Path
) -> list[Variant]:
    """All variants, in the order of the table: PyTorch, stock int8, then the bundles as given.

    Args:
        bundles: folders; from the first one in fp32 the stock int8 is made.
        checkpoint: the run they were exported from; None: no PyTorch.
        work: a folder for what is made here.

    Raises:
        FileMissing, BundleError: a folder is no bundle, or one that writes text.
        ConfigError: two bundles with the same folder name.
        MissingExtra: a package of training or export is missing.
    """
    opened = {path.resolve().name: open_bundle(path) for path in bundles}
    for bundle in opened.values():
        refuse_writer(bundle)
    if len(opened) < len(bundles):
        raise ConfigError(
            "two bundles have the same folder name", hint="rename one: tables go by it"
        )
    found = [] if checkpoint is None else _pytorch(checkpoint)
    floats = next((b for b in opened.values() if b.manifest.model.precision == "fp32"), None)
    if floats is not None:
        stock = open_bundle(write_stock_int8(floats, work / "stock-int8"))
        found.append(_variant(STOCK, stock, "onnxruntime"))
    runtimes: list[EngineName] = ["onnxruntime"]
    if find_spec("openvino") is not None:
        runtimes.append("openvino")
    for name, bundle in opened.items():
        found += [_variant(name, bundle, runtime) for runtime in runtimes]
    return found


def write_stock_int8(bundle: Bundle, folder: Path) -> Path:
    """A copy of an fp32 bundle with its graphs in ONNX Runtime's own dynamic int8.

    One activation scale for each tensor, so answers depend on who shares the batch; one weight
    scale for each channel, signed weights. What a user of `quantize_dynamic` would have.

    Raises:
        MissingExtra: onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtra(
            "ONNX Runtime's dynamic int8 is made with the package onnx, which is not installed",
            hint="pip install 'instructrec-deploy[train]', or compare int8 bundles alone",
        ) from error
    from instructrec_deploy.export.pack import file_entries, write_manifest
    from instructrec_deploy.runtime.providers import load_onnxruntime

    load_onnxruntime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    shutil.copytree(bundle.root, folder)
    for name in (ENCODER_FILE, FUSION_FILE):
        if bundle.has(name):
            with _quiet_root_logger():
                quantize_dynamic(
                    str(bundle.path(name)),
                    str(folder / name),
                    per_channel=True,
                    weight_type=QuantType.QInt8,
                    extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
                )
    (folder / MANIFEST_FILE).unlink()
    model = bundle.manifest.model.model_copy(update={"precision": "int8"})
    changes = {"name": f"{bundle.manifest.name}-stock", "model": model}
    manifest = bundle.manifest.model_copy(update=changes | {"files": file_entries(folder)})
    write_manifest(folder, manifest)
    return folder


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """The quantizer advises a preparation that the graphs have had, in the root logger's name."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _variant(name: str, bundle: Bundle, engine: EngineName) -> Variant:
    size = sum(entry.size_bytes for entry in bundle.manifest.files.values())
    return Variant(name, engine, bundle.manifest.model.precision, str(bundle.root), size)


def _pytorch(run: Path) -> list[Variant]:
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise MissingExtra(
            "--checkpoint measures PyTorch, which is not installed",
            hint="pip install 'instructrec-deploy[train]', or leave --checkpoint out",
        )
    from instructrec_deploy.export.source import CHECKPOINT_FOLDER
    from instructrec_deploy.models.arithmetic import has_bf16

    size = sum(p.stat().st_size for p in (run / CHECKPOINT_FOLDER).rglob("*") if p.is_file())
    name = run.resolve().name
    precisions = ["fp32", "bf16"] if has_bf16() else ["fp32"]
    return [Variant(name, "pytorch", p, str(run), size) for p in precisions]
