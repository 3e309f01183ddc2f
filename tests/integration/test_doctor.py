"""The doctor on the embedded host, without a host and with broken ones; rows of each check."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dos_plugin.commands import doctor
from dos_plugin.commands.doctor import step
from dos_plugin.commands.doctor.config_checks import config_rows
from dos_plugin.commands.doctor.detectors import detector_rows
from dos_plugin.commands.doctor.environment import spconv_row
from dos_plugin.commands.doctor.hosts import version
from dos_plugin.commands.doctor.inside import inside_rows
from dos_plugin.cpu.checkout import find_pointcept, run_on_host
from dos_plugin.host import active_host
from dos_plugin.shipped import config_path
from tests.tiny_run import write_config, write_scans

DEMO = "pretrain-dos-v1m1-9-demo"
WITH_CUDA = torch.cuda.is_available()


def ask(*arguments: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``dos-plugin doctor`` as typed, in a folder of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "dos_plugin.cli", "doctor", *map(str, arguments)],
        env={**os.environ, **env},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def row(text: str, item: str) -> str:
    """The line of the table about an item."""
    (line,) = [line for line in text.splitlines() if line[9:].startswith(item)]
    return line


def fake_host(root: Path, name: str, code: str) -> None:
    (root / name).mkdir()
    (root / name / "__init__.py").write_text(code)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """A small config whose data is there."""
    folder = tmp_path_factory.mktemp("doctor")
    write_scans(folder / "data", "train", 2)
    return write_config(folder / "run", folder / "data")


@pytest.fixture
def rows(config):
    """Rows about the small config after a change, as {item: row}."""

    def check(change=None, num_gpus=1, devices=0):
        cfg = active_host().Config.fromfile(str(config), lazy_import=False)
        if change:
            cfg.merge_from_dict(change)
        return {found.item: found for found in config_rows(cfg, num_gpus, devices)}

    return check


def test_a_config_that_can_run(config, tmp_path):
    done = ask("--config", config, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{config} can run here"
    assert "missing " not in done.stdout
    assert "embedded" in row(done.stdout, "host   ")
    assert "DOS-v1m1" in row(done.stdout, "registered names")
    assert row(done.stdout, "data.train").endswith("split train: 2 samples")
    assert torch.__version__ in row(done.stdout, "torch ")


def test_a_shipped_config_without_its_data(tmp_path):
    done = ask("--config", DEMO, cwd=tmp_path)
    assert done.returncode == 1
    assert row(done.stdout, "data.train").startswith("missing")
    assert "-> dos-plugin scenes data/dos-demo" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("cannot run here: 1 missing")


def test_wrong_usage(tmp_path):
    done = ask("--config", "no/such.py", cwd=tmp_path)
    assert done.returncode == 2 and "no file 'no/such.py'" in done.stderr
    done = ask("--num-gpus", 0, cwd=tmp_path)
    assert done.returncode == 2 and "--num-gpus must be at least 1" in done.stderr


def test_without_torch(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; from dos_plugin.cli import main; main(['doctor'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert row(done.stdout, "torch").startswith("missing")
    assert "-> pip install torch" in done.stdout


def test_json_for_a_report(config, tmp_path):
    done = ask("--config", config, "--json", cwd=tmp_path, DOS_HOST="minihost")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["config"] == str(config)
    assert content["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    table = ask("--config", config, "--json", "a.json", cwd=tmp_path, DOS_HOST="minihost").stdout
    for found in content["rows"]:
        assert f"{found['status']:<8} {found['item']:<17}" in table
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["versions"] == content["versions"]
    assert [row["item"] for row in written["rows"]] == [row["item"] for row in content["rows"]]


def test_host_not_found(config, tmp_path):
    done = ask("--config", config, cwd=tmp_path, DOS_HOST="my_fork")
    assert done.returncode == 1
    assert "no package 'my_fork'" in row(done.stdout, "host checkout")
    assert "-> correct DOS_HOST" in done.stdout


def test_no_config_is_no_verdict(tmp_path):
    done = ask(cwd=tmp_path, DOS_HOST="my_fork")
    assert done.returncode == 0
    assert "cannot run" not in done.stdout


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", "has no models.builder.MODELS; dos-plugin needs Pointcept v1.6.0 or newer"),
        ("import os; os._exit(139)", "the process ended with status 139"),
        ("import no_such_dependency", "brings 'no_such_dependency'"),
        ("raise RuntimeError('CUDA mismatch')", "RuntimeError: CUDA mismatch"),
    ],
    ids=["too old", "crash", "dependency", "exception"],
)
def test_broken_hosts_are_a_line_in_the_table(code, said, tmp_path):
    fake_host(tmp_path, "broken", code)
    (found,) = doctor._look_inside(doctor.Found("broken", tmp_path, False), 1, None)
    assert found.status == "missing" and found.item == "host import"
    assert said in found.found + found.mend


def test_a_name_taken_by_another_class(tmp_path):
    code = (
        "from dos_plugin.minihost import TRANSFORMS\n"
        "@TRANSFORMS.register_module('Height')\n"
        "class Theirs: pass\n"
        "from dos_plugin.commands.doctor.inside import main\n"
        "main(['1', '0'])\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "'Height' in TRANSFORMS of host 'minihost' is taken by __main__.Theirs" in done.stdout
    assert "rename that class" in done.stdout


def test_a_config_that_does_not_load(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("custom_imports = dict(imports=['no_such_plugin'])\n")
    *_, found = inside_rows(1, 0, str(path))
    assert (found.status, found.item) == ("missing", "config")
    assert "no_such_plugin" in found.found


# change of the config, item of the row, what it says, what mends it
CHANGES = [
    (dict(custom_imports=dict(imports=["json"])), "custom_imports", "lacks", "dos_plugin.register"),
    ({"model.backbone.type": "PT-v3m7"}, "names", "'PT-v3m7' in MODELS", ""),
    ({"hooks.1.type": "ModelHok"}, "names", "did you mean 'ModelHook'?", "correct the name"),
    ({"model.backbone.type": "LitePT-v1"}, "names", "'LitePT-v1' in MODELS", "run it in Pointcept"),
    ({"model.backbone.enable_flash": True}, "flash attention", "not installed", "enable_flash=Fa"),
    ({"epoch": 3, "eval_epoch": 2}, "epochs", "no multiple of eval_epoch=2", "eval_epoch=3"),
    ({"scheduler.max_lr": [0.1, 0.2]}, "learning rates", "2 entries for 1", ""),
    ({"weight": "no.pth"}, "weight", "no.pth: no such file", "weight="),
    ({"resume": True}, "weight", "resume=True without weight", "weight="),
    ({"mix_prob": 0.8}, "mix_prob", "cannot mix", "mix_prob=0"),
    ({"evaluate": True}, "evaluate", "no labels", "evaluate=False"),
    ({"hooks.1.type": "IterationTimer"}, "hooks", "never follow", "ModelHook"),
    ({"data.train.data_root": "nowhere"}, "data.train", "no such folder", "data_root=FOLDER"),
    ({"data.train.split": "val"}, "data.train", "no file or folder", "prepare"),
    ({"model.backbone.in_channels": 3}, "in_channels", "strength 1, height 1", "in_channels=2"),
    ({"model.up_cast_level": 3}, "model", "up_cast_level=3, but", "correct the model"),
    ({"model.backbone.mask_token": True}, "model", "contradicts student_input", ""),
    ({"data.train.transform.1.grid_size": None}, "transforms", "DefaultDataset: ", "correct"),
]


@pytest.mark.parametrize(("change", "item", "says", "mend"), CHANGES)
def test_what_keeps_a_config_from_running(rows, change, item, says, mend):
    found = rows(change)[item]
    assert found.status == "missing", found
    assert says in found.found and mend in found.mend


def test_a_key_that_collect_forgets(rows):
    found = rows({"data.train.transform.6.keys": ("view1_coord", "view2_coord", "grid_size")})
    assert found["batch keys"].status == "missing"
    assert "no view1_grid_coord, view1_point_id, view1_visible" in found["batch keys"].found


def test_a_class_derived_from_dos_is_checked_like_it(rows, monkeypatch):
    derived = type("Derived", (active_host().MODELS.get("DOS-v1m1"),), {})
    monkeypatch.setitem(active_host().MODELS.module_dict, "Derived", derived)
    found = rows({"model.type": "Derived", "mix_prob": 0.8})
    assert found["mix_prob"].status == "missing" and found["batch keys"].status == "ok"


def test_batch_and_gpus(rows):
    found = rows(dict(batch_size=10), num_gpus=4, devices=4)
    assert found["batch"].status == "missing" and "batch_size=8" in found["batch"].mend
    assert found["num_worker"].status == "warn"
    found = rows(dict(batch_size=12, num_worker=8), num_gpus=4, devices=2)
    assert found["batch"].status == "ok" and "num_worker" not in found
    assert found["GPUs"].status == "missing" and found["GPUs"].mend == "--num-gpus 2"


def test_find_unused_parameters_costs_time(rows):
    change = dict(find_unused_parameters=True, batch_size=2, num_worker=2)
    assert rows(change, num_gpus=2, devices=2)["find_unused_par."].status == "warn"
    assert "find_unused_par." not in rows(change)


def test_one_step_of_the_model(rows):
    found = rows()
    assert "one step on a made-up batch: loss" in found["model"].found and "unused" not in found


class HalfUsed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))

    def forward(self, batch):
        return dict(loss=(self.used * batch["feat"]).sum())


def test_parameters_without_gradient(monkeypatch):
    host = SimpleNamespace(build_model=lambda config: HalfUsed())
    monkeypatch.setattr(step, "HOST", host)
    samples = [dict(feat=torch.ones(3, 1), offset=torch.tensor([3]), name="a", grid_size=0.1)] * 2
    cfg = OneType(model=SimpleNamespace(type="DOS-v1m1"))
    for gpus, status in ((1, "warn"), (2, "missing")):
        model, unused = step.step_rows(cfg, samples, gpus)
        assert model.status == "ok" and "loss 6.000" in model.found
        assert unused.status == status and "(unused, ...)" in unused.found
    cfg["find_unused_parameters"] = True
    assert len(list(step.step_rows(cfg, samples, 2))) == 1


class OneType(dict):
    """A config with a model and whatever keys."""

    def __getattr__(self, name):
        return self[name]


def test_collate_counts_offsets_on():
    sample = dict(coord=torch.zeros(3, 3), view1_offset=torch.tensor([3]), name="a", grid_size=0.1)
    batch = step.collate([sample, sample])
    assert batch["view1_offset"].tolist() == [3, 6] and batch["coord"].shape == (6, 3)
    assert batch["name"] == ["a", "a"] and batch["grid_size"].dtype == torch.float64


def test_spunet_must_give_features(rows):
    backbone = {"_delete_": True, "type": "SpUNet-v1m1", "in_channels": 2, "num_classes": 16}
    assert "num_classes=0" in rows({"model.backbone": backbone})["backbone"].mend


@pytest.mark.parametrize(
    ("installed", "torch_cuda", "cuda", "status", "mend"),
    [
        ({"spconv": "2.3.8"}, None, False, "ok", ""),
        ({}, None, False, "missing", "pip install spconv"),
        ({}, "12.4", True, "missing", "pip install spconv-cu120"),
        ({"spconv-cu120": "2.3.8"}, "12.4", True, "ok", ""),
        ({"spconv-cu118": "2.3.8"}, "12.4", True, "missing", "uninstall -y spconv-cu118"),
        ({"spconv": "2.3.8"}, "12.4", True, "missing", "pip install spconv-cu120"),
        ({"spconv-cu120": "2.3.8"}, None, False, "warn", ""),
        ({"spconv": "2", "spconv-cu120": "2"}, "12.4", True, "warn", "pip install spconv-cu120"),
        ({}, "13.0", True, "missing", "a torch built for CUDA 12"),
    ],
)
def test_flavour_of_spconv(installed, torch_cuda, cuda, status, mend):
    found = spconv_row(installed, torch_cuda, cuda)
    assert found.status == status and mend in found.mend


def test_version_of_a_checkout(tmp_path):
    assert version(tmp_path) == ""
    (tmp_path / "README.md").write_text("v1.0-trainval; May: v1.5.2; March: v1.10.0; v1.6.1")
    assert version(tmp_path) == "v1.10.0 (by its README)"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    assert version(tmp_path) == "v1.10.0 (by its README)"
    subprocess.run([*git, "tag", "v1.6.0"], check=True)
    assert version(tmp_path) == "v1.6.0"


def test_an_old_checkout_is_refused(tmp_path):
    fake_host(tmp_path, "fork", "")
    (tmp_path / "README.md").write_text("v1.5.1")
    found = doctor.Found("fork", tmp_path, True)
    (_, checkout) = doctor.host_rows(found)
    assert checkout.status == "missing" and "older than v1.6.0" in checkout.found


def test_a_checkout_that_a_left_over_variable_hides(tmp_path, monkeypatch):
    fake_host(tmp_path, "pointcept", "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOS_HOST", "minihost")
    host, *_ = doctor.host_rows(doctor.find_host())
    assert host.status == "warn" and host.mend == "unset DOS_HOST"
    monkeypatch.delenv("DOS_HOST")
    found = doctor.find_host()
    assert found.real and found.name == "pointcept"


@pytest.mark.skipif(find_pointcept() is None, reason="no Pointcept checkout")
@pytest.mark.skipif(WITH_CUDA, reason="asks for the CPU runner")
def test_pointcept_checkout(config, tmp_path):
    done = ask("--config", config, cwd=tmp_path, DOS_HOST="pointcept")
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(find_pointcept()) in row(done.stdout, "host checkout")
    assert "DOS-v1m1" in row(done.stdout, "registered names")
    assert "stands in" in row(done.stdout, "torch-scatter")


@pytest.mark.skipif(find_pointcept() is None, reason="no Pointcept checkout")
@pytest.mark.skipif(WITH_CUDA, reason="nothing is filled in beside CUDA")
def test_pointcept_itself_says_less_about_a_config_that_forgets_to_register(tmp_path):
    text = config_path(DEMO).read_text().replace("custom_imports =", "forgotten =")
    (tmp_path / "config.py").write_text(text)
    done = ask("--config", "config.py", cwd=tmp_path, DOS_HOST="pointcept")
    assert done.returncode == 1
    assert row(done.stdout, "custom_imports").startswith("missing")
    options = ["--options", f"save_path={tmp_path / 'exp'}"]
    command = ["tools/train.py", "--config-file", tmp_path / "config.py", *options]
    trained = run_on_host(*command, env={"DOS_HOST": "", "OMP_NUM_THREADS": "1"})
    assert trained.returncode != 0
    assert "DOS-v1m1 is not in the models registry" in trained.stdout + trained.stderr


def test_hosts_of_detectors(tmp_path, monkeypatch):
    def rows():
        importlib.invalidate_caches()
        return {row.item: row for row in detector_rows()}

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "modules", {k: v for k, v in sys.modules.items() if k != "mmcv"})
    for name in ("mmdet3d", "mmcv", "pcdet"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    assert rows()["mmcv operators"].status == "warn" and rows()["OpenPCDet"].status == "warn"
    assert "not to train" in rows()["mmcv operators"].found
    (tmp_path / "mmcv/_ext.py").touch()
    assert rows()["mmcv operators"].status == "ok"


def test_options_are_those_of_the_training(config, tmp_path):
    root = tmp_path / "elsewhere"
    options = [f"data.train.data_root={root}", "batch_size=2"]
    done = ask("--config", config, "--options", *options, cwd=tmp_path)
    assert done.returncode == 1 and str(root) in row(done.stdout, "data.train")
    write_scans(root, "train", 3)
    done = ask("--config", config, "--options", *options, cwd=tmp_path)
    assert done.returncode == 0 and "split train: 3 samples" in " ".join(done.stdout.split())
    assert "2 scenes" in row(done.stdout, "batch  ")
    done = ask("--options", *options, cwd=tmp_path)
    assert done.returncode and "--options: change a config" in done.stderr


def test_labels_of_a_segmentation(config, rows):
    assert "labels" not in rows()
    classes = dict(num_classes=2, criteria=[dict(type="CrossEntropyLoss", ignore_index=-1)])
    found = rows(dict(model=classes))["labels"]
    assert found.status == "missing" and "expected 0 to 1 for num_classes=2" in found.found
    found = rows(dict(model=classes | dict(num_classes=100)))["labels"]
    assert found.status == "ok" and "classes of 100" in found.found
