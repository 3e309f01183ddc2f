"""Correctness of the library on a GPU (or, small, on a CPU), one question a call; see run.py.

    python benchmarks/gpu/checks.py method --json method.json
    python benchmarks/gpu/checks.py backbones --dry --json backbones.json

Prints and writes figures, and what failed; leaves with status 1 where something did.
"""

import argparse
import contextlib
import copy
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

if "--dry" in sys.argv:  # without a GPU triton's kernels run in its interpreter, chosen at import
    os.environ["TRITON_INTERPRET"] = "1"
os.environ.setdefault("DOS_HOST", "minihost")

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import common  # noqa: E402
import loss as loss_benchmark  # noqa: E402
from dos_plugin.method import (  # noqa: E402
    ZipfSinkhorn,
    clustering_loss,
    ema_update,
    find_points,
    health,
    match_rows,
)
from dos_plugin.method import blocks as passes  # noqa: E402
from dos_plugin.method.logits import Logits  # noqa: E402
from tests import references  # noqa: E402
from tests.batches import change_hidden, student_activations, view_batch  # noqa: E402

STUDENT_TEMP, TEACHER_TEMP = loss_benchmark.TEMPS
# What the trial before the first use of fused kernels allows: rounding features to bfloat16, as
# autocast does, costs more.
TF32 = 5e-3


class Report:
    """Figures by name, and what failed."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}
        self.failures: list[str] = []

    def below(self, name: str, value: float, limit: float) -> None:
        """Note a figure that has to stay below a limit; NaN does not."""
        self.figures[name] = value
        if not value < limit:
            self.failures.append(f"{name}: {value:.3g}, expected below {limit:g}")

    def holds(self, name: str, value: bool, why: str = "") -> None:
        """Note a statement that has to be true."""
        self.figures[name] = bool(value)
        if not value:
            self.failures.append(f"{name} does not hold{f': {why}' if why else ''}")


@contextlib.contextmanager
def matmul(precision: str) -> Iterator[None]:
    """Float32 products as ``torch.set_float32_matmul_precision`` allows them."""
    former = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(former)


@contextlib.contextmanager
def kernels(name: str, dry: bool) -> Iterator[None]:
    """The loss through the named kernels; on a CPU in Triton's interpreter."""
    former, plain = passes.set_kernels(name), passes._fused
    if dry and name == "triton":
        passes._fused = lambda feat: passes._kernels(feat.device)
    try:
        yield
    finally:
        passes.set_kernels(former)
        passes._fused = plain


def exact(device: str, n: int, k: int) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs of the loss on the device, and loss and gradients in float64 on the CPU."""
    inputs = loss_benchmark.make_inputs(n, k, 0, "cpu", torch.float32)
    doubles = [value.detach().double().requires_grad_() for value in inputs]
    reference = loss_benchmark.step(loss_benchmark.plain_loss, *doubles)
    student, teacher, prototypes = (value.detach().to(device) for value in inputs)
    return [student.requires_grad_(), teacher, prototypes.requires_grad_()], reference


def error(values: list[Tensor], reference: list[Tensor]) -> float:
    """Largest deviation of loss and gradients, see the benchmark of the loss."""
    return loss_benchmark.deviation([value.cpu() for value in values], reference)


def method(report: Report, device: str, dry: bool) -> None:
    """Loss in every precision, Sinkhorn, clustering, matching, EMA and health."""
    n, k = (600, 48) if dry else (20_000, 1024)
    inputs, reference = exact(device, n, k)
    ours = partial(loss_benchmark.step, loss_benchmark.our_loss)
    report.below("loss float32", error(ours(*inputs), reference), 1e-4)
    with matmul("high"):
        report.below("loss TF32", error(ours(*inputs), reference), TF32)
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with torch.autocast(device, dtype):
            report.below(f"loss {name} autocast", error(ours(*inputs), reference), 1e-4)

    student, teacher, prototypes = (value.detach() for value in inputs)
    host = [value.cpu() for value in (student, teacher, prototypes)]
    sinkhorn = ZipfSinkhorn()
    target = sinkhorn(teacher, prototypes, TEACHER_TEMP)
    expected = references.target_reference(*host[1:], TEACHER_TEMP)
    report.below("Zipf-Sinkhorn", references.relative_error(target.cpu(), expected), 1e-4)
    mass = target.sum(dim=0)
    report.below("softmaps sum to 1", float((mass - 1).abs().max()), 1e-4)

    leaves = student.clone().requires_grad_(), prototypes.clone().requires_grad_()
    temps = STUDENT_TEMP, TEACHER_TEMP
    value = clustering_loss(
        leaves[0], teacher, leaves[1], prototypes, ZipfSinkhorn(alpha=0.0), *temps
    )
    value.backward()
    doubles = [references.double_leaf(part) for part in (host[0], host[2])]
    other = references.clustering_loss_reference(doubles[0], host[1], doubles[1], host[2], *temps)
    other.backward()
    values, expected = (
        [loss.detach(), *(leaf.grad for leaf in parts if leaf.grad is not None)]
        for loss, parts in ((value, leaves), (other, doubles))
    )
    report.below("clustering loss", error(values, expected), 1e-4)

    generator = torch.Generator().manual_seed(0)
    cloud = torch.randint(4, (n,), generator=generator).sort().values
    ids = torch.randperm(2 * n, generator=generator)[:n]
    order = torch.randperm(n, generator=generator)[: n // 2]
    rows = torch.randint(n // 4, (n,), generator=generator)

    def match(place: str) -> list[Tensor]:
        parts = (value.to(place) for value in (ids[order], cloud[order], ids, cloud, rows))
        own_ids, own_cloud, in_ids, in_cloud, row = parts
        found = find_points(own_ids, own_cloud, in_ids, in_cloud)
        own_rows = torch.arange(len(own_ids), device=place) // 2
        matched = match_rows(own_rows, (len(own_ids) + 1) // 2, found, row)
        return [found.cpu(), matched.cpu()]

    same = all(torch.equal(a, b) for a, b in zip(match(device), match("cpu")))
    report.holds("matching equals that on the CPU", same)

    networks = [nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64)) for _ in range(2)]
    for network in networks:
        network[1].running_mean.normal_()  # type: ignore[operator, union-attr]
    expected_state = {
        key: value if "running" in key or "num" in key else 0.9 * before + 0.1 * value
        for (key, before), value in zip(
            copy.deepcopy(networks[0].state_dict()).items(), networks[1].state_dict().values()
        )
    }
    for network in networks:
        network.to(device)
    ema_update(networks[0], networks[1], 0.9)
    state = {key: value.cpu() for key, value in networks[0].state_dict().items()}
    apart = max(float((state[key] - other).abs().max()) for key, other in expected_state.items())
    report.below("EMA", apart, 1e-6)

    pairs = []
    for features, weight in ((teacher, prototypes), (host[1].double(), host[2].double())):
        logits = Logits(features, weight, TEACHER_TEMP)
        scaling = sinkhorn.scaling(logits)
        pairs.append(
            [
                health.effective_number(health.assigned_mass(logits, scaling)),
                health.softmap_entropy(logits, scaling),
                health.assignment_entropy(logits, scaling.bias),
                *health.channel_std(features),
                health.rank_me(features),
            ]
        )
    apart = max(abs(a - b) / max(abs(b), 1e-3) for a, b in zip(*pairs))
    report.below("health", apart, 1e-2)


def fused(report: Report, device: str, dry: bool) -> None:
    """Triton's kernels of the loss."""
    for n, k in [(300, 64)] if dry else [(20_000, 1024), (5_003, 333)]:
        inputs, reference = exact(device, n, k)
        with matmul("high"), kernels("triton", dry):
            values = loss_benchmark.step(loss_benchmark.our_loss, *inputs)
        report.below(f"triton, N={n}, K={k}", error(values, reference), TF32)


class Pointwise(nn.Module):
    """A backbone that never makes the host wait for the device."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Linear(2, channels)

    def forward(self, data: dict) -> Tensor:
        """(N, 2) features to (N, channels)."""
        return self.stem(data["feat"])


def waits(report: Report, device: str, dry: bool) -> None:
    """A step outside the backbone waits for the device twice, and for nothing else."""
    from dos_plugin.host import HOST

    HOST.MODELS.register_module("Pointwise")(Pointwise)
    batch = to(device, view_batch((300, 200) if dry else (4000, 3500)))
    for name in ("plain",) if dry else passes.KERNELS:
        model = build_dos(dict(type="Pointwise", channels=32), 32, 0, dry).to(device).train()
        optimizer = torch.optim.AdamW(model.student.parameters(), 1e-3)
        dtype = torch.bfloat16 if device != "cpu" else None
        step = partial(train_step, model, optimizer, batch, device, dtype)
        with matmul("high"), kernels(name, dry):
            step()  # handles, workspaces, compilations
            with Waits(device) as counted:
                step()
        limit = 2 if device != "cpu" else 4  # a CPU looks ids up in a table and asks for its size
        report.holds(f"{name}: waits {counted.times}", 2 <= counted.times <= limit)


class Waits:
    """Counts ``Tensor.tolist``; on a GPU any other wait is an error."""

    def __init__(self, device: str) -> None:
        self.mode = torch.cuda.set_sync_debug_mode if device != "cpu" else lambda mode: None
        self.times = 0

    def __enter__(self) -> "Waits":
        original = self.original = Tensor.tolist

        def tolist(tensor: Tensor) -> Any:
            self.times += 1
            self.mode("default")
            try:
                return original(tensor)
            finally:
                self.mode("error")

        Tensor.tolist = tolist  # type: ignore[method-assign, assignment]
        self.mode("error")
        return self

    def __exit__(self, *error: object) -> None:
        self.mode("default")
        Tensor.tolist = self.original  # type: ignore[method-assign]


def to(device: str, batch: dict) -> dict:
    """The tensors of a batch on a device."""
    return {k: v.to(device) if torch.is_tensor(v) else v for k, v in batch.items()}


def build_dos(backbone: dict, channels: int, level: int, dry: bool) -> Any:
    """A small DOS with a backbone of the embedded host."""
    import dos_plugin.register  # noqa: F401
    from dos_plugin.host import HOST

    torch.manual_seed(0)
    model = HOST.build_model(
        dict(
            type="DOS-v1m1",
            backbone=backbone,
            backbone_out_channels=channels,
            up_cast_level=level,
            head=dict(hidden_channels=64, out_channels=32 if dry else 256),
            num_prototypes=24 if dry else 1024,
        )
    )
    model.total_steps = 100
    return model


def train_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    batch: dict,
    device: str,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """One step as the host takes it, in autocast where a dtype is given; the loss."""
    optimizer.zero_grad()
    with torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None):
        loss = model(batch)["loss"]
    loss.backward()
    nn.utils.clip_grad_norm_(model.student.parameters(), 3.0)
    optimizer.step()
    model.after_optimizer_step()
    return loss.detach()


# Backbones of the embedded host: config, channels of its features, pooling steps undone.
BACKBONES: dict[str, tuple[dict, int, int]] = {
    "PT-v3m2": (
        dict(
            type="PT-v3m2",
            in_channels=2,
            stride=(2, 2),
            enc_depths=(1, 1, 1),
            enc_channels=(16, 32, 64),
            enc_num_head=(1, 2, 4),
            enc_patch_size=(64, 64, 64),
            drop_path=0.0,
            shuffle_orders=False,
            enable_flash=False,
            enc_mode=True,
        ),
        96,
        1,
    ),
    "SpUNet-v1m1": (
        dict(
            type="SpUNet-v1m1",
            in_channels=2,
            num_classes=0,
            channels=(16, 16, 32, 32, 32, 32, 16, 16),
            layers=(1,) * 8,
        ),
        16,
        0,
    ),
}


def backbones(report: Report, device: str, dry: bool) -> None:
    """Training with both backbones in mixed precision, twice."""
    steps, points = (2, (300, 200)) if dry else (20, (4000, 3500))
    # spconv's CPU kernels know no half precision.
    dtype = torch.bfloat16 if device != "cpu" else None
    batch = to(device, view_batch(points))
    for name, (backbone, channels, level) in BACKBONES.items():
        histories = []
        for _ in range(2):
            model = build_dos(backbone, channels, level, dry).to(device).train()
            first = copy.deepcopy(model.teacher.state_dict())
            optimizer = torch.optim.AdamW(model.student.parameters(), 1e-3)
            losses = [train_step(model, optimizer, batch, device, dtype) for _ in range(steps)]
            histories.append(torch.stack(losses).double().cpu())
        once, again = histories
        report.holds(f"{name}: losses are finite", bool(once.isfinite().all()), str(once.tolist()))
        student, teacher = model.student.state_dict(), model.teacher.state_dict()
        learned = [
            key for key in teacher if key in student and "running" not in key and "num_" not in key
        ]
        moved = sum(not torch.equal(teacher[key], first[key]) for key in learned)
        behind = sum(not torch.equal(teacher[key], student[key]) for key in learned)
        follows = moved > 0.9 * len(learned) and behind > 0.9 * len(learned)
        report.holds(f"{name}: the teacher follows", follows, f"{moved} of {len(learned)} moved")
        report.figures[f"{name}: losses"] = [round(float(once[0]), 4), round(float(once[-1]), 4)]
        report.figures[f"{name}: twice the same, bit by bit"] = torch.equal(once, again)
        apart = float(((once - again).abs() / once.abs().clamp_min(1e-6)).max())
        report.below(f"{name}: losses of two runs differ by", apart, 1e-2)


def scaler(report: Report, device: str, dry: bool) -> None:
    """A step that the gradient scaler skips moves nothing; the next one is taken."""
    dtype = torch.float16 if device != "cpu" else None
    backbone, channels, level = BACKBONES["PT-v3m2"]
    model = build_dos(backbone, channels, level, dry).to(device).train()
    optimizer = torch.optim.AdamW(model.student.parameters(), 1e-3)
    optimizer.register_step_post_hook(lambda *_: model.after_optimizer_step())
    scale = torch.amp.GradScaler(device, init_scale=2.0**12)
    batch = to(device, view_batch((300, 200)))
    for factor, taken in ((2.0**120, 0), (1.0, 1)):  # the first one overflows
        before = copy.deepcopy(model.state_dict())
        optimizer.zero_grad()
        with torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None):
            loss = model(batch)["loss"]
        scale.scale(loss * factor).backward()
        scale.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.student.parameters(), 3.0)
        scale.step(optimizer)
        scale.update()
        after = model.state_dict()
        learned = [key for key, _ in model.named_parameters()]
        moved = sum(not torch.equal(before[key], after[key]) for key in learned)
        name = "a step is taken" if taken else "a step that overflows moves nothing"
        right = moved > 0.9 * len(learned) if taken else moved == 0
        report.holds(name, right and model.step == taken, f"{moved} moved, step {model.step}")
    report.below("the scale after it", scale.get_scale(), 2.0**12)


def no_leak(report: Report, device: str, dry: bool) -> None:
    """Nothing that the student must not see changes any of its activations."""
    batch = view_batch((400, 300) if dry else (4000, 3500))
    for name, (backbone, channels, level) in BACKBONES.items():
        runs = []
        for content in (batch, batch, change_hidden(batch)):
            model = build_dos(backbone, channels, level, dry).to(device).train()
            seen = student_activations(model, to(device, content))
            # A GPU numbers the cells of coarser levels as it likes.
            runs.append([out.detach().sort(dim=0).values for out in seen])
        once, again, changed = runs
        report.holds(f"{name}: as many activations", len(once) == len(changed) > 5)
        noise, apart = (
            max(float((a.double() - b.double()).abs().max()) for a, b in zip(once, other))
            for other in (again, changed)
        )
        # Sums of a GPU may run in any order: then two runs of the same batch differ as well.
        report.figures[f"{name}: two runs of one batch differ by"] = noise
        report.figures[f"{name}: bit by bit the same"] = apart == 0
        report.below(f"{name}: masked content changes activations by", apart, 4 * noise + 1e-30)


def ranks(report: Report, device: str, dry: bool) -> None:
    """One rank of NCCL (gloo on a CPU), and two ranks of gloo on one device."""
    from tests.unit import test_method_distributed as two

    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(two.worker, args=(folder, device), nprocs=two.WORLD)
        results = [
            torch.load(f"{folder}/{rank}.pt", map_location="cpu", weights_only=True)
            for rank in range(two.WORLD)
        ]
    worst = 0.0
    for split in ("uneven", "second rank empty"):
        for name in ("softmap batch", "softmap cloud", "clustering"):
            value, student, weight = two.one_process(split, name)
            losses, students, weights = zip(*(result[split, name] for result in results))
            pairs = (
                (torch.stack(losses).mean(), value),
                (torch.cat(students), two.WORLD * student),
                (sum(weights) / two.WORLD, weight),
            )
            worst = max(worst, *(references.relative_error(a, b) for a, b in pairs))
    report.below("two ranks of gloo against one process", worst, 1e-4)

    backend = "gloo" if device == "cpu" else "nccl"
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(backend, init_method=f"file://{folder}/i", rank=0, world_size=1)
        try:
            value = torch.ones(3, device=device)
            dist.all_reduce(value)
            parts = [torch.empty_like(value)]
            dist.all_gather(parts, value)
            report.holds(f"collectives of {backend}", torch.equal(parts[0], torch.ones_like(value)))
            backbone, channels, level = BACKBONES["PT-v3m2"]
            batch = to(device, view_batch((300, 200)))
            runs: list[list[Tensor]] = []
            for wrapped in (False, True):
                model = build_dos(backbone, channels, level, dry).to(device).train()
                ids = None if device == "cpu" else [torch.cuda.current_device()]
                network = nn.parallel.DistributedDataParallel(model, ids) if wrapped else model
                loss = network(batch)["loss"]
                loss.backward()
                runs.append([loss.detach().cpu(), *_gradients(model)])
            apart = max(references.relative_error(a, b) for a, b in zip(*runs))
            report.below(f"a rank of {backend} against none", apart, 1e-3)
        finally:
            dist.destroy_process_group()


def _gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad.cpu() for p in model.parameters() if p.grad is not None and p.grad.any()]


def imports(report: Report, device: str, dry: bool) -> None:
    """What is installed; a sparse convolution of spconv on the device against a dense one."""
    report.figures |= common.machine()
    for name in ("triton", "spconv", "torch_geometric", "timm", "numpy"):
        try:
            module = __import__(name)
            report.figures[name] = getattr(module, "__version__", "there")
        except Exception as why:  # a broken installation may raise anything
            report.figures[name] = f"{type(why).__name__}: {why}"
    if device != "cpu":
        capability = torch.cuda.get_device_capability()
        report.figures["capability"] = ".".join(map(str, capability))
        report.figures["memory_gib"] = torch.cuda.get_device_properties(0).total_memory / 2**30
    try:
        import spconv.pytorch as spconv

        torch.manual_seed(0)
        cells = torch.randperm(512)[:60]
        sites = torch.stack([cells * 0, cells // 64, cells // 8 % 8, cells % 8], 1).int()
        sparse = spconv.SparseConvTensor(
            torch.randn(60, 8, device=device), sites.to(device), [8, 8, 8], 1
        )
        layer = spconv.SubMConv3d(8, 16, 3, bias=False).to(device)
        ours = layer(sparse).features
        weight = layer.weight.permute(0, 4, 1, 2, 3)
        dense = nn.functional.conv3d(sparse.dense(), weight, padding=1)[0].permute(1, 2, 3, 0)
        expected = dense[tuple(sites.to(device)[:, 1:].long().unbind(1))]
        report.below("spconv against a dense convolution", _apart(ours, expected), 1e-2)
    except Exception as why:
        report.failures.append(f"spconv: {type(why).__name__}: {why}")


def _apart(value: Tensor, expected: Tensor) -> float:
    return references.relative_error(value.cpu(), expected.cpu())


CHECKS: dict[str, Callable[[Report, str, bool], None]] = {
    "imports": imports,
    "method": method,
    "kernels": fused,
    "waits": waits,
    "backbones": backbones,
    "scaler": scaler,
    "no-leak": no_leak,
    "ranks": ranks,
}


def main() -> int:
    """Check, print, write."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("names", nargs="+", choices=CHECKS)
    options.add_argument("--dry", action="store_true", help="small, on a CPU")
    options.add_argument("--json", type=Path, help="also write figures and failures")
    args = options.parse_args()
    device = "cpu" if args.dry else "cuda"
    report = Report()
    for name in args.names:
        try:
            CHECKS[name](report, device, args.dry)
        except Exception as error:  # the other checks may still say something
            traceback.print_exc()
            report.failures.append(f"{name}: {type(error).__name__}: {error}"[:600])
        summary = {"figures": report.figures, "failures": report.failures}
        common.write_json(args.json, [], summary)
    for name, value in report.figures.items():
        print(f"{name}: {common._cell(value)}")
    for failure in report.failures:
        print(f"FAILED: {failure}")
    return bool(report.failures)


if __name__ == "__main__":
    sys.exit(main())
