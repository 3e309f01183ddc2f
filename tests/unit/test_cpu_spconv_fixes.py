"""spconv on a CPU, repaired, against dense convolutions in float64."""

import pytest
import torch
import torch.nn.functional as F

spconv = pytest.importorskip("spconv.pytorch")

from dos_plugin.cpu import spconv_fixes  # noqa: E402

spconv_fixes.apply()


def dense_case():
    gen = torch.Generator().manual_seed(0)
    cells = torch.unique(torch.randint(0, 6, (60, 3), generator=gen), dim=0)
    half = len(cells) // 2
    batch = (torch.arange(len(cells)) >= half).long()
    index = torch.cat([batch[:, None], cells], 1)
    feat = torch.randn(len(cells), 3, generator=gen, dtype=torch.float64)
    return index, feat


def as_dense(index, feat):
    grid = feat.new_zeros(2, 6, 6, 6, feat.shape[1])
    grid = grid.index_put(tuple(index.T), feat)
    return grid.permute(0, 4, 1, 2, 3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the repairs are for machines without CUDA")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["subm", "strided", "inverse"])
def test_sparse_convolutions_match_dense_ones_in_values_and_gradients(kind, training):
    torch.manual_seed(1)
    index, feat = dense_case()
    sparse_in, dense_in = (feat.clone().requires_grad_() for _ in range(2))
    x = spconv.SparseConvTensor(sparse_in, index.int(), [6, 6, 6], 2)
    down = spconv.SparseConv3d(3, 4, 2, stride=2, bias=True, indice_key="down").double()
    up = spconv.SparseInverseConv3d(4, 5, 2, bias=True, indice_key="down").double()
    subm = spconv.SubMConv3d(3, 4, 3, bias=True, indice_key="subm").double()
    for layer in (down, up, subm):
        torch.nn.init.normal_(layer.bias)
        layer.train(training)

    def kernel(layer):  # spconv keeps (out, x, y, z, in)
        return layer.weight.permute(0, 4, 1, 2, 3)

    dense = as_dense(index, dense_in)
    if kind == "subm":
        out = subm(x)
        full = F.conv3d(dense, kernel(subm), subm.bias, padding=1)
        layers = [subm]
    else:
        out = down(x)
        full = F.conv3d(dense, kernel(down), down.bias, stride=2)
        layers = [down]
    if kind == "inverse":
        occupied = as_dense(index, torch.ones_like(feat[:, :1])).bool()
        coarse = F.max_pool3d(occupied.double(), 2)
        out = up(out)
        assert torch.equal(out.indices.long(), index)
        full = F.conv_transpose3d(full * coarse, kernel(up).transpose(0, 1), up.bias, stride=2)
        layers.append(up)
    where = out.indices.long()
    expected = full.permute(0, 2, 3, 4, 1)[tuple(where.T)]
    torch.testing.assert_close(out.features, expected)

    params = [p for layer in layers for p in layer.parameters()]
    weights = torch.randn_like(expected)
    ours = torch.autograd.grad((out.features * weights).sum(), [sparse_in, *params])
    theirs = torch.autograd.grad((expected * weights).sum(), [dense_in, *params])
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(mine, other)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the repairs are for machines without CUDA")
def test_repairing_spconv_again_changes_nothing():
    from spconv.pytorch import conv, ops

    before = conv.SparseConvolutionBase._conv_forward, ops.get_current_stream
    assert spconv_fixes.apply()
    assert (conv.SparseConvolutionBase._conv_forward, ops.get_current_stream) == before


def test_with_cuda_spconv_is_left_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not spconv_fixes.apply()


def test_a_tensor_asks_whether_it_is_traced_without_a_warning_and_can_be_traced(monkeypatch):
    index, feat = dense_case()
    arguments = index.int(), [6, 6, 6], 2
    asked = []
    monkeypatch.setattr(torch.fx._symbolic_trace, "is_fx_tracing", lambda: asked.append(1) or True)
    assert torch.equal(spconv.SparseConvTensor(feat, *arguments).features, feat)
    assert not asked

    class Makes(torch.nn.Module):
        def forward(self, feat):
            return spconv.SparseConvTensor(feat, *arguments)

    graph = torch.fx.symbolic_trace(Makes()).graph
    assert spconv.SparseConvTensor in [node.target for node in graph.nodes] and asked
