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


def change_hidden(batch: dict) -> dict:
    """The same batch but for what the student must not see: other masked points, and fewer."""
    changed = {k: v.clone() if torch.is_tensor(v) else v for k, v in batch.items()}
    generator = torch.Generator().manual_seed(5)
    for view in ("view1", "view2"):
        hidden = ~changed[f"{view}_visible"]
        count, total = int(hidden.sum()), len(hidden)
        channels = changed[f"{view}_feat"].shape[1]
        changed[f"{view}_coord"][hidden] += torch.randn(count, 3, generator=generator)
        cells = torch.randint(30, 40, (count, 3), generator=generator)
        changed[f"{view}_grid_coord"][hidden] = cells
        changed[f"{view}_feat"][hidden] = torch.randn(count, channels, generator=generator)
        changed[f"{view}_point_id"][hidden] += 5000
        # every third masked point of the first scene goes
        drop = hidden.nonzero().flatten()
        drop = drop[drop < changed[f"{view}_offset"][0]][::3]
        keep = torch.ones(total, dtype=torch.bool)
        keep[drop] = False
        for key in ("coord", "grid_coord", "feat", "point_id", "visible"):
            changed[f"{view}_{key}"] = changed[f"{view}_{key}"][keep]
        changed[f"{view}_offset"] = changed[f"{view}_offset"] - len(drop)
    return changed


def student_activations(model: torch.nn.Module, batch: dict) -> list[torch.Tensor]:
    """The output of every module of the student in a forward pass."""
    seen: list = []
    for module in model.student.modules():
        module.register_forward_hook(lambda *args: seen.append(args[2]))
    model(batch)
    return [out for out in seen if torch.is_tensor(out)]
