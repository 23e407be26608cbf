"""The AWS SAM command line accepts each project of `efsstate new`, and so does its linter."""

import os
import shutil
import subprocess
import sys

import pytest

from efsstate.cli import app

VARIANTS = [[], ["--cache"], ["--batch"], ["--model"], ["--training"]]
QUIET = {
    "SAM_CLI_TELEMETRY": "0",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
}
pytestmark = pytest.mark.heavy


@pytest.fixture(scope="session")
def sam(tmp_path_factory):
    """In an environment of its own: it pins the versions of all that it needs."""
    present = os.environ.get("SAM") or shutil.which("sam")
    if present:
        return present
    folder = tmp_path_factory.mktemp("sam")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "pip", "install", "--quiet", "aws-sam-cli>=1.140"]
    subprocess.run(pip, check=True)
    return str(folder / "bin" / "sam")


def validate(sam, folder, *options):
    """Return the exit code and all that `sam validate --lint` printed."""
    done = subprocess.run(
        [sam, "validate", "--lint", *options],
        cwd=folder,
        env=os.environ | QUIET,
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("variant", VARIANTS, ids=" ".join)
def test_sam_accepts_a_new_project(sam, tmp_path, variant):
    """With its samconfig.toml, which `sam` reads from the folder."""
    assert app.run(["new", str(tmp_path / "shop"), *variant]) == 0
    code, text = validate(sam, tmp_path / "shop")
    assert code == 0 and "template.yaml is a valid SAM Template" in text, text


@pytest.mark.parametrize(
    "options",
    [["--image", "--workers", "32", "--containers", "batch:read"], ["--layer", "layer.zip"]],
    ids=" ".join,
)
def test_sam_accepts_the_templates_with_all_options(sam, tmp_path, options):
    assert app.run(["template", "sam", *options, "-o", str(tmp_path / "template.yaml")]) == 0
    code, text = validate(sam, tmp_path)
    assert code == 0, text


def test_sam_refuses_a_template_that_is_wrong(sam, tmp_path):
    """Else the tests above could not fail."""
    assert app.run(["template", "sam", "-o", str(tmp_path / "template.yaml")]) == 0
    template = tmp_path / "template.yaml"
    template.write_text(template.read_text().replace("Runtime:", "Runtimes:", 1))
    code, text = validate(sam, tmp_path)
    assert code != 0 and "Runtimes" in text
