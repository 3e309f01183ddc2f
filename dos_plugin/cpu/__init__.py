"""Runs the host's own scripts on a machine without CUDA.

``python -m dos_plugin.cpu tools/train.py --config-file ...`` runs the unmodified script after
filling in what the machine lacks. Importing this package does nothing; only ``activate`` does.
"""

import sys

_filled_in: list[str] | None = None


def activate(announce: bool = True) -> list[str]:
    """Fills in what the host needs and this machine lacks; harmless where CUDA is at hand.

    A second call does nothing.

    Args:
        announce: write a line to stderr for each thing filled in.

    Returns:
        These lines; empty where CUDA is available.
    """
    global _filled_in
    if _filled_in is not None:
        return _filled_in
    import torch

    if torch.cuda.is_available():
        _filled_in = []
        if announce:
            _say("CUDA is available, nothing is filled in; plain `python` does the same")
        return _filled_in

    from dos_plugin.cpu import children, cuda_noop, finder

    required = finder.missing_requirements()
    _filled_in = cuda_noop.install() + _fix_spconv() + finder.install()
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
