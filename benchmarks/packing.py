"""Ways to compute texts of mixed lengths together (docs/adr/0010-unpadded-graphs.md).

    python benchmarks/packing.py RUN --out benchmarks/results/packing.json [--data FILE.jsonl.gz]

RUN is a run of `instructrec train` with a BERT-like base. Texts arrive in windows of 32, each of
which is answered before the next: alone, in one padded batch, sorted by length and cut into
batches of 4, 8 or 16, in *packed rows* (several texts in a row of 64 or 128 tokens under a
block-diagonal mask, positions restarted), and *unpadded* (export/unpad.py: one behind the other
but in attention), all at once or sorted and cut. All ways take turns in one process. Answers are
compared with those of each text alone, over the first window. Figures count processor time, of
all threads, so that other work on the machine disturbs them least.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from instructrec_deploy.cli.benchmark.figures import machine_facts
from instructrec_deploy.cli.benchmark.texts import load_texts
from instructrec_deploy.core.bundle import ENCODER_FILE
from instructrec_deploy.evaluation.reader import read_examples
from instructrec_deploy.export.equalize import equalize_graph
from instructrec_deploy.export.graphs import float_graphs
from instructrec_deploy.export.products import replace_nodes
from instructrec_deploy.export.quantize import quantize_graph
from instructrec_deploy.export.reference import Reference
from instructrec_deploy.export.samples import task_samples
from instructrec_deploy.export.source import read_run
from instructrec_deploy.export.unpad import unpad_graph
from instructrec_deploy.runtime.batching import BatchingSettings, BatchQueue
from instructrec_deploy.runtime.engine import pad_rows
from instructrec_deploy.runtime.providers import CPU, open_session

WINDOW = 32
CALL_TOKENS = (6, 12, 24, 48)  # padding that the queue takes on to save a call
CUTS = (4, 8, 16)  # texts of a batch cut from a sorted window
PACKED = ((64, 1), (128, 1), (64, 16))  # tokens of a row, and what texts begin at multiples of
MEAN_TOKENS, SPREAD, LONGEST = 26, 0.75, 166  # lognormal lengths as in the trial of the design
Row = Sequence[int]
Feed = dict[str, Any]
Window = list[list[int]]  # places in the list of texts, a list for each call


def packed_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """A fused BERT graph that reads packed rows.

    Inputs: input_ids, positions and segments [R, W] (segment 0 is padding), and where each text's
    tokens stand among all, [B, T], with attention_mask [B, T] as before.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    graph.input[0].CopyFrom(
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "width"])
    )
    for name, axes in {
        "positions": ["rows", "width"],
        "segments": ["rows", "width"],
        "places": ["batch", "tokens"],
    }.items():
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, axes))
    nodes = [
        helper.make_node("Unsqueeze", ["segments", "first"], ["of_keys"]),
        helper.make_node("Unsqueeze", ["segments", "second"], ["of_queries"]),
        helper.make_node("Equal", ["of_queries", "of_keys"], ["is_same"]),
        helper.make_node("Where", ["is_same", "near", "far"], ["bias_of_rows"]),
        helper.make_node("Unsqueeze", ["bias_of_rows", "first"], ["attention_bias"]),
    ]
    last = [n for n in graph.node if n.op_type == "LayerNormalization"][-1].output[0]
    for node in graph.node:
        new = onnx.NodeProto()
        new.CopyFrom(node)
        if node.op_type == "Gather" and "position_embeddings" in node.input[0]:
            new.input[1] = "positions"
        elif node.op_type == "Gather" and "token_type_embeddings" in node.input[0]:
            new.input[1] = "zero"
        elif node.op_type == "MultiHeadAttention":
            new.input[4] = ""
            new.input.append("attention_bias")
        elif last in node.input:
            for place, name in enumerate(node.input):
                if name == last:
                    new.input[place] = "states_of_texts"
        nodes.append(new)
        if last in node.output:
            nodes += [
                helper.make_node("Reshape", [last, "line"], ["states_in_line"]),
                helper.make_node("Gather", ["states_in_line", "places"], ["states_of_texts"]),
            ]
    hidden = next(
        numpy_helper.to_array(c).shape[1] for c in graph.initializer if "position" in c.name
    )
    added = {
        "first": np.array([1], np.int64),
        "second": np.array([2], np.int64),
        "zero": np.array([0], np.int64),
        "near": np.float32(0.0),
        "far": np.float32(-1e4),
        "line": np.array([-1, hidden], np.int64),
    }
    replace_nodes(
        graph, nodes, [numpy_helper.from_array(np.asarray(v), k) for k, v in added.items()]
    )
    return copy


def packed_feed(texts: Sequence[Row], size: int, step: int) -> Feed:
    """Texts, longest first, each into the first row that has room; they begin at multiples."""
    size = max(size, max(map(len, texts)))
    rows: list[list[tuple[int, int]]] = []  # of each row its texts and where they begin
    room: list[int] = []
    for text in sorted(range(len(texts)), key=lambda text: -len(texts[text])):
        place = next((r for r, free in enumerate(room) if free >= len(texts[text])), len(rows))
        if place == len(rows):
            rows.append([])
            room.append(size)
        rows[place].append((text, size - room[place]))
        room[place] -= math.ceil(len(texts[text]) / step) * step
    width = max(start + len(texts[text]) for row in rows for text, start in row)
    ids, positions, segments = (np.zeros((len(rows), width), np.int64) for _ in range(3))
    _, mask = pad_rows(texts, 0)
    places = np.zeros(mask.shape, np.int64)
    for row, inside in enumerate(rows):
        for number, (text, start) in enumerate(inside, start=1):
            n_tokens = len(texts[text])
            end = start + n_tokens
            ids[row, start:end] = texts[text]
            positions[row, start:end] = np.arange(n_tokens)
            segments[row, start:end] = number
            places[text, :n_tokens] = row * width + np.arange(start, end)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "positions": positions,
        "segments": segments,
        "places": places,
    }


def padded_feed(texts: Sequence[Row]) -> Feed:
    """One row each."""
    ids, mask = pad_rows(texts, 0)
    return {"input_ids": ids, "attention_mask": mask}


def cut(window: Sequence[int], texts: Sequence[Row], n_texts: int) -> Window:
    """Batches of so many texts, those of like length together."""
    ordered = sorted(window, key=lambda text: len(texts[text]))
    return [ordered[i : i + n_texts] for i in range(0, len(ordered), n_texts)]


def queued(window: Sequence[int], texts: Sequence[Row], call_tokens: int) -> Window:
    """The batches that the server's queue forms of a window that waits."""
    settings = BatchingSettings(call_tokens=call_tokens).fitted()
    queue: BatchQueue[int] = BatchQueue(settings, clock=lambda: 0.0)
    for text in window:
        queue.reserve()
        queue.put(text, n_tokens=len(texts[text]))
    batches = []
    while batch := queue.take().batch:
        batches.append([entry.payload for entry in batch])
    return batches


class Way:
    """One way to answer a window."""

    def __init__(
        self,
        name: str,
        session: Any,
        split: Callable[[list[int]], Window],
        feed: Callable[[Sequence[Row]], Feed],
    ) -> None:
        self.name = name
        self._session, self._split, self._feed = session, split, feed

    def calls(
        self, windows: Sequence[list[int]], texts: Sequence[Row]
    ) -> list[tuple[list[int], Feed]]:
        """What is computed, made ready beforehand."""
        return [
            (batch, self._feed([texts[i] for i in batch]))
            for window in windows
            for batch in self._split(window)
        ]

    def answer(self, feed: Feed) -> Any:
        """The first output, a row for each text of a batch."""
        return self._session.run(None, feed)[0]


def ways(paths: dict[str, Path], texts: Sequence[Row], n_threads: int) -> list[Way]:
    """All of them, with sessions of so many threads."""
    plain, flat, packed = (
        open_session(paths[name], providers=[CPU], n_threads=n_threads)
        for name in ("padded", "unpadded", "packed")
    )
    found = [
        Way("alone", plain, lambda w: [[i] for i in w], padded_feed),
        Way("alone, unpadded graph", flat, lambda w: [[i] for i in w], padded_feed),
        Way("arrival order", plain, lambda w: [w], padded_feed),
    ]
    for n in CUTS:
        split = lambda w, n=n: cut(w, texts, n)  # noqa: E731
        found.append(Way(f"sorted, {n} a batch", plain, split, padded_feed))
    for size, step in PACKED:
        feed = lambda t, size=size, step=step: packed_feed(t, size, step)  # noqa: E731
        begin = f", beginning at {step}s" if step > 1 else ""
        found.append(Way(f"packed rows of {size}{begin}", packed, lambda w: [w], feed))
    found.append(Way("unpadded, all at once", flat, lambda w: [w], padded_feed))
    for n in CUTS:
        split = lambda w, n=n: cut(w, texts, n)  # noqa: E731
        found.append(Way(f"unpadded, sorted, {n} a batch", flat, split, padded_feed))
    for name, session, n_tokens in (
        ("queued", plain, CALL_TOKENS[:1]),
        ("unpadded, queued", flat, CALL_TOKENS),
    ):
        for n in n_tokens:
            split = lambda w, n=n: queued(w, texts, n)  # noqa: E731
            found.append(Way(f"{name}, a call worth {n} tokens", session, split, padded_feed))
    return found


def measure(found: Sequence[Way], texts: Sequence[Row], n_threads: int, rounds: int) -> Feed:
    """Texts per second of processor time (of all threads), each way in turn.

    Of each window the fastest round counts: what other programs take from the machine only adds.
    """
    clock = time.process_time
    windows = cut_windows(texts)
    calls = {way.name: [way.calls([window], texts) for window in windows] for way in found}
    spent = {way.name: np.zeros((rounds + 1, len(windows))) for way in found}
    for turn in range(rounds + 1):
        for number in range(len(windows)):
            for way in found:
                begun = clock()
                for _, feed in calls[way.name][number]:
                    way.answer(feed)
                spent[way.name][turn, number] = clock() - begun
    least = {name: seconds[1:].min(axis=0) for name, seconds in spent.items()}  # [0] warms up
    n_texts = len(windows) * WINDOW
    rows = {}
    for name, seconds in least.items():
        rows[name] = {"texts_per_s": round(n_texts / seconds.sum(), 1)}
        for n in CUTS:
            base = least[f"sorted, {n} a batch"]
            rows[name][f"of_sorted_{n}"] = round(base.sum() / seconds.sum(), 3)
    return {"threads": n_threads, "ways": rows}


def cut_windows(texts: Sequence[Row]) -> Window:
    """Texts as they come, 32 at a time."""
    return [list(range(i, i + WINDOW)) for i in range(0, len(texts) - WINDOW + 1, WINDOW)]


def differences(found: Sequence[Way], texts: Sequence[Row]) -> Feed:
    """Largest difference of a probability from the text alone in the padded graph, and labels."""
    windows = cut_windows(texts)
    truth: dict[int, Any] = {}
    rows = {}
    for way in found:
        answers: dict[int, Any] = {}
        for batch, feed in way.calls(windows, texts):
            answers.update(zip(batch, _softmax(way.answer(feed)), strict=True))
        truth = truth or answers
        off = [np.abs(answers[i] - truth[i]).max() for i in truth]
        same = [answers[i].argmax() == truth[i].argmax() for i in truth]
        rows[way.name] = {"largest": float(max(off)), "labels_differ": int(len(same) - sum(same))}
    return rows


def _softmax(logits: Any) -> Any:
    scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return scores / scores.sum(axis=-1, keepdims=True)


def write_graphs(run: Path, folder: Path) -> tuple[dict[str, dict[str, Path]], Reference]:
    """Each precision's graphs, padded, unpadded and packed."""
    source = read_run(run)
    reference = Reference(source.checkpoint)
    samples = task_samples(source.book, source.own_samples)
    graph = float_graphs(source.checkpoint, work=folder)[ENCODER_FILE]
    own = [sample.request for chosen in samples.values() for sample in chosen][:128]
    equal = equalize_graph(graph, reference.batches(own), work=folder)
    paths: dict[str, dict[str, Path]] = {"fp32": {}, "int8": {}}
    for name, change in (
        ("padded", lambda graph: graph),
        ("unpadded", unpad_graph),
        ("packed", packed_graph),
    ):
        for precision, model in (
            ("fp32", change(graph)),
            ("int8", quantize_graph(change(equal))[0]),
        ):
            paths[precision][name] = folder / f"{precision}-{name}.onnx"
            onnx.save(model, paths[precision][name])
    return paths, reference


def text_sets(
    reference: Reference, data: Path | None, n_texts: int
) -> Iterator[tuple[str, list[list[int]]]]:
    """Tokenized texts: of lognormal lengths, those of `instructrec bench`, and a file's."""
    rng = np.random.default_rng(0)
    mu = np.log(MEAN_TOKENS) - SPREAD**2 / 2
    lengths = np.clip(rng.lognormal(mu, SPREAD, n_texts).round().astype(int), 4, LONGEST)
    words = reference.tokenizer.encode_texts(["account balance card payment transfer today"])[0].ids
    yield (
        "lognormal",
        [[words[0], *rng.choice(words[1:-1], n - 2).tolist(), words[-1]] for n in lengths],
    )
    shipped = load_texts("")
    order = rng.integers(0, len(shipped), n_texts)
    yield "shipped", [e.ids for e in reference.tokenizer.encode_texts([shipped[i] for i in order])]
    if data is not None:
        rows = list(read_examples(data))
        chosen = [rows[i].text for i in rng.permutation(len(rows))[:n_texts]]
        yield data.name, [e.ids for e in reference.tokenizer.encode_texts(chosen)]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=128, help="texts of each set")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    result: Feed = {"run": options.run.name, "window": WINDOW, "rounds": options.rounds, "sets": {}}
    with tempfile.TemporaryDirectory() as folder:
        paths, reference = write_graphs(options.run, Path(folder))
        sets = dict(text_sets(reference, options.data, options.n))
        for name, texts in sets.items():
            lengths = [len(text) for text in texts]
            one: Feed = {
                "n": len(texts),
                "mean_tokens": round(statistics.mean(lengths), 1),
                "longest": max(lengths),
                "speed": [],
                "differences": {},
            }
            result["sets"][name] = one
            for precision in ("int8", "fp32"):
                found = ways(paths[precision], texts, 1)
                one["differences"][precision] = differences(found, texts[:WINDOW])
        for n_threads in (1, 2):
            for name, texts in sets.items():
                found = ways(paths["int8"], texts, n_threads)
                result["sets"][name]["speed"].append(
                    measure(found, texts, n_threads, options.rounds)
                )
                print_set(name, result["sets"][name])
                result["machine"] = machine_facts()
                options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def print_set(name: str, one: Feed) -> None:
    """The newest speeds."""
    speed = one["speed"][-1]
    print(f"\n{name}: mean {one['mean_tokens']} tokens, {speed['threads']} threads")
    for way, row in speed["ways"].items():
        off = one["differences"]["int8"][way], one["differences"]["fp32"][way]
        ratios = " ".join(f"{row[f'of_sorted_{n}']:.2f}" for n in CUTS)
        print(
            f"{way:38s} {row['texts_per_s']:8.1f}/s  of sorted {CUTS}: {ratios}  "
            f"int8 {off[0]['largest']:.1e} {off[0]['labels_differ']}  "
            f"fp32 {off[1]['largest']:.1e} {off[1]['labels_differ']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
