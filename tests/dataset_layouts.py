"""A few tiny scenes in the on-disk layouts of the data sets, as the host reads them."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

CARS = 3  # boxes of a street
KITTI_LABELS = np.array([40, 10 | 7 << 16, 70])  # road, car (instance 7), vegetation
NUSCENES_LABELS = np.array([24, 17, 30])  # driveable surface, car, vegetation


def street(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A dense patch of road with cars and bushes.

    Returns:
        coord (N, 3) float32, metres; strength (N, 1) float32 in [0, 1]; kind (N,): 0 ground,
        1 car, 2 bush.
    """
    rng = np.random.default_rng(seed)
    ground = np.column_stack([rng.uniform(-6, 6, (500, 2)), rng.normal(-1.7, 0.02, 500)])
    cars, bushes = (
        [rng.uniform(-0.5, 0.5, (80, 3)) * size + [*rng.uniform(-5, 5, 2), z] for _ in range(CARS)]
        for size, z in (((4, 2, 1.5), -1), ((1, 1, 1), -1.2))
    )
    coord = np.concatenate([ground, *cars, *bushes]).astype(np.float32)
    kind = np.repeat([0, 1, 2], [500, 80 * CARS, 80 * CARS])
    strength = (0.3 * kind + rng.uniform(0, 0.4, len(kind))).astype(np.float32)
    return coord, strength[:, None], kind


def write_nuscenes(root: Path, count: int = 4) -> None:
    """Info files and raw scans; strength is stored in [0, 255]."""
    (root / "info").mkdir(parents=True)
    for split in ("train", "val"):
        infos = []
        for index in range(count):
            coord, strength, kind = street(index)
            token = f"{split}-token-{index}"
            info = dict(
                lidar_path=f"samples/LIDAR_TOP/{token}.pcd.bin",
                lidar_token=token,
                gt_segment_path=f"lidarseg/{token}_lidarseg.bin",
            )
            ring = np.zeros_like(strength)
            scan = np.hstack([coord, strength * 255, ring]).astype(np.float32)
            _raw(root / "raw" / info["lidar_path"], scan)
            _raw(root / "raw" / info["gt_segment_path"], NUSCENES_LABELS[kind].astype(np.uint8))
            infos.append(info)
        path = root / "info" / f"nuscenes_infos_10sweeps_{split}.pkl"
        path.write_bytes(pickle.dumps(infos))


def write_semantic_kitti(root: Path, count: int = 4) -> None:
    """All sequences of train and val; the scans of train are spread over them."""
    train = ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10")
    for sequence in (*train, "08"):
        (root / "dataset/sequences" / sequence / "velodyne").mkdir(parents=True)
    for index in range(count):
        coord, strength, kind = street(index)
        for sequence in (train[index % len(train)], "08"):
            folder = root / "dataset/sequences" / sequence
            _raw(folder / f"velodyne/{index:06d}.bin", np.hstack([coord, strength]))
            _raw(folder / f"labels/{index:06d}.label", KITTI_LABELS[kind].astype(np.uint32))


def write_waymo(root: Path, count: int = 4) -> None:
    """Sequences of two frames each."""
    for split in ("training", "validation"):
        for index in range(count):
            coord, strength, kind = street(index)
            _assets(
                root / split / f"segment-{index // 2}" / f"{index % 2:08d}",
                coord=coord,
                strength=np.tanh(strength),
                segment=np.array([17, 0, 14])[kind].reshape(-1, 1),
                pose=np.eye(4),
            )


def write_scannet(root: Path, count: int = 4) -> None:
    """Rooms in train and val: floor, two walls and some furniture, 2 cm apart at best."""
    for split in ("train", "val"):
        for index in range(count // 2):
            rng = np.random.default_rng(index)
            flat = rng.uniform(0, [3, 3, 0], (500, 3))
            walls = [rng.uniform(0, size, (250, 3)) for size in ([0, 3, 2.4], [3, 0, 2.4])]
            table = rng.uniform([1, 1, 0.7], [2, 1.8, 0.75], (200, 3))
            kind = np.repeat([0, 1, 2, 3], [500, 250, 250, 200])
            normal = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])[kind]
            _assets(
                root / split / f"scene{index:04d}_00",
                coord=np.concatenate([flat, *walls, table]).astype(np.float32),
                color=rng.integers(0, 256, (len(kind), 3), dtype=np.uint8),
                normal=normal.astype(np.float32),
                segment20=np.array([1, 0, 0, 6])[kind],
                segment200=np.array([2, 0, 0, 3])[kind],
                instance=kind,
            )


# data_root of the configs, below the folder "data" of the host
WRITERS: dict[str, Callable[..., None]] = {
    "data/nuscenes": write_nuscenes,
    "data/semantic_kitti": write_semantic_kitti,
    "data/waymo": write_waymo,
    "data/scannet": write_scannet,
}


def _raw(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values.tofile(path)


def _assets(folder: Path, **arrays: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
