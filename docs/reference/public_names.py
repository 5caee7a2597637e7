"""The public names of packages that import lazily: `lazy_loader` computes their `__all__`.

Griffe reads the sources for mkdocstrings. It runs no code, so it does not find these names.
"""

import importlib
from typing import Any

import griffe


class PublicNames(griffe.Extension):
    """Takes missing public names from the imported package."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Sets the missing `exports` of `pkg` and of the packages in it."""
        for module in [pkg, *pkg.modules.values()]:
            if module.is_init_module and module.exports is None:
                module.exports = getattr(importlib.import_module(module.path), "__all__", [])
