"""Backbones of the embedded host by themselves; tests/contract compares them with the real host."""

import copy
import io
import types

import pytest
import torch

pytest.importorskip("spconv")
pytest.importorskip("torch_pointcloud")

from torch_pointcloud.ops.hilbert import encode as library_hilbert

from dos_plugin.minihost.backbones import BACKBONES, attention
from dos_plugin.minihost.backbones.attention import patch_layout
from dos_plugin.minihost.point import Point
from dos_plugin.minihost.serialization import check_grid, encode, hilbert, serialize, z_order
from tests.small_backbones import PTV3, SMALL, UNET, build, cloud, collate


def chain(point):
    """All levels, coarsest first."""
    levels = [point]
    while "pooling_parent" in point:
        point = point.pooling_parent
        levels.append(point)
    return levels


# --- point structure and curves


def test_point_derives_batch_and_offset_and_names_missing_keys():
    assert Point(offset=torch.tensor([2, 5])).batch.tolist() == [0, 0, 1, 1, 1]
    point = Point(batch=torch.tensor([0, 0, 1]))
    assert point.offset.tolist() == [2, 3]
    point.feat = torch.ones(3, 1)
    assert "feat" in point and point["feat"] is point.feat
    with pytest.raises(AttributeError, match="faet"):
        _ = point.faet


def test_point_derives_cells_from_the_minimum_of_the_batch():
    point = Point(coord=torch.tensor([[1.0, 2, 3], [1.55, 2, 3.95]]), grid_size=0.5)
    point.ensure_grid_coord()
    assert point.grid_coord.tolist() == [[0, 0, 0], [1, 0, 1]]
    with pytest.raises(ValueError, match="grid_size"):
        Point(coord=torch.zeros(1, 3), grid_size=torch.ones(2)).ensure_grid_coord()


def test_z_order_interleaves_bits_with_x_highest():
    cells = torch.randint(0, 2**16, (50, 3), generator=torch.Generator().manual_seed(0))
    for cell, code in zip(cells.tolist(), z_order(cells).tolist()):
        bits = "".join("".join(b) for b in zip(*(f"{c:016b}" for c in cell)))
        assert code == int(bits, 2)


@pytest.mark.parametrize("depth", [1, 3, 8, 16])
def test_hilbert_gives_the_librarys_codes(depth):
    cells = torch.randint(0, 2**depth, (300, 3), generator=torch.Generator().manual_seed(1))
    assert torch.equal(hilbert(cells, depth), library_hilbert(cells, 3, depth))


def test_serialization_sorts_within_clouds_and_inverts():
    batch = collate(cloud(40, 1), cloud(30, 2))
    point = Point(batch)
    orders = ["z", "z-trans", "hilbert", "hilbert-trans"]
    point.serialization(orders)
    for row, name in enumerate(orders):
        order = point.serialized_order[row]
        assert (point.serialized_code[row][order].diff() > 0).all()
        assert torch.equal(point.batch[order], point.batch)
        assert torch.equal(order[point.serialized_inverse[row]], torch.arange(70))
        swapped = encode(point.grid_coord[:, [1, 0, 2]], point.batch, 5, name.split("-")[0])
        if name.endswith("trans"):
            assert torch.equal(point.serialized_code[row], swapped)
    torch.manual_seed(0)
    shuffled = serialize(point.grid_coord, point.batch, 5, orders, True)[0]
    assert not torch.equal(shuffled, point.serialized_code)
    assert torch.equal(shuffled.sort(0).values, point.serialized_code.sort(0).values)


@pytest.mark.parametrize("cells", [[[0, -1, 0]], [[0, 0, 65535]], [[0, 0, 1 << 20]]])
def test_cells_out_of_range_are_named(cells):
    with pytest.raises(ValueError, match="grid_coord: cells must lie between 0 and 65534"):
        check_grid(torch.tensor(cells), 1)


def test_more_samples_than_a_code_holds_are_refused():
    assert check_grid(torch.tensor([[0, 0, 65534]]), 2**14) == 16
    with pytest.raises(ValueError, match="offset"):
        check_grid(torch.tensor([[0, 0, 65534]]), 2**15)
    with pytest.raises(ValueError, match="order"):
        encode(torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, dtype=torch.long), 1, "peano")


# --- patches


@pytest.mark.parametrize("varlen", [False, True])
@pytest.mark.parametrize("counts", [[7], [16], [5, 8, 17, 9], [64, 33], [1, 40]])
def test_patches_cover_each_cloud_and_borrow_from_the_patch_before(counts, varlen):
    layout = patch_layout(torch.tensor(counts).cumsum(0), 8, varlen)
    size = 8 if varlen else min(8, *counts)
    assert layout.patch_size == size
    slots, lengths = [], []
    start = 0
    for n in counts:
        rows = list(range(start, start + n))
        if n > size:
            while len(rows) % size:
                rows.append(rows[len(rows) - size])
        slots += rows
        lengths += [min(size, len(rows) - i) for i in range(0, len(rows), size)]
        start += n
    assert layout.slot_row.tolist() == slots
    assert layout.cu_seqlens.diff().tolist() == lengths and layout.cu_seqlens[0] == 0
    assert torch.equal(layout.slot_row[layout.row_slot], torch.arange(sum(counts)))


def test_flash_attention_must_be_installed(monkeypatch):
    monkeypatch.setattr(attention, "flash_attn", None)
    with pytest.raises(ImportError, match="enable_flash=False"):
        build("PT-v3m2", enable_flash=True)


def test_flash_attention_gets_patches_of_variable_length(monkeypatch):
    def varlen(qkv, cu_seqlens, max_seqlen, dropout_p, softmax_scale):
        assert qkv.dtype == torch.bfloat16 and dropout_p == 0
        assert cu_seqlens.diff().max() <= max_seqlen
        out = []
        for a, b in zip(cu_seqlens[:-1], cu_seqlens[1:]):
            q, k, v = qkv[a:b].float().permute(1, 2, 0, 3).unbind(0)
            weights = (softmax_scale * q @ k.transpose(1, 2)).softmax(-1)
            out.append((weights @ v).transpose(0, 1))
        return torch.cat(out).bfloat16()

    fake = types.SimpleNamespace(flash_attn_varlen_qkvpacked_func=varlen)
    monkeypatch.setattr(attention, "flash_attn", fake)
    flash = build("PT-v3m2", enable_flash=True, order="z").eval()
    plain = build("PT-v3m2", order="z").eval()
    clouds = cloud(200, 3)
    ours, theirs = flash(collate(clouds)).feat, plain(collate(clouds)).feat
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)
    # A tiny cloud beside it shrinks no patch.
    beside = flash(collate(clouds, cloud(3, 4))).feat[:200]
    torch.testing.assert_close(beside, ours, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("upcast", [False, True])
def test_attention_is_softmax_of_scaled_products_in_patches(upcast):
    torch.manual_seed(0)
    layer = attention.PatchAttention(
        12, 3, 8, enable_flash=False, upcast_attention=upcast, upcast_softmax=False
    )
    point = Point(collate(cloud(21, 0), cloud(30, 1)))
    point.serialization("hilbert")
    x = torch.randn(51, 12)
    qkv = layer.qkv(x).view(51, 3, 3, 4)
    layout = patch_layout(point.offset, 8)
    out = torch.zeros(51, 12)
    for patch in point.serialized_order[0][layout.slot_row].view(-1, 8):
        for head in range(3):
            q, k, v = qkv[patch, :, head].unbind(1)
            mixed = (q @ k.T / 4**0.5).softmax(1) @ v
            # A row that fills up the last patch counts in its own patch, which comes first.
            for row, value in zip(patch.tolist(), mixed):
                if not out[row, 4 * head : 4 * head + 4].any():
                    out[row, 4 * head : 4 * head + 4] = value
    own = layer(x, point)
    expected = layer.proj(out)
    assert len(layout.slot_row) > 51  # something was borrowed
    torch.testing.assert_close(own, expected)


def test_upcast_attention_is_computed_in_float32():
    torch.manual_seed(0)
    layer = attention.PatchAttention(8, 2, 16, enable_flash=False, upcast_softmax=False).bfloat16()
    point = Point(collate(cloud(16, 0)))
    point.serialization("z")
    x = torch.randn(16, 8).bfloat16()
    q, k, v = layer.qkv(x).float().view(16, 3, 2, 4).permute(1, 2, 0, 3)
    mixed = ((q @ k.transpose(1, 2) / 2).softmax(-1) @ v).transpose(0, 1).reshape(16, 8)
    assert torch.equal(layer(x, point), layer.proj(mixed.bfloat16()))


# --- whole backbones


@pytest.mark.parametrize("kind", BACKBONES)
def test_state_dict_round_trip_copy_and_pickle(kind):
    model = build(kind)
    batch = collate(cloud(150, 0), cloud(90, 1))
    model(batch)  # moves BatchNorm statistics
    model.eval()

    def features(net):
        torch.manual_seed(1)
        out = net(batch)
        return out if torch.is_tensor(out) else out.feat

    expected = features(model)
    other = BACKBONES[kind](**(SMALL if kind in PTV3 else UNET)).eval()
    assert not torch.equal(features(other), expected)
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(features(other), expected)
    assert torch.equal(features(copy.deepcopy(model)), expected)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    assert torch.equal(features(torch.load(buffer, weights_only=False)), expected)


@pytest.mark.parametrize("kind", PTV3)
def test_parameters_carry_the_hosts_names(kind):
    names = dict(build(kind, enc_mode=True).named_parameters())
    state = build(kind, enc_mode=True).state_dict(keep_vars=True)
    assert [k for k, v in state.items() if isinstance(v, torch.nn.Parameter)] == list(names)
    assert "enc.enc1.down.proj.weight" in names and "enc.enc0.block0.cpe.0.weight" in names
    assert len([k for k in names if "enc1.block0." in k]) == 18
    assert len([k for k in names if "enc1.block" in k]) == 36


@pytest.mark.parametrize("enc_mode", [True, False])
@pytest.mark.parametrize("kind", BACKBONES)
def test_gradients_reach_every_parameter(kind, enc_mode):
    model = build(kind, enc_mode=enc_mode)
    out = model(collate(cloud(200, 0), cloud(120, 1)))
    feat = out if torch.is_tensor(out) else out.feat
    (feat * torch.randn_like(feat)).sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
        assert p.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_cloud_alone_gives_what_it_gives_in_a_batch(kind):
    sizes = dict(enc_patch_size=(16, 16, 8), dec_patch_size=(16, 16)) if kind in PTV3 else {}
    model = build(kind, **sizes).eval()
    first, second = cloud(200, 0), cloud(150, 1)
    torch.manual_seed(2)
    alone = model(collate(second))
    torch.manual_seed(2)
    both = model(collate(first, second))
    if kind in PTV3:
        alone, both = alone.feat, both.feat
    torch.testing.assert_close(both[200:], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cells", [[[0, 0, 0]] * 3, [[0, 0, 0], [65534, 0, 9], [1, 65534, 65534]]])
@pytest.mark.parametrize("kind", BACKBONES)
def test_clouds_of_a_point_each(kind, cells):
    """Also where no cell is left to pool: PT-v3m1's depth is used up."""
    model = build(kind)
    cells = torch.tensor(cells)
    feat = torch.randn(3, 4)
    out = model(
        dict(feat=feat, coord=0.05 * cells, grid_coord=cells, offset=torch.tensor([1, 2, 3]))
    )
    out = out if torch.is_tensor(out) else out.feat
    out.sum().backward()
    assert len(out) == 3 and out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("kind", BACKBONES)
def test_rows_come_back_in_input_order_and_the_input_is_left_alone(kind):
    model = build(kind).eval()
    one = cloud(150, 0)
    perm = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    batch, permuted = collate(one), collate({k: v[perm] for k, v in one.items()})
    keys, before = list(batch), {k: v.clone() for k, v in batch.items()}
    torch.manual_seed(0)
    out = model(batch)
    torch.manual_seed(0)
    other = model(permuted)
    assert list(batch) == keys and all(torch.equal(batch[k], before[k]) for k in keys)
    if kind in PTV3:
        assert "pooling_parent" not in out
        out, other = out.feat, other.feat
    torch.testing.assert_close(other, out[perm], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", BACKBONES)
def test_indices_of_32_bits_do_as_well(kind):
    model = build(kind).eval()
    batch = collate(cloud(80, 0), cloud(60, 1))
    narrow = dict(batch, grid_coord=batch["grid_coord"].int(), offset=batch["offset"].int())
    outs = []
    for data in (batch, narrow):
        torch.manual_seed(0)
        out = model(data)
        outs.append(out if torch.is_tensor(out) else out.feat)
    assert torch.equal(*outs)


@pytest.mark.parametrize("kind", PTV3)
def test_pooling_maps_lead_from_input_rows_to_coarse_voxels(kind):
    model = build(kind, enc_mode=True).eval()
    batch = collate(cloud(150, 0), cloud(90, 1))
    levels = chain(model(batch))
    assert [level.feat.shape[1] for level in levels] == [32, 24, 16]
    assert torch.equal(levels[-1].grid_coord, batch["grid_coord"])
    rows = torch.arange(len(batch["feat"]))
    for depth, (fine, coarse) in enumerate(zip(levels[::-1], levels[-2::-1]), start=1):
        rows = coarse.pooling_inverse[rows]
        assert torch.equal(coarse.grid_coord[rows], batch["grid_coord"] >> depth)
        assert torch.equal(coarse.batch[rows], fine.batch.new_tensor(levels[-1].batch.tolist()))
        assert torch.equal(coarse.batch.bincount().cumsum(0), coarse.offset)
        inverse = coarse.pooling_inverse
        for row in (0, len(coarse.coord) - 1):
            mean = fine.coord[inverse == row].mean(0)
            torch.testing.assert_close(coarse.coord[row], mean)
        assert coarse.pooling_inverse.unique().numel() == len(coarse.feat)


def test_m2_pools_rows_in_lexical_order_and_averages_further_keys():
    batch = collate(cloud(150, 0), cloud(90, 1))
    batch.update(origin_coord=batch["coord"] + 1, grid_size=0.3, name=["a", "b"])
    top = build("PT-v3m2", enc_mode=True).eval()(batch)
    keys = torch.cat([top.batch[:, None], top.grid_coord], 1)
    assert torch.equal(keys, torch.unique(keys, dim=0))
    torch.testing.assert_close(top.origin_coord, top.coord + 1)
    assert top.grid_size == pytest.approx(1.2) and top.name == ["a", "b"]


@pytest.mark.parametrize("kind", PTV3)
def test_a_subset_of_voxels_pools_to_a_subset(kind):
    model = build(kind, enc_mode=True).eval()
    view = cloud(200, 0)
    kept = torch.rand(200, generator=torch.Generator().manual_seed(0)) < 0.4
    student = {k: v[kept] for k, v in view.items()}
    for fine, whole in zip(chain(model(collate(student))), chain(model(collate(view)))):
        mine = {tuple(c) for c in fine.grid_coord.tolist()}
        assert mine <= {tuple(c) for c in whole.grid_coord.tolist()}


def test_mask_token_replaces_masked_points_after_the_stem():
    model = build("PT-v3m2", enc_mode=True, mask_token=True).eval()
    assert model.embedding.mask_token.shape == (1, 16)
    batch = collate(cloud(120, 0))
    mask = torch.arange(120) % 2 == 0
    torch.nn.init.normal_(model.embedding.mask_token)
    stem = model.embedding(Point(batch, mask=mask)).feat
    assert torch.equal(stem[mask], model.embedding.mask_token.expand(60, -1))
    changed = dict(batch, feat=torch.where(mask[:, None], 9.0, batch["feat"]))
    torch.manual_seed(0)
    one = model(dict(batch, mask=mask)).feat
    torch.manual_seed(0)
    assert torch.equal(model(dict(changed, mask=mask)).feat, one)
    with pytest.raises(ValueError, match="mask_token=False"):
        build("PT-v3m2", enc_mode=True)(dict(batch, mask=mask))


def test_frozen_encoder_and_traceable_decoder():
    model = build("PT-v3m2", freeze_encoder=True, traceable=True)
    free = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert free == {"dec"}
    point = model(collate(cloud(120, 0)))
    widths = [point.feat.shape[1]]
    while "unpooling_parent" in point:
        point = point.unpooling_parent
        widths.append(point.feat.shape[1])
    assert widths == [16, 24, 32]


def test_drop_path_grows_with_depth_and_is_off_in_eval():
    model = build("PT-v3m2", drop_path=0.3)
    probs = [m.drop_prob for m in model.enc.modules() if hasattr(m, "drop_prob")]
    assert probs == pytest.approx([0.1, 0.2, 0.3])
    batch = collate(cloud(120, 0))
    runs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        runs.append(model(batch).feat)
    assert not torch.allclose(*runs)


@pytest.mark.parametrize("kind", PTV3)
def test_curves_are_shuffled_in_eval_mode_too(kind):
    model = build(kind, shuffle_orders=True).eval()
    batch = collate(cloud(200, 0))
    outs = []
    for seed in range(4):
        torch.manual_seed(seed)
        outs.append(model(batch).feat)
    assert not all(torch.allclose(outs[0], out) for out in outs[1:])
    for module in model.modules():  # the way to a deterministic backbone, on the real host too
        if hasattr(module, "shuffle_orders"):
            module.shuffle_orders = False
    torch.manual_seed(0)
    once = model(batch).feat
    assert torch.equal(model(batch).feat, once)


def _without(key):
    return lambda batch: batch.pop(key)


def _set(key, change):
    return lambda batch: batch.update({key: change(batch[key])})


BAD = {
    "no feat": (_without("feat"), "feat"),
    "no grid_coord": (_without("grid_coord"), "grid_coord"),
    "no offset": (_without("offset"), "offset"),
    "empty cloud": (_set("offset", lambda o: torch.cat([o[:1], o])), r"cloud\(s\) \[1\] have none"),
    "short offset": (_set("offset", lambda o: o - 1), "offset ends at"),
    "wide feat": (_set("feat", lambda f: f.repeat(1, 2)), "in_channels = 4"),
    "negative cells": (_set("grid_coord", lambda g: g - 1), "grid_coord"),
    "short cells": (_set("grid_coord", lambda g: g[1:]), "grid_coord has"),
    "float cells": (_set("grid_coord", lambda g: g.float()), "grid_coord"),
}


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_named(kind, fault):
    spoil, message = BAD[fault]
    batch = collate(cloud(60, 0), cloud(50, 1))
    spoil(batch)
    with pytest.raises(ValueError, match=message):
        build(kind)(batch)


def test_ptv3_needs_coord_and_matching_stage_lengths():
    batch = collate(cloud(60, 0))
    del batch["coord"]
    with pytest.raises(ValueError, match="coord"):
        build("PT-v3m2")(batch)
    with pytest.raises(ValueError, match="enc_channels"):
        build("PT-v3m2", enc_channels=(16, 24))
    with pytest.raises(ValueError, match="dec_depths"):
        build("PT-v3m1", dec_depths=(1,))
    with pytest.raises(ValueError, match="pdnorm"):
        build("PT-v3m1", pdnorm_bn=True)
    with pytest.raises(ValueError, match="layers"):
        build("SpUNet-v1m1", layers=(1, 1, 1))


def test_m1_pools_no_more_than_the_cloud_is_wide():
    """As the real host: a step that needs more bits than are left keeps its rows."""
    tiny = cloud(8, 0, extent=(2, 2, 2))
    model = build("PT-v3m1", stride=(8, 2), enc_mode=True).eval()
    top, middle, bottom = chain(model(collate(tiny)))
    assert bottom.serialized_depth == middle.serialized_depth == 2
    assert len(middle.feat) == len(bottom.feat) == len(tiny["feat"])
    assert torch.equal(middle.grid_coord[top.pooling_parent.pooling_inverse], tiny["grid_coord"])
    assert top.serialized_depth == 1 and not top.grid_coord.any() and len(top.feat) == 1
