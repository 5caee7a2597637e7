"""Untrusted run folders: no code runs, nothing is written outside, memory stays bounded."""

import io
import json
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import made_up_info, sign

from kgradcam.errors import UserError
from kgradcam.evaluation.grid import evaluate_run
from kgradcam.metrics.protocol import find_protocol
from kgradcam.runs.heatmap_files import ClassHeatmap
from kgradcam.runs.run import Run
from kgradcam.runs.run_info import Counts
from kgradcam.runs.run_writer import write_run
from kgradcam.runs.tables import GroundTruth, Image

TOUCHED = "touched"


class Touch:
    """A pickle that creates a file when it is loaded."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path(TOUCHED),)


def npy(array: Any, shape: tuple[int, ...] | None = None, dtype: str | None = None) -> bytes:
    """A `.npy` file whose header may promise more than the file holds."""
    buffer = io.BytesIO()
    header = {"descr": dtype or array.dtype.str, "fortran_order": False}
    np.lib.format.write_array_header_1_0(buffer, {**header, "shape": shape or array.shape})
    return buffer.getvalue() + array.tobytes()


GOOD = {
    "image_id": np.array([1]),
    "category_id": np.array([1]),
    "height": np.array([2]),
    "width": np.array([3]),
    "score": np.array([1.0], np.float32),
    "probability": np.array([0.5], np.float32),
    "offset": np.array([0.0], np.float32),
    "step": np.array([1.0], np.float32),
    "values": np.arange(6, dtype=np.float32),
}


def heatmap_file(compression: int = zipfile.ZIP_STORED, **changed: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, value in {**GOOD, **changed}.items():
            file.writestr(f"{name}.npy", value if isinstance(value, bytes) else npy(value))
    return buffer.getvalue()


def objects() -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([Touch()], object), allow_pickle=True)
    return buffer.getvalue()


HEATMAPS = {
    "a pickle": (pickle.dumps(Touch()), "is not a zip"),
    "an array of pickled objects": (heatmap_file(score=objects()), "must be a row of float32"),
    "a zip bomb": (
        heatmap_file(zipfile.ZIP_DEFLATED, values=np.zeros(10**7, np.float32)),
        "is compressed",
    ),
    "a header that asks for an exabyte": (
        heatmap_file(values=npy(np.zeros(6, np.float32), (2**58,))),
        "must be a row",
    ),
    "a header that asks for 400 GB": (
        heatmap_file(values=npy(np.zeros(6, np.float32), (10**11,))),
        "must be a row",
    ),
    "arrays of different lengths": (heatmap_file(score=np.zeros(2, np.float32)), "do not fit"),
    "negative sides": (
        heatmap_file(height=np.array([-2]), width=np.array([-3])),
        "do not fit together",
    ),
    "sides whose product overflows": (
        heatmap_file(height=np.array([2**62]), width=np.array([4])),
        "do not fit together",
    ),
    "fewer values than sides": (heatmap_file(height=np.array([3])), "do not fit together"),
    "NaN": (heatmap_file(values=np.full(6, np.nan, np.float32)), "NaN or infinite"),
    "a step that overflows": (
        heatmap_file(
            values=np.full(6, 1e30, np.float32), step=np.array([1e30], np.float32)
        ),
        "overflow float32",
    ),
    "values of float64": (heatmap_file(values=np.zeros(6)), "must be a row of float32 or uint16"),
    "an infinite score": (heatmap_file(score=np.array([np.inf], np.float32)), "NaN or infinite"),
    "an image that is not there": (heatmap_file(image_id=np.array([99])), "image or class"),
    "a class that is not there": (heatmap_file(category_id=np.array([9])), "image or class"),
    "half a file": (heatmap_file()[:300], "no readable heatmap file"),
    "nothing": (b"", "no readable heatmap file"),
}  # fmt: skip


def measure(folder: Path) -> None:
    run = Run(folder)
    evaluate_run(run, [0.2], [0.5], find_protocol("voc2010"), radii=[3])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A good run of one image."""
    info = replace(made_up_info([0.5]), counts=Counts(1, 1, 1, 0))
    truth = GroundTruth(
        images=(Image(1, "a.jpg", 12, 8),),
        categories=("dog",),
        image_ids=np.array([1]),
        category_ids=np.array([1]),
        boxes=np.array([[1.0, 1, 5, 5]]),
        difficult=np.array([False]),
    )
    heatmap = np.arange(6, dtype=np.float32).reshape(2, 3)
    with write_run(tmp_path / "run") as writer:
        writer.begin(info)
        writer.add(truth.images, [ClassHeatmap(1, 1, heatmap, 1.0, 0.5)], {})
        return writer.finish(info, truth)


@pytest.fixture
def quiet_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The run's folder; it fails if anything beside it changes."""
    monkeypatch.chdir(run.folder.parent)
    before = {path for path in run.folder.parent.rglob("*") if run.folder not in path.parents}
    yield run.folder
    after = {path for path in run.folder.parent.rglob("*") if run.folder not in path.parents}
    assert after == before
    assert not Path(TOUCHED).exists()


@pytest.mark.parametrize(("content", "reason"), HEATMAPS.values(), ids=HEATMAPS.keys())
def test_a_bad_heatmap_file_is_named(quiet_disk: Path, content: bytes, reason: str) -> None:
    (quiet_disk / "heatmaps/00000.npz").write_bytes(content)
    sign(quiet_disk)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=f"00000.npz .*{reason}"):
            measure(quiet_disk)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def test_a_good_heatmap_file_is_read(quiet_disk: Path) -> None:
    (quiet_disk / "heatmaps/00000.npz").write_bytes(heatmap_file())
    sign(quiet_disk)
    (record,) = Run(quiet_disk).heatmaps()
    assert record.heatmap.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_missing_or_changed_files_are_never_scored(quiet_disk: Path) -> None:
    """AP fell from 30.5 to 15.3 without a word when half of the heatmap files were gone."""
    heatmaps, boxes = quiet_disk / "heatmaps/00000.npz", quiet_disk / "detections-0.5.json"
    kept, text = heatmaps.read_bytes(), boxes.read_text()
    heatmaps.unlink()
    with pytest.raises(UserError, match=r"has no heatmaps/00000.npz, and 1 of 3 listed files"):
        Run(quiet_disk)
    heatmaps.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(UserError, match=r"heatmaps/00000.npz has changed since the run was made"):
        measure(quiet_disk)
    heatmaps.write_bytes(kept)
    measure(quiet_disk)
    (quiet_disk / "heatmaps/00001.npz").write_bytes(kept)
    with pytest.raises(UserError, match=r"holds heatmaps/00001.npz, which its run.json does not"):
        Run(quiet_disk)
    (quiet_disk / "heatmaps/00001.npz").unlink()
    boxes.write_text("[]")
    with pytest.raises(UserError, match=r"detections-0.5.json has changed since"):
        evaluate_run(Run(quiet_disk), None, [0.5], find_protocol("voc2010"))
    boxes.write_text(text)
    opened = Run(quiet_disk)
    (quiet_disk / "ground_truth.json").unlink()  # after the run was opened
    with pytest.raises(UserError, match=r"is not complete: it has no ground_truth.json"):
        opened.ground_truth  # noqa: B018


@pytest.mark.parametrize("name", ["images", "heatmaps", "objects"])
def test_counts_are_those_of_run_json(quiet_disk: Path, name: str) -> None:
    path = quiet_disk / "run.json"
    content = json.loads(path.read_text())
    content["counts"][name] = 2
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"run has 1 {name}; its run.json has 2"):
        measure(quiet_disk)


def change(**parts: Any) -> Callable[[Any], Any]:
    return lambda content: {**content, **parts}


def configure(**options: Any) -> Callable[[Any], Any]:
    return lambda content: {**content, "configuration": {**content["configuration"], **options}}


def box(**options: Any) -> Callable[[Any], Any]:
    return configure(boxes={"score": "heat", **options})


RUN_JSON = {
    "a list": lambda content: [],
    "no configuration": lambda content: {"schema": content["schema"]},
    "no thresholds": configure(thresholds=[]),
    "a threshold that is a path": configure(thresholds=["../../secret"]),
    "a threshold that is no number": configure(thresholds=[float("nan")]),
    "a threshold that is too high": configure(thresholds=[1.5]),
    "a batch size that is text": configure(batch_size="16"),
    "a batch size that is true": configure(batch_size=True),
    "layers that are numbers": configure(layer=[1, 2]),
    "an option that is unknown": configure(colour="red"),
    "a filter as wide as a country": box(smooth_radius=2**40),
    "a filter of half a pixel": box(smooth_radius=0.5),
    "an unknown score": configure(boxes={"score": "__import__('os')"}),
    "an unknown box option": box(shell="true"),
    "an overlap above 1": box(iou_threshold=7),
    "no model": change(model={}),
    "a model that is none": change(model=None),
    "outputs that are text": lambda content: {
        **content, "model": {**content["model"], "outputs": {"dog": ["0"]}}
    },
    "a dataset that is an object": change(dataset={"name": {}, "split": "x"}),
    "counts that are text": change(counts={"heatmaps": "1"}),
}  # fmt: skip


@pytest.mark.parametrize("mend", RUN_JSON.values(), ids=RUN_JSON.keys())
def test_a_bad_description_is_named(quiet_disk: Path, mend: Callable[[Any], Any]) -> None:
    path = quiet_disk / "run.json"
    path.write_text(json.dumps(mend(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=r"run.json( is no description of a run|: .* must be )"):
        measure(quiet_disk)


@pytest.mark.parametrize("name", ["run.json", "ground_truth.json", "detections-0.5.json"])
@pytest.mark.parametrize("text", ["[" * 200_000, "{", "", "null", '"x"', "9" * 5000, "\ud800"])
def test_malformed_json_is_named(quiet_disk: Path, name: str, text: str) -> None:
    (quiet_disk / name).write_text(text, errors="surrogatepass")
    if name != "run.json":
        sign(quiet_disk)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        evaluate_run(Run(quiet_disk), None, [0.5], find_protocol("voc2010"))


@pytest.mark.parametrize("size", [(10**6, 10**6), (0, 5), (-4, 5), (2**40, 1)])
def test_images_of_impossible_sizes_take_no_memory(quiet_disk: Path, size: tuple[int, int]) -> None:
    path = quiet_disk / "ground_truth.json"
    content = json.loads(path.read_text())
    content["images"][0] |= {"width": size[0], "height": size[1]}
    path.write_text(json.dumps(content))
    sign(quiet_disk)
    with pytest.raises(
        UserError,
        match=r"a.jpg' (is not an image|has more than 89,478,485)|\[0\].width must",
    ):
        measure(quiet_disk)


def test_file_names_with_paths_open_nothing(quiet_disk: Path) -> None:
    path = quiet_disk / "ground_truth.json"
    content = json.loads(path.read_text())
    for image in content["images"]:
        image["file_name"] = "../../../etc/passwd\x1b[2J"
    path.write_text(json.dumps(content))
    sign(quiet_disk)
    measure(quiet_disk)
