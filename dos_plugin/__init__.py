"""DOS self-supervised pretraining of 3D backbones (AAAI-26, arXiv 2512.11465) as a plugin.

``load`` gives a pretrained backbone for features of own points, see docs/python.md; it and the
classes of what it gives are imported when they are first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dos_plugin.encoder.encoder import Encoder, load
    from dos_plugin.encoder.features import Features
    from dos_plugin.encoder.scan import Scan

__version__ = "0.1.0"

__all__ = ["Encoder", "Features", "Scan", "__version__", "load"]

_PLACES = {
    "Encoder": "dos_plugin.encoder.encoder",
    "Features": "dos_plugin.encoder.features",
    "Scan": "dos_plugin.encoder.scan",
    "load": "dos_plugin.encoder.encoder",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
