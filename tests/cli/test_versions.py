"""Libraries that are too old are named before they break."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from kgradcam.cli.versions import check_processor, check_versions
from kgradcam.errors import UserError

NEEDED = ("keras>=3.11", "numpy>=1.26", "tensorflow>=2.20", "pytest>=8; extra == 'dev'")


def installed(**versions: str):
    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    return version


def test_old_libraries_are_named_with_the_command_that_helps() -> None:
    with pytest.raises(UserError) as caught:
        check_versions(NEEDED, installed(keras="2.15.0", numpy="1.9.3", tensorflow="2.20.0"))
    assert str(caught.value) == (
        "kgradcam needs newer libraries: keras>=3.11, numpy>=1.26. Received: keras 2.15.0, "
        "numpy 1.9.3. pip install --upgrade 'keras>=3.11' 'numpy>=1.26'"
    )


@pytest.mark.parametrize("keras", ["3.11", "3.11.0", "3.12.1", "4.0", "3.11.0rc1", "10.0"])
def test_newer_libraries_are_fine(keras: str) -> None:
    check_versions(NEEDED, installed(keras=keras, numpy="2.3", pytest="1"))


def test_the_libraries_of_this_machine_are_fine() -> None:
    check_versions()


@pytest.mark.parametrize(
    ("description", "refused"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse4_2 popcnt\n", True),
        ("processor\t: 0\nflags\t\t: fpu sse4_2 avx avx2\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd\n", False),  # ARM
        (None, False),
    ],
)
def test_a_processor_without_avx_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, description: str | None, refused: bool
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    path = tmp_path / "cpuinfo"
    if description is not None:
        path.write_text(description)
    if refused:
        with pytest.raises(UserError, match="AVX"):
            check_processor(path)
    else:
        check_processor(path)
