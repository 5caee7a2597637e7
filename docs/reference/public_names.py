"""The reference shows the names in `__all__`, which lazily importing packages fill when they load.

Griffe, which reads the sources for mkdocstrings, runs no code and would find these lists empty.
"""

import importlib
from typing import Any

import griffe


class PublicNames(griffe.Extension):
    """Takes the public names of each package from the imported package."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Sets `exports` of `pkg` and of the packages in it; modules are left alone."""
        for module in [pkg, *pkg.modules.values()]:
            if module.is_init_module:
                module.exports = getattr(importlib.import_module(module.path), "__all__", [])
