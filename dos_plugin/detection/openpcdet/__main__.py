"""Command line: a script of OpenPCDet, unmodified, that knows the backbones of this project."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from dos_plugin.cpu import children
from dos_plugin.detection.openpcdet.checkout import add_checkout
from dos_plugin.messages import one_line
from dos_plugin.shipped import configs_dir

USAGE = "usage: python -m dos_plugin.detection.openpcdet (SCRIPT [ARGUMENTS ...] | --configs)"
HELP = f"""{USAGE}

Runs a script of an OpenPCDet checkout as it is, with DOSBackbone3D known as BACKBONE_3D and DOSVFE
as VFE, in the processes that it spawns, too. The host's configs want its tools as working
directory:

    cd OpenPCDet/tools
    ln -s "$(python -m dos_plugin.detection.openpcdet --configs)" cfgs/dos
    python -m dos_plugin.detection.openpcdet train.py \\
        --cfg_file cfgs/dos/objdet-dos-v1m1-3a-kitti-ft.yaml
    torchrun --nproc_per_node=8 -m dos_plugin.detection.openpcdet train.py --launcher pytorch \\
        --cfg_file cfgs/dos/objdet-dos-v1m1-0a-nuscenes-ft.yaml

  SCRIPT       train.py, test.py, demo.py or another one; ARGUMENTS are its own
  --configs    print the folder of the YAML files that travel with the package
  -h, --help   print this

The checkout must be built: `python setup.py develop` in it. Weights of a pretraining come in by
CHECKPOINT of BACKBONE_3D, or by `python -m dos_plugin.detection.openpcdet.convert`.
"""


def main(arguments: list[str]) -> None:
    """Registers, then runs what the arguments name as ``__main__``.

    Args:
        arguments: What follows ``python -m dos_plugin.detection.openpcdet``.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP)
        raise SystemExit(0 if arguments else 2)
    if arguments == ["--configs"]:
        print(configs_dir() / "detection" / "openpcdet")
        return
    script = Path(arguments[0])
    if script.suffix != ".py" or not script.is_file():
        raise SystemExit(
            f"{arguments[0]}: no such script (working directory {os.getcwd()}), expected train.py "
            f"or another one of an OpenPCDet checkout; {USAGE}"
        )
    add_checkout(script)
    from dos_plugin.detection.openpcdet.register import register

    try:
        register()
    except (ImportError, KeyError) as error:
        raise SystemExit(one_line(error)) from error
    children.install("dos_plugin.detection.openpcdet.registered")
    sys.argv = arguments
    sys.path.insert(0, str(script.absolute().parent))  # its train.py imports a module named test
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
