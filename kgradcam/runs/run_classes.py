"""The classes of a run: those annotated in its dataset, those of a mapping, or the model's own."""

from collections import Counter
from collections.abc import Mapping, Sequence

from kgradcam.data.splits import Summary
from kgradcam.errors import UserError, did_you_mean
from kgradcam.models.class_targets import ALL, Target, dataset_targets
from kgradcam.models.classifier import Classifier
from kgradcam.runs.configuration import Configuration


def run_targets(
    configuration: Configuration, dataset: Summary, classifier: Classifier
) -> dict[str, Target]:
    """Returns the classes of a run, with the model's outputs for each.

    `"all"` is the classes that the split has, or those of the mapping among them. Without any
    annotation it is the classes of the mapping, or every output of the model.

    Args:
        configuration: The options.
        dataset: The split.
        classifier: The model.

    Raises:
        UserError: There is no class to detect, a class is on no image, or it is unknown.
    """
    classes = _class_options(configuration, dataset, classifier)
    if not classes:
        raise UserError(
            f"None of the {dataset.images} images of split {dataset.split!r} of "
            f"{dataset.name} has an annotated object, so there is no class to detect."
        )
    targets = dataset_targets(
        classes,
        dataset.class_names if dataset.annotated else [each.partition("=")[0] for each in classes],
        classifier.class_names,
        classifier.model.output_shape[-1],
    )
    for name in targets:
        if dataset.annotated and name not in dataset.present:
            raise UserError(
                f"No image of split {dataset.split!r} of {dataset.name} has an object of class "
                f"{name!r}."
            )
    return targets


def _class_options(
    configuration: Configuration, dataset: Summary, classifier: Classifier
) -> list[str]:
    """The class options without `"all"`, and with the targets of a mapping."""
    mapping = configuration.class_map
    if dataset.annotated:
        everything = [name for name in dataset.class_names if name in dataset.present]
        if mapping:
            everything = _mapped(everything, mapping, dataset)
    else:
        everything = list(mapping) or _own_classes(classifier)
    names = [
        name for each in configuration.classes for name in (everything if each == ALL else [each])
    ]
    return [f"{name}={mapping[name]}" if name in mapping else name for name in names]


def _mapped(present: Sequence[str], mapping: Mapping[str, str], dataset: Summary) -> list[str]:
    found = [name for name in present if name in mapping]
    if not found:
        pairs = [f"{name!r}.{did_you_mean(name, mapping)}" for name in present]
        raise UserError(
            f"No class of {dataset.name} is in the mapping of classes. It has {' '.join(pairs)}"
        )
    return found


def _own_classes(classifier: Classifier) -> list[str]:
    """Every output of a model as `NAME=INDEX`; names that several outputs share get the index."""
    count = classifier.model.output_shape[-1]
    names = classifier.class_names or tuple(map(str, range(count)))
    shared = {name for name, times in Counter(names).items() if times > 1 or "=" in name}
    return [f"{f'output {i}' if name in shared else name}={i}" for i, name in enumerate(names)]
