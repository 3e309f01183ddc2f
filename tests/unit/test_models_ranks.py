"""DOS on 2 and 4 gloo processes against one process that is given the whole batch.

The processes train as the host's do, in DistributedDataParallel. Some of them have batches of which
nothing can be learnt; none may wait for ever, and loss and averaged gradients stay those of one.
"""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from dos_plugin import register  # noqa: F401
from dos_plugin.host import HOST
from tests.batches import view_batch
from tests.ranks import run_ranks
from tests.references import relative_error

SECONDS = 120  # after which the processes are taken to hang


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx, grad):
        return _SumOverRanks.forward(ctx, grad)


class SyncNorm(nn.SyncBatchNorm):
    """What torch's does on GPUs only: statistics of all ranks, a collective each way."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        if not dist.is_initialized():
            return nn.BatchNorm1d.forward(self, x)
        parts = [x.sum(0), x.square().sum(0), x.new_full((1,), len(x))]
        sums, squares, count = _SumOverRanks.apply(torch.cat(parts)).split([x.shape[1]] * 2 + [1])
        mean = sums / count
        variance = squares / count - mean.square()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return (x - mean) / (variance + self.eps).sqrt() * self.weight + self.bias


NORMS = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "synced": SyncNorm}


class RankToy(nn.Module):
    """Features of a point: of its own and of its cloud."""

    def __init__(self, channels=8, norm="layer"):
        super().__init__()
        self.stem = nn.Linear(2, channels)
        self.norm = NORMS[norm](channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, data):
        feat = torch.relu(self.norm(self.stem(data["feat"])))
        counts = torch.diff(data["offset"], prepend=data["offset"].new_zeros(1)).tolist()
        assert min(counts) > 0
        means = [part.mean(0, keepdim=True).expand_as(part) for part in feat.split(counts)]
        return self.out(feat + torch.cat(means))


if "RankToy" not in HOST.MODELS.module_dict:
    HOST.MODELS.register_module("RankToy")(RankToy)

MODELS = {
    "softmap": {},
    "softmap of clouds": dict(sinkhorn=dict(scope="cloud")),
    "clustering": dict(target="clustering"),
    "regression": dict(target="regression"),
    "synced norms": dict(backbone=dict(type="RankToy", norm="synced")),
}
# Points of the scenes of every rank; where there are four, four processes are tried, too.
SIZES = {
    "even": [(90, 60), (50, 120)],
    "uneven": [(200, 150), (40,), (25, 300, 60), (90,)],
    "one point": [(200, 150), (1,)],
    "too small": [(1, 3), (200, 150), (5, 5, 5), (90,)],
    "nothing visible": [(200,), (100, 80)],
    "nothing in common": [(200, 150), (90,)],
    "no rank has any": [(1,), (3, 2)],
}
WORLDS = (2, 4)
PARTS = [(world, case) for world in WORLDS for case, of in SIZES.items() if len(of) >= world]
STAND_IN = ("one point", "too small", "nothing visible")  # for the synchronized norms of a rank


def batch_of(case: str, rank: int) -> dict:
    batch = view_batch(SIZES[case][rank], seed=rank)
    if case == "nothing visible" and rank == 1:
        batch["view1_visible"][:] = batch["view2_visible"][:] = False
    if case == "nothing in common" and rank == 1:
        batch["view2_point_id"] += 10_000
    return batch


def whole_batch(case: str, world: int) -> dict:
    """The batches of all ranks as the host's collate would have made one of them."""
    batches = [batch_of(case, rank) for rank in range(world)]
    whole = {
        key: torch.cat([batch[key] for batch in batches]) for key in batches[0] if key != "name"
    }
    for view in ("view1", "view2"):
        counts = [torch.diff(b[f"{view}_offset"], prepend=torch.zeros(1).long()) for b in batches]
        whole[f"{view}_offset"] = torch.cat(counts).cumsum(0)
    return whole


def build(name: str):
    torch.manual_seed(0)
    options = dict(
        backbone=dict(type="RankToy"),
        backbone_out_channels=8,
        up_cast_level=0,
        head=dict(hidden_channels=16, out_channels=8),
        num_prototypes=12,
    )
    return HOST.build_model(dict(type="DOS-v1m1", **options | MODELS[name])).train()


def step(name: str, batch: dict):
    """Outputs and gradients of a batch, and the running statistics after it."""
    model = build(name)
    net = model
    if dist.is_initialized():
        net = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    out = net(batch)
    out["loss"].backward()
    grads = {key: p.grad.clone() for key, p in model.student.named_parameters()}
    buffers = {key: value.clone() for key, value in model.student.named_buffers()}
    return {key: value.detach() for key, value in out.items()}, grads, buffers


def worker(folder: str) -> None:
    ddp = nn.parallel.DistributedDataParallel
    ddp._passing_sync_batchnorm_handle = lambda *_: None  # it refuses them without a GPU
    rank, world, results = dist.get_rank(), dist.get_world_size(), {}
    for case in (case for of, case in PARTS if of == world):
        for name in MODELS:
            results[case, name] = step(name, batch_of(case, rank))
    torch.save(results, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Results of every rank, by number of ranks."""
    results = {}
    for world in WORLDS:
        folder = tmp_path_factory.mktemp(f"ranks{world}")
        run_ranks(worker, world, folder, str(folder), seconds=SECONDS)
        results[world] = [torch.load(folder / f"{rank}.pt") for rank in range(world)]
    return results


def flat(grads: dict) -> torch.Tensor:
    return torch.cat([grad.flatten() for grad in grads.values()])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("world, case", PARTS)
def test_ranks_equal_one_process(ranks, world, case, name):
    expected, expected_grads, _ = step(name, whole_batch(case, world))
    results = [rank[case, name] for rank in ranks[world]]
    # The stand-in is one point of zeros a view among the points of all ranks.
    loss_error, grad_error = (
        (0.03, 0.3) if name == "synced norms" and case in STAND_IN else (1e-5, 1e-4)
    )
    for key in ("loss", "same_view_loss", "cross_view_loss"):
        loss = torch.stack([out[key] for out, _, _ in results]).mean()
        torch.testing.assert_close(loss, expected[key], rtol=loss_error, atol=1e-6)
    for _, grads, _ in results:
        assert grads.keys() == expected_grads.keys()
        if case == "no rank has any":
            assert not flat(grads).any()
        else:
            assert relative_error(flat(grads), flat(expected_grads)) < grad_error
    if case != "no rank has any":
        assert expected["loss"] > 0.01 and flat(expected_grads).abs().max() > 1e-2


@pytest.mark.parametrize("world, case", PARTS)
def test_running_statistics_stay_equal_and_finite(ranks, world, case):
    (_, _, first), *others = (rank[case, "synced norms"] for rank in ranks[world])
    assert len(first) == 3 and all(value.isfinite().all() for value in first.values())
    for _, _, buffers in others:
        assert all(torch.equal(buffers[key], value) for key, value in first.items())
