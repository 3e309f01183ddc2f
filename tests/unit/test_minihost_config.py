"""Command line, config files and registries of the embedded host."""

import argparse

import pytest

from dos_plugin.minihost.config import (
    REQUIRED_KEYS,
    Config,
    add_arguments,
    config_text,
    load_config,
    setup_config,
)
from dos_plugin.minihost.registry import HostRegistry

TEXT = """
weight = None
resume = False
evaluate = False
seed = 7
save_path = "run"
num_worker = 3
batch_size = 4
gradient_accumulation_steps = 1
batch_size_val = 2
batch_size_test = None
epoch = 6
eval_epoch = 2
clip_grad = None
sync_bn = False
enable_amp = False
amp_dtype = "bfloat16"
empty_cache = False
empty_cache_per_epoch = False
find_unused_parameters = False
enable_wandb = False
mix_prob = 0
param_dicts = None
model = dict(type="M")
optimizer = dict(type="AdamW", lr=0.1)
scheduler = dict(type="OneCycleLR")
data = dict(train=dict(type="D", pair=(1, 2)))
hooks = [dict(type="A", keywords=""), dict(type="B")]
train = dict(type="DefaultTrainer")
"""


@pytest.fixture
def write(tmp_path):
    def write_config(text=TEXT):
        path = tmp_path / "config.py"
        path.write_text(text)
        return str(path)

    return write_config


def arguments(text):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(text)


def parse(*options):
    return arguments(["--config-file", "c.py", "--options", *options]).options


@pytest.mark.parametrize(
    "text, value",
    [
        ("3", 3),
        ("1e-3", 0.001),
        ("true", True),
        ("False", False),
        ("None", None),
        ("text", "text"),
        ("a=b", "a=b"),
        ("1,2", [1, 2]),
        ("[a, b]", ["a", "b"]),
        ("(1,2.5)", (1, 2.5)),
        ("[(1,2),[x]]", [(1, 2), ["x"]]),
    ],
)
def test_option_values(text, value):
    parsed = parse(f"key={text}")["key"]
    assert parsed == value and type(parsed) is type(value)


def test_several_options_and_bad_ones(capsys):
    assert parse("a=1", "b.c=x") == {"a": 1, "b.c": "x"}
    for bad in ("a", "=1"):
        with pytest.raises(SystemExit):
            parse(bad)
        assert "key=value" in capsys.readouterr().err


def test_arguments_of_the_host():
    args = arguments("--config-file c.py --num-gpus 2".split())
    assert (args.config_file, args.num_gpus, args.options) == ("c.py", 2, None)


def test_load_config_merges_options_and_sets_the_loop(write):
    cfg = load_config(write(), {"hooks.0.keywords": "x", "model.depth": 3, "epoch": 8})
    assert cfg.hooks[0] == dict(type="A", keywords="x") and cfg.hooks[1].type == "B"
    assert cfg.model == dict(type="M", depth=3)
    assert cfg.data.train.loop == 4


def test_a_dash_may_stand_for_a_folder(write, tmp_path, monkeypatch):
    (tmp_path / "nu").mkdir()
    (tmp_path / "nu/dos-base.py").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    assert load_config("nu-dos-base.py").seed == 7


def test_a_seed_is_drawn_and_kept(write):
    first, second = (load_config(write(), {"seed": None}).seed for _ in range(2))
    assert first != second and 0 <= first < 2**32


@pytest.mark.parametrize("key", REQUIRED_KEYS)
def test_missing_keys_are_named(write, key):
    lines = [line for line in TEXT.splitlines() if not line.startswith(f"{key} = ")]
    with pytest.raises(KeyError, match=f"lacks the keys {key}"):
        load_config(write("\n".join(lines)))


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"epoch": 5}, ValueError, r"epoch \(5\) must be a multiple of eval_epoch \(2\)"),
        ({"batch_size": 0}, ValueError, "batch_size must be .* got 0"),
        ({"batch_size": 2.5}, ValueError, "batch_size .* got 2.5"),
        ({"seed": -1}, ValueError, "seed must be .* got -1"),
        ({"num_worker": -1}, ValueError, "num_worker must be .* got -1"),
        ({"mix_prob": 80}, ValueError, "mix_prob must be .* from 0 to 1, got 80"),
        ({"amp_dtype": "half"}, ValueError, "amp_dtype .* got 'half'"),
        ({"hooks.5.type": "A"}, ValueError, "hooks.5.type"),
        ({"hooks.x": 1}, ValueError, "hooks.x"),
        ({"model": 3}, ValueError, "model"),
        ({"weight": "none.pth"}, FileNotFoundError, "weight: .* 'none.pth'"),
        ({"resume": True}, ValueError, "resume=True needs"),
    ],
)
def test_bad_values_are_named(write, options, error, message):
    with pytest.raises(error, match=message):
        load_config(write(), options)


def test_missing_config_file_and_failed_import(write):
    with pytest.raises(FileNotFoundError, match=r"--config-file: .* 'gone.py'"):
        load_config("gone.py")
    imports = 'custom_imports = dict(imports=["no_such_module"], allow_failed_imports=False)\n'
    with pytest.raises(ImportError, match="no_such_module"):
        load_config(write(imports + TEXT))


def test_setup_fills_in_what_a_process_needs(write):
    cfg = setup_config(load_config(write()))
    assert cfg.num_worker_per_gpu == 3
    assert (cfg.batch_size_per_gpu, cfg.batch_size_val_per_gpu) == (4, 2)
    assert cfg.batch_size_test_per_gpu == 1


def test_config_text_reads_back(write, tmp_path):
    cfg = load_config(write(), {"model.name": "it's", "model.path": "a\\b", "model.n": None})
    path = tmp_path / "again.py"
    path.write_text(config_text(cfg))
    assert Config.fromfile(path)._cfg_dict == cfg._cfg_dict
    assert cfg.data.train.pair == (1, 2)


@pytest.mark.parametrize("value", [float("inf"), [float("nan")], len, object()])
def test_what_cannot_be_written_is_named(write, value):
    cfg = load_config(write())
    cfg.model = dict(type="M", value=value)
    with pytest.raises(ValueError, match="because of model:"):
        config_text(cfg)


class Part:
    def __init__(self, size=1):
        if size > 3:
            raise ValueError("size is too large")
        self.size = size


class Fussy:
    def __init__(self):
        raise UnicodeDecodeError("utf-8", b"x", 0, 1, "why")


def test_registry_builds_and_suggests():
    registry = HostRegistry("parts")
    registry.register_module("Part-v1")(Part)
    registry.register_module(name="Fussy", module=Fussy)
    assert registry.build(dict(type="Part-v1", size=2)).size == 2
    assert registry.build(dict(type=Part)).size == 1
    assert registry.get("Other") is None and "Part-v1" in registry and "Other" not in registry
    with pytest.raises(KeyError, match="Part-v2 is not in the parts registry .* Part-v1"):
        registry.build(dict(type="Part-v2"))
    with pytest.raises(ValueError, match="Part: size is too large"):
        registry.build(dict(type="Part-v1", size=4))
    with pytest.raises(ValueError, match="Fussy: .*why"):
        registry.build(dict(type="Fussy"))
    with pytest.raises(KeyError, match="no 'type'"):
        registry.build(dict(size=1))
    with pytest.raises(TypeError, match="must be a dict"):
        registry.build([1])


def test_registry_refuses_what_the_host_cannot_use():
    registry = HostRegistry("parts")
    with pytest.raises(ValueError, match="has no dot, got 'Part-v1.1'"):
        registry.register_module("Part-v1.1")(Part)
    with pytest.raises(TypeError, match="only classes"):
        registry.register_module("f")(len)
