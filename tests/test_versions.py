"""The versions that are declared are the versions that are tested."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]


def pinned(name: str) -> dict[str, Version]:
    lines = (ROOT / "constraints" / name).read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {name.lower().replace("_", "-"): Version(version) for name, version in pairs}


def declared() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["demo"], *extras["coco"]]
    return {each.name: each for each in map(Requirement, lines)}


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    oldest = pinned("oldest.txt")
    for name, requirement in declared().items():
        bound = re.search(r">=([\d.]+)", str(requirement.specifier))
        if bound:
            assert oldest[name] == Version(bound[1]), name


def test_the_newest_versions_are_within_the_bounds() -> None:
    newest = pinned("newest.txt")
    for name, requirement in declared().items():
        assert newest[name] in requirement.specifier, name
