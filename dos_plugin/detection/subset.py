"""A share of a detector's training scans by a rule on their tokens, with its objects to paste.

The rule needs no list: scan by scan, the first eight hexadecimal digits of the SHA-256 of
``dos-plugin:<token>``, as a fraction of 16 ** 8, lie below the share. So 10 % are part of 20 %.
Objects pasted from scans outside the share would be labels that are not supposed to be there, so
the table of objects is cut to the same scans.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dos_plugin.unpickle import read_pickle

Infos = dict[str, Any] | list[dict[str, Any]]


def in_share(token: str, percent: float) -> bool:
    """Whether the scan of a token belongs to a share.

    Args:
        token: the data set's name of the scan, of nuScenes the token of the sample.
        percent: share in percent, above 0 and up to 100.

    Raises:
        ValueError: for a share outside.
    """
    if not 0 < percent <= 100:
        raise ValueError(f"percent: expected a share above 0 and up to 100, got {percent}")
    digits = hashlib.sha256(f"dos-plugin:{token}".encode()).hexdigest()[:8]
    return int(digits, 16) / 16**8 < percent / 100


def share_of_infos(infos: Infos, percent: float, file: Any = "infos") -> Infos:
    """The infos of MMDetection3D or OpenPCDet with the scans of a share.

    Raises:
        ValueError: if they are those of neither, or no scan is left.
    """
    scans = _scans(infos, file)
    kept = [scan.info for scan in scans if in_share(scan.token, percent)]
    if not kept:
        raise ValueError(f"{file}: none of {len(scans)} scans lies in a share of {percent} %")
    return {**infos, "data_list": kept} if isinstance(infos, dict) else kept


def share_of_objects(
    objects: Mapping[str, list], infos: Infos, percent: float, file: Any = "objects"
) -> dict[str, list]:
    """The table of objects to paste (``dbinfos``), with those cut from scans of a share.

    Args:
        objects: rows by class; ``image_idx`` names the scan.
        infos: infos of all scans that objects were cut from, not of the share alone.
        percent: share in percent.
        file: name of the table for messages.

    Raises:
        ValueError: if an object is of a scan that the infos do not hold.
    """
    tokens = {scan.image_idx: scan.token for scan in _scans(infos, "infos")}
    rows = [row for group in objects.values() for row in group]
    strange = sorted({str(row["image_idx"]) for row in rows} - tokens.keys())
    if strange:
        raise ValueError(
            f"{file}: objects of the scans {', '.join(strange[:5])} (image_idx), which are not "
            "among the infos; expected the infos that the table was made from"
        )
    return {
        name: [row for row in group if in_share(tokens[str(row["image_idx"])], percent)]
        for name, group in objects.items()
    }


class _Scan(NamedTuple):
    token: str
    image_idx: str  # by which objects name it
    info: dict[str, Any]


def _scans(infos: Infos, file: Any) -> list[_Scan]:
    """Scans of MMDetection3D's dictionary, or of OpenPCDet's list: of nuScenes, whose objects name
    them by their place in it, or of KITTI."""
    scans = infos.get("data_list") if isinstance(infos, dict) else infos
    if isinstance(infos, dict) and scans and all("sample_idx" in scan for scan in scans):
        return [
            _Scan(str(s.get("token") or s["sample_idx"]), str(s["sample_idx"]), s) for s in scans
        ]
    if isinstance(infos, list) and scans and all("token" in scan for scan in scans):
        return [_Scan(str(scan["token"]), str(place), scan) for place, scan in enumerate(scans)]
    if (
        isinstance(infos, list)
        and scans
        and all("lidar_idx" in s.get("point_cloud", ()) for s in scans)
    ):
        names = [str(scan["point_cloud"]["lidar_idx"]) for scan in scans]
        return [_Scan(name, name, scan) for name, scan in zip(names, scans)]
    raise ValueError(
        f"{file}: expected infos of MMDetection3D from 1.1 on, a dictionary with 'metainfo' and a "
        "'data_list' of scans with 'sample_idx', or of OpenPCDet, a list of scans with 'token' "
        "(nuScenes) or 'lidar_idx' in 'point_cloud' (KITTI)"
    )


def main(argv: list[str] | None = None) -> int:
    """``python -m dos_plugin.detection.subset``."""
    parser = argparse.ArgumentParser(
        prog="python -m dos_plugin.detection.subset",
        description="Write the share of the training infos of MMDetection3D or OpenPCDet, and of "
        "the table of objects to paste, beside them as <name>_<percent>pct.pkl.",
    )
    parser.add_argument("infos", type=Path, help="such as nuscenes_infos_train.pkl")
    parser.add_argument("objects", type=Path, help="such as nuscenes_dbinfos_train.pkl")
    parser.add_argument("--percent", type=float, default=20)
    args = parser.parse_args(argv)
    infos, objects = _read(args.infos), _read(args.objects)
    less = share_of_infos(infos, args.percent, args.infos)
    fewer = share_of_objects(objects, infos, args.percent, args.objects)
    for path, content in ((args.infos, less), (args.objects, fewer)):
        target = path.with_name(f"{path.stem}_{args.percent:g}pct{path.suffix}")
        target.write_bytes(pickle.dumps(content))
        print(target)
    count, total = (sum(map(len, table.values())) for table in (fewer, objects))
    kept, scans = (len(_scans(table, args.infos)) for table in (less, infos))
    print(f"{kept} of {scans} scans, {count} of {total} objects")
    return 0


def _read(path: Path) -> Any:
    """A file of the user's own conversion, which is a pickle."""
    if not path.is_file():
        raise SystemExit(
            f"{path}: no such file, expected one that the host's preparation of the data wrote"
        )
    return read_pickle(path)


if __name__ == "__main__":
    raise SystemExit(main())
