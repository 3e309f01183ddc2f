"""What enters the host's registries, by registry and name."""

from dos_plugin.method import ZipfSinkhorn

from .masking import BlockMask
from .model import DOS
from .views import Height, PointId, TwoViews

COMPONENTS: dict[str, dict[str, type]] = {
    "MODELS": {"DOS-v1m1": DOS},
    "MODULES": {"ZipfSinkhorn": ZipfSinkhorn},
    "TRANSFORMS": {
        "PointId": PointId,
        "TwoViews": TwoViews,
        "Height": Height,
        "BlockMask": BlockMask,
    },
    "HOOKS": {},
}
