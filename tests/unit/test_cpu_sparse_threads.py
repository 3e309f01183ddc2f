"""Sparse convolutions give the same values with several threads as with one."""

import pytest
import torch

spconv = pytest.importorskip("spconv.pytorch")

from dos_plugin.cpu import sparse_threads, spconv_fixes  # noqa: E402

spconv_fixes.apply()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the fault is in the CPU kernels")
def test_threads_do_not_change_sparse_convolutions():
    generator = torch.Generator().manual_seed(0)
    cells = torch.unique(torch.randint(0, 40, (4000, 3), generator=generator), dim=0).int()
    indices = torch.cat([torch.zeros(len(cells), 1, dtype=torch.int32), cells], dim=1)
    feat = torch.randn(len(cells), 32, generator=generator)
    torch.manual_seed(0)
    conv = spconv.SubMConv3d(32, 32, 5, bias=False)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, *[2] * 8):
            torch.set_num_threads(threads)
            leaf = feat.clone().requires_grad_()
            out = conv(spconv.SparseConvTensor(leaf, indices, [136] * 3, 1)).features
            (grad,) = torch.autograd.grad(out.square().sum(), leaf)
            assert torch.get_num_threads() == threads
            results.append((out.detach(), grad))
    finally:
        torch.set_num_threads(before)
    for out, grad in results[1:]:
        assert torch.allclose(out, results[0][0], atol=1e-5)
        assert torch.allclose(grad, results[0][1], atol=1e-4)


def test_only_the_convolutions_run_on_one_thread():
    seen = []

    def convolution(features, fail):
        seen.append(torch.get_num_threads())
        if fail:
            raise RuntimeError("convolution failed")

    guarded = sparse_threads._on_one_thread(convolution)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        guarded(torch.zeros(1), fail=False)
        with pytest.raises(RuntimeError, match="convolution failed"):
            guarded(torch.zeros(1), fail=True)
        assert torch.get_num_threads() == 3 and seen == [1, 1]
    finally:
        torch.set_num_threads(before)


def test_spconv_is_guarded_once():
    forward = spconv.ops.indice_conv
    sparse_threads.apply()
    assert spconv.ops.indice_conv is forward
    assert hasattr(forward.__wrapped__, "__code__") and not hasattr(
        forward.__wrapped__, "__wrapped__"
    )
