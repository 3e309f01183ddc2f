"""Features of a stage, weights and learning rates, with the backbones of the embedded host."""

from collections import defaultdict

import pytest
import torch

from dos_plugin.commands.export import FORMATS, export, write
from dos_plugin.detection.encoder import BEVEncoder
from dos_plugin.detection.grid import DetectionGrid
from dos_plugin.detection.load import STEMS, Inputs, load_pretrained
from dos_plugin.detection.rates import layer_scales
from dos_plugin.detection.tap import tap, tap_channels
from tests.exported_runs import BACKBONES, make_run
from tests.small_backbones import PTV3, SMALL, UNET, build, cloud, collate

GRID = DetectionGrid((-2.4, -2.0, -1.6, 2.4, 2.0, 1.6), 0.1, 4, z_bins=2)
ENCODER = dict(SMALL, enc_mode=True)
CONFIGS = {
    "m1": dict(ENCODER, type="PT-v3m1"),
    "m2": dict(ENCODER, type="PT-v3m2"),
    "m1-decoder": dict(SMALL, type="PT-v3m1"),
    "m2-decoder": dict(SMALL, type="PT-v3m2"),
    "spunet": dict(UNET, type="SpUNet-v1m1"),
}


def make(name, **changes):
    config = {**CONFIGS[name], **changes}
    backbone = build(config.pop("type"), **config).eval()
    for module in backbone.modules():
        if isinstance(getattr(module, "shuffle_orders", None), bool):
            module.shuffle_orders = False
    return backbone


def scans(seed=0):
    return collate(cloud(300, seed, (40, 38, 20)), cloud(170, seed + 1, (40, 38, 20)))


def batch_of(data):
    counts = torch.diff(data["offset"], prepend=torch.zeros(1, dtype=torch.long))
    return torch.arange(len(counts)).repeat_interleave(counts)


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_stage_against_a_walk_along_the_chain(name, stride):
    """Of every voxel the features of its levels, one beside the other, by cell and not by row."""
    data = scans()
    batch = batch_of(data)
    output = make(name)(data)
    stage = tap(output, data["grid_coord"], batch, stride, (2, 2))
    assert stage.stride == stride
    assert stage.feat.shape[1] == tap_channels(CONFIGS[name], stride)

    rows = {(b, *c): i for i, (b, c) in enumerate(zip(stage.batch.tolist(), stage.cells.tolist()))}
    pairs = zip(batch.tolist(), data["grid_coord"].tolist())
    where = [(b, *(v // stride for v in cell)) for b, cell in pairs]
    assert len(rows) == len(stage.feat) and set(rows) == set(where)  # each cell once, none missing

    if "decoder" in name or name == "spunet":
        feat = output if name == "spunet" else output["feat"]
        members = defaultdict(list)
        for row, cell in zip(feat, where):
            members[cell].append(row.double())
        for cell, found in members.items():
            expected = torch.stack(found).mean(0).float()
            torch.testing.assert_close(stage.feat[rows[cell]], expected, rtol=1e-5, atol=1e-6)
        return
    levels = [output]
    while "pooling_parent" in levels[-1]:
        levels.append(levels[-1]["pooling_parent"])
    tables = []  # from fine to coarse: cell of a level -> its features
    for level in levels[::-1]:
        keys = zip(level["batch"].tolist(), map(tuple, level["grid_coord"].tolist()))
        tables.append({(b, *c): row for (b, c), row in zip(keys, level["feat"])})
    first = (1, 2, 4).index(stride)
    for cell, row in rows.items():
        parts = []
        for above, table in enumerate(tables[first:]):
            parts.append(table[(cell[0], *(v // 2**above for v in cell[1:]))])
        assert torch.equal(stage.feat[row], torch.cat(parts))


def test_stage_errors():
    data = scans()
    batch, cells = batch_of(data), data["grid_coord"]
    output = make("m2")(data)
    with pytest.raises(ValueError, match=r"one of the encoder's \[1, 2, 4\], got 8"):
        tap(output, cells, batch, 8, (2, 2))
    with pytest.raises(ValueError, match=r"one of the encoder's \[1, 2, 4\], got 3"):
        tap_channels(CONFIGS["m2"], 3)
    with pytest.raises(ValueError, match="names 4 poolings, its output has 2"):
        tap(output, cells, batch, 4, (2, 2, 2, 2))
    with pytest.raises(ValueError, match=r"300 rows .* 470 voxels"):
        tap(torch.zeros(300, 4), cells, batch, 1)
    with pytest.raises(ValueError, match=r"2 rows .* 470 voxels, .*enc_mode=False"):
        tap(make("spunet", enc_mode=True)(data), cells, batch, 4)
    with pytest.raises(TypeError, match="returned list"):
        tap([1], cells, batch, 1)


def inputs(counts, seed=0):
    """Voxels of scans in the grid, sorted by scan."""
    generator = torch.Generator().manual_seed(seed)
    cells, batch = [], []
    for number, n in enumerate(counts):
        drawn = torch.rand(2 * n, 3, generator=generator) * torch.tensor(GRID.shape)
        cells.append(torch.unique(drawn.long(), dim=0)[:n])
        batch.append(torch.full((len(cells[-1]),), number))
    cells, batch = torch.cat(cells), torch.cat(batch)
    return torch.randn(len(cells), 4, generator=generator), cells, batch


@pytest.mark.parametrize("name", CONFIGS)
def test_encoder(name):
    torch.manual_seed(0)
    encoder = BEVEncoder(CONFIGS[name], GRID, channels=6)
    feat, cells, batch = inputs([260, 0, 140])
    out = encoder(feat, cells, batch, 4)
    assert out.shape == (4, encoder.out_channels, 10, 12) == (4, 12, 10, 12)
    assert out.dtype == torch.float32
    assert not out[1].any() and not out[3].any() and out[0].any() and out[2].any()
    out.square().sum().backward()
    without = [key for key, p in encoder.named_parameters() if p.grad is None]
    assert without == []

    encoder.eval()
    once = encoder(feat, cells, batch, 4)
    assert torch.equal(once, encoder(feat, cells, batch, 4))
    alone = encoder(feat[batch == 2], cells[batch == 2], batch[batch == 2] * 0, 1)
    if name == "spunet":  # the patches of PTv3 shrink with the smallest scan of a batch
        torch.testing.assert_close(alone[0], once[2])


def test_places_of_the_map():
    """A scan with voxels in one corner lights up that corner alone."""
    torch.manual_seed(0)
    encoder = BEVEncoder(CONFIGS["m2"], GRID, channels=6).eval()
    feat, cells, batch = inputs([300])
    corner = cells // torch.tensor([6, 6, 4]) + torch.tensor([40, 4, 20])
    cells = torch.unique(corner, dim=0)
    out = encoder(feat[: len(cells)], cells, batch[: len(cells)], 1)[0]
    lit = out.view(6, 2, 10, 12).abs().sum(0).nonzero()  # bin, y, x
    seen = {(z // 16, y // 4, x // 4) for x, y, z in cells.tolist()}
    assert {tuple(place) for place in lit.tolist()} <= seen and len(lit) > 3
    assert lit[:, 1].max() <= 2 and lit[:, 2].min() >= 10


@pytest.mark.parametrize("name", ["m1", "m2", "spunet"])
def test_frozen(name):
    torch.manual_seed(0)
    encoder = BEVEncoder(CONFIGS[name], GRID, channels=6, freeze=True).train()
    before = {key: value.clone() for key, value in encoder.backbone.state_dict().items()}
    feat, cells, batch = inputs([200, 100])
    encoder(feat, cells, batch, 2).square().sum().backward()
    trained = {key for key, p in encoder.named_parameters() if p.grad is not None}
    assert trained == {"proj.0.weight", "proj.1.weight", "proj.1.bias"}
    after = encoder.backbone.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)  # running statistics, too


def test_encoder_errors():
    encoder = BEVEncoder(CONFIGS["m2"], GRID)
    feat, cells, batch = inputs([50, 50])
    with pytest.raises(ValueError, match=r"in_channels: .* 4 features a voxel, got \(100, 3\)"):
        encoder(feat[:, :3], cells, batch, 2)
    with pytest.raises(ValueError, match="sorted by scan"):
        encoder(feat, cells, batch.flip(0), 2)
    assert not encoder(feat[:0], cells[:0], batch[:0], 2).any()
    with pytest.raises(ValueError, match=r"stride: expected one of the encoder's \[1, 2, 4\]"):
        BEVEncoder(CONFIGS["m2"], DetectionGrid((-8, -8, -8, 8, 8, 8), 0.1, 8))
    with pytest.raises(ValueError, match="amp: expected bfloat16 or None, got 'float16'"):
        BEVEncoder(CONFIGS["m2"], GRID, amp="float16")


KINDS = {"m1": "PT-v3m1", "m2": "PT-v3m2", "spunet": "SpUNet-v1m1"}


def save(path, backbone, prefix="student.backbone.", **others):
    state = {prefix + key: value for key, value in backbone.state_dict().items()}
    for name, other in others.items():
        state |= {f"{name}.backbone.{k}": v for k, v in other.state_dict().items()}
    state["student.head.mlp.0.weight"] = torch.zeros(2, 2)
    torch.save(dict(epoch=1, state_dict={f"module.{k}": v for k, v in state.items()}), path)
    return path


def randomized(backbone, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in backbone.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return backbone


@pytest.mark.parametrize("name", KINDS)
def test_load_with_an_added_channel(name, tmp_path):
    """Bit for bit what it was while the channel is 0.

    With weights and features of a few bits, so that sums are exact: a matrix product of another
    width sums in another order, which in itself changes the last bit.
    """
    trained = randomized(make(name))
    stem = next(p for key, p in trained.named_parameters() if key in STEMS)
    with torch.no_grad():
        stem.copy_((16 * stem).round() / 16)
    file = save(tmp_path / "last.pth", trained, teacher=randomized(make(name), 2))
    wider = make(name, in_channels=5)
    report = load_pretrained(wider, file, added_channels=1)
    assert report.inflated in STEMS and not report.missing and not report.unexpected
    assert len(report.matched) == len(wider.state_dict())
    assert f"{len(report.matched)} entries loaded, 0 of" in str(report)
    data = scans()
    data["feat"] = (16 * data["feat"]).round() / 16
    more = dict(data, feat=torch.cat([data["feat"], torch.zeros(len(data["feat"]), 1)], dim=1))
    with torch.no_grad():
        a, b = trained(data), wider(more)
    a, b = (x if isinstance(x, torch.Tensor) else x["feat"] for x in (a, b))
    assert torch.equal(a, b) and a.abs().sum() > 0

    same = make(name)
    load_pretrained(same, file, "teacher")
    reference = randomized(make(name), 2).state_dict()
    assert all(torch.equal(value, reference[key]) for key, value in same.state_dict().items())


def test_load_counts_and_errors(tmp_path):
    trained = randomized(make("m2", mask_token=True))
    file = save(tmp_path / "last.pth", trained)
    report = load_pretrained(make("m2"), file)
    assert report.unexpected == ("embedding.mask_token",)

    wrong = [
        (make("m2", in_channels=5), {}, r"1 of another shape \(embedding.stem.linear.weight "
         r"\(16, 4\) for \(16, 5\)\).*; added_channels asks for"),
        (make("m2", in_channels=6), dict(added_channels=1),
         r"added_channels=1: the backbone has in_channels=6, the pretraining in .*last.pth 4; "
         "expected in_channels=5"),
        (make("m2", enc_depths=(1, 3, 1)), {}, r"missing \(enc.enc1.block2"),
        (make("m2", enc_depths=(1, 1, 1)), {}, r"not in the backbone \(enc.enc1.block1"),
        (make("m2-decoder"), {}, r"missing \(dec.dec1"),
        (make("spunet"), {}, "0 of .* entries match"),
        (make("m2"), dict(branch="teacher"), "holds no 'teacher' backbone"),
        (make("m2"), dict(branch="segmentor"), "holds no 'segmentor' backbone"),
    ]  # fmt: skip
    for backbone, options, message in wrong:
        before = {key: value.clone() for key, value in backbone.state_dict().items()}
        with pytest.raises(ValueError, match=message):
            load_pretrained(backbone, file, **options)
        assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        load_pretrained(make("m2"), tmp_path / "none.pth")
    allowed = load_pretrained(make("m2-decoder"), file, missing_ok=("dec.",))
    assert allowed.missing and all(name.startswith("dec.") for name in allowed.missing)

    segmentation = save(tmp_path / "seg.pth", randomized(make("m2-decoder")), "backbone.")
    content = torch.load(segmentation)
    del content["state_dict"]["module.student.head.mlp.0.weight"]
    torch.save(content, segmentation)
    report = load_pretrained(make("m2"), segmentation, "segmentor")
    assert report.unexpected and all(name.startswith("dec.") for name in report.unexpected)


def test_inputs_are_compared_with_those_of_the_pretraining(tmp_path):
    trained = randomized(make("m2"))
    (tmp_path / "model").mkdir()
    file = save(tmp_path / "model/last.pth", trained)
    same = Inputs(0.2, ("coord", "strength"))
    assert "not known" in str(load_pretrained(make("m2"), file, inputs=same))
    transform = [
        dict(type="GridSample", grid_size=0.2),
        dict(type="Collect", keys=("coord",), view1_feat_keys=("view1_coord", "view1_strength")),
    ]
    (tmp_path / "config.py").write_text(f"data = {dict(train=dict(transform=transform))}")
    report = load_pretrained(make("m2"), file, inputs=same)
    assert report.trained_on == same and "coord, strength in voxels of 0.2 m" in str(report)
    wider = make("m2", in_channels=5)
    more = Inputs(0.2, ("coord", "strength", "time"))
    load_pretrained(wider, file, added_channels=1, inputs=more)
    wrong = [
        (("strength", "coord"), make("m2"), 0),
        (("coord", "time"), make("m2"), 0),
        (("coord", "strength", "color"), wider, 1),
        (("coord", "time", "strength"), wider, 1),
    ]
    for features, backbone, added in wrong:
        message = (
            f"features: the detector has {', '.join(features)}, the .*last.pth coord, strength"
        )
        with pytest.raises(ValueError, match=message):
            load_pretrained(backbone, file, added_channels=added, inputs=Inputs(0.2, features))
    with pytest.warns(UserWarning, match=r"voxels of 0.1 m, the pretraining in .*last.pth had 0.2"):
        load_pretrained(make("m2"), file, inputs=Inputs(0.1, same.features))


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("name", ["m1", "m2", "spunet"])
def test_load_an_exported_file(name, to, tmp_path):
    """By the host's names or torch-pointcloud's, and only as the branch that it is of."""
    run = make_run(tmp_path / "run", BACKBONES[name])
    write(export(run, to, "teacher"), tmp_path / "teacher.pth")
    saved = torch.load(run.checkpoint)["state_dict"]
    state = {key.removeprefix("module."): value for key, value in saved.items()}
    config = dict(BACKBONES[name], in_channels=3)
    backbone = build(config.pop("type"), **config)
    report = load_pretrained(backbone, tmp_path / "teacher.pth", "teacher", added_channels=1)
    for key, value in backbone.state_dict().items():
        value = value[..., :2] if key == report.inflated else value
        assert torch.equal(value, state[f"teacher.backbone.{key}"])
    assert report.trained_on is not None
    other = Inputs(report.trained_on.grid_size, ("height", "time"))
    with pytest.raises(ValueError, match="features: the detector has height, time"):
        load_pretrained(
            backbone, tmp_path / "teacher.pth", "teacher", added_channels=1, inputs=other
        )
    with pytest.raises(ValueError, match=r"holds no 'student' backbone .* it has: teacher"):
        load_pretrained(backbone, tmp_path / "teacher.pth", added_channels=1)


@pytest.mark.parametrize("name", ["m1-decoder", "m2-decoder", "spunet"])
def test_learning_rates_follow_the_order_of_the_forward_pass(name):
    """Layers as hooks see them run, against the factors by name."""
    backbone = make(name)
    names = [key for key, _ in backbone.named_parameters()]
    scales = layer_scales(names, 0.5)
    assert set(scales) == set(names) and max(scales.values()) == 1
    order = []
    for key, module in backbone.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.register_forward_hook(lambda *_, key=key: order.append(key))
    backbone(scans())
    ran = [scales[f"{key}.weight"] for key in order if f"{key}.weight" in scales]
    assert len(ran) > 20 and ran == sorted(ran)
    layers = len(set(scales.values()))
    assert set(scales.values()) == {0.5**n for n in range(layers)}
    # stem; blocks of PTv3; of SpUNet a pooling and the first block behind it are one layer
    assert layers == 1 + 4 + 2 if name != "spunet" else layers == 1 + 2 + 2
    with pytest.raises(ValueError, match=r"head\.weight: no layer of"):
        layer_scales(["head.weight"], 0.5)
    with pytest.raises(ValueError, match=r"decay: .* got 0"):
        layer_scales(names, 0)


def test_every_kind_is_covered():
    assert {config["type"] for config in CONFIGS.values()} == {*PTV3, "SpUNet-v1m1"}
