"""The softmap loss: dense, dense under torch.compile, and in blocks; forward and backward.

`--kernels` adds sides: what may make the passes on a GPU, by name.

Time, extra peak memory, and the largest deviation of loss and gradients from the dense result in
float64, relative to the largest entry; at the first size also that of inputs rounded to bf16 or
TF32, all else exact. The floor is the time of the four matrix products that the loss cannot do
without (two of logits, two of gradients), in this library's product; floor_mkl in torch's own.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import common
from dense import dense_loss
from dos_plugin.method import ZipfSinkhorn, softmap_loss
from dos_plugin.method.blocks import KERNELS, set_kernels
from dos_plugin.method.logits import product

TEMPS = 0.1, 0.07  # student, teacher
CHANNELS = 256


def make_inputs(n: int, k: int, seed: int, device: str, dtype: torch.dtype) -> list[Tensor]:
    """Student and teacher features that agree in part, and their common prototypes."""
    generator = torch.Generator().manual_seed(seed)
    student, noise, prototypes = (
        torch.nn.functional.normalize(torch.randn(rows, CHANNELS, generator=generator), dim=1)
        for rows in (n, n, k)
    )
    teacher = torch.nn.functional.normalize(student + noise, dim=1)
    student, teacher, prototypes = (
        value.to(device, dtype) for value in (student, teacher, prototypes)
    )
    return [student.requires_grad_(), teacher, prototypes.requires_grad_()]


def our_loss(student: Tensor, teacher: Tensor, prototypes: Tensor) -> Tensor:
    """The library's loss with its defaults."""
    sinkhorn = ZipfSinkhorn()
    return softmap_loss(student, teacher, prototypes, prototypes.detach(), sinkhorn, *TEMPS)


def loss_through(kernels: str, *inputs: Tensor) -> Tensor:
    """The library's loss with the named kernels."""
    former = set_kernels(kernels)
    try:
        return our_loss(*inputs)
    finally:
        set_kernels(former)


def plain_loss(student: Tensor, teacher: Tensor, prototypes: Tensor) -> Tensor:
    """The same as matrices."""
    return dense_loss(student, teacher, prototypes, *TEMPS)


def step(loss: Callable, student: Tensor, teacher: Tensor, prototypes: Tensor) -> list[Tensor]:
    """Loss and gradients of one forward and backward pass."""
    student.grad = prototypes.grad = None
    value = loss(student, teacher, prototypes)
    value.backward()
    return [value.detach(), student.grad, prototypes.grad]


def warmed_up(loss: Callable, n: int, k: int, seed: int, device: str) -> list[Any]:
    """Inputs of a step, after a small one that loads the libraries."""
    step(loss, *make_inputs(min(n, 2000), k, seed, device, torch.float32))
    return [loss, *make_inputs(n, k, seed, device, torch.float32)]


def deviation(values: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Largest difference of an entry over the largest entry, over loss and gradients."""
    return max(
        float((value.double() - other).abs().max() / other.abs().max())
        for value, other in zip(values, exact)
    )


def products(linear: Callable, student: Tensor, prototypes: Tensor) -> None:
    """Four matrix products of N x K x D, block by block."""
    rows = 512 if student.device.type == "cpu" else 2**15  # a kernel should outlast its launch
    columns = prototypes.T.contiguous()
    for start in range(0, len(student), rows):
        block = student[start : start + rows]
        linear(block, prototypes)
        logits = linear(block, prototypes)
        linear(logits, columns)
        linear(block.T, logits.T)


def rounded(value: Tensor, bits: int) -> Tensor:
    """A leaf with values of so many binary digits, float64."""
    mantissa, exponent = torch.frexp(value.detach().double())
    mantissa = torch.round(mantissa * 2**bits) / 2**bits
    return torch.ldexp(mantissa, exponent).requires_grad_()


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float | None:
    """Slope of log time over log size."""
    if len(sizes) < 2:
        return None
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def measure(n: int, k: int, args: Any, dense: bool) -> dict[str, Any]:
    """A row of the table: all sides at one size."""
    device, seed = args.device, args.seed
    sides: dict[str, Callable] = {"ours": our_loss}
    if dense:
        sides = {"dense": plain_loss, **sides}
        if not args.no_compile:
            torch._dynamo.reset()
            sides["compiled"] = torch.compile(plain_loss, dynamic=False)
    chosen = {name: functools.partial(loss_through, name) for name in args.kernels}
    sides |= chosen
    inputs = make_inputs(n, k, seed, device, torch.float32)
    student, prototypes = inputs[0].detach(), inputs[2].detach()
    work: dict[str, Callable] = {
        name: functools.partial(step, loss, *inputs) for name, loss in sides.items()
    }
    for name, linear in (("floor", product), ("floor_mkl", torch.nn.functional.linear)):
        work[name] = functools.partial(products, linear, student, prototypes)
    times = common.alternate(work, args.repeats, args.warmup)
    row: dict[str, Any] = {"n": n, "k": k}
    row |= {f"{name}_s": common.median(times[name]) for name in times}
    for name in ("dense", "ours", *chosen):
        if name in sides and not args.no_memory:
            prepare = functools.partial(warmed_up, sides[name], n, k, seed, device)
            row[f"{name}_mb"] = common.extra_peak_memory(step, prepare, device) / 2**20
    if n <= args.reference_up_to and k == args.prototypes:
        exact_inputs = [value.detach().double().requires_grad_() for value in inputs]
        exact = step(plain_loss, *exact_inputs)
        ours: dict[str, Callable] = {"ours": our_loss, **chosen}
        for name, loss in ours.items():
            row[f"{name}_error"] = deviation(step(loss, *inputs), exact)
        if n == args.sizes[0]:
            for name, bits in (("bf16", 8), ("tf32", 11)):
                values = step(plain_loss, *(rounded(value, bits) for value in inputs))
                row[f"{name}_error"] = deviation(values, exact)
        if dense:
            row["dense_error"] = deviation(step(plain_loss, *inputs), exact)
    print(", ".join(f"{key} {common._cell(value)}" for key, value in row.items()), flush=True)
    return row


def main() -> None:
    options = common.parser(__doc__, repeats=5)
    options.add_argument("--sizes", type=int, nargs="+", default=[10_000, 40_000, 160_000, 640_000])
    options.add_argument("--prototypes", type=int, default=1024)
    options.add_argument(
        "--more-prototypes",
        type=int,
        nargs="*",
        default=[256, 512, 2048, 4096],
        help="also measured, at the second size, for exponent_k; default %(default)s",
    )
    options.add_argument("--dense-up-to", type=int, default=160_000, help="default %(default)s")
    options.add_argument("--reference-up-to", type=int, default=160_000, help="default %(default)s")
    options.add_argument(
        "--kernels", nargs="+", choices=KERNELS, default=[], metavar="NAME", help=", ".join(KERNELS)
    )
    options.add_argument("--no-memory", action="store_true", help="measure times alone")
    options.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    args = options.parse_args()

    rows = [measure(n, args.prototypes, args, n <= args.dense_up_to) for n in args.sizes]
    size = args.sizes[min(1, len(args.sizes) - 1)]
    more = [measure(size, k, args, dense=False) for k in args.more_prototypes]
    by_k = sorted([*more, *(row for row in rows if row["n"] == size)], key=lambda row: row["k"])
    errors = [row["ours_error"] for row in rows if "ours_error" in row]
    summary: dict[str, Any] = {
        "max_rel_error": max(errors, default=math.nan),
        "exponent_n": exponent([row["n"] for row in rows], [row["ours_s"] for row in rows]),
        "exponent_k": exponent([row["k"] for row in by_k], [row["ours_s"] for row in by_k]),
    }
    for row in rows:
        if "dense_s" in row:
            label = f"{row['n'] // 1000}k"
            summary[f"time_ratio_{label}"] = row["ours_s"] / row["dense_s"]
            if not args.no_memory:
                summary[f"memory_ratio_{label}"] = common.ratio(row["ours_mb"], row["dense_mb"])
            for name in args.kernels:
                summary[f"time_ratio_{label}_{name}"] = row[f"{name}_s"] / row["dense_s"]
    print()
    common.print_table([*rows, *more])
    print()
    common.print_table([{"summary": key, "value": value} for key, value in summary.items()])
    common.write_json(args.json, [*rows, *more], summary)


if __name__ == "__main__":
    main()
