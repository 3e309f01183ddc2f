"""Stand-ins for pointops, torch_cluster, flash_attn, timm and torch.histc against brute force."""

import pytest
import torch

from dos_plugin.cpu import pointops
from dos_plugin.cpu.cluster import grid_cluster, knn, scatter, voxel_grid
from dos_plugin.cpu.cuda_noop import _with_integers
from dos_plugin.cpu.flash import flash_attn_varlen_qkvpacked_func
from dos_plugin.cpu.layers import DropPath
from dos_plugin.cpu.pointops import (
    NOT_FOUND_DISTANCE,
    farthest_point_sampling,
    grouping,
    interpolation,
    knn_query,
    knn_query_and_group,
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_knn_query_finds_the_nearest_rows_of_the_same_sample(generator):
    xyz = torch.rand(50, 3, generator=generator)
    new_xyz = torch.rand(31, 3, generator=generator)
    offset, new_offset = torch.tensor([20, 50]), torch.tensor([11, 31])
    index, distance = knn_query(4, xyz, offset, new_xyz, new_offset)
    assert index.dtype == torch.int32 and distance.dtype == torch.float32
    for rows, queries in ((slice(0, 20), slice(0, 11)), (slice(20, 50), slice(11, 31))):
        expected = torch.cdist(new_xyz[queries].double(), xyz[rows].double()).topk(4, largest=False)
        assert torch.equal(index[queries].long(), expected.indices + rows.start)
        torch.testing.assert_close(distance[queries].double(), expected.values)


def test_on_a_gpu_all_distances_give_what_the_tree_gives(generator, monkeypatch):
    """The same device-independent code, run here on CPU tensors, a few queries at a time."""
    monkeypatch.setattr(pointops, "DISTANCES", 70)
    xyz = 100 + torch.rand(50, 3, generator=generator)  # away from the origin
    arguments = torch.tensor([20, 20, 48, 50]), torch.rand(31, 3, generator=generator) + 100
    arguments += (torch.tensor([11, 12, 25, 31]),)  # a sample is empty, one has two rows
    expected = knn_query(4, xyz, *arguments)
    ours = pointops._by_distance(4, xyz, *arguments)
    assert torch.equal(ours[0], expected[0]) and ours[0].dtype == torch.int32
    torch.testing.assert_close(ours[1], expected[1])
    assert (ours[0] == -1).sum() == 4 + 6 * 2


def test_knn_query_searches_the_cloud_itself_unless_told(generator):
    xyz = torch.rand(9, 3, generator=generator)
    index, distance = knn_query(1, xyz, torch.tensor([4, 9]))
    assert index.flatten().tolist() == list(range(9)) and distance.abs().max() == 0


def test_knn_query_marks_what_a_small_or_empty_sample_cannot_give(generator):
    xyz = torch.rand(2, 3, generator=generator)
    index, distance = knn_query(3, xyz, torch.tensor([2, 2]), xyz[:2], torch.tensor([1, 2]))
    assert index[0, :2].sort().values.tolist() == [0, 1] and index[0, 2] == -1
    assert index[1].tolist() == [-1, -1, -1]
    assert distance[1].tolist() == [NOT_FOUND_DISTANCE] * 3


def test_grouping_gives_each_neighbour_and_the_way_to_it(generator):
    xyz, new_xyz = (torch.rand(n, 3, generator=generator) for n in (20, 6))
    feat = torch.rand(20, 4, generator=generator, requires_grad=True)
    index = torch.randint(-1, 20, (6, 5), generator=generator, dtype=torch.int32)
    index[0, 0] = -1
    grouped = grouping(index, feat, xyz, new_xyz, with_xyz=True)
    for query in range(6):
        for place, row in enumerate(index[query].tolist()):
            expected = torch.cat([xyz[row] - new_xyz[query], feat[row]]) if row >= 0 else 0
            assert (grouped[query, place] == expected).all()
    assert torch.equal(grouping(index, feat, xyz), grouped[..., 3:])
    grouped[..., 3:].sum().backward()
    counts = torch.bincount(index[index >= 0], minlength=20)
    assert torch.equal(feat.grad, counts[:, None].expand(20, 4).float())


def test_neighbours_are_found_and_grouped_in_one_call(generator):
    xyz, new_xyz = (torch.rand(n, 3, generator=generator) for n in (20, 6))
    feat, where = torch.rand(20, 4, generator=generator), (torch.tensor([12, 20]), new_xyz)
    where += (torch.tensor([4, 6]),)
    grouped, index = knn_query_and_group(feat, xyz, *where, nsample=3, with_xyz=True)
    assert torch.equal(index, knn_query(3, xyz, *where)[0])
    assert torch.equal(grouped, grouping(index, feat, xyz, new_xyz, with_xyz=True))
    again, same = knn_query_and_group(feat, xyz, new_xyz=new_xyz, idx=index.flip(0))
    assert torch.equal(same, index.flip(0)) and torch.equal(again, grouped[..., 3:].flip(0))


def test_interpolation_weighs_by_the_inverse_of_the_distance(generator):
    xyz, feat = (torch.rand(20, n, generator=generator) for n in (3, 4))
    new_xyz = torch.cat([torch.rand(5, 3, generator=generator), xyz[15:16]])
    result = interpolation(xyz, new_xyz, feat, torch.tensor([12, 20]), torch.tensor([3, 6]))
    for query, rows in enumerate([slice(0, 12)] * 3 + [slice(12, 20)] * 3):
        far = (new_xyz[query].double() - xyz[rows].double()).norm(dim=1)
        near = far.argsort()[:3]
        weight = 1 / (far[near] + 1e-8)
        expected = (feat[rows][near].double() * weight[:, None]).sum(0) / weight.sum()
        torch.testing.assert_close(result[query].double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result[5], feat[15])  # where a row lies its own value


def test_farthest_points_are_those_farthest_from_all_before(generator):
    xyz = torch.rand(50, 3, generator=generator)
    index = farthest_point_sampling(xyz, torch.tensor([20, 50]), torch.tensor([5, 17]))
    assert index.dtype == torch.int32 and len(index) == 17
    for rows, chosen in ((slice(0, 20), index[:5]), (slice(20, 50), index[5:])):
        assert chosen[0] == rows.start
        for count in range(1, len(chosen)):
            apart = torch.cdist(xyz[rows].double(), xyz[chosen[:count].long()].double())
            assert chosen[count] == apart.amin(1).argmax() + rows.start
    empty = farthest_point_sampling(xyz[:0], torch.tensor([0]), torch.tensor([0]))
    assert empty.shape == (0,) and empty.dtype == torch.int32


def test_cluster_knn_pairs_queries_with_rows_of_their_sample(generator):
    x, y = torch.rand(20, 3, generator=generator), torch.rand(6, 3, generator=generator)
    batch_x, batch_y = torch.tensor([0] * 12 + [1] * 8), torch.tensor([0, 0, 0, 0, 1, 1])
    query, row = knn(x, y, k=2, batch_x=batch_x, batch_y=batch_y)
    assert query.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    far = torch.cdist(y, x).masked_fill(batch_y[:, None] != batch_x, 9.0)
    assert torch.equal(row.view(6, 2), far.topk(2, largest=False).indices)


def test_grid_cells_are_numbered_with_the_first_coordinate_fastest():
    pos = torch.tensor([[0.0, 0.0], [1.1, 0.0], [2.9, 0.0], [0.0, 1.2], [2.9, 1.9]])
    cells = grid_cluster(pos, torch.tensor([1.0, 1.0]))
    assert cells.tolist() == [0, 1, 2, 3, 5]


def test_voxel_grid_never_joins_two_samples(generator):
    pos = torch.rand(40, 3, generator=generator) * 2
    batch = torch.tensor([0] * 25 + [1] * 15)
    cells = voxel_grid(pos, 0.5, batch, start=0.0)
    together = cells[:, None] == cells
    expected = ((pos / 0.5).long()[:, None] == (pos / 0.5).long()).all(-1)
    assert torch.equal(together, expected & (batch[:, None] == batch))


def test_geometric_scatter_reduces_rows_by_default():
    src = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    result = scatter(src, torch.tensor([0, 0, 1]), reduce="mean")
    assert result.tolist() == [[2.0, 3.0], [5.0, 6.0]]


def attention_by_hand(qkv, borders, scale):
    """One sequence and head at a time, softmax written out."""
    out = torch.zeros_like(qkv[:, 0])
    for first, last in zip(borders[:-1], borders[1:]):
        for head in range(qkv.shape[2]):
            query, key, value = qkv[first:last, :, head].unbind(1)
            logits = scale * query @ key.T
            weight = logits.exp()
            out[first:last, head] = (weight / weight.sum(1, keepdim=True)) @ value
    return out


@pytest.mark.parametrize("scale", [None, 0.3])
def test_flash_attention_equals_softmax_attention_per_sequence(generator, scale):
    borders = [0, 5, 8, 8, 13, 16]  # unequal lengths, one of them zero
    qkv = torch.randn(16, 3, 2, 4, generator=generator, dtype=torch.float64)
    ours, theirs = qkv.clone().requires_grad_(), qkv.clone().requires_grad_()
    cu_seqlens = torch.tensor(borders, dtype=torch.int32)
    result = flash_attn_varlen_qkvpacked_func(ours, cu_seqlens, 5, 0.0, softmax_scale=scale)
    expected = attention_by_hand(theirs, borders, scale or 0.5)
    torch.testing.assert_close(result, expected)
    weight = torch.randn(16, 2, 4, generator=generator, dtype=torch.float64)
    (result * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_flash_attention_rounds_to_bfloat16_only_at_the_end(generator):
    qkv = torch.randn(12, 3, 2, 4, generator=generator).bfloat16()
    result = flash_attn_varlen_qkvpacked_func(qkv, torch.tensor([0, 12]), 12)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, attention_by_hand(qkv.float(), [0, 12], 0.5).bfloat16())


def test_flash_attention_refuses_options_that_are_on():
    qkv = torch.zeros(4, 3, 1, 2)
    borders = torch.tensor([0, 4])
    flash_attn_varlen_qkvpacked_func(qkv, borders, 4, causal=False)
    with pytest.raises(NotImplementedError, match="has no causal; .* enable_flash=False"):
        flash_attn_varlen_qkvpacked_func(qkv, borders, 4, causal=True)


def test_drop_path_drops_whole_rows_and_keeps_the_mean():
    torch.manual_seed(0)
    layer = DropPath(0.25)
    x = torch.ones(20000, 3)
    out = layer(x)
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert torch.equal(out[:, 0], out[:, 2])
    assert out.mean() == pytest.approx(1.0, abs=0.02)
    assert layer.eval()(x) is x
    assert DropPath(1.0)(x).abs().max() == 0


def test_integer_histogram_counts_classes_and_leaves_floats_alone():
    histc = _with_integers(torch.histc)
    labels = torch.tensor([0, 3, 3, 1, 2, 3, -1, 7])
    counts = histc(labels, bins=4, min=0, max=3)
    assert counts.dtype == torch.int64 and counts.tolist() == [1, 1, 1, 3]
    classes = torch.arange(20).repeat_interleave(torch.arange(20))
    assert histc(classes, bins=20, min=0, max=19).tolist() == list(range(20))
    values = torch.tensor([0.2, 0.9])
    assert torch.equal(histc(values, bins=2, min=0, max=1), torch.tensor([1.0, 1.0]))
