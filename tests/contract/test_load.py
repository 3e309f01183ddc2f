"""PretrainedLoader: what is loaded, what is said about it, and what is refused.

Run on the embedded host by default, and on Pointcept by
``DOS_HOST=pointcept python -m dos_plugin.cpu -m pytest tests/contract/test_load.py``.
"""

import logging

import pytest
import torch

import dos_plugin.register  # noqa: F401
from dos_plugin.host import HOST
from tests.segmentors import BACKBONES, CHANNELS, build, trainer

LOG = "tests.segmentors"


def pretraining(backbone="PT-v3m2", **changes):
    """State dict of a DOS model whose teacher differs from its student."""
    cfg = dict(
        type="DOS-v1m1",
        backbone={**BACKBONES[backbone], **changes},
        backbone_out_channels=CHANNELS[backbone],
        up_cast_level=0 if backbone == "SpUNet-v1m1" else 2,
        head=dict(hidden_channels=16, out_channels=8),
        num_prototypes=16,
    )
    if changes.get("mask_token"):
        cfg["student_input"] = "mask_token"
    torch.manual_seed(1)
    model = HOST.build_model(cfg)
    with torch.no_grad():
        for parameter in model.teacher.parameters():
            parameter.mul_(1.1)
    return {key: value.clone() for key, value in model.state_dict().items()}


def write(path, state):
    torch.save(dict(epoch=1, state_dict=state), path)
    return path


@pytest.fixture(scope="module")
def weight(tmp_path_factory):
    """A checkpoint for each backbone without a decoder of its own, as saved by one process."""
    folder = tmp_path_factory.mktemp("weights")
    names = ("PT-v3m1", "PT-v3m2", "SpUNet-v1m1")
    return {name: write(folder / f"{name}.pth", pretraining(name)) for name in names}


def load(model, weight, branch="student", **cfg):
    hook = HOST.HOOKS.build(dict(type="PretrainedLoader", branch=branch))
    hook.trainer = trainer(model, None if weight is None else str(weight))
    vars(hook.trainer.cfg).update(cfg)
    hook.before_train()
    return model


@pytest.mark.parametrize("branch", ["student", "teacher"])
@pytest.mark.parametrize("name", ["PT-v3m1", "PT-v3m2", "SpUNet-v1m1"])
def test_the_whole_backbone_of_a_branch(name, branch, weight, caplog):
    state = torch.load(weight[name], weights_only=False)["state_dict"]
    model = build(name)
    head = model.seg_head.weight.clone()
    with caplog.at_level(logging.INFO, logger=LOG):
        load(model, weight[name], branch)
    loaded = model.state_dict()
    keys = [key for key in loaded if key.startswith("backbone.")]
    assert len(keys) > 50
    for key in keys:
        assert torch.equal(loaded[key], state[f"{branch}.{key}"]), key
    assert torch.equal(model.seg_head.weight, head)
    said = "\n".join(caplog.messages)
    assert f"({branch} of a DOS pretraining)" in said and f"Loaded {len(keys)} (" in said
    assert "they keep random weights: 2 (seg_head.weight, seg_head.bias)" in said
    assert "they are not used: none" in said


def test_of_a_run_of_several_processes(weight, tmp_path):
    state = torch.load(weight["PT-v3m2"], weights_only=False)["state_dict"]
    prefixed = write(tmp_path / "ddp.pth", {f"module.{k}": v for k, v in state.items()})
    model = load(build("PT-v3m2"), prefixed)
    assert torch.equal(
        model.state_dict()["backbone.enc.enc0.block0.attn.qkv.weight"],
        state["student.backbone.enc.enc0.block0.attn.qkv.weight"],
    )


@pytest.mark.parametrize("part", ["encoder", False])
def test_a_decoder_that_the_pretraining_had_not_is_new(part, weight, caplog):
    model = build("PT-v3m2-dec", part)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with caplog.at_level(logging.INFO, logger=LOG):
        load(model, weight["PT-v3m2"])
    after = model.state_dict()
    new = {key for key in after if torch.equal(after[key], before[key])}
    decoder = {key for key in after if key.startswith(("backbone.dec.", "seg_head."))}
    assert decoder <= new
    moved = after.keys() - new
    assert {
        "backbone.enc.enc0.block0.attn.qkv.weight",
        "backbone.enc.enc2.down.proj.weight",
    } <= moved
    assert f"random weights: {len(decoder)} (" in "\n".join(caplog.messages)


def test_a_decoder_or_mask_token_without_use_is_said(tmp_path, caplog):
    more = pretraining("PT-v3m2", mask_token=True)
    model = build("PT-v3m2-dec", False)
    decoder = {
        f"student.{key}": value for key, value in model.state_dict().items() if ".dec." in key
    }
    with caplog.at_level(logging.INFO, logger=LOG):
        load(build("PT-v3m2"), write(tmp_path / "more.pth", {**more, **decoder}))
    assert f"they are not used: {len(decoder) + 1} (" in "\n".join(caplog.messages)


def test_of_a_segmentation_run(tmp_path, caplog):
    source = build("PT-v3m2-dec", False)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(0.1)
    saved = write(tmp_path / "run.pth", source.state_dict())
    model = load(build("PT-v3m2-dec", False), saved, branch="teacher")
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in source.state_dict().items())
    caplog.clear()
    with caplog.at_level(logging.INFO, logger=LOG):
        other = load(build("PT-v3m2-dec", False, num_classes=7), saved)
    assert other.seg_head.weight.shape == (7, 8)
    assert "(segmentation run)" in caplog.messages[0]
    assert "random weights: 2 (seg_head.weight, seg_head.bias)" in caplog.messages[2]


@pytest.mark.parametrize("value", [None, "None", ""])
def test_without_a_weight_it_says_so(value, caplog):
    model = build("PT-v3m2")
    before = model.seg_head.weight.clone()
    with caplog.at_level(logging.INFO, logger=LOG):
        load(model, value)
    assert caplog.messages == ["weight is None: training starts from random weights"]
    assert torch.equal(model.seg_head.weight, before)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.pth: no checkpoint there"):
        load(build("PT-v3m2"), tmp_path / "none.pth")


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "no dict", "no state_dict"])
def test_no_checkpoint(kind, weight, tmp_path):
    path = tmp_path / "bad.pth"
    content = weight["PT-v3m2"].read_bytes()
    path.write_bytes({"truncated": content[:-2000], "text": b"not a model\n" * 9}.get(kind, b""))
    if kind == "no dict":
        torch.save(torch.zeros(3), path)
    if kind == "no state_dict":
        torch.save(dict(model=dict()), path)
    message = "holds no 'state_dict'" if kind.startswith("no ") else "truncated or not a torch file"
    with pytest.raises(ValueError, match=f"bad.pth: {message}"):
        load(build("PT-v3m2"), path)


def test_no_dos_model(tmp_path):
    path = write(
        tmp_path / "other.pth", {"encoder.weight": torch.zeros(2), "fc.bias": torch.ones(1)}
    )
    message = "other.pth holds no DOS model: .* its keys start with 2 .encoder, fc."
    with pytest.raises(ValueError, match=message):
        load(build("PT-v3m2"), path)


def test_a_branch_that_does_not_exist(tmp_path):
    with pytest.raises(ValueError, match="branch of PretrainedLoader must be one of .* got 'mean'"):
        HOST.HOOKS.build(dict(type="PretrainedLoader", branch="mean"))
    state = {k: v for k, v in pretraining().items() if not k.startswith("teacher.")}
    path = write(tmp_path / "student.pth", state)
    load(build("PT-v3m2"), path)
    with pytest.raises(ValueError, match=r"student.pth: holds no 'teacher' backbone"):
        load(build("PT-v3m2"), path, "teacher")


@pytest.mark.parametrize(
    "source, changes, model, message",
    [
        ("PT-v3m2", {}, "SpUNet-v1m1", "nothing of model.backbone is in it; the model has: "),
        ("PT-v3m2", dict(enc_channels=(8, 16, 32), enc_num_head=(1, 2, 4)), "PT-v3m2",
         r"of another shape: .*backbone.enc.enc2.* \(32, 16\), model \(24, 16\)"),
        ("PT-v3m2", dict(in_channels=6), "PT-v3m2", r"stem.linear.weight \(8, 6\), model \(8, 4\)"),
        ("PT-v3m2", dict(enc_depths=(1, 2, 1)), "PT-v3m2", "not in the model: .*enc1.block1"),
        ("PT-v3m1", {}, "PT-v3m2", "missing in a part that it holds: "),
        ("PT-v3m2", {}, "frozen decoder", "missing, and frozen in the model: .*backbone.dec"),
    ],
)  # fmt: skip
def test_a_backbone_that_does_not_fit(source, changes, model, message, tmp_path):
    state = pretraining(source, **changes)
    path = write(tmp_path / "other.pth", state)
    name = "PT-v3m2-dec" if model == "frozen decoder" else model
    target = build(name, True)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(ValueError, match=message) as raised:
        load(target, path)
    assert "other.pth" in str(raised.value) and "depths and in_channels" in str(raised.value)
    assert len(str(raised.value)) < 1200
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_resume_needs_a_checkpoint_of_this_run(weight):
    with pytest.raises(ValueError, match="resume=True needs the run's checkpoint"):
        load(build("PT-v3m2"), None, resume=True)
    with pytest.raises(ValueError, match="resume=True, but .* not of a run of this config"):
        load(build("PT-v3m2"), weight["PT-v3m2"], resume=True)
