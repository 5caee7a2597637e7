"""Valid inputs of each target, for the fuzzer to damage."""

import io
import json
import pickle
import struct

import numpy as np
import PIL.Image
from fuzzing.targets import INFO, TRUTH

from kgradcam.data import voc
from kgradcam.runs.heatmap_files import ClassHeatmap, pack_heatmaps


def _encoded(kind: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def _checkpoint() -> bytes:
    """The bytes that `torch.save` writes for one tensor."""
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    head = b"".join(pickle.dumps(part, 2) for part in parts)
    tensor = (
        b"\x80\x02ccollections\nOrderedDict\n]X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n"
        b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        b"K\x06NtQK\x00K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n]\x85RtR\x86a\x85R."
    )
    return head + tensor + pickle.dumps(["0"], 2) + struct.pack("<q6f", 6, *range(6))


_RECORDS = [
    ClassHeatmap(1, 1, np.arange(6, dtype=np.float32).reshape(2, 3), 1.5, 0.5),
    ClassHeatmap(1, 1, np.zeros((1, 4), np.float32), 0.0, 0.25),
]

SAMPLES: dict[str, list[bytes]] = {
    "annotation": [
        voc.write_annotation("a.jpg", 40, 30, ["dog", "a"], [[1, 2, 3, 4], [0, 0, 5, 5]]).encode(),
        b'<?xml version="1.0" encoding="ISO-8859-1"?><annotation><object><name>ch\xe8vre</name>'
        b"<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object>"
        b"</annotation>",
    ],
    "image_list": [b"000001\n000002\n", b"000001  1\n000002 -1\n", b"../../etc/passwd\n/a\n"],
    "picture": [
        *(_encoded(kind) for kind in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")),
        *(_encoded("JPEG", "CMYK"), _encoded("PNG", "P"), _encoded("PNG", "RGBA")),
    ],
    "checkpoint": [_checkpoint()],
    "coco": [
        json.dumps({**TRUTH, "results": [{**TRUTH["annotations"][0], "score": 0.5}]}).encode(),
    ],
    "heatmaps": [pack_heatmaps(_RECORDS), pack_heatmaps(_RECORDS, "uint16")],
    "run_json": [json.dumps(INFO).encode()],
    "boxes": [
        bytes([3, 4, 30, 40, 60, 200, 5, 0]) + np.arange(12, dtype="<f4").tobytes(),
        bytes([1, 1, 1, 1, 0, 255, 0, 0]) + np.float32([1e30, -1e30]).tobytes(),
    ],
}  # fmt: skip
