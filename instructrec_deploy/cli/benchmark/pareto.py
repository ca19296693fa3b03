"""Which variants no other one beats in both speed and quality, and the picture of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instructrec_deploy.cli.benchmark.variants import TITLES
from instructrec_deploy.core.errors import MissingExtra

COLOURS = ("#0b6e4f", "#d1495b", "#30638e", "#edae49", "#6b4e71", "#8d6a4f", "#5b8e7d", "#444444")
MARKERS = {"onnxruntime": "o", "openvino": "s", "pytorch": "^"}
AREA_PER_MB = 2.0  # square points of a marker
LEAST_AREA = 30.0


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (more is better in both) that no other one beats, in their order.

    One point beats another that it equals or exceeds in both, and exceeds in one.
    """
    return [
        i
        for i, (x, y) in enumerate(points)
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points)
    ]


def mark_front(variants: Sequence[dict[str, Any]]) -> None:
    """Write into each variant whether it `is_on_front`, by `speed_of` and `quality_of`."""
    front = pareto_front([(speed_of(one)["ratio"], quality_of(one)[0]) for one in variants])
    for number, one in enumerate(variants):
        one["is_on_front"] = number in front


def speed_of(variant: dict[str, Any]) -> dict[str, Any]:
    """Its throughput as a multiple: on real lengths where they were measured."""
    speed = variant["speed"]
    found: dict[str, Any] = speed.get("real") or speed["fixed"]
    return found


def quality_of(variant: dict[str, Any]) -> tuple[float, float, float]:
    """Points against the reference with their interval; without labels, points of other labels."""
    answers = variant["answers"]
    if "loss_points" in answers:
        low, high = answers["loss_interval"]
        return -answers["loss_points"], -high, -low
    other = 100.0 * (answers["same_label"] - 1.0)
    return other, other, other


def load_figure() -> Any:
    """matplotlib's Figure.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra(
            "--plot draws with the package matplotlib, which is not installed",
            hint="pip install 'instructrec-deploy[plot]', or leave --plot out",
        ) from error
    return Figure


def draw_pareto(result: dict[str, Any], out: Path) -> list[Path]:
    """Speed against quality; a marker's area grows with the size on disk, its form is the engine.

    Args:
        result: of `run_compare`.
        out: its ending is replaced.

    Returns:
        The files that were written, PNG and SVG.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figure = load_figure()(figsize=(8.5, 5.0), layout="constrained")
    import matplotlib

    axes = figure.subplots()
    models = list(dict.fromkeys((v["model"], v["precision"]) for v in result["variants"]))
    for one in result["variants"]:
        x, (y, low, high) = speed_of(one), quality_of(one)
        colour = COLOURS[models.index((one["model"], one["precision"])) % len(COLOURS)]
        left, right = x["interval"]
        axes.errorbar(
            x["ratio"],
            y,
            xerr=[[max(0.0, x["ratio"] - left)], [max(0.0, right - x["ratio"])]],
            yerr=[[max(0.0, y - low)], [max(0.0, high - y)]],
            color=colour,
            lw=0.8,
            capsize=2,
            zorder=2,
        )
        axes.scatter(
            x["ratio"],
            y,
            s=LEAST_AREA + AREA_PER_MB * one["size_mb"],
            marker=MARKERS[one["engine"]],
            color=colour,
            edgecolor="black" if one["is_on_front"] else "none",
            label=f"{one['model']}, {TITLES[one['engine']]} {one['precision']}, "
            f"{one['size_mb']:.0f} MB",
            zorder=3,
        )
    front = sorted(
        (speed_of(v)["ratio"], quality_of(v)[0]) for v in result["variants"] if v["is_on_front"]
    )
    axes.step(*zip(*front, strict=True), where="pre", ls="--", lw=1, color="black", zorder=1)
    _label(axes, result)
    files = [out.with_suffix(".png"), out.with_suffix(".svg")]
    # The same figures, the same file.
    with matplotlib.rc_context({"svg.hashsalt": "instructrec"}):
        figure.savefig(files[0], dpi=130)
        figure.savefig(files[1], metadata={"Date": None})
    return files


def _label(axes: Any, result: dict[str, Any]) -> None:
    is_real = "real" in result["variants"][0]["speed"]
    has_labels = "loss_points" in result["variants"][0]["answers"]
    axes.set_xscale("log")
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    speeds = [speed_of(v)["ratio"] for v in result["variants"]]
    axes.set_xlim(min(speeds) / 1.3, max(speeds) * 1.3)
    lengths = "real lengths" if is_real else "fixed lengths"
    axes.set_xlabel(f"throughput on {lengths}, multiples of {result['baseline']}")
    what = "accuracy" if has_labels else "equal labels"
    axes.set_ylabel(f"{what}, points against\n{result['reference']}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="best", markerscale=0.7)
    machine, settings = result["machine"], result["settings"]
    axes.set_title(
        f"{settings['task']}, {settings['n_labels']} labels, {settings['n_rows']} rows; "
        f"{machine['n_cores']} cores; black edge: no other is better in both",
        fontsize=9,
    )
