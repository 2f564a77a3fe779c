"""What is released: the wheels, how they are tested, and who may publish them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WHEELS: dict[str, Any] = PROJECT["tool"]["cibuildwheel"]

PYTHONS = ("cp311", "cp312", "cp313", "cp314", "cp314t", "cp315", "cp315t")
ARCHITECTURES = {"linux": ("x86_64", "aarch64"), "macos": ("x86_64", "arm64")}
SYSTEMS = {"linux": ("manylinux", "musllinux"), "macos": ("macosx",)}
# What runs each of them natively.
RUNNERS = {
    ("linux", "x86_64"): "ubuntu-24.04",
    ("linux", "aarch64"): "ubuntu-24.04-arm",
    ("macos", "x86_64"): "macos-15-intel",
    ("macos", "arm64"): "macos-15",
}
MACHINES = [*RUNNERS]


def workflow(name: str) -> dict[str, Any]:
    """Return one of the workflows."""
    path = ROOT / ".github" / "workflows" / name
    # As text: "on" is a truth value in YAML 1.1.
    loaded: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    return loaded


RELEASE = workflow("release.yml")


@pytest.mark.parametrize(("platform", "architecture"), MACHINES)
def test_there_is_a_wheel_for_each_python_on_each_system(platform: str, architecture: str) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "cibuildwheel", "--print-build-identifiers"),
            *("--platform", platform, "--archs", architecture),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = {
        f"{python}-{system}_{architecture}"
        for python, system in product(PYTHONS, SYSTEMS[platform])
    }
    built = done.stdout.split()
    assert len(built) == len(expected)
    assert set(built) == expected


def test_every_machine_has_its_job() -> None:
    assert WHEELS["archs"] == ["native"]
    matrix = RELEASE["jobs"]["wheels"]["strategy"]["matrix"]
    assert sorted(matrix["os"]) == sorted(RUNNERS.values())


def test_the_pythons_are_those_that_are_supported() -> None:
    prefix = "Programming Language :: Python :: 3."
    named = [text for text in PROJECT["project"]["classifiers"] if text.startswith(prefix)]
    assert [f"cp3{text.removeprefix(prefix)}" for text in named] == [
        python for python in PYTHONS if not python.endswith("t")
    ]
    assert PROJECT["project"]["requires-python"] == ">=3.11"


def test_every_wheel_is_tested_as_it_is_installed_with_its_compiled_module() -> None:
    assert WHEELS["environment"] == {"LAHJA_BUILD_EXTENSION": "yes"}
    assert WHEELS["test-environment"] == {"LAHJA_FRAMING": "cython", "PYTHON_GIL": "1"}
    assert WHEELS["test-extras"] == ["test"]
    assert WHEELS["test-command"].startswith("python -P -m pytest ")
    # No setting may take a part of them out.
    assert not {"skip", "test-skip", "overrides"} & WHEELS.keys()
    assert all(not isinstance(value, dict) or "env" in key for key, value in WHEELS.items())


def test_free_threading_is_not_claimed() -> None:
    """See tests/test_threads.py for what would have to hold."""
    assert "freethreading_compatible" not in (ROOT / "lahja" / "_framing.pyx").read_text()
    assert not any("Free Threading" in text for text in PROJECT["project"]["classifiers"])


def test_what_the_tests_need_is_there_and_nothing_that_hides_the_wheel() -> None:
    sources = WHEELS["test-sources"]
    assert {"tests", "examples", "README.md", "pyproject.toml"} <= set(sources)
    assert not {"lahja", "setup.py", "."} & set(sources)
    assert all((ROOT / name).exists() for name in sources)


def test_the_pure_wheel_is_really_pure_and_tested_without_the_checkout() -> None:
    steps = RELEASE["jobs"]["pure"]["steps"]
    (build,) = [step for step in steps if step.get("name") == "Build both"]
    assert build["env"] == {"LAHJA_BUILD_EXTENSION": "no"}
    assert "-py3-none-any.whl" in build["run"]
    (test,) = [step for step in steps if step.get("name", "").startswith("Test the wheel")]
    assert test["env"] == {"LAHJA_FRAMING": "python"}
    assert "rm -r lahja " in test["run"]
    assert steps.index(test) < len(steps) - 1
    assert steps[-1]["with"]["name"] == "dist-pure"


def test_only_publishing_may_publish_and_only_what_all_jobs_have_built() -> None:
    assert RELEASE["permissions"] == {}
    jobs = RELEASE["jobs"]
    publish = jobs.pop("publish")
    assert publish["permissions"] == {"id-token": "write"}
    assert sorted(publish["needs"]) == sorted(jobs)
    assert publish["if"] == "github.event_name == 'push' && github.ref_type == 'tag'"
    assert RELEASE["on"]["push"] == {"tags": ["v*"]}
    assert not any("run" in step for step in publish["steps"])  # nothing of ours runs with it
    assert "password" not in str(publish)
    for job in jobs.values():
        assert job["permissions"] == {"contents": "read"}
        assert "timeout-minutes" in job


@pytest.mark.parametrize(
    "path", [*(ROOT / ".github" / "workflows").iterdir()], ids=lambda p: p.name
)
def test_actions_are_pinned_to_a_commit_with_its_version_beside_it(path: Path) -> None:
    used = re.findall(r"uses: *(.+)", path.read_text(encoding="utf-8"))
    assert used
    for action in used:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_one_version_of_an_action_is_used_everywhere() -> None:
    texts = [path.read_text() for path in (ROOT / ".github" / "workflows").iterdir()]
    used = {action for text in texts for action in re.findall(r"uses: *(.+)", text)}
    assert len(used) == len({action.partition("@")[0] for action in used})
