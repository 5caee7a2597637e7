"""Files on a store: whole objects, ranges, repeated requests, and no password anywhere."""

from pathlib import Path
from typing import Any

import pytest
from object_store import Store

from kgradcam.errors import UserError
from kgradcam.files import file_digest, open_regular, read_bytes, read_json, write_atomically
from kgradcam.storage import (
    Child,
    StorageError,
    children,
    is_remote,
    local_copy,
    place,
    storage_errors,
)


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("s3://bucket/a", True),
        (Path("s3://bucket/a"), True),  # which is s3:/bucket/a
        ("memory://a", True),
        ("abfs://container@account.dfs.core.windows.net/a", True),
        ("s3/a", False),
        (Path("/tmp/s3:/a"), False),
        ("C:/a", False),
        ("https://host/a", False),
        ("file:///a", False),
        ("s3:", False),
    ],
)
def test_the_url_of_an_object_is_no_local_path(path: Any, remote: bool) -> None:
    assert is_remote(path) is remote
    assert is_remote(place(path)) is remote


def test_a_shortened_url_is_the_same_place() -> None:
    assert str(place(Path("s3://bucket/run") / "a.json")) == "s3://bucket/run/a.json"
    assert place(place("s3://bucket/run")) == place("s3://bucket/run")


@pytest.mark.parametrize("form", [str, Path])
def test_a_url_with_a_password_is_refused_without_showing_it(form: Any) -> None:
    with pytest.raises(UserError, match="holds a password") as caught:
        place(form("s3://KEY:hunter2@bucket/a"))
    assert "hunter2" not in str(caught.value)


def test_an_error_shows_no_password_of_an_endpoint() -> None:
    with pytest.raises(StorageError) as caught, storage_errors("s3://bucket/a"):
        raise RuntimeError("no route to http://me:hunter2@host/")
    assert str(caught.value) == "s3://bucket/a: the store failed: no route to http://host/"


def test_an_object_is_written_and_read_whole_or_in_part(store: Store) -> None:
    content = bytes(range(256)) * 1000
    path = place(f"{store.url}/folder/a.bin")
    write_atomically(path, content)
    assert store.files("folder") == {"a.bin": content}
    assert read_bytes(path) == content
    with open_regular(path) as file:
        assert file.read(3) == content[:3]
        file.seek(-7, 2)
        assert file.read() == content[-7:]
        file.seek(100_000)
        assert file.read(90_000) == content[100_000:190_000]
    local = Path(local_copy(path))
    assert local.read_bytes() == content
    assert file_digest(path) == file_digest(local)


def test_text_in_pieces_and_json(store: Store) -> None:
    path = place(f"{store.url}/a.json")
    write_atomically(path, ["[1, ", '"ü"]'])
    assert read_json(path) == [1, "ü"]
    write_atomically(Path(f"{store.url}/empty"), "")  # shortened
    assert read_bytes(place(f"{store.url}/empty")) == b""
    with open_regular(place(f"{store.url}/empty")) as file:
        assert file.read() == b""


def test_missing_and_large_objects(store: Store) -> None:
    path = place(f"{store.url}/sub/a")
    for read in (read_bytes, open_regular, local_copy):
        with pytest.raises(FileNotFoundError):
            read(path)
    write_atomically(path, "12345")
    with pytest.raises(FileNotFoundError):
        open_regular(path.parent)
    for read in (read_bytes, open_regular):
        with pytest.raises(UserError, match="has 5 bytes, more than 4"):
            read(path, 4)
        read(path, 5)
    with pytest.raises(FileNotFoundError):
        read_bytes(place("s3://no-such-bucket/a"))


def test_children_of_a_folder(store: Store, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c.txt").touch()
    (tmp_path / "a.txt").touch()
    url = store.upload(tmp_path, "folder")
    expected = [Child("a.txt", False), Child("b", True)]
    assert sorted(children(tmp_path)) == expected
    assert sorted(children(place(url))) == expected
    with pytest.raises(FileNotFoundError):
        list(children(place(f"{url}/none")))


def test_requests_that_fail_or_end_half_way_are_repeated(store: Store) -> None:
    content = bytes(1_000_000)
    path = place(f"{store.url}/a")
    store.fails = lambda number: number % 2 == 0
    store.seconds = 0.02
    write_atomically(path, content)
    assert read_bytes(path) == content
    store.fails, store.cuts = lambda number: False, lambda number: number % 2 == 0
    assert read_bytes(path) == content
    with open_regular(path) as file:
        assert file.read() == content
    assert local_copy(path).read_bytes() == content


def test_a_store_that_keeps_failing_is_no_mistake_of_the_user(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)  # seconds less
    path = place(f"{store.url}/a")
    store.fails = lambda number: True
    for work in (
        lambda: read_bytes(path),
        lambda: write_atomically(path, b"1"),
    ):
        with pytest.raises(StorageError, match=f"{path}: the store failed: .+") as caught:
            work()
        assert "secret" not in str(caught.value)
    store.fails = lambda number: False
    assert store.files("a") == {}
