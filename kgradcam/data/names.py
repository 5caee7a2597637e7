"""The names of datasets that are no folders."""

DEMO = "demo"
"""The name of the dataset that kgradcam makes itself."""


def is_name(dataset: str) -> bool:
    """Returns whether a dataset is given by name, even beside a folder of that name."""
    return dataset in (DEMO, "voc") or dataset.startswith("voc/")
