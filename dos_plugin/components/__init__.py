"""What enters the host's registries, by registry and name."""

from dos_plugin.method import ZipfSinkhorn

from .feature_picture import FeaturePicture
from .load import PretrainedLoader
from .masking import BlockMask
from .model import DOS
from .monitor import PrototypeMonitor
from .online_probe import OnlineProbe
from .segmentor import Segmentor
from .views import Height, PointId, TwoViews

COMPONENTS: dict[str, dict[str, type]] = {
    "MODELS": {"DOS-v1m1": DOS, "DOS-Segmentor-v1m1": Segmentor},
    "MODULES": {"ZipfSinkhorn": ZipfSinkhorn},
    "TRANSFORMS": {
        "PointId": PointId,
        "TwoViews": TwoViews,
        "Height": Height,
        "BlockMask": BlockMask,
    },
    "HOOKS": {
        "PretrainedLoader": PretrainedLoader,
        "PrototypeMonitor": PrototypeMonitor,
        "OnlineProbe": OnlineProbe,
        "FeaturePicture": FeaturePicture,
    },
}
