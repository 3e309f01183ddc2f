"""Rows about what a config makes of a scene: its transforms run on a made-up one."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from dos_plugin.commands.doctor.rows import Row
from dos_plugin.host import HOST
from dos_plugin.models.dos import DOS
from dos_plugin.models.inputs import WIDTHS, datasets, feature_keys


def sample_rows(cfg: Any, samples: list[dict]) -> Iterator[Row]:
    """Run the training transforms on made-up scenes, and compare the result with the model.

    Args:
        cfg: The config.
        samples: Gets two samples of the first data set.
    """
    for _, _, part in datasets(cfg, ("train",)):
        name = part.get("type", "data set")
        np.random.seed(0)
        try:
            transform = HOST.Compose(list(part.get("transform") or []))
            made = [transform(made_up_scene(seed)) for seed in range(2)]
        except Exception as error:
            text = f"{name}: {type(error).__name__}: {' '.join(str(error).split())}"
            yield Row("missing", "transforms", text, "correct data.train.transform")
            continue
        samples += made if not samples else []
        yield from _compare(cfg, part, name, made[0])


def pretrains(cfg: Any) -> bool:
    """Whether the model of a config is DOS, or a class derived from it."""
    found = HOST.MODELS.module_dict.get((cfg.get("model") or {}).get("type"))
    return isinstance(found, type) and issubclass(found, DOS)


def _compare(cfg: Any, dataset: Any, name: str, sample: dict) -> Iterator[Row]:
    model = cfg.get("model") or {}
    if pretrains(cfg):
        from dos_plugin.models.batch import KEYS, VIEWS

        absent = [f"{v}_{k}" for v in VIEWS for k in (*KEYS, "offset") if f"{v}_{k}" not in sample]
        if absent:
            yield Row(
                "missing",
                "batch keys",
                f"{name}: Collect gives no {', '.join(absent)}",
                "add them to Collect: keys, offset_keys_dict, view1_feat_keys, view2_feat_keys",
            )
            return
        yield Row("ok", "batch keys", f"{name}: all that DOS reads")
    wanted = (model.get("backbone") or {}).get("in_channels")
    widths = {key: value.shape[1] for key, value in sample.items() if key.endswith("feat")}
    if wanted is None or not widths:
        return
    wrong = {key: width for key, width in widths.items() if width != wanted}
    if wrong:
        collected = _feat_keys(dataset)
        yield Row(
            "missing",
            "in_channels",
            f"{name}: backbone.in_channels={wanted}, but Collect makes "
            + ", ".join(f"{key} {width} wide" for key, width in wrong.items())
            + (f" of {collected}" if collected else ""),
            f"set model.backbone.in_channels={next(iter(wrong.values()))}, or change *feat_keys",
        )
    else:
        yield Row("ok", "in_channels", f"{name}: {wanted}, as wide as the collected features")


def _feat_keys(dataset: Any) -> str:
    """The collected features and their widths, as far as they are known."""
    try:
        names = feature_keys(dataset.get("transform") or [])
    except ValueError:
        return ""
    return ", ".join(f"{name} {WIDTHS.get(name, '?')}" for name in names)


def made_up_scene(seed: int, points: int = 1000) -> dict[str, Any]:
    """Points in a room of 6 x 6 x 3 m with everything that a data set of the host can give."""
    rng = np.random.default_rng(seed)
    coord = rng.uniform([0, 0, 0], [6, 6, 3], (points, 3)).astype(np.float32)
    return dict(
        coord=coord,
        color=rng.uniform(0, 255, (points, 3)).astype(np.float32),
        normal=np.tile(np.array([0, 0, 1], dtype=np.float32), (points, 1)),
        strength=rng.random((points, 1), dtype=np.float32),
        segment=rng.integers(0, 2, points).astype(np.int32),
        instance=np.zeros(points, dtype=np.int32),
        boxes=np.array([[3, 3, 1, 4, 2, 1.5, 0.3, np.nan, np.nan]]),
        box_labels=np.zeros(1, dtype=np.int64),
        token="made-up",
        ego=np.zeros((1, 2)),
        pose=np.eye(4)[None],
        name="made-up",
        split="train",
    )
