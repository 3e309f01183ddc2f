"""A loss that is no number, in a training on a host: told, left out, and no mean is spoilt."""

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
