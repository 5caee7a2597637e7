"""The image files that `explain` reads, and the files that it writes."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kgradcam.cli.downloads import download_all
from kgradcam.cli.output import note, require_absent
from kgradcam.errors import UserError
from kgradcam.files import is_stream

SHEET = "contact-sheet.png"
EXPLAINED = Path("explained")


@dataclass(frozen=True)
class Images:
    """The images of a command.

    Attributes:
        given: All files, in the order given.
        addresses: The address that a file was downloaded from.
        refused: The reason why a file cannot be read.
    """

    given: Sequence[Path]
    addresses: dict[Path, str]
    refused: dict[Path, str]

    @property
    def readable(self) -> list[Path]:
        """The files that can be read as far as is known."""
        return [path for path in self.given if path not in self.refused]

    def name(self, path: Path) -> str:
        """Returns the address or the path of a file."""
        return self.addresses.get(path, str(path))

    def require_any(self) -> None:
        """Raises if no image can be read."""
        if not self.readable:
            first = next(iter(self.refused.values()))
            count = len(self.given)
            raise UserError((f"None of the {count} images can be read. " * (count > 1)) + first)

    def note_refused(self) -> None:
        """Names the images that are left out; raises if there are no others."""
        self.require_any()
        for path, reason in self.refused.items():
            note(f"left out {self.name(path)}: {reason}")


def open_images(arguments: Sequence[str], folder: Path) -> Images:
    """Finds or downloads images, and reads their headers.

    Args:
        arguments: Addresses, and the arguments of `find_images`.
        folder: The folder for downloads.

    Raises:
        UserError: No image can be read, or see `find_images`.
    """
    from kgradcam.data.images import SUFFIXES, image_size

    files, addresses, refused = download_all(arguments, folder)
    images = Images(find_images(files, SUFFIXES), addresses, refused)
    for path in images.given:
        try:
            image_size(path)
        except UserError as error:
            refused.setdefault(path, str(error).replace(str(path), images.name(path)))
    images.require_any()
    return images


def find_images(arguments: Sequence[str], suffixes: Sequence[str]) -> list[Path]:
    """Returns the files of arguments: files, folders of images, or globs.

    Args:
        arguments: Paths. A folder means its own images, sorted by name; a pattern such as
            `photos/**/*.jpg` means the files that match. Each file counts once.
        suffixes: The suffixes of images in a folder, lower case.

    Raises:
        UserError: A folder holds no image, or a pattern matches no file.
    """
    found: list[Path] = []
    for argument in arguments:
        path = Path(argument).expanduser()
        if path.is_dir():
            matches = [each for each in path.iterdir() if each.suffix.lower() in suffixes]
            if not matches:
                raise UserError(
                    f"{argument} is a folder without images ({' '.join(suffixes[:3])})."
                )
        elif not path.exists() and glob.has_magic(argument):
            matches = [Path(each) for each in glob.glob(str(path), recursive=True)]
            matches = [each for each in matches if not each.is_dir()]
            if not matches:
                raise UserError(f"{argument} matches no file.")
        else:
            matches = [path]
        found += sorted(matches)
    return list(dict.fromkeys(found))


def output_files(
    out: str | None,
    images: Sequence[Path],
    force: bool,
    inputs: Sequence[Path | str | None],
    suffixes: Sequence[str],
) -> tuple[list[Path], Path | None]:
    """Returns the file for each image, if each has its own, and the file that shows all images.

    Args:
        out: A file for all images; or a folder, which exists or has no suffix, for a file each and
            a contact sheet of several. Default: the folder `explained`.
        images: The images.
        force: Whether existing files may be replaced.
        inputs: Files that the command reads, which are never replaced.
        suffixes: The suffixes of the formats of pictures, lower case.

    Raises:
        UserError: A file exists already, is an input, or has another suffix.
    """
    path = EXPLAINED if out is None else Path(out).expanduser()
    is_folder = path.is_dir() or str(out).endswith(("/", "\\")) or not path.suffix
    if is_stream(path) or not is_folder:
        require_absent(path, force, *images, *inputs, suffixes=suffixes)
        return [], path
    names: list[str] = []
    for image in images:
        name, count = image.stem, 1
        while name in names or f"{name}.png" == SHEET:
            count += 1
            name = f"{image.stem}-{count}"
        names.append(name)
    files = [path / f"{name}.png" for name in names]
    sheet = path / SHEET if len(images) > 1 else None
    for each in (*files, sheet):
        require_absent(each, force, *images, *inputs, suffixes=suffixes)
    return files, sheet
