"""Entries in the tables that the host builds its detectors from."""

from __future__ import annotations

from dos_plugin.detection.openpcdet.backbone import DOSBackbone3D
from dos_plugin.detection.openpcdet.checkout import import_host
from dos_plugin.detection.openpcdet.vfe import DOSVFE

# By the package whose ``__all__`` they enter.
COMPONENTS: dict[str, dict[str, type]] = {
    "pcdet.models.backbones_3d": {"DOSBackbone3D": DOSBackbone3D},
    "pcdet.models.backbones_3d.vfe": {"DOSVFE": DOSVFE},
}


def register() -> None:
    """Enter all components; doing it again changes nothing.

    Raises:
        ImportError: If the host cannot be imported; says what to do.
        KeyError: If a name is taken by another class.
    """
    for package, classes in COMPONENTS.items():
        table = import_host(package).__all__
        for name, cls in classes.items():
            present = table.setdefault(name, cls)
            if present is not cls:
                raise KeyError(
                    f"{name!r} in {package} is taken by {present.__module__}."
                    f"{present.__qualname__}, cannot register {cls.__module__}.{cls.__qualname__}"
                )
