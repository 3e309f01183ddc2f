"""Every option of every component gets wrong types and values: an error names it, or it works.

The options are read from the signatures, so that a new one is tried, too. Run on the embedded host
by default, and on Pointcept by
``DOS_HOST=pointcept python -m dos_plugin.cpu -m pytest tests/contract/test_fuzz_options.py``.
"""

import inspect
import types
import typing
from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from dos_plugin.host import HOST
from dos_plugin.method import ProjectionHead
from dos_plugin.register import COMPONENTS
from tests.batches import view_batch
from tests.fuzzing import tries


class Tiny(nn.Module):
    """A backbone: a linear map of each point."""

    def __init__(self, channels=8, mask_token=False):
        super().__init__()
        self.stem = nn.Linear(2, channels)
        self.token = nn.Parameter(torch.zeros(2)) if mask_token else None

    def forward(self, data):
        feat = data["feat"]
        if "mask" in data:
            feat = torch.where(data["mask"][:, None], self.token, feat)
        return self.stem(feat)


if "FuzzedTiny" not in HOST.MODELS.module_dict:
    HOST.MODELS.register_module("FuzzedTiny")(Tiny)

BATCH = view_batch((40, 30))
GRID = dict(type="GridSample", grid_size=0.3, hash_type="fnv", mode="train", return_grid_coord=True)
DOS = dict(
    backbone=dict(type="FuzzedTiny"),
    backbone_out_channels=8,
    up_cast_level=0,
    head=dict(hidden_channels=16, out_channels=8),
    num_prototypes=12,
    min_visible=2,
)
SEGMENTOR = dict(
    backbone=dict(type="FuzzedTiny"),
    backbone_out_channels=8,
    num_classes=3,
    criteria=[dict(type="CrossEntropyLoss", loss_weight=1.0, ignore_index=-1)],
)


def scene():
    rng = np.random.default_rng(0)
    coord = rng.uniform(0, 20, (60, 3)).astype(np.float32)
    keys = ["coord", "strength", "point_id"]
    return dict(
        coord=coord,
        strength=coord[:, :1] / 20,
        point_id=np.arange(60),
        view1_coord=coord,
        view2_coord=coord,
        index_valid_keys=keys,
    )


def trains(model):
    """A step: a finite loss and gradient, and a finite teacher after it."""
    model.train()
    model.total_steps = 2
    loss = model(BATCH)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    for _ in range(2):
        model.after_optimizer_step()
    assert all(torch.isfinite(p).all() for p in model.teacher.parameters())


def segments(model):
    batch = dict(feat=torch.randn(40, 2), coord=torch.randn(40, 3), offset=torch.tensor([20, 40]))
    batch["segment"] = torch.arange(40) % model.num_classes
    assert torch.isfinite(model(batch)["loss"])


def views_of(transform):
    data = transform(scene())
    for view in ("view1", "view2"):
        ids = data[f"{view}_point_id"]
        assert len(ids) == len(np.unique(ids)) == len(data[f"{view}_grid_coord"]) > 0


def masks(transform):
    data = transform(scene())
    for view in transform.views:
        visible = data[f"{view}_visible"]
        assert visible.dtype == bool and visible.sum() >= min(60, transform.min_visible)


def measures(hook):
    hook.model = HOST.build_model(dict(type="DOS-v1m1", **DOS))
    seen = []
    hook.model.observer = lambda *args: seen.append(args)
    hook.model(BATCH)
    assert all(np.isfinite(value) for value in hook.measure(*seen[0]).values())
    assert isinstance(hook.alarm.messages(dict(rankme=1.0), 1), list)


def nothing(_):
    """What it does needs a whole training; its options are of the documented types."""


def regularises(module):
    trains(HOST.build_model(dict(type="DOS-v1m1", **DOS, sinkhorn=dict(vars_of(module)))))


def vars_of(module):
    return {key: getattr(module, key) for key in ("alpha", "num_iters", "scope")}


# Further options of each component, and what it must do with the one that is tried.
FUZZED = {
    "DOS-v1m1": (DOS, trains),
    "DOS-Segmentor-v1m1": (SEGMENTOR, segments),
    "ZipfSinkhorn": ({}, regularises),
    "PointId": ({}, nothing),
    "Height": ({}, nothing),
    "TwoViews": (dict(view_transform=[GRID]), views_of),
    "BlockMask": ({}, masks),
    "ExactResume": ({}, nothing),
    "PretrainedLoader": ({}, nothing),
    "NonFiniteGuard": ({}, nothing),
    "StepWeightDecay": ({}, nothing),
    "PrototypeMonitor": ({}, measures),
    "OnlineProbe": ({}, nothing),
    "FeaturePicture": ({}, nothing),
}
# Those of detection have tests of their own.
CLASSES = {
    name: (registry, cls)
    for registry, classes in COMPONENTS.items()
    for name, cls in classes.items()
    if ".detection." not in cls.__module__
}
WITH_TOKEN = dict(student_input="mask_token", backbone=dict(type="FuzzedTiny", mask_token=True))
# Options that others are needed for.
NEEDED = {"mask_jitter": WITH_TOKEN}


def options_of(cls):
    hints = typing.get_type_hints(cls.__init__)
    names = [name for name in inspect.signature(cls).parameters if name in hints]
    return {name: hints[name] for name in names}


def fits(value, hint):
    """Whether a value is of an annotated type; True is no number, and 1 is no True."""
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return any(fits(value, choice) for choice in inner)
    if kind is typing.Literal:
        return any(type(value) is type(choice) and value == choice for choice in inner)
    if hint in (int, float):
        number = Integral if hint is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    if hint in (dict, Mapping) or kind in (dict, Mapping):
        return isinstance(value, Mapping)
    if kind is tuple and Ellipsis not in inner:
        return (
            isinstance(value, list | tuple)
            and len(value) == len(inner)
            and all(fits(v, i) for v, i in zip(value, inner))
        )
    if kind is not None:  # a sequence
        return isinstance(value, list | tuple) and all(fits(v, inner[0]) for v in value)
    return isinstance(value, hint)


NUMBERS = st.one_of(
    st.integers(-5, 300),
    st.sampled_from([10**9, 2**31, 2**63, 10**30, -(10**30)]),
    st.floats(),
    st.floats(0, 1),
)
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.sampled_from(["", "0.9", "None", "True", "1", "student", "view1", "coord", "batch"]),
    st.text(max_size=5),
)
VALUES = st.one_of(
    PLAIN,
    st.lists(PLAIN, max_size=3),
    st.tuples(NUMBERS, NUMBERS),
    st.dictionaries(st.sampled_from(["nonsense", "other"]), PLAIN, max_size=2),
    st.lists(st.dictionaries(st.sampled_from(["nonsense", "other"]), PLAIN), max_size=2),
    st.dictionaries(PLAIN, st.dictionaries(st.integers(), PLAIN, max_size=1), max_size=2),
)

OPTIONS = [(name, option) for name, (_, cls) in CLASSES.items() for option in options_of(cls)]


def test_all_components_are_tried():
    assert set(FUZZED) == set(CLASSES)
    assert {"num_prototypes", "momentum_base", "mask_jitter"} <= {option for _, option in OPTIONS}


def tried(build, names, value):
    """What was built; None where an error names the option, or what is within it."""
    torch.manual_seed(0)
    np.random.seed(0)
    try:
        return build()
    except (ValueError, TypeError, KeyError) as error:
        inner = [key for key in value if isinstance(key, str)] if isinstance(value, dict) else []
        assert any(name in str(error) for name in [*names, *inner]), repr(error)
        assert len(str(error)) < 600 and "\n" not in str(error)
        return None


@pytest.mark.parametrize("name, option", OPTIONS, ids=["-".join(pair) for pair in OPTIONS])
@tries(40)
@given(value=VALUES)
@example(value="0.9")
@example(value=256.0)
@example(value=float("nan"))
@example(value=True)
@example(value=-3)
@example(value=1e-320)
@example(value=10**30)
@example(value=["0.9"])
def test_options(name, option, value):
    base, works = FUZZED[name]
    registry, cls = CLASSES[name]
    config = {**base, **NEEDED.get(option, {}), option: value, "type": name}
    build = HOST.build_model if registry == "MODELS" else getattr(HOST, registry).build
    built = tried(lambda: build(config), [option], value)
    if built is not None:
        assert fits(value, options_of(cls)[option]), f"{value!r} was taken"
        tried(lambda: works(built), [option], value)  # its first step may find it not to fit


@pytest.mark.parametrize("option", options_of(ProjectionHead))
@tries(40)
@given(value=VALUES)
@example(value=16.0)
@example(value=0)
@example(value=True)
def test_options_of_the_head(option, value):
    config = dict(type="DOS-v1m1", **DOS | dict(head={"hidden_channels": 16, option: value}))
    built = tried(lambda: HOST.build_model(config), [option], value)
    if built is not None:
        assert fits(value, options_of(ProjectionHead)[option]), f"{value!r} was taken"
        trains(built)


def test_a_teacher_of_another_shape_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="teacher_custom, backbone: does not fit .* other shape"):
        HOST.build_model(dict(type="DOS-v1m1", **DOS, teacher_custom=dict(channels=9)))
