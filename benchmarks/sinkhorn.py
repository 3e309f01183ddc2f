"""Zipf-Sinkhorn as scaling vectors beside Sinkhorn on the whole matrix, as it is usually written.

Both start from features and prototypes. `matrix` ends with the (N, K) targets; `ours` with the
two (K,) vectors from which the loss makes its targets block by block. With several ranks every
rank has N / ranks points, and the bytes are those that a rank hands to the collectives. Ranks are
processes of this machine that talk through gloo, with one thread each.
"""

import functools
import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

import common
from dense import matrix_sinkhorn, zipf
from dos_plugin.method.logits import Logits
from dos_plugin.method.zipf_sinkhorn import scaling_vectors, zipf_prior

CHANNELS, TEMP, ALPHA = 256, 0.07, 1.3


def make_inputs(n: int, k: int, seed: int, device: str) -> list[Tensor]:
    """(N, D) features and (K, D) prototypes of unit length."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.functional.normalize(torch.randn(rows, CHANNELS, generator=generator), dim=1).to(
            device
        )
        for rows in (n, k)
    ]


def matrix(num_iters: int, feat: Tensor, prototypes: Tensor) -> Tensor:
    """Targets by scaling the whole matrix; over all ranks where there are several."""
    prior = zipf(len(prototypes), ALPHA, prototypes)
    logits = (feat @ prototypes.T - 1) / TEMP
    if not dist.is_initialized():
        return matrix_sinkhorn(logits, prior, num_iters) / prior
    plan = torch.exp(logits)
    total = plan.sum()
    dist.all_reduce(total)
    plan /= total
    points = torch.tensor([len(plan)])
    dist.all_reduce(points)
    for _ in range(num_iters):
        plan /= plan.sum(dim=1, keepdim=True)
        plan /= points
        column = plan.sum(dim=0)
        dist.all_reduce(column)
        plan *= prior / column
    return plan / prior


def ours(num_iters: int, feat: Tensor, prototypes: Tensor) -> Tensor:
    """Scaling vectors."""
    prior = zipf_prior(len(prototypes), ALPHA, prototypes.device)
    return scaling_vectors(Logits(feat, prototypes, TEMP), prior, num_iters).log_column


def deviation(num_iters: int, feat: Tensor, prototypes: Tensor) -> float:
    """Largest difference of a target from the matrix in float64, over the largest target."""
    exact = matrix(num_iters, feat.double(), prototypes.double())
    logits = Logits(feat, prototypes, TEMP)
    prior = zipf_prior(len(prototypes), ALPHA, prototypes.device)
    bias, log_column, _ = scaling_vectors(logits, prior, num_iters)
    whole = slice(0, len(feat))
    target = torch.softmax(logits.block(whole, bias), dim=1) * (-log_column).exp()
    return float((target - exact).abs().max() / exact.max())


SIDES: dict[str, Callable[..., Tensor]] = {"matrix": matrix, "ours": ours}


def one_process(n: int, k: int, num_iters: int, args: Any) -> dict[str, Any]:
    """A row of the first table."""
    inputs = make_inputs(n, k, args.seed, args.device)
    work = {name: functools.partial(side, num_iters, *inputs) for name, side in SIDES.items()}
    times = common.alternate(work, args.repeats, args.warmup)
    row: dict[str, Any] = {"n": n, "iterations": num_iters, "ranks": 1}
    row |= {f"{name}_s": common.median(taken) for name, taken in times.items()}
    for name, side in SIDES.items():
        memory = common.extra_peak_memory(
            functools.partial(side, num_iters),
            functools.partial(warmed_up, side, n, k, args.seed, args.device),
            args.device,
        )
        row[f"{name}_mb"] = memory / 2**20
    row["error"] = deviation(num_iters, *(value[:20_000] for value in inputs))
    return row


def warmed_up(side: Callable, n: int, k: int, seed: int, device: str) -> list[Tensor]:
    """Inputs, after a small run that loads the libraries."""
    side(3, *make_inputs(min(n, 2000), k, seed, device))
    return make_inputs(n, k, seed, device)


def rank_main(rank: int, ranks: int, folder: str, n: int, k: int, iters: int, args: Any) -> None:
    """One rank: times its sides, rank 0 saves."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks
    )
    inputs = make_inputs(n // ranks, k, args.seed + rank, "cpu")
    sent = 0
    reduce = dist.all_reduce

    def counted(value: Tensor, *rest: Any, **options: Any) -> Any:
        nonlocal sent
        sent += value.numel() * value.element_size()
        return reduce(value, *rest, **options)

    setattr(dist, "all_reduce", counted)  # noqa: B010 (mypy takes no assignment)
    result: dict[str, float] = {}
    for name, side in SIDES.items():
        sent = 0
        side(iters, *inputs)
        result[f"{name}_bytes"] = sent
    times = common.alternate(
        {name: functools.partial(side, iters, *inputs) for name, side in SIDES.items()},
        args.repeats,
        args.warmup,
    )
    if rank == 0:
        result |= {f"{name}_s": common.median(taken) for name, taken in times.items()}
        torch.save(result, os.path.join(folder, "result.pt"))
    dist.destroy_process_group()


def several_ranks(ranks: int, n: int, k: int, iters: int, args: Any) -> dict[str, Any]:
    """A row of the second table."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(rank_main, (ranks, folder, n, k, iters, args), nprocs=ranks)
        result = torch.load(os.path.join(folder, "result.pt"), weights_only=True)
    return {"n": n, "iterations": iters, "ranks": ranks, **result}


def main() -> None:
    """Measure, print, write."""
    options = common.parser(__doc__, repeats=5)
    options.add_argument("--points", type=int, default=40_000)
    options.add_argument("--prototypes", type=int, default=1024)
    options.add_argument("--iterations", type=int, nargs="+", default=[3, 5, 10, 20])
    options.add_argument("--ranks", type=int, nargs="*", default=[1, 2, 4])
    args = options.parse_args()
    alone = [one_process(args.points, args.prototypes, t, args) for t in args.iterations]
    common.print_table(alone)
    first = args.iterations[0]
    shared = [several_ranks(r, args.points, args.prototypes, first, args) for r in args.ranks]
    if shared:
        print("\nseveral ranks, one thread each")
        common.print_table(shared)
    summary = {}
    for row in alone:
        for quantity, unit in (("time", "s"), ("memory", "mb")):
            ratio = common.ratio(row[f"ours_{unit}"], row[f"matrix_{unit}"])
            summary[f"{quantity}_ratio_{row['iterations']}"] = ratio
    summary["max_rel_error"] = max(row["error"] for row in alone)
    common.write_json(args.json, [*alone, *shared], summary)


if __name__ == "__main__":
    main()
