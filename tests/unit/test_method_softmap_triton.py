"""The passes of the softmap loss with Triton kernels, against float64.

The kernels run on a GPU where there is one, and in any case in Triton's interpreter. That one has
to be chosen before triton is imported, so it gets a process of its own, which runs this file again.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.references import relative_error, unit_rows

triton = pytest.importorskip("triton", reason="triton is not installed (pip install triton)")
from dos_plugin.method import (  # noqa: E402
    ZipfSinkhorn,
    blocks,
    dense_softmap_loss,
    logits,
    softmap_loss,
    softmap_triton,
)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
DEVICE = "cpu" if INTERPRETED or not torch.cuda.is_available() else "cuda"

# The tests' blocks have 100 points, which three programs share; a tile has whole rows of logits.
CASES = [
    # points, prototypes, channels, features
    (1, 2, 3, torch.float32),
    (2, 5, 16, torch.bfloat16),
    (64, 128, 32, torch.float32),  # a whole tile
    (130, 33, 20, torch.float16),
    (170, 129, 33, torch.float32),
    (40, 70, 270, torch.bfloat16),
    (300, 24, 17, torch.float32),  # three blocks
]


def make_inputs(n: int, k: int, d: int, dtype: torch.dtype = torch.float32):
    """Student, teacher (like the student, with noise), student and teacher prototypes, bias."""
    student = unit_rows(0, n, d, dtype=torch.float64)
    teacher = torch.nn.functional.normalize(student + 0.7 * unit_rows(1, n, d), dim=1)
    bias = 3 * torch.randn(k, generator=torch.Generator().manual_seed(4))
    inputs = student.to(dtype), teacher.to(dtype), unit_rows(2, k, d), unit_rows(3, k, d), bias
    return [value.to(DEVICE) for value in inputs]


def double_logits(feat, prototypes, temp):
    return feat.double() @ prototypes.double().T / temp


def divergence_reference(
    student, teacher, weight, teacher_weight, temps, bias, log_column, log_sum, by_row=True
):
    """The sum of divergences and its gradients for given normalisers, float64."""
    logits = double_logits(teacher, teacher_weight, temps[1]) + bias.double()
    log_target = (torch.log_softmax(logits, dim=1) if by_row else logits) - log_column.double()
    log_softmap = double_logits(student, weight, temps[0]) - log_sum.double()
    value = (log_target.exp() * (log_target - log_softmap)).sum()
    grad_logits = (log_softmap.exp() - log_target.exp()) / temps[0]
    return value, grad_logits @ weight.double(), grad_logits.T @ student.double()


class TestKernels:
    __test__ = INTERPRETED or DEVICE == "cuda"

    @pytest.fixture(autouse=True)
    def small_blocks(self, monkeypatch):
        monkeypatch.setattr(softmap_triton, "BLOCK_ELEMENTS", 100 * 33)
        monkeypatch.setattr(softmap_triton, "PROGRAMS", 3)

    @pytest.mark.parametrize("n, k, d, dtype", CASES)
    def test_softmax_column_sums(self, n, k, d, dtype):
        _, teacher, _, prototypes, bias = make_inputs(n, k, d, dtype)
        expected = torch.softmax(double_logits(teacher, prototypes, 0.05) + bias.double(), dim=1)
        total = softmap_triton.softmax_column_sums(teacher, prototypes, 0.05, bias)
        torch.testing.assert_close(total, expected.sum(dim=0), rtol=1e-5, atol=1e-30)

    @pytest.mark.parametrize("n, k, d, dtype", CASES)
    def test_column_logsumexp(self, n, k, d, dtype):
        student, _, prototypes, *_ = make_inputs(n, k, d, dtype)
        expected = double_logits(student, prototypes, 0.1).logsumexp(dim=0)
        total = softmap_triton.column_logsumexp(student, prototypes, 0.1)
        torch.testing.assert_close(total, expected, rtol=1e-6, atol=2e-6)

    @pytest.mark.parametrize("by_row", [True, False])
    @pytest.mark.parametrize("temps", [(0.1, 0.05), (0.02, 0.02)])
    @pytest.mark.parametrize("n, k, d, dtype", CASES)
    def test_kl_and_gradients(self, n, k, d, dtype, temps, by_row):
        student, teacher, weight, teacher_weight, bias = make_inputs(n, k, d, dtype)
        logits = double_logits(teacher, teacher_weight, temps[1]) + bias.double()
        if by_row:
            logits = torch.log_softmax(logits, dim=1)
        log_column = logits.logsumexp(dim=0)
        log_sum = double_logits(student, weight, temps[0]).logsumexp(dim=0)
        vectors = bias, log_column, log_sum
        inputs = student, teacher, weight, teacher_weight
        expected = divergence_reference(*inputs, temps, *vectors, by_row)
        results = softmap_triton.kl_and_gradients(*inputs, *temps, *vectors, by_row)
        assert [r.dtype for r in results] == [torch.float32] * 3
        assert [r.shape for r in results] == [(), (n, d), (k, d)]
        if n == 1:  # a softmap over one point is constant: no divergence, no gradient
            assert all(r.abs().max() < 1e-5 * k / temps[0] for r in results)
            return
        for result, reference in zip(results, expected):
            # float32 logits of 1 / temp are known to 1e-7 / temp.
            assert relative_error(result, reference) < 4e-7 / min(temps)

    def test_prototypes_without_mass(self):
        """A bias may put a prototype out of reach, and all points may be opposite to another."""
        teacher = unit_rows(0, 200, 8).to(DEVICE)
        teacher[:, 0] = 2.0
        teacher = torch.nn.functional.normalize(teacher, dim=1)
        prototypes = torch.eye(8, device=DEVICE)
        prototypes[3] = -prototypes[0]
        bias = torch.zeros(8, device=DEVICE)
        bias[5] = -300.0
        column = softmap_triton.softmax_column_sums(teacher, prototypes, 0.01, bias)
        assert column[3] == 0 and column[5] == 0
        assert column.sum().item() == pytest.approx(200, rel=1e-5)
        log_column = column.clamp_min(torch.finfo(torch.float32).tiny).log()
        log_sum = softmap_triton.column_logsumexp(teacher, prototypes, 0.01)
        temps, vectors = (0.01, 0.01), (bias, log_column, log_sum)
        inputs = teacher, teacher, prototypes, prototypes
        expected = divergence_reference(*inputs, temps, *vectors)
        results = softmap_triton.kl_and_gradients(*inputs, *temps, *vectors)
        for result, reference in zip(results, expected):
            assert relative_error(result, reference) < 1e-4

    def test_equal_softmaps_diverge_by_rounding_alone(self):
        """Taken as the difference of two sums it would be of the size of their rounding."""
        feat, _, prototypes, _, _ = make_inputs(200, 40, 24)
        # One more channel takes a point's logsumexp off its logits. Rows then are normalised
        # already, and with the same column sums the target is the student's softmap itself.
        row = double_logits(feat, prototypes, 0.1).logsumexp(dim=1, keepdim=True)
        feat = torch.cat([feat, -0.1 * row.float()], dim=1)
        prototypes = torch.cat([prototypes, torch.ones(40, 1, device=DEVICE)], dim=1)
        log_sum = softmap_triton.column_logsumexp(feat, prototypes, 0.1)
        vectors = torch.zeros(40, device=DEVICE), log_sum, log_sum
        inputs = feat, feat, prototypes, prototypes, 0.1, 0.1, *vectors
        value, grad_student, grad_prototypes = softmap_triton.kl_and_gradients(*inputs)
        assert abs(value.item()) < 1e-5 * 40
        assert grad_student.abs().max() < 1e-5 and grad_prototypes.abs().max() < 1e-5

    def test_digits_of_the_normaliser_that_float32_lacks(self):
        """All logits are exact in float32, and near -4096; next to them are tiles' empty rows."""
        generator = torch.Generator().manual_seed(0)
        student, teacher = (
            torch.randint(64, (37, 24), generator=generator).to(DEVICE) / 64 - shift
            for shift in (256, 0)
        )
        axes = torch.eye(24, device=DEVICE)
        log_sum = -4090 - torch.rand(24, generator=generator, dtype=torch.float64).to(DEVICE)
        zero = torch.zeros_like(log_sum)
        inputs = student, teacher, axes, axes
        _, *expected = divergence_reference(*inputs, (1 / 16, 1 / 16), zero, zero, log_sum)
        _, *gradients = softmap_triton.kl_and_gradients(
            *inputs, 1 / 16, 1 / 16, zero.float(), zero, log_sum
        )
        for gradient, reference in zip(gradients, expected):
            assert relative_error(gradient, reference) < 5e-6  # rounded, log_sum is off by 1e-4

    def test_no_points(self):
        student, teacher, weight, teacher_weight, bias = make_inputs(0, 7, 12)
        log_sum = softmap_triton.column_logsumexp(student, weight, 0.1)
        assert log_sum.tolist() == [-torch.inf] * 7
        assert softmap_triton.softmax_column_sums(teacher, weight, 0.1, bias).tolist() == [0.0] * 7
        inputs = student, teacher, weight, teacher_weight, 0.1, 0.05, bias, bias, bias
        value, grad_student, grad_prototypes = softmap_triton.kl_and_gradients(*inputs)
        assert value.shape == () and value == 0
        assert grad_student.shape == (0, 12)
        assert torch.equal(grad_prototypes, torch.zeros(7, 12, device=DEVICE))

    def test_strides_do_not_matter(self):
        student, _, weight, _, _ = make_inputs(70, 9, 24)
        expected = softmap_triton.column_logsumexp(student, weight, 0.1)
        turned = student.T.contiguous().T, weight.T.contiguous().T
        total = softmap_triton.column_logsumexp(*turned, 0.1)
        torch.testing.assert_close(total, expected, rtol=1e-6, atol=0)

    def test_repeats_exactly(self):
        student, teacher, weight, teacher_weight, bias = make_inputs(200, 20, 24)
        inputs = student, teacher, weight, teacher_weight, 0.1, 0.05, bias, bias, bias
        first, again = (softmap_triton.kl_and_gradients(*inputs) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, again))

    def test_memory_is_that_of_the_features_and_of_a_block(self, monkeypatch):
        """No tensor is larger than the features and a block; N K would be eight times as many."""
        monkeypatch.setattr(softmap_triton, "BLOCK_ELEMENTS", 75 * 128)
        largest = 0

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                nonlocal largest
                result = function(*args, **(kwargs or {}))
                for value in result if isinstance(result, (tuple, list)) else [result]:
                    if isinstance(value, torch.Tensor):
                        largest = max(largest, value.numel() * value.element_size())
                return result

        student, teacher, weight, teacher_weight, bias = make_inputs(600, 128, 16)
        with Watch():
            softmap_triton.softmax_column_sums(teacher, teacher_weight, 0.05, bias)
            softmap_triton.column_logsumexp(student, weight, 0.1)
            inputs = student, teacher, weight, teacher_weight, 0.1, 0.05, bias, bias, bias
            softmap_triton.kl_and_gradients(*inputs)
        assert largest == 4 * 600 * 16 == 4 * 75 * 128

    @pytest.mark.parametrize("size, num_iters", [((150, 40, 20), 0), ((500, 256, 256), 3)])
    def test_the_loss_goes_through_the_kernels(self, monkeypatch, size, num_iters):
        student, teacher, prototypes, _, _ = make_inputs(*size)
        monkeypatch.setattr(blocks, "_fused", lambda feat: softmap_triton)
        for module in (blocks, logits):
            monkeypatch.setattr(module, "product", None)  # of the plain passes
        leaves = [student.requires_grad_(), prototypes.requires_grad_()]
        rest = teacher, prototypes, prototypes.detach(), ZipfSinkhorn(num_iters=num_iters)
        loss = softmap_loss(student, *rest, 0.1, 0.05)
        grads = torch.autograd.grad(loss, leaves)
        monkeypatch.undo()
        doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
        rest = teacher.double(), doubles[1], doubles[1].detach(), rest[-1]
        exact = dense_softmap_loss(doubles[0], *rest, 0.1, 0.05)
        assert relative_error(loss, exact) < 1e-6
        for grad, other in zip(grads, torch.autograd.grad(exact, doubles)):
            assert relative_error(grad, other) < 1e-5

    @pytest.mark.parametrize("factor", [1.1, float("nan")])
    @pytest.mark.parametrize("name", ["softmax_column_sums", "column_logsumexp"])
    def test_kernels_that_disagree_are_not_used(self, monkeypatch, name, factor):
        device = torch.device(DEVICE)
        assert blocks._kernels.__wrapped__(device) is softmap_triton
        right = getattr(softmap_triton, name)
        monkeypatch.setattr(softmap_triton, name, lambda *args: factor * right(*args))
        with pytest.warns(UserWarning, match="no fused loss on .* off by"):
            assert blocks._kernels.__wrapped__(device) is None


def test_kernels_are_chosen_by_name(monkeypatch):
    feat = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    former = blocks.set_kernels("triton")
    try:
        assert former == "auto"
        assert blocks._fused(feat) is softmap_triton
        assert blocks._fused(torch.zeros(3)) is None  # on a CPU
        assert blocks.set_kernels("plain") == "triton"
        assert blocks._fused(feat) is None
        with pytest.raises(ValueError, match="kernels must be one of .*, got 'cuda'"):
            blocks.set_kernels("cuda")
    finally:
        blocks.set_kernels(former)


def test_the_plain_passes_run_where_the_kernels_would_not_pay(monkeypatch):
    monkeypatch.setattr(blocks, "_kernels", lambda device: SimpleNamespace(supports=lambda _: True))
    feat = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert blocks._fused(feat) is not None
    assert blocks._fused(torch.zeros(3)) is None
    assert blocks._fused(SimpleNamespace(device=feat.device, dtype=torch.float64)) is None
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "highest")
    assert blocks._fused(feat) is None

    def refuse():
        raise RuntimeError("mix of the legacy and new APIs")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", refuse)
    for precision, pays in (("ieee", False), ("tf32", True)):
        settings = SimpleNamespace(fp32_precision=precision)
        monkeypatch.setattr(torch.backends.cuda, "matmul", settings)
        assert (blocks._fused(feat) is not None) == pays


@pytest.mark.skipif(INTERPRETED, reason="the interpreter is on in this process already")
def test_in_the_interpreter():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-k",
        "TestKernels",
    ]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([*command, __file__], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "skipped" not in done.stdout


class Target:
    """Stands where triton expects the driver of the GPU that it compiles for."""

    def __init__(self, capability: int):
        self.capability = capability

    def get_current_target(self):
        return triton.backends.compiler.GPUTarget("cuda", self.capability, 32)

    def get_current_device(self):
        return 1000 + self.capability  # no kernel of a real device is compiled by this number

    def get_current_stream(self, device):
        return 0


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.skipif(not CUOBJDUMP.exists(), reason="this triton has no tools for NVIDIA GPUs")
@pytest.mark.parametrize("capability, shared", [(80, 99), (90, 227)])
def test_compiles_without_spills_into_the_memory_of_a_gpu(
    monkeypatch, tmp_path, capability, shared
):
    """Everything up to machine code needs no GPU; D and K are those of the paper's head."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton.runtime.driver, "_active", Target(capability))
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    run, kernels = triton.JITFunction.run, []

    def compile_only(self, *args, grid, warmup, **options):
        kernels.append(run(self, *args, grid=grid, warmup=True, **options))

    monkeypatch.setattr(triton.JITFunction, "run", compile_only)
    feat, prototypes = torch.zeros(2000, 256, dtype=torch.bfloat16), torch.zeros(1024, 256)
    bias = torch.zeros(1024)
    softmap_triton.softmax_column_sums(feat, prototypes, 0.1, bias)
    softmap_triton.column_logsumexp(feat, prototypes, 0.1)
    inputs = feat, feat, prototypes, prototypes, 0.1, 0.1, bias, bias, bias
    softmap_triton.kl_and_gradients(*inputs)
    assert len({kernel.hash for kernel in kernels}) == 3
    for kernel in kernels:
        assert kernel.metadata.shared <= shared * 1024
        (tmp_path / "cubin").write_bytes(kernel.asm["cubin"])
        command = [str(CUOBJDUMP), "--dump-resource-usage", str(tmp_path / "cubin")]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "STACK:0 " in usage, f"{kernel.metadata.name} spills: {usage}"


def test_what_is_supported():
    assert not softmap_triton.supports(torch.zeros(2, dtype=torch.float64, device=DEVICE))
    assert softmap_triton.supports(torch.zeros(2, device=DEVICE)) == (
        DEVICE == "cuda" or INTERPRETED
    )
    with pytest.raises(TypeError, match="features must be float32.*got torch.float64"):
        softmap_triton.column_logsumexp(torch.zeros(2, 3).double(), torch.zeros(2, 3), 0.1)
    with pytest.raises(TypeError, match="prototypes must be float32.*got torch.int64"):
        softmap_triton.column_logsumexp(torch.zeros(2, 3), torch.zeros(2, 3).long(), 0.1)
