"""What is published: the extras, the layer without tools, the image, the workflows, the SBOM."""

from __future__ import annotations

import email
import glob
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.skipif(
    not (ROOT / "Dockerfile").exists(), reason="only in the source tree"
)


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_extra_all_names_every_other():
    """But for the frameworks of adapters: who asks for all of efsstate gets no web framework."""
    extras = project()["project"]["optional-dependencies"]
    (everything,) = extras.pop("all")
    names = re.fullmatch(r"efsstate\[(.*)\]", everything)[1].split(",")
    frameworks = {
        "cachelib",
        "django",
        "dogpile",
        "durable",
        "flask",
        "fsspec",
        "joblib",
        "aiocache",
    }
    assert names == sorted(set(extras) - frameworks) and frameworks < set(extras)


def test_the_layer_needs_no_group_of_tools():
    """`make layer` on a fresh machine installs a builder, and neither tests nor linters."""
    done = subprocess.run(
        ["make", "--dry-run", "VENV=.no-venv", "layer"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "scripts/layer.py" in done.stdout and "--group" not in done.stdout


def test_the_workflow_tries_every_version_that_is_promised():
    workflow = (ROOT / ".github/workflows/test.yml").read_text()
    tried = re.findall(r'"(3\.\d+)"', re.search(r"python: \[(.*)\]", workflow)[1])
    promised = [
        kind.rpartition(" ")[2]
        for kind in project()["project"]["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", kind)
    ]
    assert tried == promised == ["3.11", "3.12", "3.13", "3.14"]


ADDRESS = "https://forge.example/owner/efsstate"
ON_THE_FORGE = {"GITHUB_SERVER_URL": "https://forge.example", "GITHUB_REPOSITORY": "owner/efsstate"}


def described(tmp_path, environment):
    """Return the metadata of a wheel that is built there: its fields, and its description."""
    known = {key: value for key, value in os.environ.items() if key not in ON_THE_FORGE}
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path]
    subprocess.run([*command, ROOT], check=True, capture_output=True, env=known | environment)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        message = email.message_from_string(archive.read(name).decode())
    return message, message.get_payload()


def test_a_wheel_that_is_built_here_has_the_readme_as_it_is(tmp_path):
    fields, text = described(tmp_path, {})
    assert text.strip() == (ROOT / "README.md").read_text().strip()
    assert fields.get_all("Project-URL") is None
    assert fields["Description-Content-Type"] == "text/markdown"


def test_a_release_has_absolute_links_and_addresses(tmp_path):
    """On the index no file lies beside the page, and efsstate is there."""
    fields, text = described(tmp_path, ON_THE_FORGE)
    addresses = dict(each.split(", ") for each in fields.get_all("Project-URL"))
    assert addresses["Homepage"] == ADDRESS and addresses["Issues"] == f"{ADDRESS}/issues"
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) > 25 and [each for each in targets if "://" not in each] == []
    version = project()["project"]["version"]
    files = [each.partition(f"/blob/v{version}/")[2] for each in targets if "/blob/" in each]
    assert files and all((ROOT / file).exists() for file in files)
    workflow = f"{ADDRESS}/actions/workflows/test.yml"
    assert text.split("\n")[2] == f"[![tests]({workflow}/badge.svg)]({workflow})"
    assert (ROOT / ".github/workflows/test.yml").exists()
    assert "pip install efsstate " in text and "pip install 'efsstate[cli]'" in text
    assert "not on PyPI" not in text and "pip install ." not in text and "<!--" not in text


@pytest.mark.heavy
def test_the_workflows_are_valid():
    workflows = glob.glob(f"{ROOT}/.github/workflows/*.yml")
    command = [sys.executable, "-m", "check_jsonschema"]
    command += ["--builtin-schema", "vendor.github-workflows"]
    assert len(workflows) == 2
    subprocess.run([*command, *workflows], check=True)


def copy_context(to):
    """Copy what the image's build is given: the lines of .dockerignore say which."""
    to.mkdir()
    first, *kept = (ROOT / ".dockerignore").read_text().split()
    assert first == "*"
    for line in kept:
        source = ROOT / line.removeprefix("!")
        target = to / line.removeprefix("!")
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)


@pytest.mark.heavy
def test_the_steps_of_the_image_make_the_command(tmp_path):
    """Its steps run in an environment of their own, because the base image is not at hand."""
    dockerfile_parse = pytest.importorskip("dockerfile_parse")
    copy_context(tmp_path / "source")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "python"], check=True)
    environment = os.environ | {"PATH": f"{tmp_path}/python/bin:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    steps = dockerfile_parse.DockerfileParser(str(ROOT / "Dockerfile")).structure
    last = {}
    for step in steps:
        last[step["instruction"]] = step["value"]
        if step["instruction"] == "RUN":
            command = re.sub(r"/(source|wheels)\b", rf"{tmp_path}/\1", step["value"])
            subprocess.run(["sh", "-ec", command], env=environment, check=True, cwd=tmp_path)
    assert last["USER"] == "1000:1000"
    command = json.loads(last["ENTRYPOINT"])
    assert not (tmp_path / "wheels").exists()
    for words in (json.loads(last["CMD"]), ["stat"]):
        (tmp_path / "root").mkdir(exist_ok=True)
        subprocess.run(
            [*command, *words],
            env=environment | {"EFSSTATE_ROOT": str(tmp_path / "root")},
            check=True,
            cwd=tmp_path,
        )


@pytest.mark.heavy
def test_the_list_of_components_names_what_is_installed(tmp_path):
    wheels = glob.glob(f"{ROOT}/dist/efsstate-*.whl")
    if not wheels:
        pytest.skip("no wheel in dist/")
    shutil.copy(wheels[0], tmp_path)
    command = [sys.executable, "scripts/sbom.py", "--out", tmp_path, "--extra", ""]
    subprocess.run(command, check=True, cwd=ROOT)
    (path,) = tmp_path.glob("*.cdx.json")
    listed = json.loads(path.read_text())
    assert listed["metadata"]["component"]["name"] == "efsstate"
    components = {component["name"]: component for component in listed["components"]}
    needed = [re.match(r"\w+", name)[0] for name in project()["project"]["dependencies"]]
    assert set(components) == set(needed)
    for name, component in components.items():
        assert component["purl"] == f"pkg:pypi/{name}@{component['version']}"
        assert component["licenses"]
