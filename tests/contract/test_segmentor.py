"""DOS-Segmentor-v1m1 with every backbone: what it returns, and that frozen is frozen.

Run on the embedded host by default, and on Pointcept by
``DOS_HOST=pointcept python -m dos_plugin.cpu -m pytest tests/contract/test_segmentor.py``.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import dos_plugin.register  # noqa: F401
from dos_plugin.host import HOST
from tests.segmentors import BACKBONES, CLASSES, CRITERIA, batch, build, config

DECODERS = ("PT-v3m1-dec", "PT-v3m2-dec", "SpUNet-v1m1")
FROZEN = [(name, True) for name in BACKBONES] + [(name, "encoder") for name in DECODERS]


def in_encoder(key):
    return key.startswith("backbone.") and key.split(".")[1] not in ("dec", "up", "final")


@pytest.mark.parametrize("name", BACKBONES)
def test_results_in_training_evaluation_and_test(name):
    model, data = build(name, freeze_backbone=False), batch()
    count = len(data["feat"])
    assert set(model(data)) == {"loss"}
    model.eval()
    evaluated = model(data)
    assert set(evaluated) == {"loss", "seg_logits"}
    assert evaluated["seg_logits"].shape == (count, CLASSES)
    assert torch.isfinite(evaluated["loss"]) and evaluated["loss"] > 0
    del data["segment"]
    assert set(model(data)) == {"seg_logits"}


@pytest.mark.parametrize("name", ["PT-v3m1-dec", "PT-v3m2-dec"])
def test_a_scan_too_long_for_the_backbone_is_named(name):
    data = batch(0, (60, 40))
    data |= dict(name=["near", "far"])
    data["grid_coord"][70, 1] = 65_535
    with pytest.raises(ValueError, match=r"scene\(s\) 'far' of a batch are 65,536 voxels long"):
        build(name, freeze_backbone=True)(data)
    data["grid_coord"][70, 1] = 65_534
    assert torch.isfinite(build(name, freeze_backbone=True)(data)["loss"])


@pytest.mark.parametrize("name, part", FROZEN)
def test_frozen_is_frozen(name, part):
    """50 steps of an optimizer that is given everything, with weight decay."""
    model = build(name, freeze_backbone=part)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    data = batch(0, (120, 80))
    for step in range(50):
        model.train()
        loss = model(batch(step, (60, 40)) if step % 2 else data)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    frozen = {key for key in before if key.startswith("backbone.")}
    if part == "encoder":
        frozen = {key for key in frozen if in_encoder(key)}
        trained = {k for k, v in before.items() if k not in frozen and v.is_floating_point()}
        assert len(moved & trained) > 0.9 * len(trained)
    assert len(frozen) > 20 and not moved & frozen
    assert {"seg_head.weight", "seg_head.bias"} <= moved
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


@pytest.mark.parametrize("name", BACKBONES)
def test_the_same_cloud_has_the_same_features(name):
    model, data = build(name), batch()
    model.train()
    first, second = (model.backbone(data) for _ in range(2))
    feats = [out if torch.is_tensor(out) else out["feat"] for out in (first, second)]
    assert torch.equal(*feats) and not feats[0].requires_grad
    losses = [model(data)["loss"].item() for _ in range(2)]
    model.eval()
    assert losses == [losses[0]] * 2 == [model(data)["loss"].item()] * 2


@pytest.mark.parametrize("name", ["PT-v3m2-dec", "SpUNet-v1m1"])
def test_nothing_frozen_trains_everything(name):
    model = build(name, freeze_backbone=False)
    model.train()
    assert all(module.training for module in model.modules())
    model(batch())["loss"].backward()
    without = {k for k, p in model.named_parameters() if p.grad is None}
    assert not without
    model.eval()
    assert not any(module.training for module in model.modules())


@pytest.mark.skipif(HOST.name == "minihost", reason="compares with a class of the real host")
@pytest.mark.parametrize("name", BACKBONES)
def test_state_dict_and_logits_are_those_of_the_hosts_segmentor(name):
    model = build(name)
    cfg = config(name, type="DefaultSegmentorV2")
    theirs = HOST.build_model(cfg)
    theirs.load_state_dict(model.state_dict(), strict=True)
    for module in theirs.modules():
        if isinstance(getattr(module, "shuffle_orders", None), bool):
            module.shuffle_orders = False
    for part in (model, theirs):
        part.eval()
    data = batch()
    with torch.no_grad():
        ours, expected = model(data), theirs(data)
    assert torch.allclose(ours["seg_logits"], expected["seg_logits"], atol=1e-6)
    assert torch.allclose(ours["loss"], expected["loss"])


@pytest.mark.parametrize("level, channels", [(-1, 48), (2, 48), (1, 40), (0, 24)])
def test_up_cast_levels(level, channels):
    """Each voxel's logits are those of the coarser voxel that it fell into, with fewer levels."""
    model = build("PT-v3m2", up_cast_level=level, backbone_out_channels=channels)
    model.eval()
    data = batch()
    with torch.no_grad():
        logits = model(data)["seg_logits"]
        point = model.backbone({key: data[key] for key in data if key != "segment"})
    levels = [point]
    while "pooling_parent" in levels[-1].keys():
        levels.append(levels[-1]["pooling_parent"])
    chain = [torch.arange(len(data["feat"]))]  # row of each point in each level, finest first
    for coarse in reversed(levels[:-1]):
        chain.append(coarse["pooling_inverse"][chain[-1]])
    rows = chain[::-1]  # coarsest first, as the levels
    used = levels if level == -1 else levels[: level + 1]
    columns = [lev["feat"][rows[i]] for i, lev in enumerate(used)]
    expected = model.seg_head(torch.cat(columns[::-1], dim=1))
    assert torch.allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(num_classes=0), "num_classes must be a whole number of at least 1, got 0"),
        (dict(freeze_backbone="decoder"), "freeze_backbone must be .* got 'decoder'"),
        (dict(freeze_backbone="encoder"), "'encoder' needs a backbone with decoder, and PT-v3m2"),
    ],
)
def test_options_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        build("PT-v3m2", **changes)


def scans(root, split, **labels):
    for name, segment in labels.items():
        folder = root / split / name
        folder.mkdir(parents=True)
        np.save(folder / "coord.npy", np.zeros((len(segment), 3), np.float32))
        np.save(folder / "segment.npy", np.array(segment, np.int32))
    return dict(type="DefaultDataset", split=split, data_root=str(root), transform=[])


def test_in_channels_are_checked_before_training_and_at_each_batch(tmp_path):
    model, found = build("PT-v3m2"), scans(tmp_path, "train", a=[0])

    def collect(*keys):
        return found | dict(transform=[dict(type="Collect", keys=("coord",), feat_keys=keys)])

    good, bad, unknown = collect("coord", "strength"), collect("coord"), collect("coord", "age")

    def start(**data):
        model.trainer = SimpleNamespace(cfg=dict(data=data))
        model.before_train()

    start(train=good, val=good)
    start(train=dict(type="ConcatDataset", datasets=[good, unknown]))
    message = r"model.backbone.in_channels=4, but feat_keys of {}.transform collect 3 columns \(coo"
    with pytest.raises(ValueError, match=message.format("data.train")):
        start(train=bad)
    with pytest.raises(ValueError, match=message.format("data.val")):
        start(train=good, val=bad)
    with pytest.raises(ValueError, match=message.format("data.train.datasets.1")):
        start(train=dict(type="ConcatDataset", datasets=[good, bad]))
    data = batch()
    data["feat"] = data["feat"][:, :3]
    message = "model.backbone.in_channels=4, but the batch has 3 columns: see feat_keys"
    with pytest.raises(ValueError, match=message):
        model(data)
    wide = build("PT-v3m2", backbone_out_channels=24)
    with pytest.raises(ValueError, match="backbone_out_channels=24, but .* have 48 channels"):
        wide(batch())


NAMES = ["street-1", "street-2"]


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_without_labels_counts_nothing(training, caplog):
    model = build("PT-v3m2", freeze_backbone=False).train(training)
    data = batch() | dict(name=NAMES)
    data["segment"] = torch.full_like(data["segment"], -1)
    loss = model(data)["loss"]
    assert loss.item() == 0
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and not g.any() for g in gradients)  # all: DDP waits for each
    assert "no point of street-1, street-2 has a label" in caplog.text


@pytest.mark.parametrize("value", [CLASSES, 255, -2])
@pytest.mark.parametrize("training", [True, False])
def test_labels_that_are_no_class_name_the_scan(value, training):
    model, data = build("PT-v3m2").train(training), batch() | dict(name=NAMES)
    data["segment"][int(data["offset"][0]) : int(data["offset"][0]) + 3] = value
    message = rf"scan street-2 has segment {value} \(3 points\), expected 0 to {CLASSES - 1} .* -1"
    with pytest.raises(ValueError, match=message):
        model(data)
    with pytest.raises(ValueError, match="scan 0 of a batch of a, b, c, d has segment"):
        mixed = data | dict(offset=data["offset"][-1:], name=list("abcd"))
        model(mixed)


def test_another_label_can_be_ignored():
    """255 as void, and class 0 as void, give the loss that -1 gives."""
    data = batch()
    losses = []
    for ignored in (-1, 255, CLASSES):
        criteria = [{**loss, "ignore_index": ignored} for loss in CRITERIA]
        model = build("PT-v3m2", criteria=criteria)
        segment = torch.where(data["segment"] < 0, ignored, data["segment"])
        losses.append(model(data | dict(segment=segment))["loss"].item())
    assert losses == [losses[0]] * 3
    criteria = [{**CRITERIA[0], "ignore_index": 0}, CRITERIA[1]]
    with pytest.raises(
        ValueError, match=r"model.criteria: ignore_index is \[-1, 0\], expected one"
    ):
        build("PT-v3m2", criteria=criteria)


def test_labels_are_looked_at_before_training(tmp_path):
    model = build("PT-v3m2")
    train = scans(tmp_path, "train", a=[0, 1, 2, -1])
    val = scans(tmp_path, "val", b=[0, 1], c=[0, 255, 255, 7])
    model.trainer = SimpleNamespace(cfg=dict(data=dict(train=train), evaluate=True))
    model.before_train()
    model.trainer.cfg["data"]["val"] = val
    found = r"data.val: scan c has segment 7 \(1 points\), 255 \(2 points\), expected 0 to 2"
    with pytest.raises(ValueError, match=found):
        model.before_train()
    model.trainer.cfg["evaluate"] = False
    model.before_train()
    model.trainer.cfg["data"]["ignore_index"] = 255
    with pytest.raises(ValueError, match="data.ignore_index=255, but the losses have ignore_inde"):
        model.before_train()
