"""Two gloo processes that share a batch against one process that holds it.

The one process is the float64 reference on the concatenated batch. Every rank's loss is
``world_size`` times its share, so the *mean* over ranks is the loss of one process, and averaging
gradients over ranks, as DistributedDataParallel does, gives the gradients of one process. Features
are not averaged: their gradient on a rank is ``world_size`` times that of one process.
"""

import datetime
import math

import pytest
import torch
import torch.distributed as dist

from dos_plugin.method import ZipfSinkhorn, clustering_loss, regression_loss, softmap_loss
from dos_plugin.method.distributed import all_reduce_logsumexp, all_reduce_sum, world_size
from tests.ranks import run_ranks
from tests.references import (
    clustering_loss_reference,
    double_leaf,
    relative_error,
    softmap_loss_reference,
    target_reference,
    unit_rows,
)

WORLD, K, D, TEMPS = 2, 12, 8, (0.1, 0.06)

# Cumulative counts of the clouds of both ranks; how many clouds and points differs between them.
SPLITS = {
    "even": ([10, 30], [15, 30]),
    "uneven": ([3, 3, 20], [70]),
    "second rank empty": ([25, 40], [0]),
    "first rank empty": ([0, 0], [33]),
    "no point anywhere": ([0], [0, 0]),
}
LOSSES = ["softmap batch", "softmap cloud", "softmap batch plain", "clustering", "regression"]


def make_batch(split: str):
    """The whole batch: student, teacher, student prototypes, teacher prototypes."""
    n = sum(ends[-1] for ends in SPLITS[split])
    return [unit_rows(seed, rows, D) for seed, rows in enumerate((n, n, K, K))]


def rows_of(rank: int, split: str) -> slice:
    start = sum(ends[-1] for ends in SPLITS[split][:rank])
    return slice(start, start + SPLITS[split][rank][-1])


def compute_loss(name: str, student, teacher, prototypes, teacher_prototypes, offset):
    inputs = student, teacher, prototypes, teacher_prototypes
    if name == "clustering":
        return clustering_loss(*inputs, ZipfSinkhorn(), *TEMPS)
    if name == "regression":
        return regression_loss(student, teacher) + prototypes.sum() * 0
    sinkhorn = ZipfSinkhorn(scope=name.split()[1], num_iters=0 if "plain" in name else 3)
    return softmap_loss(*inputs, sinkhorn, *TEMPS, offset=offset, block_size=16)


def worker(rank: int, folder: str, device: str = "cpu") -> None:
    """A rank of spawned processes."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/init",
        rank=rank,
        world_size=WORLD,
        timeout=datetime.timedelta(seconds=60),
    )
    compute(folder, device)
    dist.destroy_process_group()


def compute(folder: str, device: str = "cpu") -> None:
    """Everything a rank computes, saved for the tests to look at."""
    rank, result = dist.get_rank(), {"world_size": world_size()}
    for split in SPLITS:
        student, teacher, prototypes, teacher_prototypes = (
            value.to(device) for value in make_batch(split)
        )
        rows = rows_of(rank, split)
        offset = torch.tensor(SPLITS[split][rank], device=device)
        result[split, "target"] = ZipfSinkhorn()(teacher[rows], teacher_prototypes, TEMPS[1])
        for name in LOSSES:
            leaf = student[rows].clone().requires_grad_()
            weight = prototypes.clone().requires_grad_()
            loss = compute_loss(name, leaf, teacher[rows], weight, teacher_prototypes, offset)
            loss.backward()
            result[split, name] = loss.detach(), leaf.grad, weight.grad

    value = torch.tensor([1.0, -math.inf, -math.inf, 80.0]) if rank else torch.tensor([2.0] * 4)
    value[2] = -math.inf
    before = value.clone()
    result["sum"] = all_reduce_sum(value[:1])
    result["logsumexp"] = all_reduce_logsumexp(value)
    result["untouched"] = torch.equal(value, before)
    torch.save(result, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    run_ranks(compute, WORLD, folder, str(folder), seconds=60)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


def one_process(split: str, name: str):
    """Loss and gradients of student features and prototypes of the whole batch, in float64."""
    student, teacher, prototypes, teacher_prototypes = make_batch(split)
    student, prototypes = double_leaf(student), double_leaf(prototypes)
    inputs = student, teacher, prototypes, teacher_prototypes, *TEMPS
    if name == "clustering":
        loss = clustering_loss_reference(*inputs, alpha=1.3)
    elif name == "regression":
        distance = (student - teacher).square().sum() / max(1, len(student))
        # Unit length is taken for granted by the loss, so only its gradient without that part.
        lengths = (student.square().sum() + teacher.double().square().sum()) / max(1, len(student))
        loss = distance - lengths + (2 if len(student) else 0) + prototypes.sum() * 0
    elif name == "softmap cloud":
        first, second = SPLITS[split]
        loss = softmap_loss_reference(*inputs, offset=[*first, *(first[-1] + e for e in second)])
    else:
        loss = softmap_loss_reference(*inputs, num_iters=0 if "plain" in name else 3)
    return loss.detach(), *torch.autograd.grad(loss, (student, prototypes))


FILLED = [split for split in SPLITS if split != "no point anywhere"]


def test_world_size(ranks):
    assert [rank["world_size"] for rank in ranks] == [2, 2]
    assert world_size() == 1


@pytest.mark.parametrize("split", FILLED)
def test_targets(ranks, split):
    _, teacher, _, teacher_prototypes = make_batch(split)
    expected = target_reference(teacher, teacher_prototypes, TEMPS[1])
    target = torch.cat([rank[split, "target"] for rank in ranks])
    assert relative_error(target, expected) < 1e-5
    torch.testing.assert_close(target.sum(dim=0), torch.ones(K), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("split", FILLED)
def test_losses_and_gradients(ranks, split, name):
    expected, expected_student, expected_weight = one_process(split, name)
    losses, student_grads, weight_grads = zip(*(rank[split, name] for rank in ranks))
    assert sum(losses).item() / WORLD == pytest.approx(expected.item(), rel=1e-5)
    assert relative_error(torch.cat(student_grads), WORLD * expected_student) < 1e-5
    for rank, grad in enumerate(student_grads):
        assert len(grad) == len(range(*rows_of(rank, split).indices(len(expected_student))))
    if name == "regression":
        assert all((grad == 0).all() for grad in weight_grads)
    else:
        assert relative_error(sum(weight_grads) / WORLD, expected_weight) < 1e-5


@pytest.mark.parametrize("name", LOSSES)
def test_rank_without_points_gets_zeros(ranks, name):
    for split, rank in (("second rank empty", 1), ("first rank empty", 0)):
        loss, student_grad, weight_grad = ranks[rank][split, name]
        assert loss.item() == 0
        assert student_grad.shape == (0, D)
        assert torch.equal(weight_grad, torch.zeros(K, D))


@pytest.mark.parametrize("name", LOSSES)
def test_no_point_on_any_rank(ranks, name):
    for rank in ranks:
        loss, student_grad, weight_grad = rank["no point anywhere", name]
        assert loss.item() == 0 and student_grad.shape == (0, D)
        assert torch.equal(weight_grad, torch.zeros(K, D))


def test_the_scopes_are_told_apart(ranks):
    """Otherwise the tests above could not see a scope that is ignored."""
    batch, cloud = (one_process("uneven", f"softmap {scope}")[0] for scope in ("batch", "cloud"))
    assert abs(batch - cloud) > 0.1


def test_collectives(ranks):
    e = math.e
    expected = torch.tensor([math.log(e + e**2), 2.0, -math.inf, 80.0])
    for rank in ranks:
        assert rank["sum"].item() == 3.0
        torch.testing.assert_close(rank["logsumexp"], expected)
        assert rank["untouched"]


def test_collectives_of_one_process_are_the_identity():
    value = torch.tensor([1.0, -math.inf])
    assert torch.equal(all_reduce_sum(value), value)
    assert torch.equal(all_reduce_logsumexp(value), value)
