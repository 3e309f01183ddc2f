"""The parts of a report, and a whole one of a small run."""

import base64
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import entropy

from dos_plugin.commands.probe import format_table
from dos_plugin.drawing.render import (
    BACKGROUND,
    Camera,
    birds_eye,
    component_colours,
    index_colours,
    label_colours,
    principal_components,
    render,
)
from dos_plugin.probing.compare import probe_run
from dos_plugin.probing.probe import ProbeSettings
from dos_plugin.probing.prototypes import (
    effective_number,
    kl_divergence,
    load_projector,
    measure_usage,
    strongest_prototype,
)
from dos_plugin.probing.scans import ScanSource
from dos_plugin.reports.evidence import Facts
from dos_plugin.reports.write import probe_into, write_report
from dos_plugin.runs.record import read_record
from dos_plugin.runs.run import open_run
from dos_plugin.runs.scalars import read_events, smooth
from tests.tiny_run import write_run, write_scans

SETTINGS = ProbeSettings(seeds=(0, 1), steps=40, knn_bank=200, knn_queries=200)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    for split in ("train", "val"):
        write_scans(root / "data", split, 2)
    return open_run(write_run(root / "run", root / "data"))


@pytest.fixture(scope="module")
def val(run):
    return list(ScanSource(run, split="val"))


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


def test_divergence_and_effective_number_against_scipy():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(30)), rng.dirichlet(np.ones(30))
    p[3] = 0
    p /= p.sum()
    assert kl_divergence(torch.tensor(p), torch.tensor(q)) == pytest.approx(entropy(p, q))
    assert effective_number(torch.tensor(p)) == pytest.approx(np.exp(entropy(p)))
    assert effective_number(torch.full((8,), 1 / 8)) == pytest.approx(8)


def test_usage_follows_from_the_dense_plan(run, val):
    """Row-scaled F diag(v) written out, with the scaling repeated by hand."""
    projector = load_projector(run)
    usage = measure_usage(projector, val, rows=10**6)
    feat = torch.cat([projector.project(scan) for scan in val]).double()
    torch.testing.assert_close(feat.norm(dim=1), torch.ones(len(feat), dtype=torch.float64))
    plan = (feat @ projector.prototypes.double().T / projector.temp).exp()
    own = (plan / plan.sum(1, keepdim=True)).mean(0)
    torch.testing.assert_close(usage.own.double(), own, rtol=1e-4, atol=1e-7)
    rank = torch.arange(1, 21, dtype=torch.float64)
    prior = rank**-1.3 / (rank**-1.3).sum()
    torch.testing.assert_close(usage.prior.double(), prior, rtol=1e-5, atol=0)
    for _ in range(3):
        plan = plan / plan.sum(1, keepdim=True) / len(plan)
        assigned = plan.sum(0)
        winner = plan.argmax(1)
        plan = plan / assigned * prior
    torch.testing.assert_close(usage.assigned.double(), assigned, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(usage.feat_std.double(), feat.std(0), rtol=1e-4, atol=1e-6)
    found = strongest_prototype(projector, val[0], usage.scaling_bias)
    assert (found == winner[: len(found)]).double().mean() > 0.999
    assert usage.figures()["feature_std_isotropic"] == pytest.approx(12**-0.5)


def test_nearest_point_wins_a_pixel_and_the_rest_is_background():
    camera = Camera((0, 0, 100), (0, 0, 0), span=20, point_size=0.5)
    coord = np.array([[0, 0, 0], [0, 0, 5], [5, -5, 0]], dtype=float)
    colour = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
    image = render(coord, colour, camera, 200, 200)
    np.testing.assert_array_equal(image[100, 100], [0, 255, 0])
    # x goes right and y up: (5, -5) lies 50 pixels right of and below the middle.
    assert image[150, 150, 2] > 200
    np.testing.assert_array_equal(image[20, 20], BACKGROUND)
    outside = render(coord + [0, 0, 1000], colour, camera, 40, 40)  # behind the camera
    assert (outside == np.array(BACKGROUND)).all()


def test_perspective_projects_like_a_pinhole():
    camera = Camera((0, 0, 0), (1, 0, 0), field_of_view=90, point_size=0.1)
    # At 45 degrees to the left and right (y is left), on the edge of a field of 90 degrees.
    coord = np.array([[10, 9.9, 0], [10, -4.95, 0], [10, 0, 2.5]])
    colour = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
    image = render(coord, colour, camera, 200, 100)
    for channel, (row, column) in enumerate([(50, 1), (50, 149), (25, 100)]):
        lit = np.argwhere(image[..., channel] > 120)
        np.testing.assert_allclose(lit.mean(0), [row, column], atol=1.5)


def test_colours():
    colours = label_colours(np.array([0, 1, -1, 0]), ((1, 2, 3), (4, 5, 6)))
    assert colours.tolist() == [[1, 2, 3], [4, 5, 6], [86, 90, 100], [1, 2, 3]]
    several = index_colours(np.array([7, 9, 7]))
    assert (several[0] == several[2]).all() and (several[0] != several[1]).any()
    with pytest.raises(ValueError, match="colour: got 1 for 2 points"):
        render(np.zeros((2, 3)), np.zeros((1, 3), dtype=np.uint8), birds_eye())


def test_principal_components_span_the_directions_of_largest_variance():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    feat = rng.standard_normal((500, 6)) * [9, 5, 3, 0.1, 0.1, 0.1] @ basis.T + 4
    components, mean = principal_components(feat)
    np.testing.assert_allclose(np.abs(components @ basis[:, :3]), np.eye(3), atol=0.1)
    colours = component_colours(feat, components, mean)
    values = (feat - mean) @ components.T
    order = values[:, 0].argsort()
    assert (np.diff(colours[order, 0].astype(int)) >= 0).all()
    assert colours.min() == 50 and colours.max() == 255


def test_probe_run_gives_all_sources_and_names_classes(run, val):
    train = list(ScanSource(run, split="train"))
    result = probe_run(run, train, val, ("ground", "box", "pole"), settings=SETTINGS)
    assert list(result) == ["student", "teacher", "random", "raw"]
    assert [result[key]["channels"] for key in result] == [48, 48, 48, 5]
    for entry in result.values():
        assert set(entry["iou"]) == {"ground", "box", "pole"}
        assert entry["miou"] == pytest.approx(np.mean(list(entry["iou"].values())))
        assert len(entry["miou_seeds"]) == 2
        assert 0 < entry["knn"]["miou"] <= 100
    assert "random weights" in format_table(result)
    with pytest.raises(ValueError, match="source: got 'x'"):
        probe_run(run, train, val, sources=["x"])


def test_probe_without_labels_or_scans_is_refused(run, val, tmp_path):
    write_scans(tmp_path, "val", 1, labels=False)
    bare = list(ScanSource(run, tmp_path, "val"))
    with pytest.raises(ValueError, match="scan-0 and 1 more scans have no labels"):
        probe_run(run, bare, bare)
    with pytest.raises(ValueError, match="scans: got none"):
        probe_run(run, [], val)


def test_report_is_one_page_without_network(run, val, tmp_path):
    log(run.folder, np.linspace(3, 1, 30))
    facts = Facts(commands=["a & b"], seconds={"pretrain": 61.0}, peak_memory_mb=512.0)
    train = ScanSource(run, split="train")
    probe_into(facts, run, train, val, ("ground", "box", "pole"), SETTINGS)
    page = write_report(
        read_record(run.folder), val, facts, ("ground", "box", "pole"), folder=tmp_path
    )
    html = page.read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', html)
    assert len(sources) >= 10
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<script" not in html and "http" not in re.sub(r"base64,[^\"]*", "", html)
    for data in re.findall(r"base64,([^\"]+)", html):
        assert base64.b64decode(data).startswith(b"\x89PNG")
    assert "a &amp; b" in html

    content = json.loads((tmp_path / "report.json").read_text())
    for source in ("student", "teacher", "random", "raw"):
        assert content["probe"][source]["miou"] == facts.probe[source]["miou"]
    assert f"{content['probe']['student']['miou']:.1f}" in html
    assert content["seconds"]["pretrain"] == 61.0
    assert content["seconds"]["total"] > 61.0
    assert content["peak_memory_mb"] == 512.0
    assert content["seed"] == 3
    assert content["training"]["steps"] == 29
    assert content["config"]["model"]["num_prototypes"] == 20
    assert content["prototypes"]["num_prototypes"] == 20
    assert torch.__version__.startswith(content["versions"]["torch"])
    for name in ("label", "pca", "prototype"):
        for view, size in (("top", (720, 720)), ("view", (1120, 640))):
            assert Image.open(tmp_path / f"{name}-{view}.png").size == size


def test_report_of_scans_without_labels_leaves_probe_and_labels_out(run, tmp_path):
    write_scans(tmp_path / "data", "train", 1, labels=False)
    scans = list(ScanSource(run, tmp_path / "data", "train"))
    record = read_record(run.folder)
    html = write_report(record, scans, Facts(), folder=tmp_path / "report").read_text()
    assert "linear probe" not in html and "<h3>Labels</h3>" not in html
    assert "<h3>DOS features</h3>" in html
    assert "probe" not in json.loads((tmp_path / "report" / "report.json").read_text())
    assert not (tmp_path / "report" / "label-top.png").exists()
