"""Write the list of components, as CycloneDX JSON, of what `pip install 'efsstate[all]'` brings.

    python scripts/sbom.py [--out dist]

It takes the wheel from dist/, installs it with all of its extras into an environment of its own,
and lists that: names, versions, licences and package URLs.
"""

from __future__ import annotations

import argparse
import glob
import os
import subprocess
import sys
import tempfile


def main() -> None:
    """Write the list beside the wheel."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="dist", help="the folder of the wheel and of the list")
    parser.add_argument("--extra", default="all", help="the extra to list; '' for the core alone")
    options = parser.parse_args()
    (wheel,) = glob.glob(os.path.join(options.out, "efsstate-*.whl"))
    version = os.path.basename(wheel).split("-")[1]
    extra = f"[{options.extra}]" if options.extra else ""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = os.path.join(folder, "bin", "python")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, wheel + extra], check=True)
        # The environment's own installer is no component of efsstate.
        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools", "pip"])
        path = os.path.join(options.out, f"efsstate-{version}.cdx.json")
        command = ["cyclonedx_py", "environment", "--pyproject", "pyproject.toml"]
        command += ["--mc-type", "library", "--output-reproducible", "--output-file", path, python]
        subprocess.run([sys.executable, "-m", *command], check=True)
    print(path)


if __name__ == "__main__":
    main()
