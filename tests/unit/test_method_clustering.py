"""Per-point clustering and feature regression against float64 references."""

import math

import pytest
import torch

from dos_plugin.method import ZipfSinkhorn, clustering_loss, regression_loss
from dos_plugin.method.logits import BLOCK_ELEMENTS
from tests.references import clustering_loss_reference, double_leaf, relative_error, unit_rows

TEMPS = 0.1, 0.06


def make_inputs(n: int, k: int, dtype: torch.dtype = torch.float32):
    student = unit_rows(0, n, 8, dtype=dtype).requires_grad_()
    prototypes = unit_rows(2, k, 8, dtype=dtype).requires_grad_()
    return student, unit_rows(1, n, 8, dtype=dtype), prototypes, unit_rows(3, k, 8, dtype=dtype)


@pytest.mark.parametrize("alpha, num_iters", [(0.0, 3), (1.3, 1), (1.3, 5)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n, k", [(1, 2), (2, 33), (300, 2), (300, 64)])
def test_clustering_equals_the_reference(n, k, dtype, alpha, num_iters):
    student, teacher, prototypes, teacher_prototypes = make_inputs(n, k, dtype)
    leaves = double_leaf(student), double_leaf(prototypes)
    expected = clustering_loss_reference(
        leaves[0], teacher, leaves[1], teacher_prototypes, *TEMPS, alpha, num_iters
    )
    sinkhorn = ZipfSinkhorn(alpha, num_iters)
    loss = clustering_loss(student, teacher, prototypes, teacher_prototypes, sinkhorn, *TEMPS)
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    rounding = 2.0**-8 if dtype == torch.bfloat16 else 0
    grads = torch.autograd.grad(loss, (student, prototypes))
    for grad, expected_grad in zip(grads, torch.autograd.grad(expected, leaves)):
        assert grad.dtype == dtype
        assert relative_error(grad, expected_grad) < 1e-5 + rounding


def test_without_iterations_assignments_are_plain_softmaxes():
    student, teacher, prototypes, teacher_prototypes = make_inputs(300, 64)
    inputs = student, teacher, prototypes, teacher_prototypes, ZipfSinkhorn(3.0, num_iters=0)
    assignment = torch.softmax(teacher.double() @ teacher_prototypes.double().T / TEMPS[1], dim=1)
    guess = torch.log_softmax(student.double() @ prototypes.double().T / TEMPS[0], dim=1)
    expected = -(assignment * guess).sum(dim=1).mean()
    assert clustering_loss(*inputs, *TEMPS).item() == pytest.approx(expected.item(), rel=1e-6)


def test_clustering_over_several_blocks(monkeypatch):
    inputs = make_inputs(100, 16)
    whole = clustering_loss(*inputs, ZipfSinkhorn(), *TEMPS)
    expected = torch.autograd.grad(whole, (inputs[0], inputs[2]))
    # Blocks of 7 points, which do not divide 100.
    monkeypatch.setitem(BLOCK_ELEMENTS, "cpu", 7 * 16 + 3)
    loss = clustering_loss(*inputs, ZipfSinkhorn(), *TEMPS)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
    for grad, expected_grad in zip(torch.autograd.grad(loss, (inputs[0], inputs[2])), expected):
        assert relative_error(grad, expected_grad) < 1e-5


def test_clustering_gives_the_teacher_no_gradient():
    student, teacher, prototypes, teacher_prototypes = make_inputs(20, 5)
    teacher.requires_grad_()
    teacher_prototypes.requires_grad_()
    inputs = student, teacher, prototypes, teacher_prototypes, ZipfSinkhorn()
    clustering_loss(*inputs, *TEMPS).backward()
    assert teacher.grad is None and teacher_prototypes.grad is None
    assert student.grad.abs().max() > 0 and prototypes.grad.abs().max() > 0


def test_clustering_reaches_the_entropy_of_the_assignments():
    """Cross-entropy is least, and its gradient zero, where the student equals the assignment."""
    teacher, axes = unit_rows(4, 30, 6, dtype=torch.float64), torch.eye(6, dtype=torch.float64)
    sinkhorn = ZipfSinkhorn(alpha=0.0)
    plan = sinkhorn(teacher, axes, TEMPS[1])
    assignment = plan / plan.sum(dim=1, keepdim=True)
    student = (TEMPS[0] * assignment.log()).requires_grad_()
    loss = clustering_loss(student, teacher, axes, axes, sinkhorn, *TEMPS)
    loss.backward()
    entropy = -(assignment * assignment.log()).sum(dim=1).mean()
    assert loss.item() == pytest.approx(entropy.item(), rel=1e-6)
    assert student.grad.abs().max() < 1e-6


def test_clustering_under_autocast():
    inputs = make_inputs(50, 12)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = clustering_loss(*inputs, ZipfSinkhorn(), *TEMPS)
        results.append([loss, *torch.autograd.grad(loss, (inputs[0], inputs[2]))])
    for plain, autocast in zip(*results):
        assert torch.equal(plain, autocast) and autocast.dtype == torch.float32


def test_losses_of_no_point_are_zero_with_a_graph():
    student, teacher, prototypes, teacher_prototypes = make_inputs(0, 4)
    inputs = student, teacher, prototypes, teacher_prototypes, ZipfSinkhorn()
    loss = clustering_loss(*inputs, *TEMPS)
    loss.backward()
    assert loss.item() == 0 and torch.equal(prototypes.grad, torch.zeros(4, 8))
    loss = regression_loss(student, teacher)
    loss.backward()
    assert loss.item() == 0 and student.grad.shape == (0, 8)


@pytest.mark.parametrize("name", ["student_temp", "teacher_temp"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_clustering_temperature_out_of_range(name, value):
    temps = {"student_temp": 0.1, "teacher_temp": 0.06, name: value}
    with pytest.raises(ValueError, match=f"{name} must be a number in .*, got {value}"):
        clustering_loss(*make_inputs(4, 3), ZipfSinkhorn(), **temps)


def test_regression_by_hand():
    student = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [1.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [-1.0, 0.0]], requires_grad=True)
    loss = regression_loss(student, teacher)
    # Squared distances: same 0, right angle 2, (0.2, -0.2) 0.08, opposite 4; mean 6.08 / 4.
    assert loss.item() == pytest.approx(1.52)
    loss.backward()
    torch.testing.assert_close(student.grad, -2 * teacher.detach() / 4)
    assert teacher.grad is None


def test_regression_is_float32_for_half_inputs():
    student, teacher = unit_rows(5, 40, 8), unit_rows(6, 40, 8)
    halves = student.bfloat16(), teacher.bfloat16()
    expected = sum(
        2 - 2 * sum(a * b for a, b in zip(x, y))
        for x, y in zip(halves[0].tolist(), halves[1].tolist())
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = regression_loss(*halves)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected / 40, rel=1e-5)


BAD_SHAPES = [
    # student, teacher, message
    ((5, 4), (1, 4), r"must both be \(N, D\), got \(5, 4\) and \(1, 4\)"),  # would broadcast
    ((5, 4), (5, 3), r"must both be \(N, D\), got \(5, 4\) and \(5, 3\)"),
]


@pytest.mark.parametrize("student, teacher, message", BAD_SHAPES)
def test_shapes_that_disagree(student, teacher, message):
    student, teacher = torch.zeros(student), torch.zeros(teacher)
    with pytest.raises(ValueError, match=message):
        regression_loss(student, teacher)
    with pytest.raises(ValueError, match=message):
        clustering_loss(student, teacher, *2 * [torch.zeros(3, 4)], ZipfSinkhorn(), *TEMPS)


def test_clustering_refuses_the_scope_of_single_clouds():
    feat = unit_rows(0, 5, 4)
    with pytest.raises(ValueError, match="scope='batch', got 'cloud'"):
        clustering_loss(feat, feat, feat, feat, ZipfSinkhorn(scope="cloud"), *TEMPS)
