"""The files of a release say the same as the code: version, pinned tools, commands."""

import itertools
import re
import shlex
from pathlib import Path

import pytest

from dos_plugin import __version__, cli
from tests import smoke

yaml = pytest.importorskip("yaml", reason="needs the extra 'demo'")

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TEMPLATES = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="needs the source tree")


def read(place: str) -> str:
    return (ROOT / place).read_text()


def test_changelog_knows_the_version():
    versions = re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert versions[:2] == ["Unreleased", __version__]


def test_citation():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == __version__
    assert citation["license"] == "MIT" and read("LICENSE").startswith("MIT License")
    paper = citation["preferred-citation"]
    assert paper["title"] in " ".join(read("docs/method.md").split()).replace('"', "").replace(
        "Distilling", "DOS: Distilling", 1
    )
    number = paper["url"].rpartition("/")[2]
    assert paper["identifiers"] == [{"type": "other", "value": f"arXiv:{number}"}]
    assert number in read("README.md")


def test_pre_commit_runs_the_pinned_ruff():
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert f"ruff=={repository['rev'].removeprefix('v')}\n" in read("constraints.txt")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_what_there_is(path):
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE))
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    steps = [step for job in jobs for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands
    matrices = [job["strategy"]["matrix"] for job in jobs if "strategy" in job]
    rows = [row["options"] for matrix in matrices for row in matrix["include"]]
    for command, options in itertools.product(commands, ["", *rows]):
        words = shlex.split(command.replace("${{ matrix.options }}", options))
        if words[0] == "make":
            assert set(words[1:]) <= targets
        elif words[0] == "python":
            assert words[1] == "tests/smoke.py"
            smoke.make_parser().parse_args(words[2:])
    for step in steps:
        assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v1)", step["uses"])


def test_only_a_release_is_published():
    jobs = yaml.safe_load(read(".github/workflows/wheels.yml"))["jobs"]
    publish = jobs["publish"]
    assert publish["if"] == "github.event_name == 'release'"
    assert publish["permissions"] == {"id-token": "write"}
    assert "secrets" not in read(".github/workflows/wheels.yml")
    assert jobs[publish["needs"]]["needs"] == "build"


def test_reports_of_bugs_come_with_the_doctor():
    assert {path.stem for path in TEMPLATES} == {"bug", "config", "wish"}
    fields = {field.get("id"): field for field in yaml.safe_load(TEMPLATES[0].read_text())["body"]}
    _, command, *arguments = shlex.split(fields["doctor"]["attributes"]["label"].strip("`"))
    assert cli.command_parser(command).parse_args(arguments).json == "-"
    assert fields["doctor"]["validations"]["required"] is True
