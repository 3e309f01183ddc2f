"""The stand-in for torch_scatter against loops over segments, in value and gradient."""

import pytest
import torch

from dos_plugin.cpu import scatter as ts


def by_hand(src, index, dim_size, reduce):
    """Reduction along dimension 0, one segment at a time; 0 for empty segments."""
    rows = []
    for segment in range(dim_size):
        part = src[index == segment]
        if len(part) == 0:
            rows.append(torch.zeros_like(src[0]))
        elif reduce == "sum":
            rows.append(part.sum(0))
        elif reduce == "mean":
            rows.append(part.mean(0))
        else:
            rows.append(part.amin(0) if reduce == "min" else part.amax(0))
    return torch.stack(rows)


@pytest.fixture
def cloud():
    """12 rows of 3 channels in segments 0, 1, 3 and 4 of six; segments 2 and 5 stay empty."""
    generator = torch.Generator().manual_seed(0)
    src = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    index = torch.tensor([4, 0, 0, 3, 1, 4, 4, 0, 1, 3, 3, 3])
    return src, index


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
def test_scatter_has_the_value_and_gradient_of_a_loop(cloud, reduce):
    src, index = cloud
    weight = torch.arange(18, dtype=torch.float64).view(6, 3)
    ours, theirs = src.clone().requires_grad_(), src.clone().requires_grad_()
    result = ts.scatter(ours, index, dim=0, dim_size=6, reduce=reduce)
    expected = by_hand(theirs, index, 6, reduce)
    torch.testing.assert_close(result, expected)
    (result * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
def test_segment_csr_and_coo_agree_with_scatter(cloud, reduce):
    src, index = cloud
    index = index.sort().values
    borders = torch.tensor([0, 3, 5, 5, 9, 12, 12])
    expected = by_hand(src, index, 6, reduce)
    torch.testing.assert_close(ts.segment_csr(src, borders, reduce=reduce), expected)
    torch.testing.assert_close(ts.segment_coo(src, index, dim_size=6, reduce=reduce), expected)


def test_segment_csr_skips_rows_outside_its_borders(cloud):
    src, _ = cloud
    result = ts.segment_csr(src, torch.tensor([2, 5, 9]), reduce="sum")
    torch.testing.assert_close(result, torch.stack([src[2:5].sum(0), src[5:9].sum(0)]))


@pytest.mark.parametrize("reduce", ["min", "max"])
def test_ties_send_the_gradient_to_the_first_element_only(reduce):
    src = torch.tensor([2.0, 2.0, 2.0, 5.0], requires_grad=True)
    ts.scatter(src, torch.tensor([0, 0, 0, 1]), reduce=reduce).sum().backward()
    assert src.grad.tolist() == [1.0, 0.0, 0.0, 1.0]


def test_min_gives_positions_of_int64_rows_and_marks_empty_segments():
    src = torch.tensor([[5, 1], [3, 4], [2**40, -7]])
    result, position = ts.scatter_min(src, torch.tensor([0, 0, 2]), dim=0, dim_size=3)
    assert result.tolist() == [[3, 1], [0, 0], [2**40, -7]]
    assert position.tolist() == [[1, 0], [3, 3], [2, 2]]


def test_last_dimension_is_the_default_and_index_may_have_the_shape_of_src():
    src = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    index = torch.tensor([[0, 1, 1], [1, 1, 0]])
    assert ts.scatter_max(src, index)[0].tolist() == [[1.0, 3.0], [6.0, 5.0]]
    assert ts.scatter_sum(src, torch.tensor([0, 0, 1])).tolist() == [[3.0, 3.0], [9.0, 6.0]]


def test_integer_means_round_down():
    src = torch.tensor([1, 2, -1, -2])
    assert ts.scatter_mean(src, torch.tensor([0, 0, 1, 1])).tolist() == [1, -2]


def test_nan_stays_visible():
    src = torch.tensor([1.0, float("nan"), 3.0])
    result, _ = ts.scatter_max(src, torch.tensor([0, 0, 1]))
    assert result.isnan().tolist() == [True, False]


def test_no_rows_give_zeros():
    empty = torch.zeros(0, 2)
    index = torch.zeros(0, dtype=torch.int64)
    for reduce in ("sum", "mean", "min", "max"):
        assert ts.scatter(empty, index, 0, None, 3, reduce).tolist() == [[0.0, 0.0]] * 3


def test_softmax_sums_to_one_in_each_segment_also_for_large_logits(cloud):
    src, index = cloud
    result = ts.scatter_softmax(src * 1000 + 1e4, index, dim=0)
    sums = by_hand(result, index, 6, "sum")
    torch.testing.assert_close(sums[[0, 1, 3, 4]], torch.ones(4, 3, dtype=torch.float64))
    part = index == 3
    torch.testing.assert_close(ts.scatter_softmax(src, index, dim=0)[part], src[part].softmax(0))


def test_gradients_pass_gradcheck(cloud):
    src, index = cloud
    src = src.requires_grad_()
    for function in (
        lambda x: ts.scatter(x, index, 0, reduce="mean"),
        lambda x: ts.scatter(x, index, 0, reduce="max"),
        lambda x: ts.scatter_softmax(x, index, dim=0),
    ):
        assert torch.autograd.gradcheck(function, (src,))


def test_what_it_does_not_do_is_said(cloud):
    src, index = cloud
    with pytest.raises(NotImplementedError, match="`out`"):
        ts.scatter(src, index, 0, out=torch.zeros(6, 3))
    with pytest.raises(NotImplementedError, match="segment_csr.*1-D indptr, got 2"):
        ts.segment_csr(src, torch.tensor([[0, 12]]))
    with pytest.raises(ValueError, match="reduce must be .* got 'median'"):
        ts.scatter(src, index, 0, reduce="median")
