"""Scalars read back from event files."""

import numpy as np

from dos_plugin.runs.scalars import read_events, smooth


def log(folder, values, first=0):
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for step, value in enumerate(values, start=first):
            writer.add_scalar("train_batch/loss", value, step)
            writer.add_scalar("params/lr", value / 10, step)


def test_scalars_are_what_was_logged(tmp_path):
    log(tmp_path, [3.0, 2.0, 1.5])
    curves = read_events(tmp_path)[0]
    assert set(curves) == {"train_batch/loss", "params/lr"}
    np.testing.assert_array_equal(curves["train_batch/loss"].step, [0, 1, 2])
    np.testing.assert_allclose(curves["params/lr"].value, [0.3, 0.2, 0.15], rtol=1e-6)
    assert read_events(tmp_path / "nothing")[0] == {}


def test_an_event_file_that_was_cut_off_gives_what_is_whole(tmp_path):
    log(tmp_path, np.arange(50.0))
    (file,) = tmp_path.glob("events*")
    file.write_bytes(file.read_bytes()[:-20])
    assert len(read_events(tmp_path)[0]["train_batch/loss"].step) >= 49


def test_a_resumed_run_replaces_the_steps_it_repeats(tmp_path):
    import os

    for age, (values, first) in enumerate((([5.0, 6.0], 2), ([1.0, 1.0, 1.0], 0))):
        log(tmp_path / "one", values, first)
        (file,) = (tmp_path / "one").glob("events*")
        os.utime(file, (1000 - age, 1000 - age))
        file.rename(tmp_path / f"{file.name}.{age}")
    log(tmp_path / "another run", [9.0] * 9)  # in a folder of this one: none of its curves
    curve = read_events(tmp_path)[0]["train_batch/loss"]
    np.testing.assert_array_equal(curve.step, [0, 1, 2, 3])
    np.testing.assert_array_equal(curve.value, [1, 1, 5, 6])


def test_a_new_run_in_the_same_folder_is_not_continued_by_the_earlier_one(tmp_path):
    import os

    for time, values in ((1000, [0.5] * 9), (2000, [3.0, 2.0])):
        log(tmp_path / "run", values)
        (file,) = (tmp_path / "run").glob("events*")
        os.utime(file, (time, time))
        file.rename(tmp_path / f"{file.name}.{time}")
    np.testing.assert_array_equal(read_events(tmp_path)[0]["train_batch/loss"].value, [3, 2])


def test_smooth_is_a_mean_over_a_shrinking_window():
    value = np.random.default_rng(0).random(17)
    expected = [value[max(0, i - 2) : i + 3].mean() for i in range(17)]
    np.testing.assert_allclose(smooth(value, 5), expected)
    np.testing.assert_allclose(smooth(value, 1), value)
