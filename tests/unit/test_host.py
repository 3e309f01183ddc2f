"""Which host is chosen, and what is said where it cannot be used."""

import pickle
import sys

import pytest

from dos_plugin import host, register


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes modules of a made-up host and makes them importable."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, **modules):
        for dotted, code in {"": "", **modules}.items():
            folder = tmp_path.joinpath(name, *filter(None, dotted.split("__")))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "__init__.py").write_text(code)

    yield write
    for name in [m for m in sys.modules if m.partition(".")[0] in ("old_zoo", "new_zoo")]:
        del sys.modules[name]


def test_host_not_found():
    with pytest.raises(ImportError, match=r"'no_such_zoo' not found: .*set DOS_HOST to the name"):
        host.load("no_such_zoo")


@pytest.mark.parametrize(
    ("modules", "missing"),
    [
        ({}, "models.builder.MODELS"),
        (dict(models="", models__builder="MODELS = MODULES = None"), "datasets.transform"),
        (dict(models="", models__builder="MODELS = None"), "models.builder.MODULES"),
    ],
)
def test_host_too_old(package, modules, missing):
    package("old_zoo", **modules)
    message = rf"host 'old_zoo' has no {missing}.*; dos-plugin needs Pointcept v1.6.0 or newer"
    with pytest.raises(ImportError, match=message):
        host.load("old_zoo")


def test_a_dependency_of_the_host_is_named(package):
    package("old_zoo", models="import no_such_dependency")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        host.load("old_zoo")


def test_choice_of_host(package, monkeypatch):
    package("pointcept")
    monkeypatch.setenv("DOS_HOST", "my_fork")
    assert host._choose() == "my_fork"
    monkeypatch.setenv("DOS_HOST", "")
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    sys.modules["dos_plugin.minihost"] = host
    assert host._choose() == "minihost"  # imported already
    sys.modules["pointcept"] = host
    assert host._choose() == "pointcept"
    del sys.modules["pointcept"], sys.modules["dos_plugin.minihost"]
    assert host._choose() == "pointcept"  # can be imported
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert host._choose() == "minihost"


def test_registering_again_changes_nothing_and_a_taken_name_is_an_error(monkeypatch):
    registry = host.HOST.TRANSFORMS.module_dict
    before = dict(registry)
    register.register()
    assert registry == before
    monkeypatch.setitem(registry, "Height", dict)
    message = (
        r"'Height' in TRANSFORMS of host .* is taken by builtins.dict, "
        r"cannot register dos_plugin.transforms.views.Height"
    )
    with pytest.raises(KeyError, match=message):
        register.register()


@pytest.mark.parametrize("names", [["dos_plugin.register", "new_zoo.wombat"], "new_zoo.wombat"])
def test_unpickling_a_config_imports_what_it_names(package, names):
    """As in a child that a host spawns, which never reads the config file."""
    package("new_zoo", wombat="")
    config = host.HOST.Config(dict(custom_imports=dict(imports=names)))
    pickled = pickle.dumps(config)
    assert "new_zoo.wombat" not in sys.modules
    assert pickle.loads(pickled).custom_imports == config.custom_imports
    assert "new_zoo.wombat" in sys.modules


@pytest.mark.parametrize("allowed", [False, True])
def test_a_named_module_that_is_lacking_is_an_error_unless_allowed(allowed):
    imports = dict(imports=["no_such_zoo"], allow_failed_imports=allowed)
    pickled = pickle.dumps(host.HOST.Config(dict(custom_imports=imports)))
    if allowed:
        assert pickle.loads(pickled).custom_imports.allow_failed_imports
    else:
        with pytest.raises(ModuleNotFoundError, match="no_such_zoo"):
            pickle.loads(pickled)
