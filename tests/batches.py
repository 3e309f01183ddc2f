"""Batches of two views for tests of the model."""

import torch


def view_batch(
    points: tuple[int, ...] = (200, 150), seed: int = 0, channels: int = 2, mask_ratio: float = 0.6
) -> dict:
    """Collated views of len(points) scenes; the views share most ids, rows in random order."""
    generator = torch.Generator().manual_seed(seed)
    batch = {"grid_size": torch.full((len(points),), 0.5, dtype=torch.float64)}
    batch["name"] = [f"scene{i}" for i in range(len(points))]
    for view in ("view1", "view2"):
        parts = {"coord": [], "grid_coord": [], "feat": [], "point_id": [], "visible": []}
        for n in points:
            cell = torch.randperm(16**3, generator=generator)[:n]
            grid = torch.stack([cell // 256, cell // 16 % 16, cell % 16], dim=1)
            parts["grid_coord"].append(grid - grid.min(0).values)
            parts["coord"].append(grid * 0.5 + 0.25)
            parts["feat"].append(torch.randn(n, channels, generator=generator))
            parts["point_id"].append(torch.randperm(n + n // 4, generator=generator)[:n])
            visible = torch.rand(n, generator=generator) > mask_ratio
            visible[: min(n, 20)] = True
            parts["visible"].append(visible)
        batch.update({f"{view}_{key}": torch.cat(value) for key, value in parts.items()})
        batch[f"{view}_offset"] = torch.tensor(points).cumsum(0)
    return batch
