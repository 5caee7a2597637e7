"""Yes-or-no fields of annotations, such as VOC's difficult and COCO's iscrowd."""

from kgradcam.errors import UserError

_TRUE = ("true", "yes", "t", "y")
_FALSE = ("", "false", "no", "f", "n", "none", "null", "unspecified")


def parse_flag(value: object, name: str) -> bool:
    """Returns the value of a yes-or-no field, however a labelling tool writes it.

    Args:
        value: A boolean, a number, or the text of either; `None` if the field is missing.
        name: The name of the field, for the message.

    Returns:
        False for 0, "0", "false", "no", "unspecified", an empty or a missing field; true for other
        numbers, "true" and "yes".

    Raises:
        UserError: The value is neither.

    Example:
        >>> [parse_flag(value, "difficult") for value in (1, "True", "0", None)]
        [True, True, False, False]
    """
    text = "" if value is None else str(value).strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    try:
        return float(text) != 0
    except ValueError:
        raise UserError(f"{name} must be 0 or 1. Received: {value!r}.") from None
