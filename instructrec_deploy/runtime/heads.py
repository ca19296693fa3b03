"""Hugging Face heads: which tasks a bundle with one can have, and how its logits are read."""

from __future__ import annotations

from instructrec_deploy.core.bundle import Bundle
from instructrec_deploy.core.errors import BundleError
from instructrec_deploy.core.manifest import SPAN_HEADS
from instructrec_deploy.core.tags import TagScheme
from instructrec_deploy.runtime.prepared import PreparedInstruction
from instructrec_deploy.tasks.base import Floats
from instructrec_deploy.tasks.extract import END


def fixed_labels(bundle: Bundle) -> tuple[str, ...]:
    """What a head's logits are about: labels, or types of entities; nothing where it is answers.

    Raises:
        BundleError: the bundle's tasks are not what its head answers.
    """
    tasks, model = list(bundle.tasks.tasks.values()), bundle.manifest.model
    is_question = model.kind == "question-answering"
    if len(tasks) != 1 or not (tasks[0].labels or is_question):
        raise BundleError(
            f"a model of kind {model.kind} has one task, with labels unless it answers questions; "
            f"tasks.toml has {len(tasks)} tasks",
            hint="export the bundle again",
        )
    if only := SPAN_HEADS.get(model.kind):
        types = TagScheme.of(model.tags).types
        if tasks[0].kind is not only or not (is_question or set(tasks[0].labels) <= set(types)):
            raise BundleError(
                f"the task is not one that a model of kind {model.kind} with {len(types)} types "
                "answers",
                hint="export the bundle again",
            )
        return types
    return tasks[0].labels


def head_scores(logits: Floats, prepared: PreparedInstruction) -> Floats:
    """What a head says of each token, [R, T, n], in the form that windows have.

    Raises:
        BundleError: these are not the logits that the bundle speaks of.
    """
    n_wanted = len(prepared.tags.tags) if prepared.tags else END + 1
    if logits.ndim != 3 or logits.shape[2] != n_wanted:
        raise BundleError(
            f"the head gives {logits.shape[-1]} logits, wanted {n_wanted} for each token",
            hint="export the bundle again",
        )
    return logits if prepared.tags else logits[:, :, None, :]
