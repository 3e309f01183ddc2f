"""OnlineProbe's parts: history, best checkpoint, random generators, and bad input."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dos_plugin.hooks.online_probe import (
    OnlineProbe,
    best_miou,
    log_line,
    read_history,
    write_history,
)
from dos_plugin.host import active_host
from dos_plugin.runs.run import open_run
from tests.tiny_run import write_config, write_scans

SMALL = dict(train_scans=2, val_scans=1, steps=5)


def entry(epoch, linear, knn=10.0):
    return {"epoch": epoch, "linear": {"miou": linear}, "knn": {"miou": knn}}


# -- history and best checkpoint ---------------------------------------------------------------


def test_best_is_over_trained_epochs():
    assert best_miou([]) == best_miou([entry(0, 50)]) == -float("inf")
    assert best_miou([entry(0, 50), entry(2, 20), entry(4, 30), entry(6, 25)]) == 30


def test_history_is_kept_up_to_the_epoch_of_a_resumed_run(tmp_path):
    path = tmp_path / "probe.json"
    assert read_history(path, 3) == []
    history = [entry(epoch, epoch) for epoch in (0, 2, 4)]
    write_history(path, history)
    assert json.loads(path.read_text()) == history
    assert read_history(path, 4) == history and read_history(path, 3) == history[:2]
    assert [file.name for file in tmp_path.iterdir()] == ["probe.json"]


@pytest.mark.parametrize("text", ["[{", "{}", "3", '[{"epoch": 1}]'])
def test_damaged_history(tmp_path, text):
    (tmp_path / "probe.json").write_text(text)
    with pytest.raises(ValueError, match=r"probe.json: is no list of probes .* move it away"):
        read_history(tmp_path / "probe.json", 3)


def test_log_line():
    first, later = entry(0, 25.04, 20.0), entry(6, 31.26, 19.5)
    assert log_line(first, first, 1.234) == (
        "Probe of epoch 0, before training: linear mIoU 25.0, kNN mIoU 20.0; 1.2 s"
    )
    assert log_line(later, first, 2) == (
        "Probe of epoch 6: linear mIoU 31.3 (epoch 0: 25.0, +6.2), "
        "kNN mIoU 19.5 (epoch 0: 20.0, -0.5); 2.0 s"
    )


# -- the hook in a trainer ---------------------------------------------------------------------


class CheckpointSaver:
    pass


class PretrainedLoader:
    pass


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    write_scans(root / "data", "train", 2)
    write_scans(root / "data", "val", 1)
    write_scans(root / "bare", "train", 1, labels=False)
    write_scans(root / "bare", "val", 1, labels=False)
    for split in ("train", "val"):
        write_scans(root / "one", split, 1)
        path = root / "one" / split / "scan-0/segment.npy"
        np.save(path, np.zeros_like(np.load(path)))
    return open_run(write_config(root / "run", root / "data")).config


def attach(hook, config, folder, before=(), after=(), **changes):
    """A hook in a trainer that has what the hook asks for."""
    torch.manual_seed(0)
    cfg = type(config)({**config.to_dict(), "save_path": str(folder), **changes})
    hook.trainer = SimpleNamespace(
        cfg=cfg,
        hooks=[*before, hook, *after],
        model=active_host().build_model(cfg.model),
        logger=logging.getLogger("trainer"),
        writer=None,
        epoch=0,
        start_epoch=0,
        max_epoch=7,
    )
    return hook


def epochs_probed(hook):
    """Epochs of the probes of a whole training, without their work."""
    found = []
    hook.probe = found.append
    for epoch in range(hook.trainer.start_epoch, hook.trainer.max_epoch):
        hook.trainer.epoch = epoch
        hook.before_epoch()
        hook.after_epoch()
    hook.after_train()
    return found


def test_epochs_that_are_probed(config, tmp_path):
    hook = attach(OnlineProbe(every=3, **SMALL), config, tmp_path)
    hook.before_train()
    assert epochs_probed(hook) == [0, 3, 6, 7]
    hook.trainer.start_epoch = 3  # resumed: its probe was lost with the interruption, or not
    assert epochs_probed(hook) == [3, 6, 7]
    hook.history = [entry(0, 1), entry(3, 1)]
    assert epochs_probed(hook) == [6, 7]
    hook.trainer.start_epoch = 7  # nothing is left to train
    assert epochs_probed(hook) == [7]
    hook.history.append(entry(7, 1))
    assert epochs_probed(hook) == []


def test_best_checkpoint_is_copied_when_the_probe_improves(config, tmp_path, monkeypatch):
    hook = attach(
        OnlineProbe(every=1, save_best=True, **SMALL), config, tmp_path, [CheckpointSaver()]
    )
    hook.before_train()
    scores = dict(zip(range(5), (40.0, 20.0, 30.0, 25.0, 35.0)))
    (tmp_path / "model").mkdir()
    last, best = tmp_path / "model/model_last.pth", tmp_path / "model/model_best.pth"
    found = []
    for epoch, score in scores.items():
        result = {"miou": score, "knn": {"miou": 1.0}}
        monkeypatch.setattr(
            "dos_plugin.hooks.online_probe.probe_features",
            lambda *_, result=result, **__: dict(result),
        )
        last.write_text(str(epoch))
        hook.probe(epoch)
        found.append(best.read_text() if best.exists() else None)
    # Epoch 0 is the best of all, but has no checkpoint; epoch 3 is worse than epoch 2.
    assert found == [None, "1", "2", "2", "4"]
    # A resumed run knows the best from the history.
    again = attach(
        OnlineProbe(every=1, save_best=True, **SMALL),
        config,
        tmp_path,
        [CheckpointSaver()],
        resume=True,
    )
    again.trainer.start_epoch = 4
    again.before_train()
    last.write_text("5")
    monkeypatch.setattr(
        "dos_plugin.hooks.online_probe.probe_features",
        lambda *_, **__: {"miou": 34.0, "knn": {"miou": 1.0}},
    )
    again.probe(5)
    assert best.read_text() == "4"
    assert [e["epoch"] for e in json.loads((tmp_path / "probe.json").read_text())] == [*range(6)]


def test_a_new_run_does_not_continue_the_history_of_an_earlier_one(config, tmp_path):
    write_history(tmp_path / "probe.json", [entry(0, 90), entry(1, 95)])
    hook = attach(OnlineProbe(**SMALL), config, tmp_path)
    hook.before_train()
    assert hook.history == []
    assert read_history(tmp_path / "probe.json", 1)  # not touched before all hooks are ready
    for active, resume in ((False, True), (False, False)):  # without labels, say
        assert (tmp_path / "probe.json").exists()
        hook.active, hook.trainer.cfg.resume = active, resume
        hook.before_epoch()
    assert not (tmp_path / "probe.json").exists()


def test_student_and_teacher_are_told_apart(config, tmp_path):
    scores = {}
    for branch in ("student", "teacher"):
        hook = attach(OnlineProbe(branch=branch, **SMALL), config, tmp_path)
        for parameter in hook.trainer.model.teacher.parameters():
            parameter.data.mul_(1.5)
        hook.before_train()
        own = getattr(hook.trainer.model, branch)["backbone"].state_dict()
        scores[branch] = hook.frozen.features()(hook.val[0])
        copied = hook.frozen.copy.state_dict()
        assert all(torch.equal(copied[key], value) for key, value in own.items())
        assert all(copied[key].data_ptr() != value.data_ptr() for key, value in own.items())
    assert not torch.allclose(scores["student"], scores["teacher"])


def test_features_that_are_no_numbers_end_no_run(config, tmp_path, caplog):
    hook = attach(OnlineProbe(every=1, **SMALL), config, tmp_path)
    hook.before_train()
    hook.before_epoch()
    for parameter in hook.trainer.model.student.parameters():
        parameter.data.fill_(torch.nan)
    hook.after_epoch()
    assert "OnlineProbe: no probe of epoch 1" in caplog.text and "NaN" in caplog.text
    assert [e["epoch"] for e in json.loads((tmp_path / "probe.json").read_text())] == [0]


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(every=0), "every of OnlineProbe must be a whole number of at least 1, got 0"),
        (dict(every=1.5), "every of OnlineProbe must be a whole number of at least 1, got 1.5"),
        (dict(train_scans=0), "train_scans of OnlineProbe must be .* at least 1, got 0"),
        (dict(val_scans=-3), "val_scans of OnlineProbe must be .* at least 1, got -3"),
        (dict(steps="many"), "steps of OnlineProbe must be .* at least 1, got 'many'"),
        (dict(branch="both"), "branch of OnlineProbe must be one of .*student.*, got 'both'"),
        (dict(val_split="train"), "train_split and val_split of OnlineProbe are both 'train'"),
        (
            dict(train_split="few"),
            "train_split='few' of OnlineProbe: .*no file or folder.*/few'; set",
        ),
        (dict(data_root="/nowhere"), "train_split='train' of OnlineProbe: /nowhere: no such"),
        (dict(data_root="bare"), "OnlineProbe: .* have no labels.*; data_root, train_split and"),
        (dict(data_root="one"), r"OnlineProbe: train: .* labels of 1 classes \(0\), expected at"),
    ],
)
def test_bad_options(config, tmp_path, options, message):
    if options.get("data_root") in ("bare", "one"):
        root = config.data.train.data_root.removesuffix("data")
        options = {"data_root": root + options["data_root"]}
    with pytest.raises(ValueError, match=message):
        attach(OnlineProbe(**{**SMALL, **options}), config, tmp_path).before_train()


def test_a_probe_that_is_not_required_is_off_without_labels(config, tmp_path, caplog):
    root = config.data.train.data_root.removesuffix("data") + "bare"
    hook = attach(OnlineProbe(data_root=root, required=False, **SMALL), config, tmp_path)
    hook.before_train()
    hook.before_epoch()
    hook.after_epoch()
    assert len([record for record in caplog.records if record.name == "trainer"]) == 1
    assert "No probe while training: OnlineProbe: " in caplog.text and "no labels" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_place_in_the_list_of_hooks(config, tmp_path):
    late = attach(OnlineProbe(**SMALL), config, tmp_path, after=[PretrainedLoader()])
    with pytest.raises(ValueError, match="OnlineProbe stands before PretrainedLoader, move it"):
        late.before_train()
    for before, after in (([], [CheckpointSaver()]), ([], [])):
        hook = attach(OnlineProbe(save_best=True, **SMALL), config, tmp_path, before, after)
        with pytest.raises(ValueError, match="save_best .* put the hook after CheckpointSaver"):
            hook.before_train()


def test_best_checkpoint_of_two_masters(config, tmp_path):
    hook = OnlineProbe(save_best=True, **SMALL)
    attach(hook, config, tmp_path, [CheckpointSaver()], evaluate=True)
    with pytest.raises(ValueError, match="save_best .* and evaluate=True both write model_best"):
        hook.before_train()


def test_a_model_that_is_no_pretraining(config, tmp_path):
    hook = attach(OnlineProbe(**SMALL), config, tmp_path)
    hook.trainer.model = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"Linear has no student.backbone, expected a pretraining"):
        hook.before_train()
