"""Projection head, prototypes, EMA and schedules, by hand."""

import copy
import math

import pytest
import torch
from torch import nn

from dos_plugin.method import ProjectionHead, Prototypes, ema_update, warmup_cosine


def test_head_gives_unit_length_in_float32():
    torch.manual_seed(0)
    head, feat = ProjectionHead(12, hidden_channels=32, out_channels=6), torch.randn(50, 12)
    plain = head(feat)
    assert plain.shape == (50, 6) and plain.dtype == torch.float32
    torch.testing.assert_close(plain.norm(dim=1), torch.ones(50))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = head(feat)
    assert autocast.dtype == torch.float32
    # Normalised after the conversion: of unit length to float32 precision, not to bfloat16's.
    torch.testing.assert_close(autocast.norm(dim=1), torch.ones(50), rtol=0, atol=1e-6)
    assert 0 < (autocast - plain).abs().max() < 0.05


def test_head_is_a_two_layer_mlp():
    torch.manual_seed(1)
    head, feat = ProjectionHead(3, hidden_channels=5, out_channels=2), torch.randn(4, 3)
    first, second = head.mlp[0], head.mlp[2]
    for layer in (first, second):
        assert (layer.bias == 0).all() and 0 < layer.weight.abs().max() <= 2
    hidden = feat @ first.weight.T
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))  # GELU
    expected = hidden @ second.weight.T
    torch.testing.assert_close(head(feat), expected / expected.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("hidden_channels", [4, 9, 40])
@pytest.mark.parametrize("rows, channels", [([7], [9]), ([3, 8], [5, 4]), ([2, 5, 11], [4, 3, 2])])
def test_head_of_levels_is_that_of_up_cast_features(hidden_channels, rows, channels):
    generator = torch.Generator().manual_seed(3)
    head = ProjectionHead(9, hidden_channels, out_channels=3).double()
    torch.nn.init.normal_(head.mlp[0].bias)
    levels = [
        torch.randn(n, c, generator=generator, dtype=torch.double, requires_grad=True)
        for n, c in zip(rows, channels)
    ]
    inverse = [
        torch.randint(coarse, (fine,), generator=generator) for coarse, fine in zip(rows, rows[1:])
    ]
    joined = []
    for row in range(rows[-1]):  # finest channels first, then those of its coarser rows
        values, at = [levels[-1][row]], row
        for level, up in zip(reversed(levels[:-1]), reversed(inverse)):
            at = int(up[at])
            values.append(level[at])
        joined.append(torch.cat(values))
    inputs = [*levels, *head.parameters()]
    found, expected = head(*levels, inverse=inverse), head(torch.stack(joined))
    torch.testing.assert_close(found, expected)
    weight = torch.randn(found.shape, generator=generator, dtype=torch.double)
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
    ):
        torch.testing.assert_close(ours, theirs)


def test_head_without_point_and_with_a_zero_row():
    head = ProjectionHead(3, 4, 2)
    assert head(torch.zeros(0, 3)).shape == (0, 2)
    feat = torch.zeros(1, 3, requires_grad=True)
    out = head(feat)  # no bias at first: the projection is zero and has no direction
    out.sum().backward()
    assert torch.isfinite(out).all() and torch.isfinite(feat.grad).all()


def test_head_defaults():
    head = ProjectionHead(8)
    assert (head.mlp[0].out_features, head.mlp[2].out_features) == (4096, 256)


def test_prototypes_are_normalised_on_every_call():
    torch.manual_seed(2)
    prototypes = Prototypes(7, 4)
    torch.testing.assert_close(prototypes.weight.norm(dim=1), torch.ones(7))
    with torch.no_grad():
        prototypes.weight.mul_(torch.arange(1.0, 8)[:, None])
    out = prototypes()
    assert out.shape == (7, 4)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(7))
    torch.testing.assert_close(out * torch.arange(1.0, 8)[:, None], prototypes.weight.detach())
    # The gradient is tangential: it cannot change the length that is divided away.
    (out * torch.randn(7, 4)).sum().backward()
    radial = (prototypes.weight.grad * prototypes.weight).sum(dim=1)
    assert radial.abs().max() < 1e-6 < prototypes.weight.grad.abs().max()
    assert repr(prototypes) == "Prototypes(num_prototypes=7, channels=4)"


def test_prototypes_are_float32_in_any_state():
    prototypes = Prototypes(5, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert prototypes().dtype == torch.float32
    assert prototypes.bfloat16()().dtype == torch.float32


class Network(nn.Module):
    """A linear layer, BatchNorm and a part that the teacher does not have."""

    def __init__(self, with_extra: bool = True):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("steps", torch.tensor(0))
        if with_extra:
            self.extra = nn.Linear(4, 2)

    def forward(self, x):
        return self.norm(self.linear(x))


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.994, 1.0])
def test_ema_averages_parameters_and_copies_buffers(momentum):
    torch.manual_seed(3)
    teacher, student = Network(with_extra=False), Network()
    student(5 + torch.randn(20, 3))  # moves the running statistics
    student.steps += 17
    old = copy.deepcopy(teacher.state_dict())
    student_old = copy.deepcopy(student.state_dict())
    ema_update(teacher, student, momentum)
    for name, parameter in teacher.named_parameters():
        expected = momentum * old[name] + (1 - momentum) * student_old[name]
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-6, atol=1e-7)
    for name, buffer in teacher.named_buffers():
        assert torch.equal(buffer, student_old[name]), name
    assert teacher.steps == 17 and teacher.norm.num_batches_tracked == 1
    assert teacher.norm.running_mean.abs().max() > 0
    for name, value in student.state_dict().items():
        assert torch.equal(value, student_old[name]), name


def test_ema_ends_are_exact():
    teacher, student = Network(), Network()
    old = teacher.linear.weight.detach().clone()
    ema_update(teacher, student, 1.0)
    assert torch.equal(teacher.linear.weight, old)
    ema_update(teacher, student, 0.0)
    assert torch.equal(teacher.linear.weight, student.linear.weight)
    # A copy, no alias: later steps of the student leave the teacher alone.
    with torch.no_grad():
        student.linear.weight += 1
        student.norm.running_mean += 1
    assert not torch.equal(teacher.linear.weight, student.linear.weight)
    assert not torch.equal(teacher.norm.running_mean, student.norm.running_mean)


def test_ema_by_hand_over_three_steps():
    teacher, student = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(teacher.weight, 0)
    nn.init.constant_(student.weight, 1)
    seen = []
    for _ in range(3):
        ema_update(teacher, student, 0.9)
        seen.append(teacher.weight.item())
    assert seen == pytest.approx([0.1, 0.19, 0.271])


def test_teacher_in_eval_mode_normalises_with_the_student_statistics():
    torch.manual_seed(4)
    teacher, student = Network(), Network()
    for _ in range(50):
        student(3 + torch.randn(20, 3))
    ema_update(teacher, student, 0.0)
    teacher.eval()
    student.eval()
    feat = 3 + torch.randn(30, 3)
    assert torch.equal(teacher(feat), student(feat))


def test_ema_needs_no_gradient_and_keeps_flags():
    teacher, student = Network().requires_grad_(False), Network()
    ema_update(teacher, student, 0.5)
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(p.grad_fn is None and p.requires_grad for p in student.parameters())


@pytest.mark.parametrize("momentum", [-0.01, 1.01, math.nan, math.inf])
def test_ema_momentum_out_of_range(momentum):
    with pytest.raises(ValueError, match=rf"momentum must be a number in \[0, 1\], got {momentum}"):
        ema_update(Network(), Network(), momentum)


SCHEDULE = [
    # step, total, base, final, start, warm-up ratio, expected
    (0, 100, 0.04, 0.2, None, 0.0, 0.04),
    (50, 100, 0.04, 0.2, None, 0.0, 0.12),  # half of the cosine is the middle
    (25, 100, 0.0, 1.0, None, 0.0, 0.1464466),  # (1 - cos 45 deg) / 2
    (100, 100, 0.04, 0.2, None, 0.0, 0.2),
    (1000, 100, 0.04, 0.2, None, 0.0, 0.2),  # stays at the end
    (0, 100, 0.07, 0.07, 0.04, 0.3, 0.04),  # warm-up alone: teacher temperature
    (15, 100, 0.07, 0.07, 0.04, 0.3, 0.055),
    (29, 100, 0.07, 0.07, 0.04, 0.3, 0.069),
    (30, 100, 0.07, 0.07, 0.04, 0.3, 0.07),
    (99, 100, 0.07, 0.07, 0.04, 0.3, 0.07),
    (10, 110, 1.0, 0.0, 0.0, 1 / 11, 1.0),  # both: up in 10 steps, down in 100
    (60, 110, 1.0, 0.0, 0.0, 1 / 11, 0.5),
    (5, 110, 1.0, 0.0, None, 1 / 11, 1.0),  # no start: the warm-up stays at the base
    (3, 4, 1.0, 0.0, 0.0, 1.0, 0.75),  # nothing but warm-up
    (4, 4, 1.0, 0.0, 0.0, 1.0, 0.0),
    (0, 0, 1.0, 0.5, None, 0.0, 0.5),  # a run without steps is at its end
]


@pytest.mark.parametrize("step, total, base, final, start, warmup_ratio, expected", SCHEDULE)
def test_warmup_cosine(step, total, base, final, start, warmup_ratio, expected):
    value = warmup_cosine(step, total, base, final, start, warmup_ratio)
    assert value == pytest.approx(expected, abs=1e-7)


def test_warmup_cosine_is_monotone_and_continuous():
    values = [warmup_cosine(step, 1000, 0.994, 1.0, 0.9, 0.1) for step in range(1001)]
    steps = [b - a for a, b in zip(values, values[1:])]
    assert min(steps) >= 0 and max(steps) < 1e-3
    assert (values[0], values[-1]) == (0.9, 1.0)


def test_schedule_errors():
    with pytest.raises(ValueError, match="step must be a whole number of at least 0, got -1"):
        warmup_cosine(-1, 100, 0.0, 1.0)
    for ratio in (-0.1, 1.5, math.nan):
        with pytest.raises(
            ValueError, match=rf"warmup_ratio must be a number in \[0, 1\], got {ratio}"
        ):
            warmup_cosine(0, 100, 0.0, 1.0, warmup_ratio=ratio)
