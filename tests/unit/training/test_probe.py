"""Logistic regression: it agrees with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from instructrec_training.probe import fit_probe


def data(n: int = 120, n_labels: int = 4, hidden: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(n) % n_labels
    centres = torch.randn(n_labels, hidden, generator=generator)
    noise = torch.randn(n, hidden, generator=generator)
    features = centres[targets] + noise
    return features / features.std(), targets


@pytest.mark.parametrize("has_bias", [True, False])
def test_the_probe_is_scikit_learns_logistic_regression(has_bias: bool) -> None:
    features, targets = data()
    weight, bias = fit_probe(features, targets, n_labels=4, inverse_l2=0.5, has_bias=has_bias)
    theirs = LogisticRegression(C=0.5, fit_intercept=has_bias, tol=1e-8, max_iter=1000)
    theirs.fit(features.numpy(), targets.numpy())
    ours = torch.softmax(features @ weight.T + bias, dim=-1).numpy()
    # 2e-3: two optimizers that stop at different places of a flat optimum
    assert np.abs(ours - theirs.predict_proba(features.numpy())).max() < 2e-3


def test_features_of_another_size_give_the_same_answers() -> None:
    features, targets = data()
    small = 0.01 * features
    one = fit_probe(features, targets, n_labels=4, inverse_l2=1.0)
    other = fit_probe(small, targets, n_labels=4, inverse_l2=1.0)
    first, second = features @ one[0].T + one[1], small @ other[0].T + other[1]
    assert torch.allclose(first, second, atol=5e-2)  # logits of size 5, float32 L-BFGS
    assert torch.equal(first.argmax(1), second.argmax(1))


def test_a_probe_without_bias_has_none() -> None:
    features, targets = data()
    _, bias = fit_probe(features, targets, n_labels=4, inverse_l2=1.0, has_bias=False)
    assert not bias.any()


def test_offsets_that_already_fit_leave_little_to_learn() -> None:
    features, targets = data()
    offsets = 50.0 * torch.nn.functional.one_hot(targets, 4).float()
    weight, _ = fit_probe(features, targets, n_labels=4, inverse_l2=1.0, offsets=offsets)
    assert weight.abs().max() < 1e-3


def test_a_probe_of_several_labels_is_one_regression_for_each() -> None:
    features, single = data()
    targets = torch.stack([single == 0, single <= 1, single == 3], dim=1).float()
    weight, bias = fit_probe(features, targets, n_labels=3, inverse_l2=0.5)
    for label in range(3):
        theirs = LogisticRegression(C=0.5, tol=1e-8, max_iter=1000)
        theirs.fit(features.numpy(), targets[:, label].numpy())
        ours = torch.sigmoid(features @ weight[label] + bias[label]).numpy()
        # 2e-3: two optimizers that stop at different places of a flat optimum
        assert np.abs(ours - theirs.predict_proba(features.numpy())[:, 1]).max() < 2e-3
