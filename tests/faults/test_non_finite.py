"""A loss that is no number, in a training on a host: told, left out, and no mean is spoilt."""

import json
import re

import pytest
from runs import HOSTS, Run


@pytest.mark.parametrize("host", HOSTS)
def test_steps_without_a_finite_loss_are_left_out(tmp_path, survived, host):
    run = Run(tmp_path, host, options=["model.poison=[1,6]"])
    output = run.train()
    told = [line for line in output.splitlines() if "the step is left out" in line]
    places = [(0, 1), (1, 2)]
    assert len(told) == 2
    for line, place in zip(told, places):
        assert all(name in line for name in run.by_place()[place]["names"])
    means = re.findall(r"Train result: .*?loss: (\S+)", output)
    assert len(means) == 3 and "nan" not in means
    survived(f"loss is NaN, {host}", 2)


@pytest.mark.parametrize("host", HOSTS)
def test_too_many_in_a_row_end_the_run_with_advice(tmp_path, host):
    run = Run(tmp_path, host, options=["model.poison=[4,5,6,7]"])
    output = run.train(status=1)
    assert "3 steps in a row without finite gradients" in output
    assert "optimizer.lr" in output and len(run.lines()) == 6


def test_all_ranks_leave_out_the_step_of_one(tmp_path, survived):
    """Rank 1 alone has no number; its scenes are named, and both go on with the same weights."""
    options = ["batch_size=4", "model.poison=[1]", "model.poisoned=1"]
    run = Run(tmp_path, options=options)
    output = run.train(num_gpus=2)
    told = [line for line in output.splitlines() if "the step is left out" in line]
    ranks = [
        [json.loads(line) for line in (run.path / name).read_text().splitlines()]
        for name in ("losses.jsonl", "losses1.jsonl")
    ]
    assert len(told) == 1 and all(name in told[0] for name in ranks[1][1]["names"])
    assert not any(name in told[0] for name in ranks[0][1]["names"])
    assert ranks[1][1]["loss"] is None and ranks[0][1]["loss"] is not None
    assert len(ranks[0]) == len(ranks[1]) == 6
    assert ranks[0][0]["weight"] == ranks[0][1]["weight"] != ranks[0][2]["weight"]
    assert [line["weight"] for line in ranks[0]] == [line["weight"] for line in ranks[1]]
    survived("loss is NaN on one rank of two")
