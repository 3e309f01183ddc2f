"""The softmap loss, blockwise and dense, against a float64 transcription of the formulas."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dos_plugin.method import ZipfSinkhorn, dense_softmap_loss, softmap_loss
from tests.references import (
    double_leaf,
    relative_error,
    softmap_loss_reference,
    softmap_reference,
    target_reference,
    unit_rows,
)

STUDENT_TEMP, TEACHER_TEMP, CHANNELS = 0.1, 0.05, 16

# One rounding of the result: half a unit in the last place.
ROUNDING = {torch.float64: 0.0, torch.float32: 0.0, torch.bfloat16: 2.0**-8}

# Cumulative counts with empty clouds at the start, in the middle and at the end.
OFFSETS = {
    1: [0, 1, 1],
    2: [0, 2, 2],
    7: [0, 2, 2, 3, 7, 7],
    257: [0, 0, 100, 100, 101, 257],
    5000: [1700, 1700, 1701, 5000],
}


def make_inputs(n: int, k: int, dtype: torch.dtype = torch.float32, seed: int = 0):
    """Student, teacher (like the student, with noise), student and teacher prototypes."""
    student = unit_rows(seed, n, CHANNELS, dtype=torch.float64)
    teacher = student + 0.7 * unit_rows(seed + 1, n, CHANNELS, dtype=torch.float64)
    teacher = torch.nn.functional.normalize(teacher, dim=1)
    prototypes = unit_rows(seed + 2, k, CHANNELS, dtype=dtype)
    teacher_prototypes = unit_rows(seed + 3, k, CHANNELS, dtype=dtype)
    return student.to(dtype).requires_grad_(), teacher.to(dtype), prototypes, teacher_prototypes


def reference_with_gradients(student, teacher, prototypes, teacher_prototypes, **options):
    """Loss and gradients of student features and prototypes, all float64."""
    student, prototypes = double_leaf(student), double_leaf(prototypes)
    loss = softmap_loss_reference(
        student,
        teacher,
        prototypes,
        teacher_prototypes,
        STUDENT_TEMP,
        TEACHER_TEMP,
        **options,
    )
    return loss.detach(), *torch.autograd.grad(loss, (student, prototypes))


def assert_close_to_one_rounding(value, expected, rounding):
    bound = 1e-5 * expected.abs().max() + rounding * expected.abs()
    assert ((value.double() - expected).abs() <= bound + 1e-300).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scope", ["batch", "cloud"])
@pytest.mark.parametrize("k", [2, 32, 129])
@pytest.mark.parametrize("n", [1, 2, 7, 257, 5000])
def test_equals_the_reference(n, k, scope, dtype):
    student, teacher, prototypes, teacher_prototypes = make_inputs(n, k, dtype)
    prototypes.requires_grad_()
    ends = OFFSETS[n] if scope == "cloud" else None
    offset = torch.tensor(OFFSETS[n]) if scope == "cloud" else None
    expected, expected_student, expected_prototypes = reference_with_gradients(
        student, teacher, prototypes, teacher_prototypes, offset=ends
    )
    sinkhorn = ZipfSinkhorn(scope=scope)
    inputs = student, teacher, prototypes, teacher_prototypes, sinkhorn
    # The dense one gets converted inputs, otherwise every cloud rounds its gradient of prototypes.
    exact = (value.to(torch.promote_types(dtype, torch.float32)) for value in inputs[:4])
    losses = [dense_softmap_loss(*exact, sinkhorn, STUDENT_TEMP, TEACHER_TEMP, offset)]
    # One block, blocks that do not divide N, blocks of one point.
    for block_size in (None, 3 if n < 100 else 611, 1 if n < 100 else 256):
        losses.append(softmap_loss(*inputs, STUDENT_TEMP, TEACHER_TEMP, offset, block_size))
    for loss in losses:
        assert loss.shape == ()
        assert loss.dtype == torch.promote_types(dtype, torch.float32)
        # Below 1e-6 (one point: exactly one softmap) there is nothing to be relative to.
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
        grads = torch.autograd.grad(loss, (student, prototypes), retain_graph=True)
        for grad, expected_grad in zip(grads, (expected_student, expected_prototypes)):
            assert grad.dtype == dtype
            if n == 1:  # a softmap over one point is constant
                assert grad.abs().max() < 1e-5
            else:
                assert_close_to_one_rounding(grad, expected_grad, ROUNDING[dtype])


@pytest.mark.parametrize("alpha, num_iters", [(0.0, 3), (1.6, 1), (3.0, 8), (1.3, 0)])
@pytest.mark.parametrize("temps", [(0.1, 0.04), (0.05, 0.2), (1.0, 1.0)])
def test_options_reach_the_loss(alpha, num_iters, temps):
    student, teacher, prototypes, teacher_prototypes = make_inputs(90, 12)
    expected = softmap_loss_reference(
        student.detach().double(),
        teacher,
        prototypes.double(),
        teacher_prototypes,
        *temps,
        alpha,
        num_iters,
    )
    sinkhorn = ZipfSinkhorn(alpha, num_iters)
    inputs = student, teacher, prototypes, teacher_prototypes, sinkhorn, *temps
    assert softmap_loss(*inputs, block_size=7).item() == pytest.approx(expected.item(), rel=1e-5)
    assert dense_softmap_loss(*inputs).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("scope", ["batch", "cloud"])
@pytest.mark.parametrize("block_size", [None, 4])
def test_gradcheck(scope, block_size):
    student, teacher, prototypes, teacher_prototypes = make_inputs(11, 5, torch.float64)
    sinkhorn, offset = ZipfSinkhorn(scope=scope), torch.tensor([0, 4, 4, 11])

    def loss(student, prototypes):
        inputs = student, teacher, prototypes, teacher_prototypes, sinkhorn
        # A factor on top checks that the incoming gradient is used.
        return 3 * softmap_loss(*inputs, STUDENT_TEMP, TEACHER_TEMP, offset, block_size)

    assert torch.autograd.gradcheck(loss, (student, prototypes.requires_grad_()))


def test_gradient_by_hand():
    """With the unit vectors as prototypes the features are the cosines themselves."""
    student, teacher = unit_rows(0, 30, 6, dtype=torch.float64), unit_rows(1, 30, 6)
    axes = torch.eye(6, dtype=torch.float64)
    target = target_reference(teacher, axes, TEACHER_TEMP)
    expected = (softmap_reference(student, axes, STUDENT_TEMP) - target) / 6 / STUDENT_TEMP
    student.requires_grad_()
    inputs = student, teacher.double(), axes, axes, ZipfSinkhorn()
    softmap_loss(*inputs, STUDENT_TEMP, TEACHER_TEMP).backward()
    torch.testing.assert_close(student.grad, expected, rtol=1e-6, atol=1e-9)


def test_zero_exactly_where_the_softmaps_coincide():
    """Features temp * log(target) + a constant per prototype give the target as softmap."""
    teacher, axes = unit_rows(2, 40, 6, dtype=torch.float64), torch.eye(6, dtype=torch.float64)
    target = target_reference(teacher, axes, TEACHER_TEMP)
    shift = torch.tensor([0.3, -1.0, 0.0, 2.0, 0.1, -0.2], dtype=torch.float64)
    student = (STUDENT_TEMP * target.log() + shift).requires_grad_()
    inputs = teacher, axes, axes, ZipfSinkhorn(), STUDENT_TEMP, TEACHER_TEMP
    loss = softmap_loss(student, *inputs, block_size=7)
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert student.grad.abs().max() < 1e-6
    # It is a minimum: every step away costs, a step of length 0.1 more than one of 0.01.
    for seed in range(5):
        step = unit_rows(100 + seed, 40, 6, dtype=torch.float64)
        near = softmap_loss(student.detach() + 0.01 * step, *inputs).item()
        far = softmap_loss(student.detach() + 0.1 * step, *inputs).item()
        assert 1e-5 < near < far / 20


def test_student_equal_to_teacher_is_at_the_minimum_when_sinkhorn_has_nothing_to_do():
    """On a regular polygon all rows and all columns of F have equal sums already."""
    angle = torch.arange(12, dtype=torch.float64) * (2 * math.pi / 12)
    points = torch.stack([angle.cos(), angle.sin()], dim=1)
    student = points.clone().requires_grad_()
    inputs = points, points[::2], points[::2]
    softmap_loss(student, *inputs, ZipfSinkhorn(alpha=0.0), 0.1, 0.1).backward()
    loss = softmap_loss(student, *inputs, ZipfSinkhorn(alpha=0.0), 0.1, 0.1)
    # Six prototypes for twelve points: points between two prototypes get less, which the row
    # normalisation corrects, so this one is not zero ...
    assert loss.item() > 1e-3
    # ... but with a prototype at every corner it is.
    student.grad = None
    loss = softmap_loss(student, points, points, points, ZipfSinkhorn(alpha=0.0), 0.1, 0.1)
    loss.backward()
    assert abs(loss.item()) < 1e-6 and student.grad.abs().max() < 1e-6
    # A Zipf prior scales columns alone and gives the same softmaps after one iteration only
    # if rows are scaled first; with more, rows adapt to the prior.
    assert abs(softmap_loss(student, points, points, points, ZipfSinkhorn(1.3, 1), 0.1, 0.1)) < 1e-6
    assert softmap_loss(student, points, points, points, ZipfSinkhorn(1.3, 3), 0.1, 0.1) > 1e-3


@pytest.mark.parametrize("seed", range(5))
def test_never_negative(seed):
    inputs = make_inputs(60, 20, seed=10 * seed)
    assert softmap_loss(*inputs, ZipfSinkhorn(), STUDENT_TEMP, TEACHER_TEMP) > 0.01


def test_repeating_every_point_keeps_the_loss_and_halves_the_gradient():
    student, teacher, *prototypes = make_inputs(50, 10)
    options = *prototypes, ZipfSinkhorn(), STUDENT_TEMP, TEACHER_TEMP
    once = softmap_loss(student, teacher, *options)
    (grad_once,) = torch.autograd.grad(once, student)
    twice_student = student.detach().repeat(2, 1).requires_grad_()
    twice = softmap_loss(twice_student, teacher.repeat(2, 1), *options)
    (grad_twice,) = torch.autograd.grad(twice, twice_student)
    torch.testing.assert_close(twice, once, rtol=1e-5, atol=0)
    torch.testing.assert_close(grad_twice, grad_once.repeat(2, 1) / 2, rtol=1e-4, atol=1e-8)


def test_cloud_scope_is_the_mean_of_the_clouds_and_empty_clouds_do_not_count():
    student, teacher, *prototypes = make_inputs(100, 10)
    temps = STUDENT_TEMP, TEACHER_TEMP
    parts = [
        softmap_loss(student[rows], teacher[rows], *prototypes, ZipfSinkhorn(), *temps).item()
        for rows in (slice(0, 30), slice(30, 100))
    ]
    by_cloud = ZipfSinkhorn(scope="cloud")
    offset = torch.tensor([0, 30, 30, 30, 100, 100])
    loss = softmap_loss(student, teacher, *prototypes, by_cloud, *temps, offset).item()
    assert loss == pytest.approx(sum(parts) / 2, rel=1e-6)
    whole = softmap_loss(student, teacher, *prototypes, ZipfSinkhorn(), *temps).item()
    assert abs(whole - loss) > 1e-2  # the scopes differ


def test_no_gradient_into_the_teacher():
    student, teacher, prototypes, teacher_prototypes = make_inputs(40, 9)
    teacher.requires_grad_()
    teacher_prototypes.requires_grad_()
    prototypes.requires_grad_()
    for function in (softmap_loss, dense_softmap_loss):
        inputs = student, teacher, prototypes, teacher_prototypes, ZipfSinkhorn()
        function(*inputs, STUDENT_TEMP, TEACHER_TEMP).backward()
        assert teacher.grad is None and teacher_prototypes.grad is None
        assert student.grad.abs().max() > 0 and prototypes.grad.abs().max() > 0


def test_shared_prototypes_get_gradient_from_the_student_side_alone():
    student, teacher, prototypes, _ = make_inputs(40, 9)
    _, _, expected = reference_with_gradients(student, teacher, prototypes, prototypes)
    prototypes.requires_grad_()
    inputs = student, teacher, prototypes, prototypes, ZipfSinkhorn()
    softmap_loss(*inputs, STUDENT_TEMP, TEACHER_TEMP).backward()
    assert relative_error(prototypes.grad, expected) < 1e-5


def test_half_precision_gradients_survive_a_gradient_scaler():
    """float16 ends at 65504 and at 6e-8; the scale has to be applied before the rounding."""
    student, teacher, *prototypes = make_inputs(3000, 16, torch.float16)
    _, expected, _ = reference_with_gradients(student, teacher, *prototypes)
    # Part of this gradient is below the precise range of float16, and the scale is above it.
    assert (expected.abs() < 6e-5).any()
    scale = 2.0**16
    loss = softmap_loss(student, teacher, *prototypes, ZipfSinkhorn(), STUDENT_TEMP, TEACHER_TEMP)
    (loss * scale).backward()
    assert_close_to_one_rounding(student.grad, expected * scale, 2.0**-11)


def test_incoming_gradient_is_not_rounded():
    """A third is no bfloat16 number: rounding it would add a second error."""
    student, teacher, *prototypes = make_inputs(300, 16, torch.bfloat16)
    _, expected, _ = reference_with_gradients(student, teacher, *prototypes)
    loss = softmap_loss(student, teacher, *prototypes, ZipfSinkhorn(), STUDENT_TEMP, TEACHER_TEMP)
    (loss / 3).backward()
    assert_close_to_one_rounding(student.grad, expected / 3, 2.0**-8)


def test_autocast_changes_nothing():
    student, teacher, prototypes, teacher_prototypes = make_inputs(200, 12)
    prototypes.requires_grad_()
    inputs = student, teacher, prototypes, teacher_prototypes, ZipfSinkhorn()
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = softmap_loss(*inputs, STUDENT_TEMP, TEACHER_TEMP, block_size=64)
        results.append([loss, *torch.autograd.grad(loss, (student, prototypes))])
    for plain, autocast in zip(*results):
        assert autocast.dtype == torch.float32
        assert torch.equal(plain, autocast)


class LargestTensor(TorchDispatchMode):
    """Records the largest tensor that any operation returns, forward or backward."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize("scope", ["batch", "cloud"])
def test_no_tensor_of_points_times_prototypes(scope):
    n, k, block_size = 3000, 400, 128
    student, teacher, prototypes, teacher_prototypes = make_inputs(n, k)
    prototypes.requires_grad_()
    inputs = student, teacher, prototypes, teacher_prototypes, ZipfSinkhorn(scope=scope)
    offset = torch.tensor([1000, n])
    with LargestTensor() as largest:
        dense_softmap_loss(*inputs, STUDENT_TEMP, TEACHER_TEMP, offset).backward()
    assert largest.numel >= 1000 * k  # the instrument works
    with LargestTensor() as largest:
        softmap_loss(*inputs, STUDENT_TEMP, TEACHER_TEMP, offset, block_size).backward()
    assert largest.numel == max(n * CHANNELS, block_size * k)


def test_default_blocks_are_bounded():
    k = 2**14
    student, teacher, prototypes, teacher_prototypes = make_inputs(300, k)
    inputs = student, teacher, prototypes, teacher_prototypes, ZipfSinkhorn(num_iters=1)
    with LargestTensor() as largest:
        softmap_loss(*inputs, STUDENT_TEMP, TEACHER_TEMP).backward()
    assert largest.numel <= 2**21 < 300 * k


@pytest.mark.parametrize(
    "scope, ends", [("batch", None), ("cloud", [0]), ("cloud", [0, 0]), ("cloud", [])]
)
def test_no_point(scope, ends):
    student, teacher, prototypes, teacher_prototypes = make_inputs(0, 8)
    prototypes.requires_grad_()
    offset = None if ends is None else torch.tensor(ends, dtype=torch.int64)
    inputs = student, teacher, prototypes, teacher_prototypes, ZipfSinkhorn(scope=scope)
    loss = softmap_loss(*inputs, STUDENT_TEMP, TEACHER_TEMP, offset)
    loss.backward()
    assert loss.item() == 0
    assert student.grad.shape == (0, CHANNELS)
    assert torch.equal(prototypes.grad, torch.zeros(8, CHANNELS))
    assert dense_softmap_loss(*inputs, STUDENT_TEMP, TEACHER_TEMP, offset).item() == 0


@pytest.mark.parametrize("temp", [0.005, 0.02])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_at_extreme_temperatures(temp, dtype):
    student, teacher, *prototypes = make_inputs(200, 16, dtype)
    loss = softmap_loss(student, teacher, *prototypes, ZipfSinkhorn(), temp, temp, block_size=33)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(student.grad).all()
    expected = softmap_loss_reference(
        student.detach().double(), teacher, prototypes[0].double(), prototypes[1], temp, temp
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("scope", ["batch", "cloud"])
def test_finite_with_a_prior_below_the_float_range(scope):
    """1024^-20 is zero in float32, and zero times its logarithm no number."""
    student, teacher, *prototypes = make_inputs(60, 1024)
    sinkhorn, offset = ZipfSinkhorn(alpha=20.0, scope=scope), torch.tensor([20, 60])
    inputs = student, teacher, *prototypes, sinkhorn, STUDENT_TEMP, TEACHER_TEMP, offset
    loss = softmap_loss(*inputs)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(student.grad).all()
    assert loss.item() == pytest.approx(dense_softmap_loss(*inputs).item(), rel=1e-5)


@pytest.mark.parametrize("name", ["student_temp", "teacher_temp"])
@pytest.mark.parametrize("value", [0.0, -0.1, math.nan, math.inf])
def test_temperature_out_of_range(name, value):
    temps = {"student_temp": 0.1, "teacher_temp": 0.05, name: value}
    with pytest.raises(ValueError, match=f"{name} must be a number in .*, got {value}"):
        softmap_loss(*make_inputs(5, 4), ZipfSinkhorn(), **temps)


BAD_SHAPES = [
    # student, teacher, student prototypes, teacher prototypes, message
    ((5, 4), (6, 4), (3, 4), (3, 4), r"must both be \(N, D\), got \(5, 4\) and \(6, 4\)"),
    ((5, 4), (5, 3), (3, 4), (3, 4), r"must both be \(N, D\), got \(5, 4\) and \(5, 3\)"),
    ((4,), (4,), (3, 4), (3, 4), r"must both be \(N, D\), got \(4,\) and \(4,\)"),
    ((5, 4), (5, 4), (3, 5), (3, 4), r"prototypes must be \(K, 4\), got \(3, 5\)"),
    ((5, 4), (5, 4), (3, 4), (3, 5), r"prototypes must be \(K, 4\), got \(3, 5\)"),
    ((5, 4), (5, 4), (4,), (3, 4), r"prototypes must be \(K, 4\), got \(4,\)"),
]


@pytest.mark.parametrize("student, teacher, prototypes, teacher_prototypes, message", BAD_SHAPES)
def test_shapes_that_disagree(student, teacher, prototypes, teacher_prototypes, message):
    inputs = (torch.zeros(shape) for shape in (student, teacher, prototypes, teacher_prototypes))
    with pytest.raises(ValueError, match=message):
        softmap_loss(*inputs, ZipfSinkhorn(), 0.1, 0.05)


def test_prototype_counts_must_agree():
    student, teacher, prototypes, _ = make_inputs(5, 4)
    with pytest.raises(ValueError, match=r"as many.*got 4 and 7"):
        softmap_loss(student, teacher, prototypes, unit_rows(9, 7, 16), ZipfSinkhorn(), 0.1, 0.05)


BAD_OFFSETS = [
    # offset, message; there are 5 points
    (None, "offset is needed with scope='cloud', got None"),
    ([], r"number of points 5, got \[\]"),
    ([2, 4], r"number of points 5, got \[2, 4\]"),
    ([2, 6], r"number of points 5, got \[2, 6\]"),
    ([4, 2, 5], r"offset must .*got \[4, 2, 5\]"),  # falling: points 2 to 4 would count twice
    ([-1, 5], r"offset must .*got \[-1, 5\]"),
]


@pytest.mark.parametrize("function", [softmap_loss, dense_softmap_loss])
@pytest.mark.parametrize("ends, message", BAD_OFFSETS)
def test_bad_offset(function, ends, message):
    offset = None if ends is None else torch.tensor(ends, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        function(*make_inputs(5, 4), ZipfSinkhorn(scope="cloud"), 0.1, 0.05, offset)
