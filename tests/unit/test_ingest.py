"""Ingest: layout, bad files, names, strengths, processes."""

import numpy as np
import pytest

from dos_plugin import cli
from dos_plugin.ingest.readers import read_fields
from dos_plugin.ingest.sources import scene_names
from dos_plugin.scenes import folders


def points(count=50, seed=0, strongest=0.99):
    """Rows x y z strength, float32."""
    rng = np.random.default_rng(seed)
    rows = rng.uniform(-40, 40, (count, 4)).astype("<f4")
    rows[:, 3] = np.linspace(0, strongest, count)
    return rows


def write_bin(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(rows.tobytes())
    return path


def call(*words):
    return cli.main(["ingest", *map(str, words)])


def tree(root):
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_layout_and_values(tmp_path, capsys):
    rows = [points(30, 1), points(40, 2)]
    for number, part in enumerate(rows):
        write_bin(tmp_path / f"in/00000{number}.bin", part)
    out = tmp_path / "out"
    assert call(tmp_path / "in", "--out", out) == 0
    assert tree(out) == [
        f"train/00000{n}/{key}.npy" for n in (0, 1) for key in ("coord", "strength")
    ]
    for number, part in enumerate(rows):
        coord = np.load(out / f"train/00000{number}/coord.npy")
        strength = np.load(out / f"train/00000{number}/strength.npy")
        assert coord.dtype == strength.dtype == np.float32
        assert np.array_equal(coord, part[:, :3]) and np.array_equal(strength, part[:, 3:])
    assert "2 scans with 70 points" in capsys.readouterr().out


def test_files_folders_and_patterns_name_each_file_once(tmp_path):
    write_bin(tmp_path / "in/a.bin", points())
    write_bin(tmp_path / "in/deep/b.bin", points())
    (tmp_path / "in/readme.txt").write_text("no scan")
    inputs = tmp_path / "in", tmp_path / "in/a.bin", tmp_path / "in/*.bin"
    assert call(*inputs, "--out", tmp_path / "out", "--split", "mine") == 0
    assert sorted(p.name for p in (tmp_path / "out/mine").iterdir()) == ["a", "b"]


def test_scenes_below_the_source_are_no_scans(tmp_path, capsys):
    np.save(tmp_path / "a.npy", points(50))
    assert call(tmp_path, "--out", tmp_path / "data/mine") == 0
    assert call(tmp_path, "--out", tmp_path / "data/mine") == 0
    assert "0 scans with 0 points written" in capsys.readouterr().out
    assert len(tree(tmp_path / "data")) == 2


def test_bad_files_are_listed_and_the_rest_is_written(tmp_path, capsys):
    good = write_bin(tmp_path / "good.bin", points(20))
    cut = write_bin(tmp_path / "cut.bin", points(20))
    cut.write_bytes(cut.read_bytes()[:-5])
    empty = write_bin(tmp_path / "empty.bin", points(0))
    lost = write_bin(tmp_path / "lost.bin", np.full((4, 4), np.nan, "<f4"))
    noise = write_bin(
        tmp_path / "noise.bin", np.random.default_rng(0).integers(0, 256, 2400, np.uint8)
    )
    far = write_bin(tmp_path / "far.bin", np.full((4, 4), 1e9, "<f4"))
    (tmp_path / "folder.bin/x.bin").mkdir(parents=True)  # found in a folder, but no file
    inputs = [good, cut, empty, lost, noise, far, tmp_path / "none.bin", tmp_path / "folder.bin"]
    assert call(*inputs, "--out", tmp_path / "out", "--format", "kitti") == 2
    assert tree(tmp_path / "out") == ["train/good/coord.npy", "train/good/strength.npy"]
    error = capsys.readouterr().err
    assert "7 files skipped" in error
    for text in (
        f"{cut}: cannot be read as kitti: 315 bytes is not a multiple of 16",
        f"{empty}: no point",
        f"{lost}: no point with finite values among 4",
        f"{noise}: a coordinate of ",
        f"{far}: a coordinate of 1e+09 m",
        f"{tmp_path / 'none.bin'}: no such file",
        "x.bin: cannot be read (Is a directory)",
    ):
        assert text in error


def test_rows_without_a_number_are_dropped_and_counted(tmp_path, capsys):
    rows = points(20)
    rows[3, 1], rows[7, 3], rows[11, 0] = np.nan, np.inf, -np.inf
    file = write_bin(tmp_path / "a.bin", rows)
    assert call(file, "--out", tmp_path / "out") == 0
    coord = np.load(tmp_path / "out/train/a/coord.npy")
    assert np.array_equal(coord, np.delete(rows, [3, 7, 11], axis=0)[:, :3])
    assert f"{file}: 3 points with NaN" in capsys.readouterr().out


def test_many_scans_with_dropped_points_are_summed_up(tmp_path, capsys):
    rows = points(20)
    rows[:3, 1] = np.nan
    for number in range(7):
        write_bin(tmp_path / f"in/{number}.bin", rows)
    assert call(tmp_path / "in", "--out", tmp_path / "out") == 0
    told = capsys.readouterr().out
    assert told.count(": 3 points with NaN") == 5 and "21 points dropped in 7 scans" in told


def test_same_stem_in_two_folders(tmp_path):
    for sequence in ("00", "01"):
        write_bin(tmp_path / f"{sequence}/velodyne/000000.bin", points(seed=int(sequence)))
    assert call(tmp_path, "--out", tmp_path / "out") == 0
    names = sorted(p.name for p in (tmp_path / "out/train").iterdir())
    assert names == ["00-velodyne-000000", "01-velodyne-000000"]


def test_the_same_stem_in_two_formats(tmp_path):
    files = [tmp_path / "a.bin", tmp_path / "a.npy", tmp_path / "x/b.pcd.bin"]
    assert scene_names(files) == ["a-bin", "a-npy", "b"]
    files = [tmp_path / "x/a.bin", tmp_path / "x/a.npy", tmp_path / "y/a.bin"]
    assert scene_names(files) == ["a-bin", "a-npy", "a"]


def test_names_are_safe_and_different(tmp_path):
    files = [tmp_path / "a b.bin", tmp_path / "a_b.bin", tmp_path / ".hidden.bin"]
    names = scene_names(files)
    assert len(set(names)) == 3
    assert not any(name.startswith(".") or " " in name for name in names)


@pytest.mark.parametrize(
    ("strongest", "option", "scale"),
    [
        (1.0, [], 1),
        (200.0, [], 255),
        (30000.0, [], 65535),
        (200.0, ["--strength-scale", "400"], 400),
    ],
)
def test_one_strength_scale_for_all_files(tmp_path, capsys, strongest, option, scale):
    weak, strong = points(10, strongest=strongest / 5), points(10, strongest=strongest)
    write_bin(tmp_path / "in/a.bin", weak)
    write_bin(tmp_path / "in/b.bin", strong)
    assert call(tmp_path / "in", "--out", tmp_path / "out", *option) == 0
    for name, rows in (("a", weak), ("b", strong)):
        strength = np.load(tmp_path / f"out/train/{name}/strength.npy")
        np.testing.assert_allclose(strength, rows[:, 3:] / scale, rtol=1e-6)
    told = f"all divided by {scale}" in capsys.readouterr().out
    assert told == (scale != 1 and not option)


def test_again_is_harmless_but_another_scan_is_not_overwritten(tmp_path, capsys):
    file = write_bin(tmp_path / "a.bin", points(seed=0))
    out = tmp_path / "out"
    assert call(file, "--out", out) == 0 and call(file, "--out", out) == 0
    assert "1 were there already" in capsys.readouterr().out
    before = (out / "train/a/coord.npy").read_bytes()
    write_bin(file, points(seed=1))
    assert call(file, "--out", out) == 2
    assert "holds another scan" in capsys.readouterr().err
    assert (out / "train/a/coord.npy").read_bytes() == before
    assert call(file, "--out", out, "--overwrite") == 0
    assert (out / "train/a/coord.npy").read_bytes() != before


def test_a_failed_write_leaves_no_scene(tmp_path, monkeypatch, capsys):
    file = write_bin(tmp_path / "a.bin", points())
    save = np.save

    def full(path, array):
        if path.name == "strength.npy":
            raise OSError("No space left on device")
        save(path, array)

    monkeypatch.setattr(np, "save", full)
    assert call(file, "--out", tmp_path / "out") == 2
    assert "No space left" in capsys.readouterr().err
    assert tree(tmp_path / "out") == []


def test_what_was_written_is_read_back(tmp_path, monkeypatch, capsys):
    file = write_bin(tmp_path / "a.bin", points())
    monkeypatch.setattr(folders.np, "load", lambda path: np.zeros((50, 3), np.float32))
    assert call(file, "--out", tmp_path / "out") == 2
    assert "holds something else" in capsys.readouterr().err
    assert tree(tmp_path / "out") == []


@pytest.mark.parametrize(
    "option",
    [
        ["--strength-scale", "0"],
        ["--split", "../x"],
        ["--workers", "0"],
        ["--label-map", "map.json"],
        ["--labels", "{dir}/labels"],
        ["--labels", "{name}/{stem}"],
        ["--labels", "nowhere"],
    ],
)
def test_bad_options(tmp_path, capsys, option):
    file = write_bin(tmp_path / "a.bin", points())
    assert call(file, "--out", tmp_path / "out", *option) == 2
    assert option[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_byte_order_of_the_file_is_little_endian(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(bytes.fromhex("0000803f 00000040 00004040 0000003f".replace(" ", "")))
    fields = read_fields(file, "kitti")
    assert {name: values.tolist() for name, values in fields.items()} == dict(
        x=[1.0], y=[2.0], z=[3.0], intensity=[0.5]
    )


def test_bad_scans_in_the_middle_with_two_processes(tmp_path, capsys):
    """As in one process, and in the order of the files."""
    for number in range(12):
        write_bin(tmp_path / f"in/{number:02d}.bin", points(30 + number, number))
    (tmp_path / "in/04.bin").write_bytes(b"")
    (tmp_path / "in/07.bin").write_bytes(b"cut")
    said = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        assert call(tmp_path / "in", "--out", out, "--workers", workers) == 2
        said.append(capsys.readouterr())
    assert said[0].out.replace("out1", "out2") == said[1].out and "10 scans with" in said[0].out
    errors = [text.err[text.err.index("dos-plugin ingest") :].splitlines() for text in said]
    assert errors[0] == errors[1]
    assert [line.split(":")[0].strip()[-6:] for line in errors[0][1:]] == ["04.bin", "07.bin"]
    assert tree(tmp_path / "out1") == tree(tmp_path / "out2")
    for name in tree(tmp_path / "out1"):
        assert (tmp_path / "out1" / name).read_bytes() == (tmp_path / "out2" / name).read_bytes()


def test_a_disk_that_is_full_ends_it_also_in_processes(tmp_path, capsys):
    for number in range(4):
        write_bin(tmp_path / f"in/{number}.bin", points())
    out = tmp_path / "out"
    out.mkdir()
    (out / "train").write_text("no folder")
    assert call(tmp_path / "in", "--out", out, "--workers", "2") == 2
    assert str(out / "train") in capsys.readouterr().err


def test_scans_without_strength_among_others_are_left_out(tmp_path, capsys):
    write_bin(tmp_path / "in/a.bin", points())
    np.save(tmp_path / "in/b.npy", points()[:, :3])
    assert call(tmp_path / "in", "--out", tmp_path / "out") == 2
    assert "b.npy: no strength, but 1 others have one" in capsys.readouterr().err
    assert call(tmp_path / "in", "--out", tmp_path / "none", "--strength-field", "none") == 0
    assert tree(tmp_path / "none") == ["train/a/coord.npy", "train/b/coord.npy"]
    assert "must do without them" in capsys.readouterr().out


def test_hidden_files_are_no_scans_and_names_are_never_empty(tmp_path, capfd):
    source, out = tmp_path / "drive", tmp_path / "out"
    source.mkdir()
    for name in ("a.npy", "...npy"):
        np.save(source / name, np.arange(18.0).reshape(6, 3))
    (source / "._a.npy").write_bytes(b"Mac OS X")
    assert call(source, "--out", out) == 0
    assert "files that are no scans: 2 hidden" in capfd.readouterr().out
    assert call(source / "...npy", "--out", out) == 0
    assert {path.name for path in (out / "train").iterdir()} == {"a", "scan"}
