"""Folders for the Hub: features, model card, what is said of bad ones; a download from a server."""

import json
import os
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

pytest.importorskip("spconv")
pytest.importorskip("torch_pointcloud")
pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")

import huggingface_hub

import dos_plugin
from dos_plugin.commands.export import export, write_hub
from dos_plugin.runs.hub import CARD, CONFIG, WEIGHTS, find
from dos_plugin.runs.run import open_run
from tests.exported_runs import BACKBONES, make_run
from tests.tiny_run import write_run, write_scans

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    write_scans(root / "data", "train", 1)
    run = open_run(write_run(root / "run", root / "data"))
    content = torch.load(run.checkpoint)
    torch.save(content | dict(scheduler=dict(last_epoch=1234)), run.checkpoint)
    entry = dict(miou=12.34, accuracy=56.78)
    probe = {"student": dict(entry, knn=dict(miou=9.87)), "random": dict(entry, miou=4.56)}
    val = dict(place=str(root / "data/val"), scans=7)
    (root / "run/probe.json").write_text(json.dumps(dict(probe=probe, val=val)))
    write_hub(run, export(run, "hub"), root / "hub")
    return root


def features(source, root, branch=None):
    encoder = dos_plugin.load(source, branch)
    return encoder(encoder.read(root / "data/train/scan-0")).per_voxel


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_folder_gives_the_features_of_the_run(kind, root, tmp_path):
    run = make_run(tmp_path / "run", BACKBONES[kind])
    write_hub(run, export(run, "hub", "teacher"), tmp_path / "hub")
    expected = features(tmp_path / "run", root, "teacher")
    assert torch.equal(features(tmp_path / "hub", root), expected)
    assert torch.equal(features(str(tmp_path / "hub"), root, "teacher"), expected)
    with pytest.raises(ValueError, match=r"holds no 'student' backbone \(exported\)"):
        dos_plugin.load(tmp_path / "hub", "student")


def test_training_and_inputs_survive(root):
    run, hub = dos_plugin.load(root / "run"), dos_plugin.load(root / "hub")
    assert hub.training == run.training
    assert str(hub.training) == (
        "DefaultDataset of data, split train, 1,234 steps, 1 epochs (DOS pretraining)"
    )
    assert (hub.inputs, hub.feat_keys, hub.grid_size) == (run.inputs, run.feat_keys, run.grid_size)


def test_the_card_says_what_the_run_knows(root):
    card = huggingface_hub.ModelCard.load(root / "hub" / CARD)
    assert card.data.library_name == "dos-plugin" and card.data.license_name == "to-fill-in"
    for line in (
        "# PT-v3m2, pretrained with DOS",
        "| `strength` | (N, 1), intensity of the return, 0 to 1 |",
        "The backbone sees strength, height of voxels of 0.5 m; a feature has 48 numbers.",
        "| what | DOS pretraining, weights of the student |",
        "| data | DefaultDataset of data, split train |",
        "| steps | 1,234 |",
        "| these (student) | 12.3 | 56.8 | 9.9 |",
        "| random weights | 4.6 | 56.8 | - |",
        "Percent. 7 scans of data/val.",
    ):
        assert line in card.text, line
    assert str(root) not in card.text + (root / "hub" / CONFIG).read_text()


def test_the_probe_of_the_hook_counts_for_its_epoch_and_branch(root, tmp_path):
    def card(branch, epoch):
        run = make_run(tmp_path / "run", BACKBONES["m2"])
        run.config.hooks = [dict(type="OnlineProbe")]
        scores = dict(miou=1.0, accuracy=2.0)
        history = [
            dict(epoch=e, linear=dict(scores, miou=10.0 + e), knn=scores) for e in (0, epoch)
        ]
        (tmp_path / "run/probe.json").write_text(json.dumps(history))
        write_hub(run, export(run, "hub", branch), tmp_path / "hub", overwrite=True)
        return (tmp_path / "hub" / CARD).read_text()

    text = card("student", 3)
    assert "| these (student), epoch 3 | 13.0 | 2.0 | 1.0 |" in text
    assert "| before training | 10.0 |" in text
    for branch, epoch in (("teacher", 3), ("student", 2)):
        assert "No probe is recorded" in card(branch, epoch)
    (tmp_path / "run/probe.json").write_text("[1")
    run = open_run(tmp_path / "run")
    with pytest.raises(ValueError, match=r"probe.json: is no probe as OnlineProbe"):
        write_hub(run, export(run, "hub"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_files_are_not_lost(root, tmp_path):
    run = open_run(root / "run")
    (tmp_path / CARD).write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds README.md already; .* --overwrite"):
        write_hub(run, export(run, "hub"), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [CARD]
    write_hub(run, export(run, "hub"), tmp_path, overwrite=True)
    assert (tmp_path / CARD).read_text() != "mine"


@pytest.mark.parametrize(
    "name, text, message",
    [
        (WEIGHTS, b"x" * 100, "model.safetensors: truncated or no safetensors file"),
        (CONFIG, b"{", "config.json: truncated or no JSON file"),
        (CONFIG, b'{"model_type": "bert"}', "config.json: is of something else than dos-plugin"),
    ],
)
def test_bad_folders_are_named(root, tmp_path, name, text, message):
    for file in (CONFIG, WEIGHTS):
        (tmp_path / file).write_bytes((root / "hub" / file).read_bytes())
    (tmp_path / name).write_bytes(text)
    with pytest.raises(ValueError, match=message):
        dos_plugin.load(tmp_path)


def test_paths_are_not_looked_for_on_the_hub(monkeypatch, tmp_path):
    def forbidden(*args, **kwargs):
        raise AssertionError("asked the Hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", forbidden)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner/name").mkdir(parents=True)
    for path in ("owner/name", "model/model_last.pth", "./a/b", "/a/b", "a/b/c", tmp_path / "x"):
        assert str(find(path)) == os.path.normpath(path)


def test_without_the_library_a_wrong_path_is_a_wrong_path(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match=r"exp/none: no such path here; if it is a repo"):
        dos_plugin.load("exp/none")


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a download asks for."""

    def __init__(self, folder, *args):
        self.folder = folder
        super().__init__(*args)

    def do_GET(self):
        path = self.path.partition("?")[0]
        files = {file.name: file.read_bytes() for file in self.folder.iterdir()}
        if path.startswith("/api/models/owner/name/revision/"):
            siblings = [{"rfilename": name} for name in files]
            self.answer(json.dumps(dict(id="owner/name", sha=SHA, siblings=siblings)).encode())
        elif path.startswith("/api/models/owner/name/tree/"):
            tree = [dict(type="file", oid=n, size=len(c), path=n) for n, c in files.items()]
            self.answer(json.dumps(tree).encode())
        elif path.startswith(f"/owner/name/resolve/{SHA}/") and path.rpartition("/")[2] in files:
            name = path.rpartition("/")[2]
            self.answer(files[name], {"ETag": f'"{name}"', "X-Repo-Commit": SHA})
        else:
            self.answer(b"{}", {"X-Error-Code": "RepoNotFound"}, 404)

    do_HEAD = do_GET

    def answer(self, body, headers=None, status=200):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


def test_a_repository_is_downloaded(root, tmp_path):
    """In another process, which also shows that features are bitwise the same there."""
    code = """
import sys, torch, dos_plugin
encoder = dos_plugin.load("owner/name")
torch.save(encoder(encoder.read(sys.argv[1])).per_voxel, sys.argv[2])
try:
    dos_plugin.load("owner/other")
except FileNotFoundError as error:
    print(error)
"""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, root / "hub"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        variables = dict(
            os.environ,
            HF_HOME=str(tmp_path / "home"),
            HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}",
        )
        command = [sys.executable, "-c", code, root / "data/train/scan-0", tmp_path / "a.pt"]
        done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)
    finally:
        server.shutdown()
    assert done.returncode == 0, done.stderr[-2000:]
    assert torch.equal(torch.load(tmp_path / "a.pt"), features(root / "run", root))
    assert "owner/other: no such path here, and no repository of that name" in done.stdout
