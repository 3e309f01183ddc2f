"""DOS-v1m1: pretrains a backbone of the host by distilling observable softmaps."""

import weakref
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from dos_plugin.host import HOST
from dos_plugin.method import (
    ProjectionHead,
    Prototypes,
    clustering_loss,
    ema_update,
    find_points,
    match_rows,
    regression_loss,
    row_levels,
    softmap_loss,
    true_positions,
    warmup_cosine,
)
from dos_plugin.method.options import (
    MOST_CHANNELS,
    MOST_ROWS,
    check_choice,
    check_component,
    check_config,
    check_names,
    check_number,
    check_whole,
)
from dos_plugin.method.settings import NUM_PROTOTYPES, TEACHER_TEMP, UP_CAST_LEVEL
from dos_plugin.method.zipf_sinkhorn import TEMP
from dos_plugin.models.backbone import eval_under_autocast, load_strictly
from dos_plugin.models.batch import (
    VIEWS,
    Clouds,
    Views,
    jitter_masked,
    one_point_clouds,
    read_views,
)
from dos_plugin.models.extent import long_clouds_named


class Pairs(NamedTuple):
    """Matched rows of student and teacher in one view of all scenes, all (M,) int64."""

    student: Tensor
    teacher: Tensor
    scene: Tensor  # rises


class Matched(NamedTuple):
    """What the loss of a batch is made of.

    Attributes:
        student: (R, D) unit projections.
        teacher: (S, D) unit projections, without gradient.
        same_view: pairs of the first and of the second view.
        cross_view: the same, the teacher's rows being of the other view.
    """

    student: Tensor
    teacher: Tensor
    same_view: list[Pairs]
    cross_view: list[Pairs]


class DOS(HOST.PointModel):  # type: ignore[name-defined, misc]
    """Distilling observable softmaps of Zipfian prototypes (DOS, section 2).

    The student sees the visible points of two masked views, the teacher the whole views. Both
    project to prototypes; the student learns the teacher's Zipf-Sinkhorn softmaps at the places
    it sees, of its own view and of the other one. The teacher is the EMA of the student.

    Args:
        backbone: Config of a backbone of the host.
        backbone_out_channels: Channels of its features after up-casting.
        teacher_custom: Backbone options in which the teacher differs (usually no drop path).
        up_cast_level: Pooling steps to undo before the head (our reading: 2, features at 4x the
            input grid); 0 for a backbone with decoder.
        head: Options of :class:`~dos_plugin.method.ProjectionHead`.
        num_prototypes: K.
        teacher_prototypes: ``"shared"``: one set, trained by the student's side (our reading);
            ``"ema"``: the teacher has its own, averaged like its other parameters.
        sinkhorn: Config of the target regulariser (registry MODULES).
        target: ``"softmap"``, or the ablation's ``"clustering"`` and ``"regression"``.
        student_input: ``"visible"``: masked points are dropped; ``"mask_token"``: the ablation's
            baseline, masked points stay as mask tokens and all points are in the loss. Needs
            ``mask_token=True`` in the backbone.
        mask_jitter: Standard deviation, metres, of noise on masked positions, clipped at twice
            that, at most 100 (only with ``"mask_token"``); None for none.
        student_temp: Student temperature.
        teacher_temp_start: Teacher temperature at step 0.
        teacher_temp_base: Teacher temperature after the warm-up.
        teacher_temp_warmup_ratio: Share of all optimizer steps that the warm-up takes.
        momentum_base: EMA momentum at step 0.
        momentum_final: EMA momentum at the end (cosine).
        min_visible: Scenes with fewer visible points in a view are left out of a step.
        block_size: Points in a block of the loss; None picks one by size.
        backbone_keys: What the backbone reads of a batch beyond ``coord``, ``grid_coord``,
            ``feat`` and ``offset``: ``("condition",)``, or ``("normal",)``, which are
            ``view1_normal`` and ``view2_normal``. Collect must name them.

    Raises:
        ValueError: If an option is of another type, out of range or contradicts another one.
    """

    def __init__(
        self,
        backbone: dict,
        backbone_out_channels: int,
        teacher_custom: dict | None = None,
        up_cast_level: int = UP_CAST_LEVEL,
        head: dict | None = None,
        num_prototypes: int = NUM_PROTOTYPES,
        teacher_prototypes: Literal["shared", "ema"] = "shared",
        sinkhorn: dict | None = None,
        target: Literal["softmap", "clustering", "regression"] = "softmap",
        student_input: Literal["visible", "mask_token"] = "visible",
        mask_jitter: float | None = None,
        student_temp: float = 0.1,
        teacher_temp_start: float = 0.04,
        teacher_temp_base: float = TEACHER_TEMP,
        teacher_temp_warmup_ratio: float = 0.05,
        momentum_base: float = 0.994,
        momentum_final: float = 1.0,
        min_visible: int = 16,
        block_size: int | None = None,
        backbone_keys: Sequence[str] | None = None,
    ):
        super().__init__()
        check_component("backbone", backbone)
        for name, config in (
            ("teacher_custom", teacher_custom),
            ("head", head),
            ("sinkhorn", sinkhorn),
        ):
            if config is not None:
                check_config(name, config)
        check_whole("backbone_out_channels", backbone_out_channels, 1, MOST_CHANNELS)
        check_whole("up_cast_level", up_cast_level, 0)
        check_whole("num_prototypes", num_prototypes, 2, MOST_ROWS)
        check_whole("min_visible", min_visible, 1)
        if block_size is not None:
            check_whole("block_size", block_size, 1)
        if backbone_keys is not None:
            check_names("backbone_keys", backbone_keys)
        check_choice("teacher_prototypes", teacher_prototypes, ("shared", "ema"))
        check_choice("target", target, ("softmap", "clustering", "regression"))
        check_choice("student_input", student_input, ("visible", "mask_token"))
        check_number("student_temp", student_temp, TEMP)
        check_number("teacher_temp_start", teacher_temp_start, TEMP)
        check_number("teacher_temp_base", teacher_temp_base, TEMP)
        check_number("teacher_temp_warmup_ratio", teacher_temp_warmup_ratio, "[0, 1]")
        check_number("momentum_base", momentum_base, "[0, 1]")
        check_number("momentum_final", momentum_final, "[0, 1]")
        if bool(backbone.get("mask_token")) != (student_input == "mask_token"):
            raise ValueError(
                f"backbone.mask_token={backbone.get('mask_token', False)} contradicts "
                f"student_input={student_input!r}: the token is needed with 'mask_token' and is "
                "an unused parameter otherwise"
            )
        if mask_jitter is not None:
            check_number("mask_jitter", mask_jitter, "[0, 100]")
            if student_input != "mask_token":
                raise ValueError(f"mask_jitter={mask_jitter} needs student_input='mask_token'")
        self.backbone_out_channels = backbone_out_channels
        self.num_prototypes = num_prototypes
        self.up_cast_level = up_cast_level
        self.target = target
        self.student_input = student_input
        self.mask_jitter = mask_jitter
        self.student_temp = student_temp
        self.teacher_temp_range = (teacher_temp_start, teacher_temp_base)
        self.teacher_temp_warmup_ratio = teacher_temp_warmup_ratio
        self.momentum_range = (momentum_base, momentum_final)
        self.min_visible = min_visible
        self.block_size = block_size
        self.backbone_keys = tuple(backbone_keys or ())
        self.sinkhorn = HOST.MODULES.build({"type": "ZipfSinkhorn", **(sinkhorn or {})})

        head_module = ProjectionHead(backbone_out_channels, **(head or {}))
        self.head_channels = head_module.out_channels
        student = {"backbone": HOST.build_model(backbone), "head": head_module}
        teacher = {
            "backbone": HOST.build_model({**backbone, **(teacher_custom or {})}),
            "head": ProjectionHead(backbone_out_channels, **(head or {})),
        }
        if target != "regression":
            student["prototypes"] = Prototypes(num_prototypes, self.head_channels)
            if teacher_prototypes == "ema":
                teacher["prototypes"] = Prototypes(num_prototypes, self.head_channels)
        self.student = nn.ModuleDict(student)
        self.teacher = nn.ModuleDict(teacher)
        for name, module in self.teacher.items():
            load_strictly(module, self.student[name].state_dict(), f"teacher_custom, {name}")
        self.teacher.requires_grad_(False)
        self.train()
        self.observer: Callable[[Matched, Views], None] | None = None
        self.step = 0
        self.set_schedules(step=0, total_steps=1)

    # -- life in the trainer ---------------------------------------------------------------

    def train(self, mode: bool = True) -> "DOS":
        """Set the student's mode; the teacher stays in eval mode (no drop path, fixed norms)."""
        super().train(mode)
        if mode:
            eval_under_autocast(self.teacher)
        return self

    def before_train(self) -> None:
        """Follow the optimizer: schedules and EMA advance with its steps, not with batches.

        The host calls hooks after every batch, also in the middle of gradient accumulation and
        where AMP skipped the step; the optimizer's own hook fires at real steps only.
        """
        self.step = self.trainer.scheduler.last_epoch  # counts optimizer steps, also on resume
        self.total_steps = self.trainer.cfg.scheduler.total_steps
        self.set_schedules(self.step, self.total_steps)
        model = weakref.proxy(self)
        self.trainer.optimizer.register_step_post_hook(lambda *_: model.after_optimizer_step())

    def after_optimizer_step(self) -> None:
        """Update the teacher, then the schedules."""
        ema_update(self.teacher, self.student, self.momentum)
        self.step += 1
        self.set_schedules(self.step, self.total_steps)

    def after_step(self) -> None:
        """Log the schedules."""
        if self.trainer.writer is not None:
            self.trainer.writer.add_scalar("params/teacher_temp", self.teacher_temp, self.step)
            self.trainer.writer.add_scalar("params/momentum", self.momentum, self.step)

    def set_schedules(self, step: int, total_steps: int) -> None:
        """Set teacher temperature and momentum to their values at an optimizer step."""
        start, base = self.teacher_temp_range
        self.teacher_temp = warmup_cosine(
            step, total_steps, base, base, start, self.teacher_temp_warmup_ratio
        )
        self.momentum = warmup_cosine(step, total_steps, *self.momentum_range)

    # -- a batch ---------------------------------------------------------------------------

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """Loss of a batch of two views a scene; keys as in :func:`.batch.read_views`.

        Returns:
            Scalars: ``loss`` = L_1 + L_2 (DOS, section 2, step 8), ``same_view_loss`` and
            ``cross_view_loss`` (sums over both views, unweighted), ``cross_matched`` (share of
            student rows that the other view shows, too) and ``feat_std`` (standard deviation of
            the teacher's projections, mean over channels: near 1/sqrt(D) is healthy, 0 is
            collapse).
        """
        views = read_views(batch, self.min_visible, self.backbone_keys)
        if views.num_scenes:
            first, second = (
                long_clouds_named(batch[f"{v}_grid_coord"], batch[f"{v}_offset"], batch.get("name"))
                for v in VIEWS
            )
            with first, second:
                matched = self._embed_and_match(views, batch)
        else:
            matched = self._match_nothing(views.clouds)

        if self.observer is not None:  # a monitor looks at this batch
            self.observer(matched._replace(student=matched.student.detach()), views)
        student, teacher, same_view, cross_view = matched
        same, cross = (
            torch.stack(
                [self.pair_loss(student[p.student], teacher[p.teacher], p.scene) for p in view]
            ).sum()
            for view in (same_view, cross_view)
        )
        seen_twice = sum(len(pairs.student) for pairs in cross_view) / max(1, len(student))
        feat_std = teacher.std(dim=0, correction=0).mean() if len(teacher) else same.new_zeros(())
        return {
            "loss": 0.5 * same + 0.5 * cross,
            "same_view_loss": same.detach(),
            "cross_view_loss": cross.detach(),
            "cross_matched": same.new_full((), seen_twice),
            "feat_std": feat_std,
        }

    def embed(
        self, branch: nn.ModuleDict, clouds: Clouds, num_clouds: int
    ) -> tuple[Tensor, Tensor]:
        """Project packed clouds with a branch.

        Args:
            branch: ``self.student`` or ``self.teacher``.
            clouds: N points; with mask tokens the student's get the token where not visible.
            num_clouds: Clouds, each with at least one point.

        Returns:
            Unit projections (R, D) and the row of each point (N,).
        """
        inputs = {
            "coord": clouds.coord,
            "grid_coord": clouds.grid_coord,
            "feat": clouds.feat,
            "offset": clouds.offset(num_clouds),
            **clouds.extra,
        }
        if branch is self.student and self.student_input == "mask_token":
            inputs["mask"] = ~clouds.visible
        feat, inverse, row_of_point = row_levels(
            branch["backbone"](inputs), len(clouds.coord), self.up_cast_level
        )
        channels = sum(level.shape[1] for level in feat)
        if channels != self.backbone_out_channels:
            raise ValueError(
                f"backbone_out_channels={self.backbone_out_channels}, but the backbone's features "
                f"have {channels} channels with up_cast_level={self.up_cast_level}"
            )
        return branch["head"](*feat, inverse=inverse), row_of_point

    def pair_loss(self, student: Tensor, teacher: Tensor, scene: Tensor) -> Tensor:
        """The target: loss of matched rows of one view, of all scenes of the batch.

        A step has four of them: both views against the same view, and against the other one. A
        subclass with another target overrides this method (docs/extending.md).

        Args:
            student: (M, D) unit projections; M may be 0 on any rank.
            teacher: (M, D) unit projections of the same places, without gradient.
            scene: (M,) int64 scene in the batch, rising.

        Returns:
            Scalar with a graph, also for M = 0. The mean over ranks is what trains.
        """
        if self.target == "regression":
            return regression_loss(student, teacher)
        weight = self.student["prototypes"]()
        target = self.teacher["prototypes"]() if "prototypes" in self.teacher else weight
        args = (student, teacher, weight, target.detach(), self.sinkhorn)
        temps = (self.student_temp, self.teacher_temp)
        if self.target == "clustering":
            return clustering_loss(*args, *temps)
        offset = None
        if self.sinkhorn.scope == "cloud":
            offset = torch.bincount(scene).cumsum(0)
        return softmap_loss(*args, *temps, offset=offset, block_size=self.block_size)

    def _embed_and_match(self, views: Views, batch: dict) -> Matched:
        """Projections of student and teacher, and their matched rows."""
        clouds, num_scenes, num_visible = views
        if self.student_input == "visible":
            seen = true_positions(clouds.visible, num_visible)
        else:
            seen = torch.arange(len(clouds.visible), device=clouds.visible.device)
        student_clouds = clouds.select(seen)
        in_partner = find_points(
            student_clouds.point_id, views.partner[seen], clouds.point_id, clouds.cloud
        )
        if self.mask_jitter is not None:
            student_clouds = jitter_masked(student_clouds, self.mask_jitter, batch)

        with torch.no_grad():
            teacher, teacher_row = self.embed(self.teacher, clouds, 2 * num_scenes)
        student, student_row = self.embed(self.student, student_clouds, 2 * num_scenes)

        cloud = seen.new_empty(len(student)).scatter_(0, student_row, student_clouds.cloud)
        first = cloud < num_scenes
        same_view, cross_view = (
            match_rows(student_row, len(student), teacher_point, teacher_row)
            for teacher_point in (seen, in_partner)
        )
        matched = [(t, (t >= 0) & v) for t in (same_view, cross_view) for v in (first, ~first)]
        counts = torch.stack([mask for _, mask in matched]).sum(dim=1).tolist()  # waits
        rows = [true_positions(mask, count) for (_, mask), count in zip(matched, counts)]
        pairs = [Pairs(s, t[s], cloud[s] % num_scenes) for (t, _), s in zip(matched, rows)]
        return Matched(student, teacher, pairs[:2], pairs[2:])

    def _match_nothing(self, clouds: Clouds) -> Matched:
        """No pair, but a graph: the other ranks wait in their collectives for one without scenes.

        Those of the loss and of the gradients need no point. Synchronized norms of the backbone do:
        it is run on a stand-in, of which no row is kept. One point a cloud, since it enters the
        statistics of all ranks.
        """
        if any(isinstance(module, nn.SyncBatchNorm) for module in self.student.modules()):
            student = self.embed(self.student, one_point_clouds(clouds), 2)[0][:0]
        else:
            anchor = torch.stack([p.sum() * 0 for p in self.student.parameters()]).sum()
            student = anchor.float() + anchor.new_zeros(0, self.head_channels)
        none = Pairs(*[torch.zeros(0, dtype=torch.long, device=student.device)] * 3)
        return Matched(student, student.detach(), [none] * 2, [none] * 2)
