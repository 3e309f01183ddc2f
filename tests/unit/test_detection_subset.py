"""The share of the labels: which scans, and no objects of others."""

import pickle

import pytest

from dos_plugin.detection.subset import in_share, main, share_of_infos, share_of_objects


def tables(count=400):
    scans = [dict(sample_idx=i, token=f"{i * 7919:032x}", lidar_points={}) for i in range(count)]
    row = dict(path="x.bin", gt_idx=0)
    objects = dict(
        car=[dict(row, name="car", image_idx=i % count) for i in range(3 * count)],
        bus=[dict(row, name="bus", image_idx=i) for i in range(0, count, 9)],
    )
    return dict(metainfo=dict(dataset="nuscenes"), data_list=scans), objects


# printf dos-plugin:TOKEN | sha256sum
SUMS = {"000001": 0x6202B298, "000003": 0x2CC781F8}


def test_the_rule_is_what_it_was():
    """Changing it would change every result on 20 %."""
    for token, digits in SUMS.items():
        share = 100 * digits / 2**32
        assert in_share(token, share * 1.0001) and not in_share(token, share)
    assert [in_share("000003", p) for p in (10, 20, 50, 100)] == [False, True, True, True]
    assert [in_share("000001", p) for p in (10, 20, 50, 100)] == [False, False, True, True]


def test_share():
    infos, objects = tables()
    names = {scan["token"] for scan in infos["data_list"]}
    kept = {p: {t for t in names if in_share(t, p)} for p in (5, 10, 20, 50, 100)}
    assert kept[5] < kept[10] < kept[20] < kept[50] < kept[100] == names
    for percent, tokens in kept.items():  # five standard deviations of a draw
        expected = percent / 100 * len(names)
        assert abs(len(tokens) - expected) <= 5 * (expected * (1 - percent / 100)) ** 0.5
    less = share_of_infos(infos, 20)
    assert {scan["token"] for scan in less["data_list"]} == kept[20]
    assert less["metainfo"] == infos["metainfo"] and len(infos["data_list"]) == 400

    fewer = share_of_objects(objects, infos, 20)
    numbers = {scan["sample_idx"] for scan in less["data_list"]}
    for name, rows in objects.items():
        assert fewer[name] == [row for row in rows if row["image_idx"] in numbers] != []


def test_infos_of_openpcdet():
    """The same scans as for MMDetection3D; objects name a scan by its place, of KITTI by name."""
    infos, objects = tables()
    scans = [dict(token=scan["token"], sweeps=[]) for scan in infos["data_list"]]
    tokens = {scan["token"] for scan in share_of_infos(infos, 20)["data_list"]}
    assert {scan["token"] for scan in share_of_infos(scans, 20)} == tokens
    assert share_of_objects(objects, scans, 20) == share_of_objects(objects, infos, 20)
    frames = [dict(point_cloud=dict(lidar_idx=f"{i:06}"), image={}) for i in range(400)]
    kept = {frame["point_cloud"]["lidar_idx"] for frame in share_of_infos(frames, 20)}
    assert kept == {f"{i:06}" for i in range(400) if in_share(f"{i:06}", 20)}
    rows = [dict(image_idx=f"{i:06}") for i in range(400)]
    fewer = share_of_objects(dict(Car=rows), frames, 20)["Car"]
    assert {row["image_idx"] for row in fewer} == kept
    with pytest.raises(ValueError, match="expected infos of MMDetection3D .* or of OpenPCDet"):
        share_of_infos([dict(point_cloud=dict(velodyne_path="a.bin"))], 20)


def test_command(tmp_path, capsys):
    infos, objects = tables()
    a, b = tmp_path / "nuscenes_infos_train.pkl", tmp_path / "nuscenes_dbinfos_train.pkl"
    a.write_bytes(pickle.dumps(infos))
    b.write_bytes(pickle.dumps(objects))
    assert main([str(a), str(b)]) == 0
    less = pickle.loads((tmp_path / "nuscenes_infos_train_20pct.pkl").read_bytes())
    fewer = pickle.loads((tmp_path / "nuscenes_dbinfos_train_20pct.pkl").read_bytes())
    assert less == share_of_infos(infos, 20) and fewer == share_of_objects(objects, infos, 20)
    assert f"{len(less['data_list'])} of 400 scans" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no such file, expected one that"):
        main([str(tmp_path / "none.pkl"), str(b)])


def test_errors():
    infos, objects = tables(5)
    for percent in (0, -1, 101):
        with pytest.raises(ValueError, match=f"percent: .* got {percent}"):
            in_share("a", percent)
    with pytest.raises(ValueError, match="old.pkl: expected infos of MMDetection3D from 1.1"):
        share_of_infos(dict(infos=[dict(token="a")]), 20, "old.pkl")
    with pytest.raises(ValueError, match="none of 5 scans lies in a share of 1e-06 %"):
        share_of_infos(infos, 1e-6)
    objects["bus"].append(dict(image_idx=77))
    with pytest.raises(ValueError, match=r"db.pkl: objects of the scans 77 \(image_idx\)"):
        share_of_objects(objects, infos, 20, "db.pkl")
