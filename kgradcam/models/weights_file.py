"""Checks weights files before their arrays are read.

A few compressed megabytes may expand to gigabytes. HDF5 also has links to other files, and arrays
whose data lie in other files. Keras writes neither.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import numpy.typing as npt

from kgradcam.errors import did_you_mean

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def check_hdf5(file: Path | BinaryIO) -> int:
    """Checks that an HDF5 file holds its own data, with each array stored in full.

    Args:
        file: The file, by its path or opened for reading.

    Returns:
        The number of arrays in it.

    Raises:
        ValueError: It has a link, an array that lies elsewhere, or an array that is not stored in
            full.
        OSError: It is not an HDF5 file, or damaged.
    """
    arrays = 0
    with h5py.File(file, "r") as root:
        remaining, seen = [root["/"]], {root["/"]}
        while remaining:
            group = remaining.pop()
            for name in group:
                path = f"{group.name.rstrip('/')}/{name}"
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"its {path!r} is a link.")
                member = group[name]
                if isinstance(member, h5py.Group):
                    # A hard link may lead back to a group that contains it.
                    if member not in seen:
                        seen.add(member)
                        remaining.append(member)
                elif not isinstance(member, h5py.Dataset) or not _is_stored_in_full(member):
                    raise ValueError(
                        f"its {path!r} is compressed, incomplete or in another file, unlike "
                        "arrays that Keras writes."
                    )
                else:
                    arrays += 1
    return arrays


def _is_stored_in_full(dataset: h5py.Dataset) -> bool:
    properties = dataset.id.get_create_plist()
    return (
        properties.get_layout() in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS)
        and properties.get_external_count() == 0
        and dataset.dtype.kind != "O"  # strings of variable length
        and dataset.id.get_storage_size() == dataset.nbytes
    )


def read_arrays(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, npt.NDArray[Any]]:
    """Reads the arrays of a `.npz` file; all headers are checked before the first array is read.

    Args:
        path: The file.
        shapes: The shape of each array that the file may hold.

    Returns:
        Arrays of numbers by name, in the order of the file.

    Raises:
        ValueError: An array has an unknown name, another shape, or holds no real numbers.
        zipfile.BadZipFile: It is not a zip file.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if name not in shapes:
                raise ValueError(
                    f"{name!r} is not an array of the network.{did_you_mean(name, shapes)}"
                )
            with archive.open(entry) as stream:
                read_header = _HEADER_READERS[np.lib.format.read_magic(stream)]
                shape, _, dtype = read_header(stream)
            if shape != shapes[name] or dtype.kind not in "fiu":
                raise ValueError(
                    f"{name} must be an array of numbers of the shape {shapes[name]}. "
                    f"Received: {dtype} of {shape}."
                )
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
