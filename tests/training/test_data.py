"""Splits, classes and labels of a training, and mistakes in them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kgradcam.errors import UserError
from kgradcam.training import TrainingConfiguration, plan_training, train
from kgradcam.training.batches import image_labels
from kgradcam.training.plan import Stage


def test_images_with_difficult_objects_only_have_unknown_labels(
    configuration: TrainingConfiguration,
) -> None:
    data = plan_training(configuration).data
    assert data.class_names == ("large", "small")
    expected = np.zeros((16, 2))
    expected[0::4, 1] = 1
    expected[2::4, 0] = 1
    expected[14, 0] = -1
    np.testing.assert_array_equal(data.training.labels, expected)
    assert data.describe()["validation"] == {
        "split": "validation",
        "images": 8,
        "positives": {"large": 2, "small": 2},
    }


def test_fixed_pictures_show_all_classes_in_turn(configuration: TrainingConfiguration) -> None:
    data = plan_training(configuration).data
    images, classes, boxes = data.fixed_pictures()
    assert classes == [1, 0, 1, 0]  # validation images 16, 18, 20 and 22
    large, small = [1.6, 32 / 15, 28.8, 448 / 15], [6.4, 64 / 15, 11.2, 32 / 3]
    for found, expected in zip(boxes, [small, large] * 2, strict=True):
        np.testing.assert_allclose(found, [expected])
    assert images.shape == (4, 32, 32, 3)
    # Bright inside its box, dark outside, in the pixels of the files.
    np.testing.assert_allclose(images[1, 8:24, 8:24], 220, atol=3)
    np.testing.assert_allclose(images[0, 16:, 16:], 40, atol=3)
    fewer = data.fixed_pictures(limit=3)
    assert fewer.classes == [1, 0, 0]  # two of the first class, one of the second
    np.testing.assert_array_equal(fewer.images, images[[0, 1, 3]])


def test_labels_of_chosen_classes(configuration: TrainingConfiguration) -> None:
    examples = plan_training(configuration).data.training.examples[:1]
    assert image_labels(examples, ("large", "small", "other")).tolist() == [[0, 1, 0]]


def test_a_fraction_is_held_out_without_a_validation_split(
    configuration: TrainingConfiguration, squares: Path
) -> None:
    (squares / "ImageSets" / "Main" / "val.txt").unlink()
    data = plan_training(configuration).data
    assert (len(data.training.examples), len(data.validation.examples)) == (13, 3)
    names = [each.file_name for each in (*data.training.examples, *data.validation.examples)]
    assert len(set(names)) == 16
    (squares / "ImageSets" / "Main" / "train.txt").unlink()
    data = plan_training(configuration).data
    assert (len(data.training.examples), len(data.validation.examples)) == (19, 5)


def test_labels_that_teach_little_are_warned_of(
    configuration: TrainingConfiguration, squares: Path
) -> None:
    few = "Few training images of large 3, small 4. 5 of each is little."
    assert plan_training(configuration).data.cautions == [few]
    (squares / "ImageSets/Main/train.txt").write_text("".join(f"{i:02d}\n" for i in (2, 6, 10)))
    assert plan_training(configuration).data.cautions == [
        "Every training image shows large, so nothing sets it apart. Add images without it.",
        "Few training images of large 3. 5 of each is little.",
    ]


def test_without_trainable_pretrained_layers_there_is_one_stage(
    configuration: TrainingConfiguration,
) -> None:
    plan = plan_training(replace(configuration, frozen_until="late", epochs=0))
    assert plan.network.pretrained == ()
    assert plan.stages == (Stage("head", 2, False),)
    assert plan_training(configuration).stages == (
        Stage("head", 2, False),
        Stage("fine-tune", 4, True),
    )


def test_contradicting_options_are_rejected() -> None:
    with pytest.raises(UserError, match="cached_views needs frozen_until"):
        TrainingConfiguration(cached_views=2)
    with pytest.raises(UserError, match="both 0"):
        TrainingConfiguration(head_epochs=0, epochs=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("smal",)}, r"class 'smal' does not occur .* Did you mean 'small'"),
        (
            {"validation_split": "train"},
            r"16 images are in both 'train' and 'train', such as 00.jpg",
        ),
        ({"validation_split": "vall"}, r"split='vall' is not a split .* Did you mean 'val'"),
        ({"validation_split": "0.99"}, r"validation_split=0.99 holds out 16 of 16 images"),
        ({"frozen_until": "norn"}, r"no layer 'norn' .* Did you mean 'norm'"),
    ],
)
def test_mistakes_are_reported_before_the_training(
    configuration: TrainingConfiguration, tmp_path: Path, changes: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(replace(configuration, **changes), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_folder_for_each_class_is_learned(
    configuration: TrainingConfiguration, squares: Path, tmp_path: Path
) -> None:
    for i in range(8):
        place = tmp_path / "classes" / ("small" if i % 2 else "large") / f"{i}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(squares / "JPEGImages" / f"{i:02d}.jpg", place)
    data = plan_training(replace(configuration, dataset=str(tmp_path / "classes"))).data
    assert data.class_names == ("large", "small")
    labels = np.concatenate([data.training.labels, data.validation.labels])
    assert labels.sum(axis=0).tolist() == [4, 4]
    assert labels.sum(axis=1).tolist() == [1] * 8
