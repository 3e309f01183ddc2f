"""The detector inside the host: data sets, model, weights, and a training with evaluation.

Run on the embedded host by default, and on Pointcept by
``DOS_HOST=pointcept python -m dos_plugin.cpu -m pytest tests/contract/test_detection_native.py``.
"""

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import dos_plugin.register  # noqa: F401
from dos_plugin.commands.doctor.sample import sample_rows
from dos_plugin.commands.doctor.step import step_rows
from dos_plugin.detection.native.dataset import NUSCENES_CLASSES
from dos_plugin.host import HOST
from dos_plugin.models.backbone import runnable
from dos_plugin.shipped import config_path
from tests.contract.test_configs import build_trainer
from tests.segmentors import trainer
from tests.small_backbones import SMALL, UNET

NAME = "objdet-dos-v1m1-9a-demo"
RANGE = (-12.8, -12.8, -3.2, 12.8, 12.8, 3.2)
GRID = dict(point_cloud_range=RANGE, grid_size=0.2, stride=4, z_bins=2)
BACKBONES = {
    "PT-v3m2": dict(SMALL, type="PT-v3m2", enc_mode=True, in_channels=2),
    "SpUNet-v1m1": dict(UNET, type="SpUNet-v1m1", in_channels=2),
}
VOXELS = dict(type="RangeVoxels", point_cloud_range=RANGE, grid_size=0.2)
COLLECT = dict(
    type="Collect",
    keys=("coord", "grid_coord", "boxes", "box_labels", "token", "ego", "pose"),
    offset_keys_dict=dict(offset="coord", offset_box="boxes"),
    feat_keys=("strength", "height"),
)
PIPELINE = [VOXELS, dict(type="Height"), dict(type="ToTensor"), COLLECT]

PRETRAINING = [
    dict(type="GridSample", grid_size=0.2),
    dict(type="Collect", view1_feat_keys=("view1_strength", "view1_height")),
]


def street(seed):
    """Points, boxes in the layout of streets; the second of three cars has three points."""
    rng = np.random.default_rng(seed)
    size = np.array([4.0, 2.0, 1.5])
    boxes = np.zeros((4, 8), np.float32)
    boxes[:, :2] = np.array([[5, 5], [-6, 5], [-5, -6], [6, -5]]) + rng.uniform(-1, 1, (4, 2))
    boxes[:, 2], boxes[:, 3:6], boxes[:, 6] = -1, size, rng.uniform(-3, 3, 4)
    boxes[:, 7] = [9, 9, 9, 8]  # the last is none of the classes
    ground = np.column_stack([rng.uniform(-12, 12, (900, 2)), rng.normal(-1.8, 0.02, 900)])
    parts, instance = [ground], [np.full(900, -1)]
    for row, count in enumerate((150, 3, 150, 150)):
        c, s = np.cos(boxes[row, 6]), np.sin(boxes[row, 6])
        local = rng.uniform(-0.5, 0.5, (count, 3)) * size
        parts.append(local @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + boxes[row, :3])
        instance.append(np.full(count, row))
    coord = np.concatenate(parts).astype(np.float32)
    strength = rng.uniform(0, 1, (len(coord), 1)).astype(np.float32)
    return dict(coord=coord, strength=strength, boxes=boxes, instance=np.concatenate(instance))


def write_streets(root, counts):
    for split, count in counts.items():
        for index in range(count):
            folder = root / split / f"scene-{index}"
            folder.mkdir(parents=True)
            for key, value in street([len(split), index]).items():
                np.save(folder / f"{key}.npy", value)
    return root


def write_nuscenes(root):
    (root / "info").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        info = dict(lidar_path=f"{split}.bin", lidar_token="scan", token=f"sample-{split}")
        raw = root / "raw" / info["lidar_path"]
        raw.parent.mkdir(exist_ok=True)
        scan = np.hstack([rng.uniform(-12, 12, (99, 3)), rng.uniform(0, 255, (99, 2))])
        scan.astype(np.float32).tofile(raw)
        info["ref_from_car"], info["car_from_global"] = np.eye(4), np.eye(4)
        info["ref_from_car"][:3, 3] = (0, -0.9, 1.8)
        info["car_from_global"][:2, :2] = [[0, 1], [-1, 0]]
        info["car_from_global"][:3, 3] = (7, 8, 9)
        if split == "train":
            boxes = rng.uniform(1, 3, (3, 9))
            boxes[0, 7:] = np.nan
            info |= dict(gt_boxes=boxes, num_lidar_pts=np.array([5, 0, 5]))
            info["gt_names"] = np.array(["bus", "car", "ignore"])
        content = pickle.dumps([info])
        (root / "info" / f"nuscenes_infos_10sweeps_{split}.pkl").write_bytes(content)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_streets(tmp_path_factory.mktemp("streets"), dict(train=4, val=2))


def dataset(root, **options):
    cfg = dict(type="DOS-BoxDataset", split="train", data_root=str(root), transform=[])
    return HOST.DATASETS.build(cfg | options)


def collate(samples):
    """As both hosts do it."""
    batch = {}
    for key, first in samples[0].items():
        values = [sample[key] for sample in samples]
        batch[key] = values if isinstance(first, str) else torch.cat(values)
        if "offset" in key:
            batch[key] = batch[key].cumsum(0)
    return batch


def batch_of(root, count=2, **options):
    data = dataset(root, transform=PIPELINE, **options)
    return collate([data[i] for i in range(count)])


def model(kind="PT-v3m2", **options):
    torch.manual_seed(0)
    cfg = dict(
        type="DOS-CenterPoint-v1m1", backbone=BACKBONES[kind], grid=GRID, num_classes=5, channels=16
    )
    return HOST.build_model(cfg | options)


def test_streets(root):
    data = dataset(root, min_points=5)
    sample = data[0]
    assert sample["boxes"].shape == (4, 9) and np.isnan(sample["boxes"][:, 7:]).all()
    assert sample["box_labels"].tolist() == [0, -1, 0, -1] and sample["token"] == sample["name"]
    assert dataset(root, min_points=1)[0]["box_labels"].tolist() == [0, 0, 0, -1]
    assert dataset(root, classes=(8, 9))[0]["box_labels"].tolist() == [1, 1, 1, 0]
    with pytest.raises(NotImplementedError, match="test_mode"):
        dataset(root, test_mode=True)


def test_bad_files(tmp_path):
    write_streets(tmp_path, dict(train=1))
    scene = tmp_path / "train/scene-0"
    np.save(scene / "strength.npy", 255 * np.load(scene / "strength.npy"))
    with pytest.raises(ValueError, match=r"strength_scale=1: strength of scan 'scene-0' goes from"):
        dataset(tmp_path)[0]
    assert dataset(tmp_path, strength_scale=1 / 255)[0]["strength"].max() <= 1
    np.save(scene / "strength.npy", np.load(scene / "strength.npy") / 255)
    with pytest.raises(ValueError, match=r"strength_scale=0.00392157: strength of scan .* 1 for 0"):
        dataset(tmp_path, strength_scale=1 / 255)[0]
    np.save(scene / "strength.npy", np.load(scene / "strength.npy") * 255)
    np.save(scene / "boxes.npy", np.zeros((2, 7)))
    with pytest.raises(ValueError, match="expected rows x, y, z"):
        dataset(tmp_path, strength_scale=1 / 255)[0]
    np.save(scene / "boxes.npy", np.zeros((0, 8)))
    assert dataset(tmp_path, strength_scale=1 / 255)[0]["boxes"].shape == (0, 9)
    (scene / "boxes.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"boxes\.npy"):
        dataset(tmp_path, strength_scale=1 / 255)[0]


def test_nuscenes(tmp_path):
    write_nuscenes(tmp_path)
    cfg = dict(type="DOS-NuScenesBoxDataset", data_root=str(tmp_path), transform=[])
    sample = HOST.DATASETS.build(dict(cfg, split="train"))[0]
    assert sample["box_labels"].tolist() == [NUSCENES_CLASSES.index("bus"), -1, -1]
    assert np.isnan(sample["boxes"][0, 7:]).all() and sample["token"] == "sample-train"
    assert sample["strength"].max() <= 1 and sample["ego"].tolist() == [[0, -0.9]]
    # the vehicle's origin, seen by the LiDAR, in the world
    np.testing.assert_allclose(sample["pose"][0] @ [0, -0.9, 1.8, 1], [8, -7, -9, 1], atol=1e-9)
    test = HOST.DATASETS.build(dict(cfg, split="test"))[0]
    assert test["boxes"].shape == (0, 9) and test["box_labels"].shape == (0,)


@pytest.mark.parametrize("kind", BACKBONES)
def test_training_and_evaluation(kind, root):
    nms = "circle" if kind == "PT-v3m2" else "rotated"
    net = model(kind, tasks=[[0, 1], [2, 3, 4]], nms=nms, nms_limit=0.2)
    batch = batch_of(root)
    assert batch["boxes"].isnan().any()  # velocities
    out = net.train()(dict(batch))
    assert list(out) == ["loss", "heat_loss", "code_loss"]
    out["loss"].backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    net.eval()
    with torch.no_grad():
        first, second = net(dict(batch)), net(dict(batch))
        without = net({k: v for k, v in batch.items() if "box" not in k})
    assert first["boxes"].shape[1] == 9 and torch.equal(first["boxes"], second["boxes"])
    assert len(first["boxes"]) == len(first["scores"]) == len(first["labels"])
    assert (first["batch"].diff() >= 0).all() and "loss" in first and "loss" not in without
    assert torch.equal(without["scores"], first["scores"])


def test_mixed_precision(root, monkeypatch):
    """All behind the encoder, which brings its own: heads and losses in float32."""
    net = model().train()
    batch = batch_of(root)
    bev = torch.randn(2, net.encoder.out_channels, 32, 32)
    monkeypatch.setattr(net.encoder, "forward", lambda *_: bev)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(dict(batch))
        boxes = net.eval()(dict(batch))["boxes"]
    assert half["loss"].dtype == torch.float32 and boxes.dtype == torch.float32
    half["loss"].backward()
    grads = [p.grad for n, p in net.named_parameters() if not n.startswith("encoder.")]
    assert all(torch.isfinite(grad).all() for grad in grads)
    whole = net.train()(dict(batch))["loss"]
    torch.testing.assert_close(half["loss"], whole, rtol=0.05, atol=0)


def test_a_frozen_backbone_stays(root):
    net = model(freeze_backbone=True).train()
    before = {key: value.clone() for key, value in net.encoder.backbone.state_dict().items()}
    net(batch_of(root))["loss"].backward()
    trained = {name for name, p in net.named_parameters() if p.grad is not None}
    assert trained and not any("backbone" in name for name in trained)
    assert trained == {name for name, p in net.named_parameters() if p.requires_grad}
    after = net.encoder.backbone.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_the_doctor_takes_a_step(root):
    config = HOST.Config.fromfile(str(config_path(NAME)))
    samples: list = []
    rows = [*sample_rows(config, samples), *step_rows(config, samples, 1)]
    assert {row.status for row in rows} == {"ok"}, rows


def test_empty_scenes_and_scenes_without_boxes(root):
    net = model(score=0.0)
    data = dataset(root, transform=PIPELINE)
    full = data[0]
    bare = dict(data[1], boxes=torch.zeros(0, 9), box_labels=torch.zeros(0).long())
    bare["offset_box"] = torch.tensor([0])
    hollow = {k: v[:0] if k in ("coord", "grid_coord", "feat") else v for k, v in data[2].items()}
    hollow["offset"] = torch.tensor([0])
    for samples in ([full, hollow, bare], [hollow, full], [bare, bare], [hollow]):
        net.zero_grad()
        loss = net.train()(collate(samples))["loss"]
        loss.backward()
        assert torch.isfinite(loss)
        for name, parameter in net.named_parameters():  # or another process waits for it
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        with torch.no_grad():
            found = net.eval()(collate(samples))
        assert torch.isfinite(found["boxes"]).all()
    far = dict(full, boxes=full["boxes"] + 100)
    assert net.train()(collate([far, bare]))["code_loss"].item() == 0


def test_a_scene_is_learned(root):
    """What the model is trained to find it finds, where and how it lies."""
    net = model("SpUNet-v1m1", velocity=False, code_weight=1.0)
    batch = batch_of(root, 1, min_points=5)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(80):
        loss = net.train()(dict(batch))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # normalisation by running averages, which are slow
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(dict(batch))
        found = net.eval()(dict(batch))
    wanted = batch["boxes"][batch["box_labels"] == 0]
    assert len(wanted) == 2 and (found["labels"][:2] == 0).all()
    for box in wanted:
        nearest = found["boxes"][:2][(found["boxes"][:2, :2] - box[:2]).norm(dim=1).argmin()]
        assert (nearest[:3] - box[:3]).norm() < 0.5
        assert (nearest[3:6] / box[3:6]).log().abs().max() < 0.3
        assert torch.cos(nearest[6] - box[6]) > 0.9
    assert found["boxes"][:, 7:].isnan().all()


def test_bad_input(root):
    with pytest.raises(ValueError, match=r"point_cloud_range: x .* whole number"):
        model(grid=dict(GRID, point_cloud_range=(-12.5, *RANGE[1:])))
    with pytest.raises(ValueError, match="tasks"):
        model(tasks=[[0], [1]])
    with pytest.raises(ValueError, match="nms_limit: expected one or 5, got 2"):
        model(nms_limit=[1, 2])
    net = model()
    batch = batch_of(root)
    shifted = dict(batch, grid_coord=batch["grid_coord"] - batch["grid_coord"].min(0).values)
    with pytest.raises(ValueError, match="grid_coord: a point lies .* RangeVoxels"):
        net(shifted)
    with pytest.raises(ValueError, match="in_channels"):
        net(dict(batch, feat=batch["feat"].repeat(1, 2)))
    with pytest.raises(ValueError, match="lacks boxes, box_labels, offset_box"):
        net({k: v for k, v in batch.items() if "box" not in k})
    with pytest.raises(ValueError, match="box_labels: expected classes"):
        net(dict(batch, box_labels=batch["box_labels"] + 5))


def load(net, weight, resume=False, **options):
    hook = HOST.HOOKS.build(dict(type="DetectionLoader", **options))
    hook.trainer = trainer(net, None if weight is None else str(weight))
    hook.trainer.cfg.resume = resume
    hook.trainer.cfg.data = dict(train=dict(transform=PIPELINE))
    hook.before_train()
    return net


def test_weights(tmp_path):
    torch.manual_seed(5)
    student, teacher = (HOST.build_model(BACKBONES["PT-v3m2"]).state_dict() for _ in range(2))
    state = {f"student.backbone.{k}": v for k, v in student.items()}
    state |= {f"teacher.backbone.{k}": v for k, v in teacher.items()}
    file = tmp_path / "dos.pth"
    torch.save(dict(epoch=1, state_dict=state), file)
    for branch, expected in (("student", student), ("teacher", teacher)):
        net = load(model(), file, branch=branch)
        own = net.encoder.backbone.state_dict()
        assert all(torch.equal(own[key], value) for key, value in expected.items())
    run = tmp_path / "run.pth"
    torch.save(dict(epoch=1, state_dict=net.state_dict()), run)
    again = load(model(), run).state_dict()
    assert all(torch.equal(again[key], value) for key, value in net.state_dict().items())
    with pytest.raises(ValueError, match="does not fit"):
        load(model(channels=8), run)
    with pytest.raises(ValueError, match="0 of .* entries match"):
        load(model("SpUNet-v1m1"), file)
    (tmp_path / "config.py").write_text(f"data = {dict(train=dict(transform=PRETRAINING))}")
    load(model(), file)
    other = str(PRETRAINING).replace("view1_height", "view1_coord")
    (tmp_path / "config.py").write_text(f"data = dict(train=dict(transform={other}))")
    with pytest.raises(ValueError, match="features: the detector has strength, height, the pre"):
        load(model(), file)
    (tmp_path / "config.py").unlink()
    with pytest.raises(FileNotFoundError):
        load(model(), tmp_path / "none.pth")
    with pytest.raises(ValueError, match="resume=True"):
        load(model(), file, resume=True)
    before = model().state_dict()
    after = load(model(), None).state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def small(root, tmp_path, **more):
    options = {
        "save_path": str(tmp_path), "weight": None, "batch_size": 2, "epoch": 1, "eval_epoch": 1,
        "num_worker": 1 if HOST.name != "minihost" else 0,
        **{f"data.{split}.data_root": str(root) for split in ("train", "val", "test")},
        "model.channels": 8, "model.backbone.enc_channels": (8, 16, 16, 24),
        "model.backbone.enc_num_head": (1, 2, 2, 3), "model.backbone.enc_patch_size": (32,) * 4,
        "model.score": 0.05,
    }  # fmt: skip
    return options | more


def score_again(cfg, weight, folder):
    """The result of the host's test stage, as its script starts it."""
    cfg.weight, cfg.save_path = weight, str(folder / "tested")
    HOST.TESTERS.build(dict(cfg=cfg, **cfg.test)).test()
    return json.loads((folder / "tested/result/result.json").read_text())


def test_a_training_is_evaluated(root, tmp_path):
    run = build_trainer(NAME, small(root, tmp_path))
    rates = [group["initial_lr"] for group in run.optimizer.param_groups]
    assert len(rates) == 2 and rates[1] == pytest.approx(rates[0] / 10)
    names = {id(p): name for name, p in run.model.named_parameters()}
    slow = {names[id(p)] for p in run.optimizer.param_groups[1]["params"]}
    assert slow == {n for n in names.values() if n.startswith("encoder.backbone.")}
    run.train()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["epoch"] == 1 and result["scans"] == 2
    assert 0 <= result["mAP"] <= 1 and 0 <= result["NDS"] <= 1 and result["AP/cone"] == 0
    assert run.comm_info["current_metric_name"] == "mAP"
    assert (tmp_path / "model/model_best.pth").is_file() or result["mAP"] == 0
    state = torch.load(tmp_path / "model/model_last.pth", weights_only=False)["state_dict"]
    assert any(key.startswith("encoder.backbone.enc") for key in state)
    last = str(tmp_path / "model/model_last.pth")
    tested = score_again(run.cfg, last, tmp_path)
    assert tested == {key: value for key, value in result.items() if key != "epoch"}
    again = build_trainer(NAME, small(root, tmp_path, resume=True, weight=last))
    next(hook for hook in again.hooks if type(hook).__name__ == "DetectionLoader").before_train()
    assert again.start_epoch == 1
    assert all(torch.equal(again.model.state_dict()[key], value) for key, value in state.items())


def test_the_nuscenes_config(tmp_path):
    write_nuscenes(tmp_path / "data")
    info = (tmp_path / "data/info/nuscenes_infos_10sweeps_train.pkl").read_bytes()
    for split, count in (("train", 4), ("val", 1)):
        entries = [dict(pickle.loads(info)[0], token=f"{split}-{i}") for i in range(count)]
        file = tmp_path / f"data/info/nuscenes_infos_10sweeps_{split}.pkl"
        file.write_bytes(pickle.dumps(entries))
    widths = {
        "model.backbone.enc_depths": (1,) * 5, "model.backbone.enc_channels": (8, 8, 16, 16, 24),
        "model.backbone.enc_num_head": (1, 1, 2, 2, 3), "model.backbone.enc_patch_size": (32,) * 5,
        "model.backbone.enable_flash": False, "enable_amp": False,
        "model.grid.stride": 16, "model.grid.z_bins": 2,
    }  # fmt: skip
    config = HOST.Config.fromfile(str(config_path("objdet-dos-v1m1-0-nuscenes-ft")))
    blocks = {group["keyword"] for group in config.param_dicts}
    net = HOST.build_model(dict(config.model, backbone=runnable(config.model.backbone)))
    names = [name for name, _ in net.named_parameters() if ".block" in name]
    assert len(blocks) == 24 and all(sum(b in name for b in blocks) == 1 for name in names)
    del net
    options = small(tmp_path / "data", tmp_path, **widths)
    run = build_trainer("objdet-dos-v1m1-0-nuscenes-ft", options)
    run.train()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["scans"] == 1 and "AP/traffic_cone" in result
    submitted = json.loads((tmp_path / "submission.json").read_text())
    assert "val-0" in submitted["results"]
    score_again(run.cfg, str(tmp_path / "model/model_last.pth"), tmp_path)
    assert json.loads((tmp_path / "tested/result/submission.json").read_text()) == submitted
    bare = dict(pickle.loads(info)[0], token="test-0")
    for key in ("gt_boxes", "gt_names", "num_lidar_pts"):
        del bare[key]
    file = tmp_path / "data/info/nuscenes_infos_10sweeps_test.pkl"
    file.write_bytes(pickle.dumps([bare]))
    run.cfg.data.test.split, run.cfg.save_path = "test", str(tmp_path / "server")
    HOST.TESTERS.build(dict(cfg=run.cfg, **run.cfg.test)).test()
    assert not (tmp_path / "server/result/result.json").exists()
    assert "test-0" in (tmp_path / "server/result/submission.json").read_text()


def test_perfect_boxes_are_scored_as_such(root, tmp_path):
    """Nothing moves between a batch, the evaluator, the metric and the submission."""

    class Perfect(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, batch):
            own = batch["box_labels"] >= 0
            counts = batch["offset_box"].diff(prepend=torch.zeros(1).long())
            which = torch.arange(len(counts)).repeat_interleave(counts)[own]
            boxes, labels = batch["boxes"][own], batch["box_labels"][own]
            scores = torch.linspace(1, 0.5, len(boxes))
            loss = torch.zeros(())
            return dict(boxes=boxes, scores=scores, labels=labels, batch=which, loss=loss)

    hook = HOST.HOOKS.build(dict(type="DetectionEvaluator", submission=True, ranges={}))
    data = dataset(root, transform=PIPELINE, min_points=5)
    hook.trainer = trainer(Perfect(), None)
    vars(hook.trainer).update(
        val_loader=[collate([data[0], data[1]]), collate([data[2]])],
        writer=None, epoch=0, comm_info={},
    )  # fmt: skip
    hook.trainer.cfg.save_path = str(tmp_path)
    hook.trainer.cfg.data = SimpleNamespace(names=["car"])
    scores = hook.evaluate()
    assert scores["mAP"] == pytest.approx(1) and scores["mAOE"] == pytest.approx(0, abs=1e-6)
    assert hook.trainer.comm_info["current_metric_value"] == scores["mAP"]
    results = json.loads((tmp_path / "submission.json").read_text())["results"]
    assert len(results) == 3 and all(len(boxes) == 2 for boxes in results.values())
    hook.trainer.val_loader = [{}]
    with pytest.raises(KeyError, match="lacks boxes"):
        hook.evaluate()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data.train.transform.0.type": "RandomRotate"}, "data.train.transform: RandomRotate"),
        ({"mix_prob": 0.5}, "mix_prob"),
        ({"data.train.transform.7.feat_keys": ["strength"]}, "in_channels"),
    ],
)
def test_what_would_tear_boxes_off(options, words, root):
    net = model()
    config = HOST.Config.fromfile(str(config_path(NAME)))
    config.merge_from_dict(options)
    net.trainer = SimpleNamespace(cfg=config)
    with pytest.raises(ValueError, match=words):
        net.before_train()
