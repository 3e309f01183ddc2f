"""Run by test_cpu_runner_pointcept.py on the real host: numerical checks of its models on a CPU.

Prints one JSON object: model name -> figures. Everything is done on a cloud of a few dozen voxels.
"""

import json
import sys

import spconv.pytorch as spconv
import torch
from pointcept.models.builder import build_model
from spconv.pytorch import conv
from torch.nn.functional import conv3d, conv_transpose3d

PTV3 = dict(
    in_channels=4,
    order=("z", "hilbert"),
    stride=(2,),
    enc_depths=(1, 1),
    enc_channels=(8, 16),
    enc_num_head=(2, 4),
    enc_patch_size=(16, 16),
    drop_path=0.0,
    shuffle_orders=False,
    enable_flash=False,
)
DECODER = dict(dec_depths=(1,), dec_channels=(8,), dec_num_head=(2,), dec_patch_size=(16,))
MODELS = {
    "PT-v3m1": dict(type="PT-v3m1", **PTV3, **DECODER),
    "PT-v3m2": dict(type="PT-v3m2", **PTV3, **DECODER),
    "SpUNet-v1m1": dict(
        type="SpUNet-v1m1",
        in_channels=4,
        num_classes=0,
        base_channels=8,
        channels=(8, 8, 8, 8, 8, 8, 8, 8),
        layers=(1, 1, 1, 1, 1, 1, 1, 1),
    ),
}
STEP = 1e-6


def cloud(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Two samples of 48 and 40 distinct voxels of 0.1 m."""
    generator = torch.Generator().manual_seed(1)
    cells = [torch.randperm(8**3, generator=generator)[:count] for count in (48, 40)]
    grid = torch.cat([torch.stack([c // 64, c // 8 % 8, c % 8], 1) for c in cells])
    return dict(
        grid_coord=grid,
        coord=(grid * 0.1).to(dtype),
        offset=torch.tensor([48, 88]),
        feat=torch.randn(88, 4, generator=generator, dtype=torch.float64).to(dtype),
    )


def features(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    torch.manual_seed(0)  # pooling shuffles the curves whatever shuffle_orders says
    out = model(dict(batch))
    return out if isinstance(out, torch.Tensor) else out.feat


def gradients(model, batch, weight):
    """Loss, and its gradients for the input features and all parameters."""
    feat = batch["feat"].clone().requires_grad_()
    loss = (features(model, {**batch, "feat": feat}) * weight.to(feat.dtype)).sum()
    names, parameters = zip(*model.named_parameters())
    return dict(zip(("feat", *names), torch.autograd.grad(loss, (feat, *parameters))))


def finite_difference_error(model, batch, weight, exact) -> tuple[float, int]:
    """Largest error of a directional derivative, relative to the size of the gradient.

    One random direction for the input and for each parameter tensor, central differences.
    """
    generator = torch.Generator().manual_seed(2)
    tensors = {"feat": batch["feat"], **dict(model.named_parameters())}
    worst = 0.0
    for name, tensor in tensors.items():
        direction = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        sides = []
        with torch.no_grad():
            for sign in (1, -1):
                tensor += sign * STEP * direction
                sides.append((features(model, batch) * weight).sum())
                tensor -= sign * STEP * direction
        numeric = (sides[0] - sides[1]) / (2 * STEP)
        analytic = (exact[name] * direction).sum()
        scale = exact[name].norm() * direction.norm() / tensor.numel() ** 0.5
        worst = max(worst, float((numeric - analytic).abs() / (scale + 1e-3)))
    return worst, len(tensors)


def check(config: dict) -> dict[str, float]:
    torch.manual_seed(0)
    model = build_model(config).double()
    convolutions = [m for m in model.modules() if isinstance(m, conv.SparseConvolution)]
    for module in convolutions:
        if module.bias is not None:  # PT-v3m2 starts them at zero, where losing one is unseen
            torch.nn.init.normal_(module.bias, std=0.3)
    batch = cloud(torch.float64)
    with torch.no_grad():
        shape = features(model, batch).shape
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    exact = gradients(model, batch, weight)
    difference, tensors = finite_difference_error(model, batch, weight, exact)

    model.float()
    single = gradients(model, cloud(torch.float32), weight)
    total = sum(float(g.square().sum()) for g in exact.values()) ** 0.5
    rounding = sum(float((single[n] - exact[n]).square().sum()) for n in exact) ** 0.5 / total

    # The forward passes above have moved BatchNorm's running statistics away from 0 and 1.
    model.eval()
    batch = cloud(torch.float32)
    with torch.no_grad():
        evaluated = features(model, batch)
        for module in convolutions:
            module.train()
        trained = features(model, batch)
    return dict(
        rows=shape[0],
        tensors=tensors,
        unused=[name for name, gradient in exact.items() if not gradient.abs().any()],
        finite_difference_error=difference,
        single_precision_error=rounding,
        biases=sum(m.bias is not None for m in convolutions),
        eval_error=float((evaluated - trained).abs().max() / trained.abs().max()),
    )


def convolution_error() -> float:
    """spconv's CPU kernels against torch's dense convolutions with zeros in the empty voxels."""
    torch.manual_seed(0)
    batch = cloud(torch.float64)
    sites = torch.cat([torch.tensor([0] * 48 + [1] * 40)[:, None], batch["grid_coord"]], 1)
    sparse = spconv.SparseConvTensor(batch["feat"], sites.int(), [8, 8, 8], 2)
    same = spconv.SubMConv3d(4, 6, 3).double()
    down = spconv.SparseConv3d(4, 6, 2, stride=2, indice_key="down").double()
    up = spconv.SparseInverseConv3d(6, 3, 2, indice_key="down").double()
    small = down(sparse)
    dense, dense_small = sparse.dense(), conv3d(sparse.dense(), *dense_weight(down), stride=2)
    reached = torch.zeros(2, 4, 4, 4, dtype=torch.bool)
    reached[small.indices.long().unbind(1)] = True
    expected_small = torch.where(reached[:, None], dense_small, 0)
    pairs = (
        (same(sparse), conv3d(dense, *dense_weight(same), padding=1)),
        (small, dense_small),
        (up(small), conv_transpose3d(expected_small, *dense_weight(up, (4, 0)), stride=2)),
    )
    return max(
        float((ours.features - theirs.movedim(1, -1)[ours.indices.long().unbind(1)]).abs().max())
        for ours, theirs in pairs
    )


def dense_weight(layer, channels=(0, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    """spconv keeps (out, x, y, z, in); torch wants both channel dimensions first."""
    first, second = channels
    return layer.weight.permute(first, second, 1, 2, 3), layer.bias


def flash_error() -> float:
    """Attention with enable_flash=True (bfloat16 inside) against the host's own without it.

    Returns:
        Difference of the gradients that go through attention, relative to their size.
    """
    results = []
    for enable_flash in (True, False):
        torch.manual_seed(0)
        model = build_model({**MODELS["PT-v3m2"], "enable_flash": enable_flash})
        batch = cloud(torch.float32)
        weight = torch.randn(8, generator=torch.Generator().manual_seed(3))
        gradient = gradients(model, batch, weight)
        results.append(torch.cat([g.flatten() for n, g in gradient.items() if ".qkv." in n]))
    with_flash, without = results
    return float((with_flash - without).norm() / without.norm())


if __name__ == "__main__":
    torch.set_num_threads(1)
    answer: dict = {name: check(config) for name, config in MODELS.items()}
    answer["flash_error"] = flash_error()
    answer["convolution_error"] = convolution_error()
    json.dump(answer, sys.stdout)
