"""Put the shipped configs where a checkout of the host looks for its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dos_plugin.shipped import configs_dir


def install_configs(checkout: str | os.PathLike, copy: bool = False) -> tuple[int, Path]:
    """Link the configs into ``configs/dos`` of a checkout; nothing there is ever overwritten.

    A file that is there already with the same content stays, a link that leads nowhere (to an
    environment that is gone) is replaced.

    Args:
        checkout: root of the host's checkout.
        copy: copy instead of linking: for a checkout that moves to another machine, or to edit.

    Returns:
        How many files were put there now, and the folder.

    Raises:
        FileNotFoundError: if ``checkout`` is none; names what is missing.
        FileExistsError: if other files are in the way; names them, and no file has been written.
    """
    root = Path(checkout)
    for part in ("tools/train.py", "configs"):
        if not (root / part).exists():
            raise FileNotFoundError(
                f"{root}: no checkout of the host there, it has no {part}; give the folder that "
                "holds tools, configs and the host's package"
            )
    source, folder = configs_dir(), root / "configs" / "dos"
    files = [*source.glob("[!_]*.py"), *source.glob("*/*.py")]
    pairs = [(file, folder / file.relative_to(source)) for file in sorted(files)]
    folders = sorted({target.parent for _, target in pairs})
    for parent in folders:
        if parent.exists() and not parent.is_dir():
            raise FileExistsError(f"{parent} is a file, expected a folder or nothing")
    pairs = [(file, target) for file, target in pairs if not _same(file, target)]
    in_the_way = [str(target) for _, target in pairs if target.exists()]
    if in_the_way:
        raise FileExistsError(
            f"other files are in the way, move or delete them: {', '.join(in_the_way)}"
        )
    for parent in folders:
        parent.mkdir(parents=True, exist_ok=True)
    for file, target in pairs:
        target.unlink(missing_ok=True)  # at most a link that leads nowhere
        if copy:
            shutil.copyfile(file, target)
        else:
            target.symlink_to(file)
    return len(pairs), folder


def _same(file: Path, target: Path) -> bool:
    return target.is_file() and target.read_bytes() == file.read_bytes()
