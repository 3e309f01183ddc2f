"""Runs the host's own scripts on a machine without CUDA.

``python -m dos_plugin.cpu tools/train.py --config-file ...`` runs the unmodified script after
filling in what the machine lacks. Importing this package does nothing; only ``activate`` does.

On a machine with CUDA that lacks some compiled operators, packages named in ``DOS_STAND_INS`` (or
with ``--stand-ins``) are replaced, and nothing else: plain torch, which runs on any device.
"""

import os
import sys

STAND_INS = "DOS_STAND_INS"  # environment variable: import names, with commas between

_filled_in: list[str] | None = None


def activate(announce: bool = True) -> list[str]:
    """Fills in what the host needs and this machine lacks.

    Where CUDA is at hand, only the packages that ``DOS_STAND_INS`` names. A second call does
    nothing.

    Args:
        announce: write a line to stderr for each thing filled in.

    Returns:
        These lines.

    Raises:
        ValueError: ``DOS_STAND_INS`` names a package without a stand-in.
    """
    global _filled_in
    if _filled_in is not None:
        return _filled_in
    import torch

    named = [name.strip() for name in os.environ.get(STAND_INS, "").split(",") if name.strip()]
    cuda = torch.cuda.is_available()
    if cuda and not named:
        _filled_in = []
        if announce:
            _say("CUDA is available, nothing is filled in; plain `python` does the same")
        return _filled_in

    from dos_plugin.cpu import children, cuda_noop, finder

    required = finder.missing_requirements()
    if cuda:
        _filled_in = finder.install(named, others=False)
    else:
        stand_ins = finder.install(named)
        _filled_in = cuda_noop.install() + _fix_spconv() + stand_ins
    children.install("dos_plugin.cpu.activated")
    if announce:
        for line in _filled_in:
            _say(line)
        if required:
            _say(f"the host needs more than can be filled in: pip install {' '.join(required)}")
    return _filled_in


def _fix_spconv() -> list[str]:
    from dos_plugin.cpu import spconv_fixes

    if not spconv_fixes.apply():
        return []
    return ["spconv: backward without a CUDA stream, bias in eval mode"]


def _say(line: str) -> None:
    print(f"dos-plugin cpu: {line}", file=sys.stderr, flush=True)
