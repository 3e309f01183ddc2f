"""A train.log of either host, read."""

import numpy as np
import pytest

from dos_plugin.runs.log import read_train_log

STAMPS = {
    "embedded": "[2026-01-31 12:{:02d}:00,000 {}] ",
    "pointcept": "[2026-01-31 12:{:02d}:00,000 {} misc.py line 117 4711] ",
}


def write(path, lines, host="embedded"):
    """Lines with one minute between them; a pair is level and text."""
    pairs = [line if isinstance(line, tuple) else ("INFO", line) for line in lines]
    stamp = STAMPS[host]
    text = "".join(stamp.format(i, level) + line + "\n" for i, (level, line) in enumerate(pairs))
    path.write_text(text)
    return path


def train(epoch, step, loss, epochs=3, steps=2, more=""):
    return (
        f"Train: [{epoch}/{epochs}][{step}/{steps}] Data 0.1 (0.2) Batch 1.0 (1.0) Remain "
        f"00:20:24 loss: {loss} {more}Lr: 0.00{epoch}"
    )


@pytest.mark.parametrize("host", STAMPS)
def test_losses_epochs_and_time(tmp_path, host):
    lines = [
        "Config:\nmodel = dict(type='X')\nepoch = 3",
        train(1, 1, 4.5, more="feat_std: 0.1 "),
        train(1, 2, "nan", more="feat_std: 1e-3 "),
        "Train result: loss: 4.0000 ",
        train(2, 1, -1.5),
    ]
    log = read_train_log(write(tmp_path / "train.log", lines, host))
    loss = log.curves["train_batch/loss"]
    np.testing.assert_array_equal(loss.step, [1, 2, 3])
    np.testing.assert_array_equal(loss.value, [4.5, np.nan, -1.5])
    np.testing.assert_array_equal(log.curves["train_batch/feat_std"].value, [0.1, 0.001])
    np.testing.assert_array_equal(log.curves["params/lr"].value, [0.001, 0.001, 0.002])
    assert set(log.curves) == {"train_batch/loss", "train_batch/feat_std", "params/lr"}
    assert (log.epoch, log.max_epoch, log.step, log.epochs_done) == (2, 3, (1, 2), 1)
    assert log.seconds == 240
    assert log.config_text == "model = dict(type='X')\nepoch = 3\n"
    assert not log.cut and not log.stopped and not log.warnings


@pytest.mark.parametrize("host", STAMPS)
def test_validations_and_the_test_after_training(tmp_path, host):
    lines = [
        train(1, 2, 1.0),
        "Val result: mIoU/mAcc/allAcc 0.2116/0.3519/0.6277.",
        "Class_0-road Result: iou/accuracy 0.6052/0.7745",
        "Class_1-traffic sign Result: iou/accuracy 0.0000/0.0000",
        train(2, 2, 0.9),
        "Val result: mIoU/mAcc/allAcc 0.3000/0.4000/0.7000.",
        ">>>>>>>>>>>>>>>> Start Precise Evaluation >>>>>>>>>>>>>>>>",
        "Val result: mIoU/mAcc/allAcc 0.3300/0.4400/0.7700",
        "Class_0 - road Result: iou/accuracy 0.7000/0.8000",
    ]
    log = read_train_log(write(tmp_path / "train.log", lines, host))
    first, second = log.validations
    assert (first.epoch, second.epoch) == (1, 2)
    assert first.scores == {"mIoU": 0.2116, "mAcc": 0.3519, "allAcc": 0.6277}
    assert first.iou == {"road": 0.6052, "traffic sign": 0.0}
    assert second.scores["allAcc"] == 0.7
    assert log.test.scores["mIoU"] == 0.33 and log.test.iou == {"road": 0.7}
    more = [train(3, 2, 0.8), "Val result: mIoU/mAcc/allAcc 0.4000/0.5000/0.8000."]
    log = read_train_log(write(tmp_path / "train.log", [*lines, *more], host))  # resumed
    assert [validation.epoch for validation in log.validations] == [1, 2, 3]
    assert log.test.scores["mIoU"] == 0.33


def test_a_resumed_run_replaces_what_it_repeats(tmp_path):
    lines = [train(1, 1, 5.0), train(1, 2, 4.0), train(2, 1, 3.0), train(2, 1, 2.0)]
    log = read_train_log(write(tmp_path / "train.log", lines))
    np.testing.assert_array_equal(log.curves["train_batch/loss"].step, [1, 2, 3])
    np.testing.assert_array_equal(log.curves["train_batch/loss"].value, [5, 4, 2])


def test_a_line_that_was_cut_off_does_not_count(tmp_path):
    path = write(tmp_path / "train.log", [train(1, 1, 5.25), train(1, 2, 4.25)])
    path.write_text(path.read_text()[:-2])
    log = read_train_log(path)
    assert log.cut
    np.testing.assert_array_equal(log.curves["train_batch/loss"].value, [5.25])


def test_warnings_are_counted_and_the_last_line_of_a_traceback_is_the_error(tmp_path):
    lines = [
        ("WARNING", "scan 3 is too small"),
        train(2, 1, 1.0),
        ("WARNING", "scan 17 is too small"),
        ("WARNING", "DOS: this run seems to collapse: feat_std 0.01"),
        ("ERROR", "Traceback (most recent call last):\n  File x\nValueError: no such root"),
    ]
    log = read_train_log(write(tmp_path / "train.log", lines))
    assert [(w.level, w.count, w.epoch) for w in log.warnings] == [
        ("WARNING", 2, 0),
        ("WARNING", 1, 2),
        ("ERROR", 1, 2),
    ]
    assert log.warnings[0].text == "scan 17 is too small"
    assert log.warnings[2].text == "ValueError: no such root"
    assert log.stopped


def test_the_lines_of_the_hooks_as_the_hooks_write_them(tmp_path):
    from dos_plugin.hooks.limits import summary
    from dos_plugin.hooks.online_probe import log_line

    values = dict(
        feat_std=0.87, rankme=12.3, target_entropy=0.912, prior_kl=0.125, dead_share=0.1,
        effective_prototypes=33.1, effective_prototypes_of_prior=28.1, dead_prototypes=2,
        duplicate_prototypes=3, same_matched=1.0, cross_matched=0.5, visible=0.3,
    )  # fmt: skip
    before = dict(epoch=0, linear=dict(miou=20.0), knn=dict(miou=18.0))
    after = dict(epoch=5, linear=dict(miou=25.5), knn=dict(miou=19.5))
    lines = [
        log_line(before, before, 1.0),
        train(1, 2, 1.0),
        summary([values], 64, 20),
        log_line(after, before, 2.0),
    ]
    curves = read_train_log(write(tmp_path / "train.log", lines)).curves
    for name in ("feat_std", "rankme", "prior_kl", "effective_prototypes", "dead_prototypes"):
        assert curves[f"monitor/{name}"].value.tolist() == [values[name]]
        assert curves[f"monitor/{name}"].step.tolist() == [2]
    assert curves["monitor/duplicate_prototypes"].value.tolist() == [3]
    assert curves["monitor/target_entropy"].value.tolist() == [0.912]
    assert curves["probe/linear_mIoU"].step.tolist() == [0, 5]
    assert curves["probe/linear_mIoU"].value.tolist() == [20, 25.5]
    assert curves["probe/knn_mIoU"].value.tolist() == [18, 19.5]


def test_what_is_no_log_gives_nothing(tmp_path):
    path = tmp_path / "train.log"
    path.write_bytes(bytes(range(256)) * 20)
    log = read_train_log(path)
    assert log.curves == {} and log.max_epoch == 0
