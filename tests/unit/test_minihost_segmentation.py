"""Losses, evaluation and mixed scenes of the embedded host, against plain references."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("mmengine")

from dos_plugin.minihost import SemSegEvaluator, build_criteria, point_collate_fn
from dos_plugin.minihost.transforms import Compose


def logits_and_labels(seed=0, count=60, classes=5):
    gen = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, classes - 1, (count,), generator=gen)  # the last one never occurs
    return torch.randn(count, classes, generator=gen).double(), labels


def lovasz_reference(probs, labels):
    """Berman et al. 2018, class by class: errors times the steps of the Jaccard loss."""
    losses = []
    for c in sorted(set(labels.tolist()) - {-1}):
        mask = labels != -1
        truth = (labels[mask] == c).double()
        errors = (truth - probs[mask, c]).abs()
        order = sorted(range(len(errors)), key=lambda i: -errors[i].item())
        total, before = 0.0, 0.0
        for k in range(1, len(order) + 1):
            wrong = {order[j] for j in range(k)}
            right = sum(truth[i].item() for i in range(len(truth)) if i not in wrong)
            union = truth.sum().item() + sum(1 - truth[i].item() for i in wrong)
            jaccard = 1 - right / union
            total += errors[order[k - 1]].item() * (jaccard - before)
            before = jaccard
        losses.append(total)
    return sum(losses) / len(losses)


def test_losses():
    logits, labels = logits_and_labels()
    weight = [1.0, 2.0, 0.5, 1.5, 1.0]
    both = build_criteria(
        [
            dict(type="CrossEntropyLoss", weight=weight, loss_weight=2.0, ignore_index=-1),
            dict(type="LovaszLoss", mode="multiclass", loss_weight=0.5, ignore_index=-1),
        ]
    )
    kept = labels != -1
    log_p = logits.log_softmax(1)[kept, labels[kept]]
    w = torch.tensor(weight).double()[labels[kept]]
    expected = 2 * (-(w * log_p).sum() / w.sum()) + 0.5 * lovasz_reference(
        logits.softmax(1), labels
    )
    assert torch.allclose(both(logits, labels), expected)
    assert build_criteria(None)(logits, labels) is logits
    all_count = build_criteria([dict(type="LovaszLoss", mode="multiclass")])
    expected = lovasz_reference(logits[kept].softmax(1), labels[kept])
    assert all_count(logits[kept], labels[kept]).item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="mode must be 'multiclass' .* got 'binary'"):
        build_criteria([dict(type="LovaszLoss", mode="binary")])


class _Answers(torch.nn.Module):
    def forward(self, batch):
        assert not self.training
        return dict(seg_logits=batch["answer"], loss=batch["answer"].mean())


@pytest.mark.parametrize("per_point", [False, True])
def test_evaluator(per_point, caplog):
    batches, pairs = [], []
    for seed in range(3):
        answer, segment = logits_and_labels(seed)
        batch = dict(answer=answer, segment=segment)
        pred = answer.argmax(1)
        if per_point:  # labels of points, several in a voxel
            gen = torch.Generator().manual_seed(seed)
            batch["inverse"] = torch.randint(0, 60, (200,), generator=gen)
            batch["origin_segment"] = torch.randint(-1, 4, (200,), generator=gen)
            pred, segment = pred[batch["inverse"]], batch["origin_segment"]
        batches.append(batch)
        pairs += [(p, s) for p, s in zip(pred.tolist(), segment.tolist()) if s != -1]
    ious, accuracies = [], []
    for c in range(5):
        right = sum(p == s == c for p, s in pairs)
        ious.append(right / sum(c in pair for pair in pairs))
        accuracies.append(right / max(1, sum(s == c for _, s in pairs)))
    scalars = {}
    evaluator = SemSegEvaluator(write_cls_iou=True)
    evaluator.trainer = SimpleNamespace(
        cfg=SimpleNamespace(
            evaluate=True,
            data=SimpleNamespace(num_classes=5, ignore_index=-1, names=list("abcde")),
        ),
        model=_Answers(),
        val_loader=batches,
        device=torch.device("cpu"),
        logger=logging.getLogger("test_evaluator"),
        writer=SimpleNamespace(add_scalar=lambda key, value, step: scalars.update({key: value})),
        epoch=3,
        comm_info={},
    )
    with caplog.at_level(logging.INFO, logger="test_evaluator"):
        evaluator.after_epoch()
    expected = (np.mean(ious), np.mean(accuracies), np.mean([p == s for p, s in pairs]))
    numbers = "/".join(f"{value:.4f}" for value in expected)
    assert f"Val result: mIoU/mAcc/allAcc {numbers}." in caplog.messages
    assert f"Class_2-c Result: iou/accuracy {ious[2]:.4f}/{accuracies[2]:.4f}" in caplog.messages
    assert scalars["val/mIoU"] == pytest.approx(expected[0])
    assert scalars["val/cls_1-b IoU"] == pytest.approx(ious[1])
    assert evaluator.trainer.comm_info["current_metric_name"] == "mIoU"
    assert evaluator.trainer.comm_info["current_metric_value"] == pytest.approx(expected[0])


def samples(counts):
    return [dict(coord=torch.full((n, 3), float(n)), offset=torch.tensor([n])) for n in counts]


def test_the_share_of_mixed_batches_and_that_it_is_no_chance():
    rng = np.random.default_rng(0)
    mixed = []
    for _ in range(400):
        counts = rng.integers(5, 60, 4).tolist()
        offsets = {tuple(point_collate_fn(samples(counts), 0.3)["offset"].tolist()) for _ in "ab"}
        assert len(offsets) == 1
        mixed.append(len(offsets.pop()) == 2)
    assert 0.24 < np.mean(mixed) < 0.36
    assert not np.any([len(point_collate_fn(samples([3, 4]), 0)["offset"]) == 1])


@pytest.mark.parametrize("key", ["instance", "grid_size"])
def test_what_mixing_would_have_to_renumber_is_refused(key):
    batch = [{**sample, key: torch.zeros(1)} for sample in samples([3, 4])]
    with pytest.raises(ValueError, match=f"{key} cannot be mixed here, set mix_prob=0"):
        point_collate_fn(batch, mix_prob=0.8)


def test_colours_of_segmentation_recipes():
    color = np.random.default_rng(0).uniform(20, 120, (500, 3)).astype(np.float32)
    color[:, 2] = 7
    stretch = Compose([dict(type="ChromaticAutoContrast", p=1, blend_factor=0.25)])
    result = stretch(dict(color=color.copy()))["color"]
    low, high = color.min(0), color.max(0)
    full = np.stack([(color[:, c] - low[c]) / (high[c] - low[c]) * 255 for c in (0, 1)], 1)
    assert np.allclose(result[:, :2], 0.75 * color[:, :2] + 0.25 * full, atol=1e-3)
    assert np.allclose(result[:, 2], 0.75 * 7) and result.dtype == np.float32
    noisy = Compose([dict(type="ChromaticJitter", p=1, std=0.02)])(dict(color=color.copy()))
    difference = (noisy["color"] - color)[:, :2]
    assert 4.7 < difference.std() < 5.5 and abs(difference.mean()) < 0.5
    assert noisy["color"].min() >= 0
