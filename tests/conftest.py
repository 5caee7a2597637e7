"""What several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photographs and the seed's files, where this machine has one."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("KGRADCAM_SHARED", root / "../shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"needs the real photographs and the seed's files: no folder {folder}")
    return folder
