"""OpenPCDet's own detectors with a DOS backbone, on a CPU, from a checkout as it was cloned.

Real: the host's detectors, heads, losses, data pipeline, optimizer, scripts; the embedded host's
backbones. Compiled operators raise when called, but for NMS, which is rotated boxes by shapely, see
``tests/pcdet_operators.py``. The checkout is copied, since its scripts write into it.
"""

import importlib.util
import json
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests import pcdet_operators

ROOT = pcdet_operators.find_openpcdet()
ABSENT = [n for n in ("easydict", "numba", "skimage", "shapely") if not importlib.util.find_spec(n)]
if ROOT is None:
    pytest.skip(
        "needs a checkout of OpenPCDet at OPENPCDET_ROOT or ~/.cache/dos-plugin/OpenPCDet",
        allow_module_level=True,
    )
if ABSENT:
    pytest.skip(
        f"needs {', '.join(ABSENT)}: make detection-env, then make test-detection",
        allow_module_level=True,
    )

from dos_plugin.detection.openpcdet import convert  # noqa: E402
from dos_plugin.shipped import config_path, configs_dir  # noqa: E402

CONFIGS = configs_dir() / "detection" / "openpcdet"
NUSCENES, KITTI = "objdet-dos-v1m1-0a-nuscenes-ft", "objdet-dos-v1m1-3a-kitti-ft"
PROJECT = Path(__file__).parents[2]
SMALL = dict(
    stride=[2, 2],
    order=["z", "hilbert"],
    enc_depths=[1, 1, 1],
    enc_channels=[8, 16, 24],
    enc_num_head=[1, 2, 3],
    enc_patch_size=[64, 64, 64],
    mlp_ratio=1,
    enable_flash=False,
)
RANGES = {
    NUSCENES: [-25.6, -25.6, -4.8, 25.6, 25.6, 3.2],
    KITTI: [0.0, -25.6, -4.8, 51.2, 25.6, 3.2],
}


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """The working directory of a copy of the checkout, with the configs in ``cfgs/dos``."""
    root = tmp_path_factory.mktemp("host") / "OpenPCDet"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".git", "data", "docs", "output"))
    (root / "tools/cfgs/dos").symlink_to(CONFIGS)
    return root / "tools"


@pytest.fixture(scope="module")
def host(tools):
    """The host in this process, with the plugin's classes registered."""
    pcdet_operators.install()
    sys.path.insert(0, str(tools.parent))
    from dos_plugin.detection.openpcdet.register import register

    register()
    register()
    from pcdet import models
    from pcdet.config import EasyDict
    from pcdet.datasets import DatasetTemplate
    from pcdet.models import backbones_3d

    assert Path(models.__file__).is_relative_to(tools.parent)
    assert backbones_3d.__all__["DOSBackbone3D"].__module__.startswith("dos_plugin.")
    return SimpleNamespace(models=models, EasyDict=EasyDict, Dataset=DatasetTemplate)


@pytest.fixture
def read(host, tools, monkeypatch):
    """A YAML below ``cfgs``, as the host reads it."""
    monkeypatch.chdir(tools)
    return lambda name: convert.read_config(f"cfgs/{name}.yaml")


def small(config, name, checkpoint=""):
    """The same detector in a size for a CPU, its grid and map derived as in the shipped file."""
    data, model = config.DATA_CONFIG, config.MODEL
    data.POINT_CLOUD_RANGE = RANGES[name]
    data.DATA_AUGMENTOR.DISABLE_AUG_LIST = ["gt_sampling"]
    data.DATA_PROCESSOR[-1].VOXEL_SIZE = [0.4] * 3
    model.BACKBONE_3D.update(STRIDE=4, PROJ_CHANNELS=8, CHECKPOINT=str(checkpoint))
    model.BACKBONE_3D.BACKBONE.update(SMALL)
    model.MAP_TO_BEV.NUM_BEV_FEATURES = 40
    model.BACKBONE_2D.update(LAYER_NUMS=[1, 1], NUM_FILTERS=[16, 32], NUM_UPSAMPLE_FILTERS=[16, 16])
    if name == NUSCENES:
        model.DENSE_HEAD.SHARED_CONV_CHANNEL = 16
        model.DENSE_HEAD.TARGET_ASSIGNER_CONFIG.FEATURE_MAP_STRIDE = 4
    else:
        for anchor in model.DENSE_HEAD.ANCHOR_GENERATOR_CONFIG:
            anchor["feature_map_stride"] = 4
    return config


def car(x, y, yaw, size=(4.4, 2.0, 1.6), count=400, seed=0):
    """Points inside of a box on the ground."""
    rng = np.random.default_rng(seed)
    c, s = np.cos(yaw), np.sin(yaw)
    local = rng.uniform(-0.5, 0.5, (count, 3)) * size
    return local @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + [x, y, -1.0]


def street(places, columns, seed=0):
    """A scan: ground and cars, raw strength, with ``columns`` behind x, y, z."""
    rng = np.random.default_rng(seed)
    ground = np.column_stack([rng.uniform(-25, 50, (2500, 2)), rng.normal(-1.8, 0.02, 2500)])
    coord = np.concatenate([ground, *(car(*place, seed=i) for i, place in enumerate(places))])
    rest = [rng.uniform(0, 1, len(coord)) for _ in range(columns)]
    return np.column_stack([coord, *rest]).astype(np.float32)


def dataset(host, config, training=False):
    """The host's pipeline over two made-up scans of nuScenes."""
    places = [[(12.3, -7.1, 0.4), (-8.0, 10.0, 1.2)], [(5.0, 5.0, -0.7)]]

    class Scans(host.Dataset):
        def __len__(self):
            return len(places)

        def __getitem__(self, index):
            points = street(places[index], 2, index) * [1, 1, 1, 255, 1]
            boxes = [[x, y, -1, 4.4, 2, 1.6, yaw, 1, 0.5] for x, y, yaw in places[index]]
            return self.prepare_data(
                dict(
                    frame_id=f"scan-{index}",
                    points=points.astype(np.float32),
                    gt_boxes=np.array(boxes, dtype=np.float32),
                    gt_names=np.array(["car"] * len(boxes)),
                )
            )

    return Scans(config.DATA_CONFIG, config.CLASS_NAMES, training, Path("."), logging.getLogger())


def built(host, config, training=False):
    """The detector, its data set and a batch."""
    data = dataset(host, config, training)
    torch.manual_seed(0)
    model = host.models.build_network(config.MODEL, len(config.CLASS_NAMES), data)
    batch = data.collate_batch([data[0], data[1]])
    if not training:  # else the host measures the recall by a compiled operator
        batch.pop("gt_boxes")
    host.models.load_data_to_gpu(batch)
    return model, data, batch


@pytest.mark.parametrize("name", [NUSCENES, KITTI])
def test_shipped_config(name, read):
    """As it is: the pretraining's backbone, a map of the head's size, the rest as stock."""
    from dos_plugin.host import HOST

    config = read(f"dos/{name}")
    stock = "nuscenes_models/cbgs_voxel0075_res3d_centerpoint"
    stock = read(stock if name == NUSCENES else "kitti_models/second")
    for key in ("BACKBONE_2D", "DENSE_HEAD", "POST_PROCESSING", "NAME"):
        assert config.MODEL[key] == stock.MODEL[key]
    assert config.OPTIMIZATION == stock.OPTIMIZATION and config.CLASS_NAMES == stock.CLASS_NAMES
    for key, value in stock.DATA_CONFIG.items():
        if key not in ("DATA_PROCESSOR", "_BASE_CONFIG_"):
            assert config.DATA_CONFIG[key] == value, key
    ours, theirs = (c.DATA_CONFIG.DATA_PROCESSOR for c in (config, stock))
    assert ours[:2] == theirs[:2]

    model, encoder = config.MODEL, config.MODEL.BACKBONE_3D
    assert model.MAP_TO_BEV.NUM_BEV_FEATURES == encoder.PROJ_CHANNELS * encoder.Z_BINS
    head = model.DENSE_HEAD
    if name == NUSCENES:
        strides = {head.TARGET_ASSIGNER_CONFIG.FEATURE_MAP_STRIDE}
    else:
        strides = {anchor["feature_map_stride"] for anchor in head.ANCHOR_GENERATOR_CONFIG}
    assert strides == {encoder.STRIDE}
    names = config.DATA_CONFIG.POINT_FEATURE_ENCODING.used_feature_list
    other = dict(intensity="strength", timestamp="time")
    assert [other[key] for key in names[3:]] == model.VFE.COLUMNS
    assert encoder.FEATURES == model.VFE.FEATURES
    pretraining = re.search(r"pretrain-dos-[\w-]+", encoder.CHECKPOINT)[0]
    trained = HOST.Config.fromfile(str(config_path(pretraining)))
    there, here = dict(trained.model.backbone), dict(encoder.BACKBONE)
    added = encoder.get("ADDED_CHANNELS", 0)
    assert here.pop("in_channels") == there.pop("in_channels") + added
    assert json.dumps(here, sort_keys=True) == json.dumps(there, sort_keys=True)
    assert ours[-1].VOXEL_SIZE == [trained.transform[1]["grid_size"]] * 3


@pytest.mark.parametrize("name", [NUSCENES, KITTI])
def test_shipped_config_builds(name, host, read):
    """The whole network in its size, but for flash attention."""
    config = read(f"dos/{name}")
    config.MODEL.BACKBONE_3D.CHECKPOINT = ""
    config.DATA_CONFIG.DATA_AUGMENTOR.DISABLE_AUG_LIST = ["gt_sampling"]
    data = dataset(host, config)
    model = host.models.build_network(config.MODEL, len(config.CLASS_NAMES), data)
    assert type(model.backbone_3d).__name__ == "DOSBackbone3D"
    assert 30e6 < sum(p.numel() for p in model.backbone_3d.parameters()) < 200e6
    x, y = data.grid_size[:2] // 8
    assert model.backbone_3d.grid.bev_shape == (5, y, x)


def test_operators_raise(host):
    from pcdet.ops.iou3d_nms import iou3d_nms_utils

    boxes = torch.tensor([[0, 0, 0, 4, 2, 1, 0.0]])
    with pytest.raises(RuntimeError, match="boxes_iou_bev_gpu: not part of these tests"):
        iou3d_nms_utils.iou3d_nms_cuda.boxes_iou_bev_gpu(boxes, boxes)
    turned = boxes + torch.tensor([[0, 0, 0, 0, 0, 0, 1.57]])
    apart = boxes + torch.tensor([[0, 2.1, 0, 0, 0, 0, 0]])
    rows = torch.cat([turned, boxes, apart, boxes])
    kept, _ = iou3d_nms_utils.nms_gpu(rows, torch.tensor([0.5, 0.9, 0.8, 0.7]), 0.3)
    assert kept.tolist() == [1, 2]  # the turned one shares 4 of 12 square metres
    kept, _ = iou3d_nms_utils.nms_gpu(rows, torch.tensor([0.5, 0.9, 0.8, 0.7]), 0.4)
    assert kept.tolist() == [1, 2, 0]


@pytest.mark.parametrize("kind", ["PT-v3m2", "PT-v3m1", "SpUNet-v1m1"])
def test_centerpoint_trains_and_decodes(kind, host, read, tools, monkeypatch):
    """The host's data pipeline, loss, optimizer and decoding."""
    monkeypatch.syspath_prepend(str(tools))
    from train_utils.optimization import build_optimizer, build_scheduler

    config = small(read(f"dos/{NUSCENES}"), NUSCENES)
    backbone = config.MODEL.BACKBONE_3D.BACKBONE
    if kind == "SpUNet-v1m1":
        backbone.clear()
        backbone.update(in_channels=5, num_classes=0, base_channels=8)
        backbone.update(channels=[8, 8, 8, 8], layers=[1, 1, 1, 1])
    elif kind == "PT-v3m1":  # knows fewer options
        for key in ("attn_drop", "proj_drop", "qk_scale"):
            backbone.pop(key)
    backbone.type = kind
    np.random.seed(0)
    model, _, batch = built(host, config, training=True)
    assert batch["points"].shape[1] == 6 and batch["gt_boxes"].shape == (2, 2, 10)

    optimizer = build_optimizer(model, config.OPTIMIZATION)
    known = {id(p) for group in optimizer.opt.param_groups for p in group["params"]}
    assert known == {id(p) for p in model.parameters()}
    scheduler, _ = build_scheduler(optimizer, 12, 1, -1, config.OPTIMIZATION)
    model.train()
    grads, losses = set(), []
    before = {key: p.detach().clone() for key, p in model.backbone_3d.named_parameters()}
    for step in range(12):
        scheduler.step(step)
        optimizer.zero_grad()
        result, _, _ = model({k: v.clone() if torch.is_tensor(v) else v for k, v in batch.items()})
        result["loss"].backward()
        parameters = model.backbone_3d.named_parameters()
        grads.update(key for key, p in parameters if p.grad is not None and p.grad.any())
        optimizer.step()
        losses.append(result["loss"].item())
    assert np.isfinite(losses).all()
    assert grads == set(before)
    assert not any(torch.equal(p, before[key]) for key, p in model.backbone_3d.named_parameters())

    model.eval()
    for head in config.MODEL.DENSE_HEAD, model.dense_head.model_cfg:
        head.POST_PROCESSING.update(SCORE_THRESH=0.01, MAX_OBJ_PER_SAMPLE=30)
    batch.pop("gt_boxes")
    with torch.no_grad():
        once, _ = model(dict(batch))
        again, _ = model(dict(batch))
    assert len(once) == 2
    for found, same in zip(once, again):
        boxes, labels = found["pred_boxes"], found["pred_labels"]
        assert len(boxes) > 3 and boxes.shape[1] == 9 and torch.isfinite(boxes).all()
        assert 1 <= labels.min() and labels.max() <= 10
        assert torch.equal(boxes, same["pred_boxes"])


def test_features_lie_where_the_head_looks_for_the_box(host, read):
    """Points of one car alone: the lit cells surround the peak of the head's own target."""
    config = small(read(f"dos/{NUSCENES}"), NUSCENES)
    model, _, _ = built(host, config)
    x, y, yaw = 12.3, -7.1, 0.4
    points = np.column_stack([np.zeros(4000), car(x, y, yaw, count=4000), np.full((4000, 2), 9.0)])
    batch = dict(points=torch.from_numpy(points).float(), batch_size=1)
    model.eval()
    with torch.no_grad():
        for part in (model.vfe, model.backbone_3d, model.map_to_bev_module):
            batch = part(batch)
    lit = batch["spatial_features"][0].abs().sum(0) > 0
    assert batch["spatial_features_stride"] == 4
    box = torch.tensor([[[x, y, -1, 4.4, 2.0, 1.6, yaw, 0, 0, 1]]])
    heat = model.dense_head.assign_targets(box, feature_map_size=lit.shape)["heatmaps"][0][0, 0]
    assert heat.shape == lit.shape == (32, 32)  # cells of 1.6 m
    peak = (heat == 1).nonzero().tolist()
    assert peak == [[int((y + 25.6) / 1.6), int((x + 25.6) / 1.6)]]
    cells = lit.nonzero().float()
    assert 3 <= len(cells) <= 12 and lit[tuple(peak[0])]
    middle = (cells.mean(0) + 0.5) * 1.6 - 25.6
    torch.testing.assert_close(middle, torch.tensor([y, x]), rtol=0, atol=0.8)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A file of weights, made in another process: its data loader forks, which may hang here."""
    folder = tmp_path_factory.mktemp("pretraining")
    code = "import pathlib, sys\nfrom tests import tiny_run\n"
    code += "tiny_run.pretrain(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(folder)]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    return folder / "run/model/model_last.pth"


def saved(config, path):
    """A config as a YAML file that stands on no other."""
    import yaml

    plain = json.loads(json.dumps({k: v for k, v in config.items() if k != "_BASE_CONFIG_"}))
    plain["DATA_CONFIG"].pop("_BASE_CONFIG_")
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(plain))
    return path


def test_checkpoint_is_matched_and_changes_the_weights(host, read, pretrained, tmp_path, capsys):
    """By the converted file and the host's loader, and by the YAML: the same, and all of it."""
    config = small(read(f"dos/{NUSCENES}"), NUSCENES)
    assert config.MODEL.BACKBONE_3D.ADDED_CHANNELS == 1
    path, file = saved(config, tmp_path / "small.yaml"), tmp_path / "converted.pth"
    assert convert.main([str(pretrained), "--cfg_file", str(path), "-o", str(file)]) == 0
    said = capsys.readouterr().out
    state = torch.load(file)["model_state"]
    assert re.search(rf"matched {len(state)}\n +missing 0\n", said)
    assert "embedding.stem.linear.weight has new input channels of zeros" in said

    model, _, _ = built(host, config)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    own = {key for key in before if key.startswith("backbone_3d.backbone.")}
    assert own == state.keys() and len(own) > 40
    lines = []
    model.load_params_from_file(str(file), SimpleNamespace(info=lines.append))
    assert f"==> Done (loaded {len(own)}/{len(before)})" in lines
    after = model.state_dict()
    assert all(torch.equal(after[key], state[key]) for key in own)
    assert sum(not torch.equal(before[key], after[key]) for key in own) > 0.9 * len(own)
    assert all(torch.equal(before[key], after[key]) for key in before.keys() - own)
    trained = torch.load(pretrained, weights_only=False)["state_dict"]
    for key in own:
        wanted = trained[key.replace("backbone_3d.backbone.", "student.backbone.")]
        value = after[key]
        if key.endswith("stem.linear.weight"):
            assert not value[:, 4].any()
            value = value[:, :4]
        assert torch.equal(value, wanted)

    config.MODEL.BACKBONE_3D.CHECKPOINT = str(pretrained)
    model, _, _ = built(host, config)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items()
               if key in own)  # fmt: skip
    convert.main([str(pretrained), "--cfg_file", str(path), "-o", str(file), "--branch", "teacher"])
    teacher = torch.load(file)["model_state"]
    assert any(not torch.equal(teacher[key], state[key]) for key in own)


def test_a_foreign_checkpoint_is_refused(host, read, pretrained, tmp_path):
    config = small(read(f"dos/{NUSCENES}"), NUSCENES, pretrained)
    config.MODEL.BACKBONE_3D.FEATURES = ["strength", "coord", "time"]
    with pytest.raises(ValueError, match="features: the detector has strength, coord, time, the"):
        built(host, config)
    config.MODEL.BACKBONE_3D.FEATURES = ["coord", "strength", "time"]
    config.MODEL.BACKBONE_3D.BACKBONE.enc_channels = [8, 16, 48]
    with pytest.raises(ValueError, match="of another shape .* must be those of the checkpoint"):
        built(host, config)
    path, file = saved(config, tmp_path / "small.yaml"), tmp_path / "converted.pth"
    with pytest.raises(SystemExit, match="of another shape"):
        convert.main([str(pretrained), "--cfg_file", str(path), "-o", str(file)])
    foreign = tmp_path / "foreign.pth"
    torch.save({"state_dict": {"backbone_3d.conv.weight": torch.zeros(2)}}, foreign)
    with pytest.raises(SystemExit, match=r"holds no 'student.backbone.\*'"):
        convert.main([str(foreign), "--cfg_file", str(path), "-o", str(file)])
    with pytest.raises(SystemExit, match=r"none\.yaml: no such file .* tools as working directory"):
        convert.main([str(foreign), "--cfg_file", "none.yaml", "-o", str(file)])
    config = read("kitti_models/second")
    with pytest.raises(ValueError, match="VoxelBackBone8x, expected DOSBackbone3D"):
        convert.convert(pretrained, config, file)
    assert not file.exists()


def launch(*arguments, tools, stubs=None):
    """The launcher in a process of its own, which has the operators' stand-ins from its start."""
    paths = [str(stubs) if stubs else "", str(PROJECT)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "dos_plugin.detection.openpcdet", *arguments]
    return subprocess.run(command, cwd=tools, env=variables, capture_output=True, text=True)


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    """A folder whose ``sitecustomize`` makes an interpreter able to import the host."""
    folder = tmp_path_factory.mktemp("stubs")
    (folder / "sitecustomize.py").write_text(
        "import time\n"
        "from tests import pcdet_operators\n"
        "pcdet_operators.install()\n"
        "sleep = time.sleep\n"
        "time.sleep = lambda s: sleep(min(s, 1))\n"  # the host waits 30 s for more checkpoints
    )
    return folder


def write_kitti(root, scans=4):
    """Scans, calibration and infos as the host's own conversion writes them."""
    for part in ("velodyne", "calib"):
        (root / "training" / part).mkdir(parents=True)
    numbers = " ".join
    camera = [700, 0, 600, 0, 0, 700, 180, 0, 0, 0, 1, 0]
    turn = [0, -1, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0]  # x ahead becomes z of the camera
    lines = [f"P{i}: {numbers(map(str, camera))}" for i in range(4)]
    lines += ["R0_rect: 1 0 0 0 1 0 0 0 1", f"Tr_velo_to_cam: {numbers(map(str, turn))}"]
    infos = []
    for index in range(scans):
        x, y, yaw = 15.0 + 3 * index, 1.0 - index, 0.3 * index
        name = f"{index:06d}"
        street([(x, y, yaw)], 1, index).tofile(root / f"training/velodyne/{name}.bin")
        (root / f"training/calib/{name}.txt").write_text("\n".join(lines) + "\n")
        annos = dict(
            name=np.array(["Car"]),
            location=np.array([[-y, 1.8, x]]),  # bottom of the box
            dimensions=np.array([[4.4, 1.6, 2.0]]),
            rotation_y=np.array([-yaw - np.pi / 2]),
        )
        image = dict(image_idx=name, image_shape=np.array([375, 1242], dtype=np.int32))
        infos.append(dict(point_cloud=dict(lidar_idx=name), image=image, annos=annos))
    (root / "kitti_infos_train.pkl").write_bytes(pickle.dumps(infos))
    unlabelled = [{k: v for k, v in info.items() if k != "annos"} for info in infos]
    (root / "kitti_infos_val.pkl").write_bytes(pickle.dumps(unlabelled))
    return root


def test_train_and_test_scripts(host, read, tools, stubs, pretrained, tmp_path):
    """SECOND on a made-up KITTI by the host's scripts: trained, saved, loaded, boxes written."""
    config = small(read(f"dos/{KITTI}"), KITTI, pretrained)
    config.DATA_CONFIG.DATA_PATH = str(write_kitti(tmp_path / "kitti"))
    config.MODEL.POST_PROCESSING.SCORE_THRESH = 0.0
    config = {k: v for k, v in config.items() if k not in ("ROOT_DIR", "LOCAL_RANK")}
    saved(config, tools / "cfgs/small/second.yaml")
    options = ["--cfg_file", "cfgs/small/second.yaml", "--batch_size", "2", "--workers", "1"]
    epochs = ["--epochs", "2", "--num_epochs_to_eval", "0", "--wo_gpu_stat"]
    done = launch("train.py", *options, *epochs, tools=tools, stubs=stubs)
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stdout + done.stderr
    assert re.search(
        r"DOSBackbone3D: \S+model_last.pth \(student\): \d+ entries loaded, 0 of", said
    )
    output = tools.parent / "output/small/second/default"
    file = output / "ckpt/checkpoint_epoch_2.pth"
    state = torch.load(file)["model_state"]
    trained = torch.load(pretrained, weights_only=False)["state_dict"]
    for key in ("enc.enc2.block0.mlp.0.fc1.weight", "embedding.stem.linear.weight"):
        now, then = state[f"backbone_3d.backbone.{key}"], trained[f"student.backbone.{key}"]
        assert now.shape == then.shape and not torch.equal(now, then)
        torch.testing.assert_close(now, then, rtol=0, atol=0.1)
    (result,) = output.glob("eval/**/epoch_2/**/result.pkl")
    boxes = pickle.loads(result.read_bytes())
    assert len(boxes) == 4 and all(len(scan["boxes_lidar"]) > 0 for scan in boxes)

    done = launch(
        *("test.py", *options, "--ckpt", str(file), "--set", "MODEL.BACKBONE_3D.CHECKPOINT", ""),
        tools=tools,
        stubs=stubs,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"loaded {len(state)}/{len(state)}" in done.stdout + done.stderr
    (other,) = output.parent.glob("default/eval/epoch_2/**/default/**/result.pkl")
    for one, two in zip(boxes, pickle.loads(other.read_bytes())):
        np.testing.assert_allclose(one["boxes_lidar"], two["boxes_lidar"], atol=1e-5)


def test_spawned_children_know_the_names(tools, stubs):
    script = tools / "children.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "def answer(queue):\n"
        "    from pcdet.models import backbones_3d\n"
        "    queue.put([name for name in backbones_3d.__all__ if name.startswith('DOS')])\n"
        "if __name__ == '__main__':\n"
        "    for method in ('spawn', 'forkserver'):\n"
        "        context = multiprocessing.get_context(method)\n"
        "        queue = context.SimpleQueue()\n"
        "        child = context.Process(target=answer, args=(queue,))\n"
        "        child.start(); child.join(); print(method, child.exitcode, queue.get())\n"
        "    print(sys.argv)\n"
    )
    done = launch("children.py", "--flag", "x", tools=tools, stubs=stubs)
    assert done.stdout.splitlines() == [
        "spawn 0 ['DOSBackbone3D']",
        "forkserver 0 ['DOSBackbone3D']",
        "['children.py', '--flag', 'x']",
    ], done.stderr[-3000:]


def test_a_checkout_that_was_not_built(tools):
    if (ROOT / "pcdet/version.py").exists():
        pytest.skip("the checkout was built")
    done = launch("train.py", "--help", tools=tools)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "`python setup.py develop` in it compiles its operators" in done.stderr
