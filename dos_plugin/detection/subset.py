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
from typing import Any


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


def share_of_infos(infos: Mapping[str, Any], percent: float, file: Any = "infos") -> dict[str, Any]:
    """The infos of MMDetection3D with the scans of a share.

    Raises:
        ValueError: if they are not in its format of version 1.1 or later, or no scan is left.
    """
    scans = infos.get("data_list") if isinstance(infos, Mapping) else None
    if not scans or not all("sample_idx" in scan for scan in scans):
        raise ValueError(
            f"{file}: expected infos of MMDetection3D from 1.1 on, a dictionary with 'metainfo' "
            "and a 'data_list' of scans with 'sample_idx'"
        )
    kept = [scan for scan in scans if in_share(_token(scan), percent)]
    if not kept:
        raise ValueError(f"{file}: none of {len(scans)} scans lies in a share of {percent} %")
    return {**infos, "data_list": kept}


def share_of_objects(
    objects: Mapping[str, list], infos: Mapping[str, Any], percent: float, file: Any = "objects"
) -> dict[str, list]:
    """The table of objects to paste (``dbinfos``), with those cut from scans of a share.

    Args:
        objects: rows by class; ``image_idx`` is the ``sample_idx`` of the scan.
        infos: infos of all scans that objects were cut from, not of the share alone.
        percent: share in percent.
        file: name of the table for messages.

    Raises:
        ValueError: if an object is of a scan that the infos do not hold.
    """
    tokens = {str(scan["sample_idx"]): _token(scan) for scan in infos["data_list"]}
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


def _token(scan: Mapping[str, Any]) -> str:
    return str(scan.get("token") or scan["sample_idx"])


def main(argv: list[str] | None = None) -> int:
    """``python -m dos_plugin.detection.subset``."""
    parser = argparse.ArgumentParser(
        prog="python -m dos_plugin.detection.subset",
        description="Write the share of the training infos of MMDetection3D, and of the table of "
        "objects to paste, beside them as <name>_<percent>pct.pkl.",
    )
    parser.add_argument("infos", type=Path, help="nuscenes_infos_train.pkl")
    parser.add_argument("objects", type=Path, help="nuscenes_dbinfos_train.pkl")
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
    print(
        f"{len(less['data_list'])} of {len(infos['data_list'])} scans, {count} of {total} objects"
    )
    return 0


def _read(path: Path) -> Any:
    """A file of the user's own conversion, which is a pickle."""
    if not path.is_file():
        raise SystemExit(f"{path}: no such file, expected one of MMDetection3D's create_data.py")
    return pickle.loads(path.read_bytes())


if __name__ == "__main__":
    raise SystemExit(main())
