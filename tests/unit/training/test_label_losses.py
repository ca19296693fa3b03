"""Losses over labels, and a student that learns from a teacher's scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from instructrec_deploy.core.errors import FileMissing, TeacherUnfit
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.text.tokenizer import TextTokenizer
from instructrec_training.calibrate import any_loss
from instructrec_training.data import TaskData, load_task_data
from instructrec_training.distil import teacher_logits
from instructrec_training.objectives.class_loss import contrast, distillation, focal_loss
from instructrec_training.recipe import Recipe
from instructrec_training.run import RunReport
from tests.tiny import LABELS
from tests.tiny_runs import KINDS, LEARNS, learning, losses_of, with_all_shapes

MakeRecipe = Callable[..., Recipe]
Run = Callable[..., RunReport]


def test_a_focal_loss_without_focus_is_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, single = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 1])
    plain = functional.cross_entropy(logits, single, label_smoothing=0.1)
    assert torch.allclose(focal_loss(logits, single, gamma=0.0, smoothing=0.1), plain)
    several = (torch.rand(6, 4) > 0.5).float()
    assert torch.allclose(focal_loss(logits, several, gamma=0.0), any_loss(logits, several))


def test_a_focal_loss_is_the_formula_of_the_source() -> None:
    logits, single = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    right = torch.softmax(logits, 1)[:, 0]
    expected = (-((1 - right) ** 2) * right.log()).mean()
    assert torch.allclose(focal_loss(logits, single, gamma=2.0), expected)
    each = torch.sigmoid(torch.tensor([[2.0, -0.0], [0.0, -1.0]]))  # labels 0 right, 1 wrong
    expected = (-((1 - each) ** 2) * each.log()).sum() / 2
    several = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert torch.allclose(focal_loss(logits, several, gamma=2.0), expected)


def test_contrast_is_the_formula_of_the_source() -> None:
    torch.manual_seed(0)
    vectors, targets = torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 1, 2])
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    scores = unit @ unit.T / 0.2
    losses = []
    for i in range(5):  # row 5 is alone with its label
        others = [j for j in range(6) if j != i]
        same = [j for j in others if targets[j] == targets[i]]
        below = torch.logsumexp(scores[i, others], dim=0)
        losses.append(-sum(scores[i, j] - below for j in same) / len(same))
    expected = torch.stack(losses).mean()  # type: ignore[arg-type]
    assert contrast(vectors, targets, 0.2) == pytest.approx(expected.item(), rel=1e-5)


def test_a_batch_without_two_rows_of_a_label_has_no_contrast() -> None:
    vectors = torch.randn(3, 4, requires_grad=True)
    loss = contrast(vectors, torch.tensor([0, 1, 2]), 0.1)
    loss.backward()
    assert loss.item() == 0.0
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()


def test_a_student_that_scores_as_its_teacher_has_nothing_to_learn() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    shifted = logits.detach() + 5.0  # a constant changes no probability
    loss = distillation(logits, shifted, 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-5


@pytest.mark.parametrize("teacher_kind", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_student_comes_to_score_as_its_teacher(
    teacher_kind: str,
    kind: str,
    make_recipe: MakeRecipe,
    run: Run,
) -> None:
    taught = run(make_recipe(teacher_kind, "mean", epochs=0, probe=True), "teacher")
    recipe = make_recipe(
        kind,
        "mean",
        **LEARNS,
        teacher=str(taught.folder / "checkpoint"),
        distil_weight=1.0,  # nothing but the teacher
    )
    report = run(recipe, "student")
    losses = losses_of(report.folder)
    assert losses[-1] < 0.5 * losses[0]


def test_a_teacher_scores_rows_as_its_run_did(
    make_recipe: MakeRecipe, run: Run, data_root: Path
) -> None:
    taught = run(make_recipe(epochs=12, patience=12, probe=True), "teacher")
    folder = taught.folder / "checkpoint"
    tokenizer = TextTokenizer(folder / "tokenizer.json", max_tokens=64)
    (task,) = load_task_data(make_recipe(), data_root, tokenizer)
    logits = teacher_logits(folder, task, make_recipe().training, device=torch.device("cpu"))
    hits = [int(row.label == int(s.argmax())) for row, s in zip(task.train, logits, strict=True)]
    assert sum(hits) / len(hits) >= 0.9  # label vectors and label order are the run's


@pytest.mark.parametrize("is_known", [True, False], ids=["its own task", "another task"])
def test_a_bundle_teaches_its_own_scores(
    is_known: bool, tiny_bundle: Path, make_recipe: MakeRecipe, data_root: Path
) -> None:
    task = task_of_bundle(make_recipe, data_root, tiny_bundle, name="intent")
    if is_known:
        spec = task.spec.model_copy(update={"labels": tuple(reversed(LABELS))})
        task = replace(task, spec=spec)
    device = torch.device("cpu")
    logits = teacher_logits(tiny_bundle, task, make_recipe().training, device=device)
    labels, words = task.spec.labels, task.spec.wording()
    asked: dict[str, Any] = {"instruction": words, "candidates": labels}
    with Predictor(tiny_bundle, guard=False) as predictor:
        for row, found in zip(task.train, logits, strict=True):
            answer = predictor.predict(
                row.text, top_k=0, **({"task": "intent"} if is_known else asked)
            )
            scores = {pair.label: pair.score for pair in answer.answers[0].scores}
            expected = [scores[label] for label in labels]
            # 1e-5: float32 scores from batches of another size
            assert torch.softmax(found, 0).tolist() == pytest.approx(expected, abs=1e-5)


def test_a_bundle_with_fixed_labels_teaches_no_others(
    tiny_head_bundle: Path, make_recipe: MakeRecipe, data_root: Path
) -> None:
    task = task_of_bundle(make_recipe, data_root, tiny_head_bundle, name="intent")
    spec = task.spec.model_copy(update={"labels": ("one", "two")})
    with pytest.raises(TeacherUnfit, match="2 of the 2 labels"):
        teacher_logits(
            tiny_head_bundle,
            replace(task, spec=spec),
            make_recipe().training,
            device=torch.device("cpu"),
        )


def task_of_bundle(make_recipe: MakeRecipe, root: Path, bundle: Path, *, name: str) -> TaskData:
    tokenizer = TextTokenizer(bundle / "tokenizer.json", max_tokens=64)
    (task,) = load_task_data(make_recipe(), root, tokenizer)
    return replace(task, name=name)


def test_a_teacher_that_is_not_there_is_named(
    make_recipe: MakeRecipe, run: Run, tmp_path: Path
) -> None:
    with pytest.raises(FileMissing, match="neither a checkpoint nor a bundle"):
        run(make_recipe(teacher=str(tmp_path / "nobody")))


def test_a_teacher_with_other_labels_is_refused(
    make_recipe: MakeRecipe, run: Run, data_root: Path, tmp_path: Path
) -> None:
    taught = run(make_recipe(KINDS[1], epochs=0), "teacher")
    file = data_root / "intents.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("refund", "return"), encoding="utf-8")
    with pytest.raises(TeacherUnfit, match="1 of the 3 labels"):
        run(make_recipe(teacher=str(taught.folder / "checkpoint")), "student")


@pytest.mark.parametrize("kind", [*KINDS, "all shapes"])
@pytest.mark.parametrize("extra", [{"contrastive_weight": 0.5}, {"focal_gamma": 2.0}])
def test_a_run_still_learns_with(
    extra: dict[str, Any], kind: str, make_recipe: MakeRecipe, run: Run, data_root: Path
) -> None:
    losses = losses_of(run(learning(make_recipe, data_root, kind, extra)).folder)
    assert losses[-1] < 0.8 * losses[0]


def test_a_teacher_teaches_the_tasks_of_single_labels_among_others(
    make_recipe: MakeRecipe, run: Run, data_root: Path
) -> None:
    taught = run(make_recipe(epochs=0, probe=True), "teacher")
    teacher = str(taught.folder / "checkpoint")
    recipe = with_all_shapes(make_recipe(), data_root, **LEARNS, teacher=teacher)
    losses = losses_of(run(recipe, "student").folder)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"distil_weight": 0.9}, "distil_weight has no effect without teacher"),
        ({"contrastive_temperature": 0.2}, "no effect without contrastive_weight"),
    ],
)
def test_keys_of_losses_without_effect_are_refused(
    settings: dict[str, Any], words: str, make_recipe: MakeRecipe
) -> None:
    with pytest.raises(ValidationError) as caught:
        make_recipe(**settings)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "settings", [{"teacher": "x"}, {"contrastive_weight": 1.0}, {"label_smoothing": 0.1}]
)
def test_what_wants_single_labels_is_refused_for_label_sets(
    settings: dict[str, Any], make_recipe: MakeRecipe
) -> None:
    content = make_recipe().model_dump()
    content["tasks"]["intent"]["decision"] = "any"
    content["training"] |= settings
    with pytest.raises(ValidationError, match="no task is answered by one of its labels"):
        Recipe.model_validate(content)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_row_that_is_quite_sure_has_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    focal_loss(logits, torch.tensor([0]), gamma=gamma).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
