"""The names of datasets: of those that are no folders, and short ones for pictures."""

from pathlib import Path

DEMO = "demo"
"""The name of the dataset that kgradcam makes itself."""


def is_name(dataset: str) -> bool:
    """Returns whether a dataset is given by name, even beside a folder of that name."""
    return dataset in (DEMO, "voc") or dataset.startswith("voc/")


def short_name(dataset: str) -> str:
    """Returns the last part of a path, or a name such as `voc/2007` as it is."""
    path = Path(dataset)
    return path.name if path.is_absolute() or dataset.count("/") > 1 else dataset
