"""Probes and scores against brute force, and on data whose answer is known."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from dos_plugin.probing.probe import (
    LabelledFeatures,
    ProbeSettings,
    balanced_sample,
    confusion_matrix,
    knn_predict,
    knn_probe,
    linear_probe,
    sample_per_scan,
    scores,
    standardisation,
)


def brute_force_iou(label: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    result = np.full(num_classes, np.nan)
    for k in range(num_classes):
        truth = {i for i, value in enumerate(label) if value == k}
        # Predictions on ignored points count for nothing.
        guess = {i for i, value in enumerate(prediction) if value == k and label[i] >= 0}
        if truth:
            result[k] = 100 * len(truth & guess) / len(truth | guess)
    return result


def blobs(n: int, seed: int, separation: float, classes: int = 4, channels: int = 6):
    rng = np.random.default_rng(seed)
    centre = separation * np.random.default_rng(7).standard_normal((classes, channels))
    label = rng.integers(0, classes, n)
    feat = centre[label] + rng.standard_normal((n, channels))
    return LabelledFeatures(torch.tensor(feat).float(), torch.tensor(label))


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_a_count_over_point_sets(seed):
    rng = np.random.default_rng(seed)
    label, prediction = rng.integers(-1, 5, 300), rng.integers(0, 6, 300)
    label[label == 3] = 2  # class 3 is predicted but never occurs
    result = scores(confusion_matrix(torch.tensor(label), torch.tensor(prediction), 6))
    expected = brute_force_iou(label, prediction, 6)
    np.testing.assert_allclose(result.iou, expected)
    assert np.isnan(result.iou[[3, 5]]).all()
    assert result.miou == pytest.approx(np.nanmean(expected))
    known = label >= 0
    assert result.accuracy == pytest.approx(100 * (label == prediction)[known].mean())


def test_scores_by_hand():
    # Class 0: 2 hits, 1 missed, 1 too many -> 2/4. Class 1: 1 hit, 1 missed, 1 too many -> 1/3.
    label = torch.tensor([0, 0, 0, 1, 1, -1])
    prediction = torch.tensor([0, 0, 1, 1, 0, 1])
    result = scores(confusion_matrix(label, prediction, 2))
    np.testing.assert_allclose(result.iou, [50, 100 / 3])
    assert result.accuracy == pytest.approx(60)


def test_linear_probe_separates_what_is_separable():
    train, val = blobs(3000, 0, separation=6), blobs(1000, 1, separation=6)
    assert linear_probe(train, val, 4).miou > 99


def test_linear_probe_is_at_chance_on_noise():
    noise = blobs(3000, 0, separation=0), blobs(3000, 1, separation=0)
    assert linear_probe(*noise, 4).accuracy == pytest.approx(25, abs=4)
    assert knn_probe(*noise, 4).accuracy == pytest.approx(25, abs=4)


def test_linear_probe_reaches_the_optimum_of_logistic_regression():
    """Full-batch L-BFGS on the same standardised data gives the optimum of the cross-entropy."""
    train, val = blobs(1500, 0, separation=0.8), blobs(1500, 1, separation=0.8)
    mean, scale = standardisation(train.feat)
    feat = (train.feat - mean) * scale
    weight = torch.zeros(4, 6, requires_grad=True)
    bias = torch.zeros(4, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        solver.zero_grad()
        loss = torch.nn.functional.cross_entropy(feat @ weight.T + bias, train.label)
        loss.backward()
        return loss

    solver.step(closure)
    prediction = (((val.feat - mean) * scale) @ weight.T + bias).argmax(1)
    expected = scores(confusion_matrix(val.label, prediction, 4)).miou
    settings = ProbeSettings(balance=0.0)
    assert linear_probe(train, val, 4, settings=settings).miou == pytest.approx(expected, abs=2)


def test_linear_probe_does_not_depend_on_scale_and_shift_of_the_features():
    train, val = blobs(1000, 0, separation=1), blobs(1000, 1, separation=1)
    factor, shift = torch.tensor([1e3, 1e-3, 1.0, 5.0, 0.1, 70.0]), 3.0
    moved = [LabelledFeatures(side.feat * factor + shift, side.label) for side in (train, val)]
    base = linear_probe(train, val, 4)
    assert linear_probe(*moved, 4).miou == pytest.approx(base.miou, abs=1)


def test_balanced_loss_helps_a_rare_class():
    def skewed(seed):
        rng = np.random.default_rng(seed)
        label = (rng.random(6000) < 0.03).astype(np.int64)
        feat = 1.2 * label[:, None] + rng.standard_normal((6000, 2))
        return LabelledFeatures(torch.tensor(feat).float(), torch.tensor(label))

    train, val = skewed(0), skewed(1)
    plain = linear_probe(train, val, 2, settings=ProbeSettings(balance=0.0))
    balanced = linear_probe(train, val, 2, settings=ProbeSettings(balance=1.0))
    assert balanced.iou[1] > plain.iou[1]
    assert balanced.accuracy < plain.accuracy


def test_seed_decides_the_result():
    train, val = blobs(2000, 0, separation=0.5), blobs(500, 1, separation=0.5)
    settings = ProbeSettings(train_points=300, steps=50)
    first = linear_probe(train, val, 4, seed=3, settings=settings)
    again = linear_probe(train, val, 4, seed=3, settings=settings)
    other = linear_probe(train, val, 4, seed=4, settings=settings)
    np.testing.assert_array_equal(first.iou, again.iou)
    assert (first.iou != other.iou).any()


@pytest.mark.parametrize("neighbours,temp,block", [(1, 0.07, 64), (7, 0.07, 1), (50, 0.5, 1000)])
def test_knn_equals_brute_force(neighbours, temp, block):
    rng = np.random.default_rng(0)
    bank, queries = rng.standard_normal((40, 5)), rng.standard_normal((33, 5))
    label = rng.integers(0, 3, 40)
    expected = []
    for row in 1 - cdist(queries, bank, "cosine"):
        votes = np.zeros(3)
        for index in np.argsort(-row)[:neighbours]:
            votes[label[index]] += np.exp(row[index] / temp)
        expected.append(votes.argmax())
    result = knn_predict(
        torch.tensor(bank).float(),
        torch.tensor(label),
        torch.tensor(queries).float(),
        3,
        neighbours,
        temp,
        block,
    )
    np.testing.assert_array_equal(result.numpy(), expected)


def test_knn_probe_separates_what_is_separable():
    assert knn_probe(blobs(2000, 0, 6), blobs(500, 1, 6), 4).miou > 99


def test_balanced_sample_takes_all_of_a_rare_class_and_evens_out_the_rest():
    label = torch.tensor([0] * 1000 + [1] * 500 + [2] * 7)
    rows = balanced_sample(label, 207, torch.Generator().manual_seed(0))
    assert len(rows.unique()) == len(rows)
    assert torch.bincount(label[rows]).tolist() == [100, 100, 7]


def test_sample_per_scan_draws_from_every_scan():
    scan = torch.tensor([0] * 10 + [1] * 3 + [5] * 20)
    rows = sample_per_scan(scan, 5, torch.Generator().manual_seed(0))
    assert len(rows.unique()) == len(rows)
    assert torch.bincount(scan[rows]).tolist() == [5, 3, 0, 0, 0, 5]


def test_constant_channels_are_ignored():
    feat = torch.cat([torch.full((50, 1), 3.7), torch.randn(50, 1)], dim=1)
    mean, scale = standardisation(feat)
    assert scale[0] == 0
    torch.testing.assert_close(((feat - mean) * scale)[:, 1].std(correction=0), torch.tensor(1.0))


def features(label, channels=2):
    label = torch.tensor(label)
    return LabelledFeatures(torch.randn(len(label), channels), label)


@pytest.mark.parametrize(
    "train,val,message",
    [
        ([-1, -1], [0, 1], "train: none of its 2 points has a label"),
        ([0, 1], [-1, -1, -1], "val: none of its 3 points has a label"),
        ([1, 1, -1], [0, 1], "train: all labelled points are of class 1"),
        ([0, 4], [0, 1], "train: got class 4, expected classes below 3"),
    ],
)
@pytest.mark.parametrize("probe", [linear_probe, knn_probe])
def test_unusable_labels_are_named(probe, train, val, message):
    with pytest.raises(ValueError, match=message):
        probe(features(train), features(val), 3)


def test_other_bad_input_is_named():
    with pytest.raises(ValueError, match="got 3 labels and 3 scan indices for 4 points"):
        LabelledFeatures(torch.zeros(4, 2), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="scans: got none"):
        LabelledFeatures.concat([])
    with pytest.raises(ValueError, match="val: got 3 channels, expected 2"):
        linear_probe(features([0, 1]), features([0, 1], channels=3), 2)
    broken = features([0, 1])
    broken.feat[0, 0] = float("nan")
    with pytest.raises(ValueError, match="val: features hold NaN"):
        linear_probe(features([0, 1]), broken, 2)
    with pytest.raises(ValueError, match="balance: got 2"):
        ProbeSettings(balance=2)
    with pytest.raises(ValueError, match="seeds: got an empty list"):
        ProbeSettings(seeds=())
