"""A small dataset in VOC layout, composed from free photographs, with exact boxes.

The cat Chelsea (photograph by Stefan van der Walt, CC0) is cut out and pasted, at various places,
sizes, angles, flips and brightness, onto pictures without cats: the astronaut and the deep field
(NASA, public domain), the rocket (SpaceX, public domain), the coffee (Rachel Michetti, CC0), and
brick, grass and gravel (CC0). All are part of the scikit-image wheel.
"""

import io
import shutil
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from kgradcam.data.voc import write_annotation
from kgradcam.errors import UserError
from kgradcam.files import partial_path

CLASS_NAME = "cat"
_Picture = npt.NDArray[np.uint8]
_Boxes = npt.NDArray[np.float64]
# The outline of the cat's head, traced by hand in pixels of the photograph of 451x300.
_OUTLINE = [
    *((38, 28), (46, 8), (62, 0), (150, 0), (250, 0), (330, 0), (396, 0), (388, 18), (376, 42)),
    *((358, 70), (356, 90), (361, 118), (360, 140), (353, 165), (339, 192), (322, 213), (315, 240)),
    *((306, 260), (288, 272), (262, 281), (232, 283), (205, 280), (175, 270), (145, 256)),
    *((115, 238), (88, 216), (66, 188), (50, 158), (42, 128), (37, 95), (35, 60)),
]
# Tints (red, green, blue) for the grey textures; otherwise colour alone would reveal the cat.
_BACKGROUNDS: dict[str, tuple[float, float, float]] = {
    "astronaut": (1, 1, 1),
    "coffee": (1, 1, 1),
    "rocket": (1, 1, 1),
    "hubble_deep_field": (1, 1, 1),
    "brick": (1.25, 0.9, 0.75),
    "grass": (0.95, 1.05, 0.75),
    "gravel": (1.1, 1.0, 0.85),
}
_SIZES = ((500, 375), (375, 500), (448, 448), (480, 320))
_SMALLEST_CAT = 90  # pixels of height
_MARGIN = 8  # pixels between cats


class SceneMaker:
    """Composes scenes from the photographs of scikit-image.

    Raises:
        UserError: scikit-image is not installed.
    """

    def __init__(self) -> None:
        try:
            import skimage.data
        except ImportError as error:
            raise UserError(
                "The demo needs the pictures of scikit-image: pip install 'kgradcam[demo]'."
            ) from error
        cat = skimage.data.chelsea()
        alpha = np.zeros(cat.shape[:2], np.uint8)
        cv2.fillPoly(alpha, [np.array(_OUTLINE, np.int32)], 255, cv2.LINE_AA)
        # A soft edge, eroded so that it contains no background of the photograph.
        alpha = cv2.GaussianBlur(cv2.erode(alpha, np.ones((3, 3), np.uint8)), (5, 5), 0)
        xmin, ymin, width, height = cv2.boundingRect((alpha > 127).astype(np.uint8))
        cut = np.s_[ymin : ymin + height, xmin : xmin + width]
        self._cat: npt.NDArray[np.float32] = np.dstack([cat, alpha])[cut].astype(np.float32)
        self._backgrounds = [
            self._colored(getattr(skimage.data, name)(), tint)
            for name, tint in _BACKGROUNDS.items()
        ]

    @staticmethod
    def _colored(picture: _Picture, tint: tuple[float, float, float]) -> _Picture:
        if picture.ndim == 2:
            picture = np.repeat(picture[:, :, None], 3, axis=2)
        return np.clip(picture * np.array(tint), 0, 255).astype(np.uint8)

    def compose(self, generator: np.random.Generator, cats: int) -> tuple[_Picture, _Boxes]:
        """Composes a scene.

        Args:
            generator: The source of randomness.
            cats: The number of cats; fewer are placed if they would touch.

        Returns:
            A uint8 image `[height, width, 3]`, and float64 boxes `[cats, 4]`: xyxy in whole pixels,
            the bounds of the pixels that a cat covers by more than half.
        """
        width, height = _SIZES[generator.integers(len(_SIZES))]
        scene = self._background(generator, width, height).astype(np.float32)
        boxes: list[tuple[int, int, int, int]] = []
        largest = 0.9 if cats == 1 else 0.5
        for _ in range(30 * cats):
            if len(boxes) == cats:
                break
            pasted, alpha = self._place_cat(generator, width, height, largest)
            covered = cv2.boundingRect((alpha > 0.5).astype(np.uint8))
            xmin, ymin, box_width, box_height = covered
            box = (xmin, ymin, xmin + box_width, ymin + box_height)
            if any(_near(box, other) for other in boxes):
                continue
            scene += alpha[:, :, None] * (pasted - scene)
            boxes.append(box)
        noisy = scene + generator.normal(0, 2, scene.shape)  # equal over cat and background
        image = np.clip(np.round(noisy), 0, 255).astype(np.uint8)
        return image, np.array(boxes, np.float64)

    def _background(self, generator: np.random.Generator, width: int, height: int) -> _Picture:
        picture = self._backgrounds[generator.integers(len(self._backgrounds))]
        # A crop with the aspect ratio of the scene, 0.7 to 1 times the largest one, anywhere.
        most = min(picture.shape[0] / height, picture.shape[1] / width)
        scale = most * generator.uniform(0.7, 1.0)
        crop_height, crop_width = int(height * scale), int(width * scale)
        top = generator.integers(picture.shape[0] - crop_height + 1)
        left = generator.integers(picture.shape[1] - crop_width + 1)
        crop = picture[top : top + crop_height, left : left + crop_width]
        if generator.random() < 0.5:
            crop = crop[:, ::-1]
        resized = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(resized, np.uint8)

    def _place_cat(
        self, generator: np.random.Generator, width: int, height: int, largest: float
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Returns the cat on a canvas of the scene's size, and its coverage in [0, 1]."""
        cat_height, cat_width = self._cat.shape[:2]
        limit = min(largest * height, 0.95 * width * cat_height / cat_width)
        scale = generator.uniform(_SMALLEST_CAT, max(limit, _SMALLEST_CAT + 1)) / cat_height
        angle = np.deg2rad(generator.uniform(-12, 12))
        flip = generator.choice([-1.0, 1.0])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = scale * turn @ np.diag([flip, 1.0])
        corners = linear @ np.array([[0, cat_width, 0, cat_width], [0, 0, cat_height, cat_height]])
        lowest, highest = corners.min(axis=1), corners.max(axis=1)
        room = np.maximum(np.array([width, height]) - (highest - lowest), 0)
        shift = generator.uniform(0, 1, 2) * room - lowest
        matrix = np.column_stack([linear, shift]).astype(np.float32)
        # A low-pass filter against aliasing when the cat shrinks.
        softened = cv2.GaussianBlur(self._cat, (0, 0), max(0.45 / scale - 0.45, 0.05))
        canvas = cv2.warpAffine(softened, matrix, (width, height), flags=cv2.INTER_LINEAR)
        brightness = generator.uniform(0.75, 1.2)
        return canvas[:, :, :3] * brightness, canvas[:, :, 3] / 255


def _near(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return (
        a[0] - _MARGIN < b[2]
        and b[0] - _MARGIN < a[2]
        and a[1] - _MARGIN < b[3]
        and b[1] - _MARGIN < a[3]
    )


def write_demo_dataset(folder: Path, seed: int = 0, scenes: int = 48) -> None:
    """Writes a dataset in VOC layout.

    A quarter is for training, a quarter for validation, and half for testing. The same seed and
    the same library versions give the same bytes.

    Args:
        folder: The folder to write. It appears when it is complete.
        seed: The random seed.
        scenes: The number of images. Two in five have two or three cats.

    Raises:
        UserError: The folder exists, or scikit-image is not installed.
    """
    if folder.exists():
        raise UserError(f"{folder} is already there. Choose another folder, or remove it.")
    maker = SceneMaker()
    generator = np.random.default_rng(seed)
    names = [f"{i:06}" for i in range(1, scenes + 1)]
    partial = partial_path(folder)
    try:
        for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (partial / part).mkdir(parents=True)
        for i, name in enumerate(names):
            cats = int(generator.integers(2, 4)) if i % 5 in (1, 3) else 1
            image, boxes = maker.compose(generator, cats)
            height, width = image.shape[:2]
            encoded = io.BytesIO()
            PIL.Image.fromarray(image).save(encoded, "JPEG", quality=95)
            (partial / "JPEGImages" / f"{name}.jpg").write_bytes(encoded.getvalue())
            annotation = write_annotation(
                f"{name}.jpg", width, height, [CLASS_NAME] * len(boxes), boxes
            )
            (partial / "Annotations" / f"{name}.xml").write_text(annotation, encoding="utf-8")
        quarter = scenes // 4
        for split, part_of in (
            ("train", names[:quarter]),
            ("val", names[quarter : 2 * quarter]),
            ("test", names[2 * quarter :]),
        ):
            listed = "".join(f"{name}\n" for name in part_of)
            (partial / "ImageSets/Main" / f"{split}.txt").write_text(listed, encoding="utf-8")
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process has written the same dataset
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
