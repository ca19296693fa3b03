"""From files to tokenized rows and length-bucketed batches."""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from instructrec_deploy.core.errors import ConfigError, FileMissing
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.instruction import Candidate
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.task import SHAPES, Shape, TaskKind
from instructrec_deploy.evaluation.reader import read_examples
from instructrec_deploy.evaluation.requests import read_items
from instructrec_deploy.evaluation.targets import entities_of, label_of, label_set_of
from instructrec_deploy.text.tokenizer import TextTokenizer
from instructrec_training.catalogue import Catalogue, user_of
from instructrec_training.injected import with_attacks
from instructrec_training.mixture import Mixture, row_factors
from instructrec_training.prompted import rename_labels, rows_where, take_apart
from instructrec_training.recipe import DataPart, Recipe
from instructrec_training.rows import Row
from instructrec_training.tokenize_rows import labels_of, rows_of

DATA_ROOT_VARIABLE = "INSTRUCTREC_DATA"
SHIPPED = "shipped:"
SHIPPED_DATA = Path(__file__).parent / "data"
BUCKET_BATCHES = 16  # rows of so many batches are sorted by length together
MAX_NOTED = 5  # labels that a note names
EVALUATION_TOKENS = 4096  # of a batch, padding with it; many long rows at once fall out of caches


@dataclass(frozen=True, slots=True)
class TaskData:
    """One task's rows; `spec` has its labels filled in."""

    name: str
    spec: TaskSpec
    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]
    weight: float  # how often the mixture shows its rows; the mean over its files
    notes: tuple[str, ...] = ()  # what its recipe and its rows do not agree on

    @property
    def held_out(self) -> tuple[Row, ...]:
        """Test rows, or the validation rows where there are none."""
        return self.test or self.validation


def data_root(given: str | Path | None) -> Path:
    """Where relative data paths start: the option, else INSTRUCTREC_DATA, else here."""
    return Path(given or os.environ.get(DATA_ROOT_VARIABLE) or ".")


def resolve_data(path: str, root: Path) -> Path:
    """The file a recipe means.

    Raises:
        FileMissing: it is not there.
    """
    shipped = path.startswith(SHIPPED)
    file = SHIPPED_DATA / path.removeprefix(SHIPPED) if shipped else root / path
    if not file.is_file():
        raise FileMissing(
            f"no data file {path!r}" + ("" if shipped else f" under {root.absolute()}"),
            hint=f"say where the data lies with --data-root DIR or {DATA_ROOT_VARIABLE}",
        )
    return file


def in_validation(example_id: str, share: float) -> bool:
    """Whether a hash of the row's id puts it among the validation rows; the same everywhere."""
    digest = hashlib.sha256(example_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def load_task_data(recipe: Recipe, root: Path, tokenizer: TextTokenizer) -> list[TaskData]:
    """Read, split and tokenize all data of a recipe, one TaskData per task in recipe order."""
    loaded = []
    for name, spec in recipe.tasks.items():
        parts = [part for part in recipe.data if part.task == name]
        if parts:
            loaded.append(_load_task(name, spec, parts, root, tokenizer, recipe=recipe))
    return loaded


def _load_task(
    name: str,
    spec: TaskSpec,
    parts: Sequence[DataPart],
    root: Path,
    tokenizer: TextTokenizer,
    *,
    recipe: Recipe,
) -> TaskData:
    seed = recipe.training.seed
    trains: list[list[Example]] = []
    validation: list[Example] = []
    test: list[Example] = []
    n_silent = 0
    for part in parts:
        splits = _split(part, resolve_data(part.path, root), spec)
        train, *held_out = [[row for row in rows if _says_something(row)] for rows in splits]
        n_silent += sum(map(len, splits)) - len(train) - sum(map(len, held_out))
        train = few_shot(train, spec, part.shots, seed=seed) if part.shots else train
        trains.append(
            with_attacks(train, spec, part.attacked, seed=seed) if part.attacked else train
        )
        validation += held_out[0]
        test += held_out[1]
    if not any(trains):
        raise ConfigError(
            f"task {name!r} has no training rows", hint="check the path and `train_split`"
        )
    if recipe.training.evaluation_rows:
        validation = _drawn(validation, recipe.training.evaluation_rows, seed=seed)
        test = _drawn(test, recipe.training.evaluation_rows, seed=seed)
    train = list(chain.from_iterable(trains))
    catalogue = None
    if spec.kind is TaskKind.RANKING:
        catalogue = Catalogue.of(train, _items(parts, root))
        spec = catalogue.complete(spec)
    spec = spec.model_copy(update={"labels": spec.labels or labels_of(spec, train)})

    def tokenized(
        examples: Sequence[Example], *, is_training: bool = False, window_tokens: int = 0
    ) -> tuple[Row, ...]:
        return tuple(
            rows_of(
                examples,
                spec,
                tokenizer,
                is_training=is_training,
                catalogue=catalogue,
                joint_questions=recipe.model.reads_questions,
                window_tokens=window_tokens,
            )
        )

    files = [
        tokenized(examples, is_training=True, window_tokens=part.window_tokens)
        for examples, part in zip(trains, parts, strict=True)
    ]
    rows, weight = _weigh(files, [part.weight for part in parts])
    notes = _label_notes(spec, train, chain(train, validation, test))
    if n_silent:
        notes += (f"without a text, and left out: {n_silent} rows",)
    return TaskData(name, spec, rows, tokenized(validation), tokenized(test), weight, notes)


def _says_something(row: Example) -> bool:
    """Whether a model may be asked about it: a server refuses a text of nothing but spaces."""
    return bool(row.text.strip() or "history" in row.extra)


def _label_notes(
    spec: TaskSpec, train: Iterable[Example], examples: Iterable[Example]
) -> tuple[str, ...]:
    """Labels that rows have and the task does not, and the other way round."""
    if spec.kind in (TaskKind.RANKING, TaskKind.QA):
        return ()

    def labels_in(example: Example) -> Iterable[str]:
        if SHAPES[spec.kind] is Shape.EXTRACT:
            return {kind for _, _, kind in entities_of(example)}
        return label_set_of(example) if spec.decision == "any" else {label_of(example)}

    known = {*spec.labels, spec.none_label}
    n_unknown = Counter(x for row in examples for x in labels_in(row) if x not in known)
    missing = set(spec.labels) - {label for row in train for label in labels_in(row)}
    notes = []
    if n_unknown:
        found = ", ".join(f"{label!r} ({n} rows)" for label, n in n_unknown.most_common(MAX_NOTED))
        notes.append(f"not among its labels, and left out: {found}")
    if missing:
        found = ", ".join(f"{label!r}" for label in sorted(missing)[:MAX_NOTED])
        notes.append(f"no training row has {found}")
    return tuple(notes)


def _weigh(
    files: Sequence[tuple[Row, ...]], weights: Sequence[float]
) -> tuple[tuple[Row, ...], float]:
    """All rows with their share, and the mean weight of a row."""
    pairs = list(zip(files, weights, strict=True))
    if len(set(weights)) == 1:
        return tuple(chain.from_iterable(files)), weights[0]
    n = sum(len(rows) for rows in files)
    mean = sum(len(rows) * weight for rows, weight in pairs) / max(n, 1) or 1.0
    weighed = (replace(row, share=weight / mean) for rows, weight in pairs for row in rows)
    return tuple(weighed), mean


def held_out_labels(labels: Iterable[str], n: int) -> frozenset[str]:
    """The n labels with the least SHA-256 of their UTF-8: never trained on, to measure what is new.

    Raises:
        ConfigError: nothing would be left.
    """
    ranked = sorted(set(labels), key=lambda label: hashlib.sha256(label.encode()).hexdigest())
    if n >= len(ranked):
        raise ConfigError(
            f"held_out_labels is {n}, the file has {len(ranked)} labels", hint="leave some in"
        )
    return frozenset(ranked[:n])


def _items(parts: Sequence[DataPart], root: Path) -> dict[str, Candidate] | None:
    """What ids stand for, of all files that say so."""
    found: dict[str, Candidate] = {}
    for path in {part.items: None for part in parts if part.items}:
        found |= read_items(resolve_data(path, root))
    return found or None


def _split(
    part: DataPart, file: Path, spec: TaskSpec
) -> tuple[list[Example], list[Example], list[Example]]:
    """Rows to train, validate and test on; rows of labels that are held out are in none."""
    rows = _read(part, file)
    if part.held_out_labels:
        labels = {label_of(row) for row in rows} - {spec.none_label}
        unseen = held_out_labels(labels, part.held_out_labels)
        rows = [row for row in rows if row.target not in unseen]
    train = [row for row in rows if row.split in (part.train_split, "all")]
    test = [row for row in rows if part.test_split and row.split == part.test_split]
    if part.validation_split:
        validation = [row for row in rows if row.split == part.validation_split]
    else:
        chosen = [in_validation(_split_key(row), part.validation_share) for row in train]
        validation = [row for row, held in zip(train, chosen, strict=True) if held]
        train = [row for row, held in zip(train, chosen, strict=True) if not held]
    return train[: part.limit or None], validation, test


def _read(part: DataPart, file: Path) -> list[Example]:
    """The rows of a file that a recipe means, under the task's names.

    Raises:
        ConfigError: `where` and `prompts` leave none.
    """
    rows = read_examples(file, columns=part.columns)
    if part.where:
        rows = rows_where(rows, part.where)
    if part.prompts:
        rows = take_apart(rows, part.prompts)
    if not rows:
        raise ConfigError(
            f"{part.path}: no row fits `where` and `prompts`", hint="compare them with a row"
        )
    return rename_labels(rows, part.rename)


def few_shot(
    examples: Sequence[Example], spec: TaskSpec, shots: int, *, seed: int
) -> list[Example]:
    """So many rows of each label, the ones with the least hash of seed and id; in file order.

    Where any labels may be right a row counts for each of its labels, and rows that have none are
    as many.
    """
    is_any = spec.decision == "any"
    by_label: dict[str, list[int]] = {}
    for position, example in enumerate(examples):
        labels = label_set_of(example) or {""} if is_any else {label_of(example)}
        for label in labels:
            by_label.setdefault(label, []).append(position)

    def draw(position: int) -> bytes:
        return _lot(examples[position], seed)

    chosen = {i for places in by_label.values() for i in sorted(places, key=draw)[:shots]}
    return [examples[i] for i in sorted(chosen)]


def _drawn(examples: Sequence[Example], n_rows: int, *, seed: int) -> list[Example]:
    """So many rows at most, the ones with the least hash of seed and id; in file order."""
    lots = sorted(range(len(examples)), key=lambda i: _lot(examples[i], seed))
    return [examples[i] for i in sorted(lots[:n_rows])]


def _lot(row: Example, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{row.id or row.text}".encode()).digest()


def _split_key(row: Example) -> str:
    """What rows that must stay together share: the user, where there are users."""
    return user_of(row) if "user" in row.extra else row.id or row.text


def epoch_batches(
    tasks: Sequence[TaskData],
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    mixture: Mixture = "proportional",
    span_batch_size: int = 0,
    max_tokens: int = 0,
    limit: int = 0,
) -> list[tuple[int, list[Row]]]:
    """All batches of an epoch as (task number, rows); the same for the same seed and epoch.

    Rows of like length share a batch (padding is wasted work); each batch holds one task. A
    weight of 0.5 shows a task half as many of its rows, 2.0 shows them twice. `span_batch_size`
    is that of tasks that find spans; 0 is `batch_size`. `max_tokens` bounds a batch's padded
    tokens: long rows share steps of fewer rows. A limit leaves the first so many batches of the
    shuffled epoch; 0 leaves all.
    """
    rng = random.Random(f"{seed}-{epoch}")
    factors = row_factors([len(t.train) for t in tasks], [t.weight for t in tasks], mixture)
    batches: list[tuple[int, list[Row]]] = []
    for number, task in enumerate(tasks):
        rows = _weighted(task, factors[number], rng)
        finds_spans = SHAPES[task.spec.kind] is Shape.EXTRACT
        n_rows = (finds_spans and span_batch_size) or batch_size
        step = n_rows * BUCKET_BATCHES
        for start in range(0, len(rows), step):
            bucket = sorted(rows[start : start + step], key=lambda row: len(row.ids))
            parts = _cut([len(row.ids) for row in bucket], n_rows, max_tokens)
            batches += [(number, bucket[part]) for part in parts]
    rng.shuffle(batches)
    return batches[: limit or None]


def _weighted(task: TaskData, factor: float, rng: random.Random) -> list[Row]:
    """The task's rows of an epoch in random order, each as often as factor and share say."""
    by_share: dict[float, list[Row]] = {}
    for row in task.train:
        by_share.setdefault(row.share, []).append(row)
    found: list[Row] = []
    for share, rows in by_share.items():
        wanted = len(found) + max(1, round(factor * share * len(rows)))
        while len(found) < wanted:
            found += rng.sample(rows, len(rows))[: wanted - len(found)]
    return found if len(by_share) == 1 else rng.sample(found, len(found))


def outputs_by_row(
    rows: Sequence[Row], batch_size: int, function: Callable[[Sequence[Row]], list[Tensor] | None]
) -> list[Tensor]:
    """One tensor for each row, computed in batches of like length; [] where there are none.

    A batch has at most `batch_size` rows, and fewer where they are long.
    """
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    for positions, batch in in_length_order(rows, batch_size):
        outputs = function(batch)
        if outputs is None:
            return []
        for position, output in zip(positions, outputs, strict=True):
            found[position] = output
    return found


def in_length_order(rows: Sequence[Row], batch_size: int) -> Iterator[tuple[list[int], list[Row]]]:
    """Batches for evaluation, shortest first, with each row's original position."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    for part in _cut([len(rows[i].ids) for i in order], batch_size, EVALUATION_TOKENS):
        positions = order[part]
        yield positions, [rows[i] for i in positions]


def _cut(lengths: Sequence[int], n_rows: int, max_tokens: int) -> Iterator[slice]:
    """Rising lengths -> batches of at most n rows and, where there is a limit, padded tokens."""
    start = 0
    while start < len(lengths):
        end = start + 1
        while end < min(len(lengths), start + n_rows) and (
            not max_tokens or (end + 1 - start) * lengths[end] <= max_tokens
        ):
            end += 1
        yield slice(start, end)
        start = end
