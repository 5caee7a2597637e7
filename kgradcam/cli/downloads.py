"""Downloads pictures that are given by their address."""

import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from kgradcam import __version__
from kgradcam.errors import UserError

LIMIT = 32 * 2**20
"""The largest picture in bytes."""
SECONDS = 60.0
"""The longest download. No answer for a third of it ends a download too."""
_CHUNK = 2**16


def is_address(argument: str) -> bool:
    """Returns whether an argument is the address of a picture."""
    return argument.lower().startswith(("http://", "https://"))


def download_all(
    arguments: Sequence[str], folder: Path
) -> tuple[list[str], dict[Path, str], dict[Path, str]]:
    """Replaces addresses among arguments by files.

    Args:
        arguments: Paths and addresses.
        folder: The folder of the files to write.

    Returns:
        The arguments with a path for each address; the address of each of these paths; and the
        reason why a path could not be written.
    """
    files, addresses, failed = [], {}, {}
    for i, argument in enumerate(arguments):
        if not is_address(argument):
            files.append(argument)
            continue
        path = folder / str(i) / _file_name(argument)
        try:
            content = _download(argument)
            path.parent.mkdir()
            path.write_bytes(content)
        except UserError as error:
            failed[path] = str(error)
        addresses[path] = argument
        files.append(str(path))
    return files, addresses, failed


def _file_name(address: str) -> str:
    """The last part of the path of an address, without characters that file systems refuse."""
    name = re.split(r"[?#]", address)[0].rpartition("/")[2]
    return re.sub(r"[^\w.-]", "_", urllib.parse.unquote(name))[-100:].lstrip(".") or "picture"


def _download(address: str) -> bytes:
    """Downloads at most `LIMIT` bytes in at most `SECONDS`.

    Raises:
        UserError: The picture is larger, or cannot be downloaded in time.
    """
    deadline = time.monotonic() + SECONDS
    agent = {"User-Agent": f"kgradcam/{__version__}"}  # some servers refuse urllib's own
    content = bytearray()
    try:
        request = urllib.request.Request(address, headers=agent)
        with urllib.request.urlopen(request, timeout=SECONDS / 3) as response:
            while chunk := response.read(_CHUNK):
                content += chunk
                if len(content) > LIMIT:
                    raise UserError(f"{address} has more than {LIMIT // 2**20} MiB.")
                if time.monotonic() > deadline:
                    raise TimeoutError
            if response.length:  # the bytes that are still to come
                raise http.client.IncompleteRead(bytes(content), response.length)
    except UserError:
        raise
    # A ValueError is an address that cannot be parsed.
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(
            f"{address} cannot be downloaded: {_reason(error)}. Save it, and give the file."
        ) from error
    return bytes(content)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
        return "it takes too long"
    if isinstance(error, urllib.error.URLError):
        return str(getattr(error.reason, "strerror", None) or error.reason)
    return str(error) or type(error).__name__
