"""MMDetection3D: a config names this package in ``custom_imports`` and is complete.

``DOSMiddleEncoder`` and ``DOSOptimWrapperConstructor`` are registered in MMEngine itself, where
MMDetection3D finds them; ``DOSDet3DDataPreprocessor`` in MMDetection3D, whose class it extends.
"""

try:
    from dos_plugin.detection.mmdet3d.encoder import DOSMiddleEncoder
    from dos_plugin.detection.mmdet3d.optim import DOSOptimWrapperConstructor
    from dos_plugin.detection.mmdet3d.preprocessor import DOSDet3DDataPreprocessor
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] not in ("mmengine", "mmcv", "mmdet", "mmdet3d"):
        raise
    if error.name == "mmcv._ext":
        raise ImportError(
            "dos_plugin.detection.mmdet3d: mmcv is there without its compiled operators "
            "(mmcv-lite), which MMDetection3D imports; install mmcv 2.1.0, see docs/detection.md"
        ) from error
    raise ImportError(
        f"dos_plugin.detection.mmdet3d needs MMDetection3D 1.4, and {error.name} is not there: see "
        "docs/detection.md for an environment"
    ) from error

__all__ = ["DOSDet3DDataPreprocessor", "DOSMiddleEncoder", "DOSOptimWrapperConstructor"]
