"""What validation rows decide: found back where it was put in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from torch import Tensor

from instructrec_deploy.core.errors import RowInvalid
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_training.calibrate import (
    any_loss,
    calibrate,
    fit_none_threshold,
    fit_platt,
    fit_temperature,
    fit_thresholds,
    initial_offset,
    label_matrix,
    read_labels,
)

TOPICS = TaskSpec(
    labels=("sport", "football", "体育", "politics"),
    decision="any",
    parents={"football": "sport"},
    instructions={"en": ("Which topics?",)},
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def coin(probabilities: Tensor, seed: int = 1) -> Tensor:
    return torch.bernoulli(probabilities, generator=torch.Generator().manual_seed(seed))


def test_temperature_finds_how_far_logits_were_blown_up() -> None:
    honest = noise(4000, 5)
    generator = torch.Generator().manual_seed(0)
    targets = torch.multinomial(torch.softmax(honest, -1), 1, generator=generator).squeeze(1)
    # the grid has steps of 6 %, 4,000 rows an error of about 3 %
    assert fit_temperature(3.0 * honest, targets) == pytest.approx(3.0, rel=0.12)


def test_platt_finds_how_far_logits_were_blown_up_and_moved() -> None:
    honest = 2.0 * noise(4000, 3)
    targets = coin(torch.sigmoid(honest))
    temperature, offset = fit_platt(3.0 * honest + 16.0, targets)
    assert temperature == pytest.approx(3.0, rel=0.05)  # 12,000 pairs: an error of 2 to 3 %
    assert offset == pytest.approx(16.0, abs=0.3)


def test_platt_is_scikit_learns_logistic_regression() -> None:
    logits = 1.5 * noise(600, 2) + 3.0
    targets = coin(torch.sigmoid(logits - 4.0))
    temperature, offset = fit_platt(logits, targets)
    model = LogisticRegression(C=1e6, tol=1e-8, max_iter=1000)
    model.fit(logits.reshape(-1, 1).numpy(), targets.flatten().numpy())
    slope, shift = float(model.coef_[0, 0]), float(model.intercept_[0])
    # 3 %: Platt's targets are smoothed by one row in some hundred
    assert 1 / temperature == pytest.approx(slope, rel=0.03)
    assert offset == pytest.approx(-shift / slope, abs=0.1)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_platt_survives_rows_that_decide_nothing(value: float) -> None:
    temperature, offset = fit_platt(noise(20, 3), torch.full((20, 3), value))
    assert 0.05 <= temperature <= 20.0
    assert np.isfinite(offset)


def test_separable_rows_leave_a_finite_temperature_and_an_offset_between() -> None:
    logits = torch.tensor([[5.0, 9.0], [9.0, 5.0]]).repeat(20, 1)
    temperature, offset = fit_platt(logits, (logits > 7).float())
    assert 5.0 < offset < 9.0
    assert temperature >= 0.05


def test_the_loss_of_any_is_the_sum_over_labels_and_the_mean_over_rows() -> None:
    logits = torch.tensor([[0.0, 2.0], [-1.0, 0.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    expected = -(torch.log(torch.sigmoid(torch.tensor([0.0, -2.0, 1.0, 0.0]))).sum() / 2)
    assert any_loss(logits, targets) == pytest.approx(expected.item())
    assert any_loss(logits + 16.0, targets, offset=16.0) == pytest.approx(expected.item())


def test_the_loss_of_any_teaches_each_label_by_itself() -> None:
    weight = torch.zeros(2, 3, requires_grad=True)
    features = noise(400, 2)
    targets = (features @ torch.tensor([[1.0, -1.0, 1.0], [0.0, 1.0, 1.0]]) > 0).float()
    optimizer = torch.optim.SGD([weight], lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        any_loss(features @ weight, targets).backward()
        optimizer.step()
    assert ((features @ weight > 0) == targets.bool()).float().mean() > 0.97


def test_training_may_start_where_untuned_logits_stand() -> None:
    assert initial_offset(torch.tensor([[15.0, 17.0], [16.0, 16.0]])) == 16.0


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (["politics", "football"], (0, 1, 3)),
        (["体育"], (2,)),
        ("体育", (2,)),
        ([], ()),
        (["sport", "football", "sport"], (0, 1)),
    ],
)
def test_a_rows_labels_are_read_with_the_parents_they_imply(
    target: Any, found: tuple[int, ...]
) -> None:
    assert read_labels(target, TOPICS, where="rows:1") == found


@pytest.mark.parametrize("target", [None, 3, {"sport": 1}, ["sport", 3], ["secret"]])
def test_a_target_that_is_no_list_of_labels_is_refused(target: Any) -> None:
    with pytest.raises(RowInvalid, match="rows:1") as caught:
        read_labels(target, TOPICS, where="rows:1")
    assert "secret" not in caught.value.message
    assert caught.value.hint


def test_positions_become_a_matrix() -> None:
    assert label_matrix([(0, 2), (), (1,)], 3).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


@given(st.integers(0, 10_000))
def test_no_cut_has_a_better_f1_than_the_common_threshold(seed: int) -> None:
    scores = torch.rand(30, generator=torch.Generator().manual_seed(seed)).mul(10).round() / 10
    targets = coin(scores, seed)
    if not targets.any():
        return
    common, own = fit_thresholds(scores[:, None], targets[:, None], ["a"], shrink=0.0)
    assert own == {"a": common}

    def f1(threshold: float) -> float:
        return float(f1_score(targets, scores >= threshold, zero_division=0.0))

    assert f1(common) == pytest.approx(max(f1(cut) for cut in np.arange(-0.05, 1.1, 0.05)))


def test_a_rare_labels_threshold_stays_near_the_common_one_and_an_unseen_label_has_none() -> None:
    scores = torch.full((100, 3), 0.1)
    targets = torch.zeros(100, 3)
    scores[:50, 0], targets[:50, 0] = 0.3, 1.0  # 50 rows say: 0.2
    scores[:1, 1], targets[:1, 1] = 0.9, 1.0  # one row says: 0.5
    common, own = fit_thresholds(scores, targets, ["often", "rare", "never"], shrink=10.0)
    assert common == pytest.approx(0.2)
    assert own["often"] == pytest.approx(0.2)
    assert own["rare"] == pytest.approx((0.5 + 10 * 0.2) / 11, abs=1e-4)
    assert set(own) == {"often", "rare"}


def test_the_none_logit_lies_between_texts_that_fit_and_texts_that_do_not() -> None:
    fits = torch.tensor([[6.0, 0.0], [0.0, 5.0], [7.0, 1.0]])
    strange = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    found = fit_none_threshold(fits, torch.tensor([0, 1, 0]), strange)
    assert found == pytest.approx(4.0)
    assert fit_none_threshold(fits, torch.tensor([0, 1, 0]), strange, temperature=2.0) == 2.0


def test_the_none_logit_has_the_best_balanced_accuracy() -> None:
    fits, strange = noise(300, 4) + 1.5, noise(80, 4, seed=3)
    targets = fits.argmax(1)
    targets[::7] = 0  # some are answered wrong whatever the cut
    found = fit_none_threshold(fits, targets, strange)

    def balanced(cut: float) -> float:
        kept = (fits.max(1).values >= cut) & (fits.argmax(1) == targets)
        return float(kept.float().mean() + (strange.max(1).values < cut).float().mean())

    assert balanced(found) >= max(balanced(cut) for cut in np.arange(-3.0, 6.0, 0.01)) - 1e-6


def test_without_strange_texts_the_none_logit_lets_nearly_all_through() -> None:
    logits = noise(1000, 3)
    found = fit_none_threshold(logits, logits.argmax(1), kept=0.9)
    assert (logits.max(1).values >= found).float().mean() == pytest.approx(0.9, abs=0.01)


def test_a_task_of_any_gets_offset_and_thresholds() -> None:
    honest = noise(500, 4)
    fields = calibrate(TOPICS, 2.0 * honest + 9.0, coin(torch.sigmoid(honest)))
    assert set(fields) == {"temperature", "offset", "threshold", "thresholds"}
    assert set(fields["thresholds"]) == set(TOPICS.labels)
    TaskSpec.model_validate(TOPICS.model_dump() | fields)


def test_a_task_of_one_gets_a_none_logit_where_it_has_a_word_for_none() -> None:
    spec = TaskSpec(labels=("a", "b", "c"))
    logits = 4.0 * noise(200, 3)
    targets = logits.argmax(1)
    assert set(calibrate(spec, logits, targets)) == {"temperature"}
    named = spec.model_copy(update={"none_label": "其他"})
    fields = calibrate(named, logits, targets, none_logits=noise(50, 3, seed=5))
    assert set(fields) == {"temperature", "none_logit"}
    TaskSpec.model_validate(named.model_dump() | fields)


def test_parents_do_not_compete_when_a_task_of_one_is_calibrated() -> None:
    spec = TaskSpec(labels=("sport", "football", "tennis"), parents={"football": "sport"})
    honest = noise(4000, 2)
    generator = torch.Generator().manual_seed(0)
    targets = 1 + torch.multinomial(torch.softmax(honest, -1), 1, generator=generator).squeeze(1)
    logits = torch.cat([torch.full((4000, 1), 50.0), 2.0 * honest], dim=1)
    found = calibrate(spec, logits, targets)["temperature"]
    assert found == pytest.approx(2.0, rel=0.12)
