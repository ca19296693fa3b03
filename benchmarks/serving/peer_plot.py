"""Draw what `peers.py` wrote: throughput by callers, and latency at the same open load.

python peer_plot.py RESULT.json     writes RESULT.png and RESULT.svg beside it
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

COLOURS = {"ours": "#0b6e4f", "naive": "#9a9a9a"}
MORE = ("#d1495b", "#edae49", "#30638e", "#6b4e71", "#8d6a4f")
OWN_LINES = {"batch_16": ("batches of 16", "--"), "stream": ("one stream", ":")}
OPEN = {"open_poisson": "random moments", "open_bursts": "bursts of 16"}


def draw(result: dict[str, Any], out: Path) -> None:
    """Two pictures side by side, as PNG and SVG."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    servers: dict[str, Any] = result["servers"]
    others = iter(MORE)
    colours = {name: COLOURS.get(name) or next(others) for name in servers}
    for name, server in servers.items():
        points = server["points"]
        callers = sorted(int(p.split("_")[1]) for p in points if p.startswith("closed_"))
        shares = [points[f"closed_{n}"]["of_bound"] for n in callers]
        middle = [share["median"] for share in shares]
        error = [
            [share["median"] - share["min"] for share in shares],
            [share["max"] - share["median"] for share in shares],
        ]
        left.errorbar(
            range(len(callers)),
            middle,
            error,
            marker="o",
            capsize=3,
            color=colours[name],
            label=name,
        )
        for point, (title, style) in OWN_LINES.items():
            if point in points:
                share = points[point]["of_bound"]["median"]
                left.axhline(share, ls=style, lw=1, color=colours[name], label=f"{name}, {title}")
    left.set_xticks(range(len(callers)), [str(n) for n in callers])
    left.set(xlabel="callers, closed loop", ylabel="share of the engine in process", ylim=(0, None))
    left.legend(fontsize=8)
    width = 0.8 / len(servers)
    for place, (name, server) in enumerate(servers.items()):
        found = [server["points"][point]["p99_ms"] for point in OPEN]
        right.bar(
            [at + place * width for at in range(len(OPEN))],
            [one["median"] for one in found],
            width,
            color=colours[name],
            label=name,
        )
    right.set_xticks([at + 0.4 - width / 2 for at in range(len(OPEN))], list(OPEN.values()))
    rate = result["open_calls_per_s"]["median"]
    right.set(ylabel="p99, ms", yscale="log", xlabel=f"open loop, {rate:.0f} calls a second")
    right.legend(fontsize=8)
    machine, settings = result["machine"], result["settings"]
    figure.suptitle(
        f"{settings['bundle']}, {settings['n_labels']} labels, {machine['n_cores']} cores, "
        f"{settings['n_rounds']} rounds (bars: least and greatest)",
        fontsize=10,
    )
    figure.savefig(out.with_suffix(".png"), dpi=120)
    with matplotlib.rc_context({"svg.hashsalt": "peers"}):  # the same figures, the same file
        figure.savefig(out.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    path = Path(sys.argv[1])
    draw(json.loads(path.read_text(encoding="utf-8")), path)
