"""CARD.md in plain words: what a bundle is, how good it is, how to use it, what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from instructrec_deploy.core.manifest import Manifest, TaskBook, TaskSpec
from instructrec_deploy.evaluation.figures import HEADLINES

MEGABYTE = 1_000_000
MAX_LABELS = 12  # named in the table of tasks
PRECISIONS = {
    "fp32": "32-bit floats, as trained",
    "fp16": "16-bit floats in products, attention and embeddings; sums, norms and softmax in 32 "
    "bits",
    "int8": "8-bit weights and embeddings; activations 8 bit with one scale per token, "
    "so that an answer never depends on the rest of its batch",
    "int8-weights": "8-bit weights in blocks of 32 and 8-bit embeddings; activations in 32-bit "
    "floats",
    "int4-weights": "4-bit weights in blocks of 32, 8-bit embeddings and output words; activations "
    "in 32-bit floats",
}
KINDS = {
    "instruction-encoder": "an instruction encoder: texts and candidates are read apart, any "
    "instruction with any candidates can be asked",
    "sequence-classification": "a sequence classifier with fixed labels; the words of an "
    "instruction are ignored",
    "token-classification": "a token classifier: it finds the types of entities that its head "
    "was tuned for; the words of an instruction are ignored",
    "question-answering": "a reader of questions: a question and its passage are read as a pair, "
    "the answer is a span of the passage",
    "seq2seq": "an encoder that reads a text and a decoder that writes another one",
    "causal": "a decoder that writes on where a text ends",
}


def write_card(
    manifest: Manifest, book: TaskBook, evaluation: Mapping[str, Any], *, safety: str = ""
) -> str:
    """The card's text.

    Args:
        manifest: of the bundle; its `files` hold at least the graphs and the tokenizer.
        book: the bundle's tasks.
        evaluation: content of evaluation.json: the training's figures (`before`, `after`, by
            task) where there was one, and the export's under `export`.
        safety: the section about the safety policy, in Markdown.
    """
    parts = [
        f"# {manifest.name} {manifest.version}",
        summary(manifest),
        *_tasks(book),
        *_quality(evaluation),
        *_parity(evaluation.get("export", {}), manifest),
        *_vocabulary(evaluation.get("export", {})),
        *_stages(evaluation.get("export", {})),
        *_usage(manifest, book),
        *((safety,) if safety else ()),
        *_limits(manifest, book, evaluation),
        *origin(manifest, evaluation),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def summary(manifest: Manifest) -> str:
    """The table of what the model is."""
    model = manifest.model
    size = sum(entry.size_bytes for entry in manifest.files.values()) / MEGABYTE
    rows = [
        ("Model", KINDS[model.kind]),
        ("Base", model.base or "not stated"),
        ("Parameters", f"{model.n_parameters / 1e6:.1f} million"),
        ("Precision", f"{model.precision}: {PRECISIONS[model.precision]}"),
        ("Size", f"{size:.1f} MB"),
        ("Window", f"{model.max_tokens} tokens; longer texts lose their end"),
        ("Created", manifest.created),
    ]
    return table(("", ""), rows)


def _tasks(book: TaskBook) -> Sequence[str]:
    if not book.tasks:
        return ("## Tasks\n\nNone of its own: send an instruction with candidates.",)
    rows = []
    for name, spec in book.tasks.items():
        labels = ", ".join(spec.labels[:MAX_LABELS])
        if len(spec.labels) > MAX_LABELS:
            labels += f" and {len(spec.labels) - MAX_LABELS} more"
        mark = " (default)" if name == book.default_task else ""
        rows.append((f"{name}{mark}", spec.kind.value, _wording(spec), labels))
    return ("## Tasks", table(("Task", "Kind", "Instruction", "Labels"), rows))


def _wording(spec: TaskSpec) -> str:
    wordings = spec.instructions.get(spec.lang) or next(iter(spec.instructions.values()), ("",))
    return wordings[0]


def _quality(evaluation: Mapping[str, Any]) -> Sequence[str]:
    after = evaluation.get("after")
    if not isinstance(after, Mapping) or not after:
        return ("## Quality\n\nNot measured: the run holds no evaluation.",)
    before = evaluation.get("before") or {}
    splits = evaluation.get("split") or {}
    rows = [
        (
            task,
            str(splits.get(task, "")),
            str(figures.get("n", "")),
            words,
            _interval(before.get(task, {}), name),
            _interval(figures, name),
        )
        for task, figures in after.items()
        if isinstance(figures, Mapping)
        for name, words in HEADLINES.items()
        if name in figures
    ]
    notes = (
        "Of the checkpoint, before its export, on rows it was not tuned on "
        "(95 % bootstrap intervals)."
    )
    if any("ece" in figures for figures in after.values() if isinstance(figures, Mapping)):
        notes += (
            " The calibration error is the mean distance between the probability an answer states "
            "and the share of such answers that is right: less is better."
        )
    return (
        "## Quality",
        notes,
        table(("Task", "Split", "Rows", "Figure", "Untuned", "Tuned"), rows),
    )


def _interval(figures: Mapping[str, Any], name: str) -> str:
    value = figures.get(name)
    if not isinstance(value, int | float):
        return "-"
    low, high = figures.get(f"{name}_interval") or (None, None)
    return f"{value:.3f}" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _parity(export: Mapping[str, Any], manifest: Manifest) -> Sequence[str]:
    parity = export.get("parity")
    if not isinstance(parity, Mapping):
        return ()
    return (
        "## Against its checkpoint",
        f"On {parity['n_texts']} texts this bundle gave the checkpoint's label for "
        f"{parity['agreement']:.1%} (ties within the mean difference count as equal). A text's "
        f"most different probability moved by {parity['mean_difference']:.4f} on average and by "
        f"{parity['max_difference']:.4f} at most. Asked alone and in a batch of mixed lengths, a "
        f"probability differed by at most {parity['batch_difference']:.6f}. When it is loaded, "
        f"golden.jsonl is run again: labels must be equal and probabilities within "
        f"{manifest.score_tolerance:g}, or it is refused.",
    )


def _vocabulary(export: Mapping[str, Any]) -> Sequence[str]:
    cut = export.get("vocabulary")
    if not isinstance(cut, Mapping):
        return ()
    words = (
        f"{cut['n_after']:,} of {cut['n_before']:,} pieces were kept, among them all that the "
        f"{cut['n_texts']:,} texts of a corpus and this bundle's own labels and instructions "
        "need. Those are read as before, piece by piece; this was checked on each of them. "
    )
    unseen = cut.get("unseen")
    if not isinstance(unseen, Mapping):
        return ("## Vocabulary", words + "What other texts lose was not measured.")
    return (
        "## Vocabulary",
        f"{words}Of {unseen['n_texts']:,} texts that a trial had left out, "
        f"{unseen['unchanged']:.1%} were read as before, in all with "
        f"{unseen['growth'] - 1:.1%} more pieces; "
        f"{unseen['unknown']:.3%} of the pieces were unknown "
        f"({unseen['unknown_before']:.3%} before). Words in other scripts are mostly unknown.",
    )


def _stages(export: Mapping[str, Any]) -> Sequence[str]:
    """What each stage of an export by a plan gave and cost."""
    stages = export.get("stages")
    if not isinstance(stages, list) or not stages:
        return ()
    rows = []
    for stage in stages:
        told = {k: v for k, v in stage["settings"].items() if v not in (0, 1.0)}
        settings = ", ".join(f"{key} {value}" for key, value in told.items())
        speedup, quality = stage.get("speedup"), stage.get("quality")
        rows.append(
            (
                stage["stage"] + (f": {settings}" if settings else ""),
                f"{stage['size_bytes'] / MEGABYTE:.1f} MB",
                f"{speedup:.2f}" if speedup else "-",
                f"{quality['value']:.4f}" if quality else "-",
                f"{stage['loss_points']:.2f}" if "loss_points" in stage else "-",
            )
        )
    return (
        "## Stages",
        f"Plan: {export.get('plan', '')}. Quality: the headline on validation rows, the mean over "
        "tasks. Speed: against the run's own bundle in 32-bit floats, both in turn, where it was "
        "exported.",
        table(("Stage", "Size", "Speed", "Quality", "Points lost"), rows),
    )


def _usage(manifest: Manifest, book: TaskBook) -> Sequence[str]:
    ask = [
        "from instructrec_deploy import Predictor",
        "",
        'with Predictor("this/folder") as predictor:',
    ]
    if book.default_task:
        ask.append('    print(predictor.predict("some text").label)')
    if manifest.model.kind == "instruction-encoder":
        ask.append(
            '    print(predictor.predict("some text", instruction="Is it urgent?", '
            'candidates=["urgent", "it can wait"]).label)'
        )
    return (
        "## Use",
        "```sh\ninstructrec serve this/folder\n```",
        "```python\n" + "\n".join(ask) + "\n```",
    )


def _limits(manifest: Manifest, book: TaskBook, evaluation: Mapping[str, Any]) -> Sequence[str]:
    languages = sorted({lang for spec in book.tasks.values() for lang in spec.instructions})
    lines = [
        *_decisions(book),
        "A probability is a softmax over the candidates of one question: it says nothing about "
        "candidates that were not asked, and two questions' probabilities do not compare.",
        f"Languages its instructions are written in: {', '.join(languages) or 'none stated'}. "
        "Others were not tested.",
    ]
    if manifest.model.kind == "instruction-encoder":
        lines.append(
            "The figures above hold for the tasks named. Other instructions are answered too, "
            "less well: measure with `instructrec evaluate` before relying on them."
        )
    if manifest.model.precision == "int8":
        lines.append(
            "Labels of texts near the border between two candidates may differ from the "
            "checkpoint's (see above); export with precision fp32 where that matters."
        )
    if evaluation.get("export", {}).get("has_own_samples"):
        lines.append(
            "golden.jsonl holds some texts of the training data, word for word: do not hand the "
            "bundle to those who may not read them."
        )
    return ("## Limits", "\n".join(f"- {line}" for line in lines))


def _decisions(book: TaskBook) -> Sequence[str]:
    """Which tasks may answer with several labels or with none."""
    rules = {name: spec.deciding() for name, spec in book.tasks.items()}
    several = [name for name, rule in rules.items() if rule.is_any]
    none = [
        name
        for name, rule in rules.items()
        if rule.is_any or rule.has_none or rule.min_confidence > 0
    ]
    lines = []
    if several:
        lines.append(
            f"Several labels at once, each with a probability of its own: {', '.join(several)}."
        )
    rest = "It" if not none else "Every other task"
    if none:
        lines.append(f"May find that nothing fits: {', '.join(none)}.")
    if len(none) < max(1, len(rules)):
        lines.append(
            f"{rest} always picks one of the candidates, also for a text that fits none of them, "
            "unless the request asks for a threshold."
        )
    return lines


def origin(manifest: Manifest, evaluation: Mapping[str, Any]) -> Sequence[str]:
    """Where the weights come from."""
    lines = [
        f"Base model: {manifest.model.base or 'not stated'}"
        + (f" ({origin})." if (origin := evaluation.get("base_origin")) else ".")
        + " Its licence holds for this bundle too; so do the terms of the data it was tuned on.",
    ]
    if recipe := evaluation.get("recipe"):
        seed = evaluation.get("seed")
        lines.append(f"Recipe: {recipe}" + (f", seed {seed}." if seed is not None else "."))
    if rows := evaluation.get("rows"):
        tuned = "; ".join(
            f"{task}: " + ", ".join(f"{n} {part}" for part, n in counts.items())
            for task, counts in rows.items()
            if isinstance(counts, Mapping)
        )
        lines.append(f"Rows: {tuned}.")
    if manifest.parent_sha256:
        lines.append(f"SHA-256 of the checkpoint's weights: `{manifest.parent_sha256}`.")
    return ("## Origin", "\n".join(f"- {line}" for line in lines))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
