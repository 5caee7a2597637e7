"""Weights files: none reads another file, or expands beyond what the network needs."""

import io
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from kgradcam.models.weights_file import check_hdf5, read_arrays

SHAPES = {"conv/kernel": (3, 3, 3, 8), "conv/bias": (8,)}


def test_arrays_of_numbers_are_read_in_their_order(tmp_path: Path) -> None:
    bias, kernel = np.arange(8, dtype="f8"), np.ones((3, 3, 3, 8), np.float16)
    np.savez_compressed(tmp_path / "a.npz", **{"conv/bias": bias, "conv/kernel": kernel})
    arrays = read_arrays(tmp_path / "a.npz", SHAPES)
    assert list(arrays) == ["conv/bias", "conv/kernel"]
    np.testing.assert_array_equal(arrays["conv/bias"], bias)
    np.testing.assert_array_equal(arrays["conv/kernel"], kernel)


def test_an_array_is_not_expanded_before_the_check(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("conv/kernel.npy", "w") as stream,
    ):
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**24,)}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(bytes(2**26))
    assert path.stat().st_size < 2**17
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"conv/kernel must be .* Received: float32 of \(16777216"):
        read_arrays(path, SHAPES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def compressed(file: h5py.File) -> None:
    file.create_dataset("vars/0", data=np.zeros(2**20), compression="gzip")


def never_written(file: h5py.File) -> None:
    file.create_dataset("vars/0", (2**40,), "f4")  # 4 TB in a file of 2 kB


def in_another_file(file: h5py.File) -> None:
    file.create_dataset("vars/0", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "vars/0", (4,))
    file.create_virtual_dataset("vars/0", layout)


def external_link(file: h5py.File) -> None:
    file["vars/0"] = h5py.ExternalLink("/tmp/other.h5", "/")


def soft_link(file: h5py.File) -> None:
    file["vars/0"] = h5py.SoftLink("/vars")


def text(file: h5py.File) -> None:
    file.create_dataset("vars/0", data=["a", "b"], dtype=h5py.string_dtype())


def a_named_type(file: h5py.File) -> None:
    file["vars/0"] = np.dtype("f4")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (compressed, "its '/vars/0' is compressed, incomplete or in another file"),
        (never_written, "its '/vars/0' is compressed, incomplete or in another file"),
        (in_another_file, "its '/vars/0' is compressed, incomplete or in another file"),
        (virtual, "its '/vars/0' is compressed, incomplete or in another file"),
        (text, "its '/vars/0' is compressed, incomplete or in another file"),
        (a_named_type, "its '/vars/0' is compressed, incomplete or in another file"),
        (external_link, "its '/vars/0' is a link"),
        (soft_link, "its '/vars/0' is a link"),
    ],
)
def test_hdf5_files_hold_their_own_data(
    write: Callable[[h5py.File], None], message: str, tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write(file)
    for source in (tmp_path / "a.h5", io.BytesIO((tmp_path / "a.h5").read_bytes())):
        with pytest.raises(ValueError, match=message):
            check_hdf5(source)


def test_arrays_are_counted_once_and_cycles_end(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a/0"], file["a/1"], file["b/c/0"] = np.zeros(3), np.float32(1), np.zeros((0, 2))
        file["b/c/up"] = file["b"]  # hard links: a group inside itself
        file["b/c/root"] = file["/"]
    assert check_hdf5(tmp_path / "a.h5") == 3
