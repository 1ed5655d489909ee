"""FiftyOne downloads the drawn images, and only those.

`fiftyone.utils.openimages.download_open_images_split` gets short lists of images and boxes, so that it does not
download the long ones, and a client for S3 that tries again, verifies each image before it gets its name, and notes a
failure instead of raising, which would end the whole batch.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fewshot_cli import download as web
from fewshot_cli.datasets.images import image_size
from fewshot_cli.errors import DataError, NetworkError
from fewshot_cli.files import make_folder, storage_errors, write_atomically, write_json
from fewshot_cli.paths import REASONS
from fewshot_cli.progress import Task
from fewshot_cli.sources.fiftyone_import import import_fiftyone, quiet
from fewshot_cli.sources.openimages.release import VERSION
from fewshot_cli.sources.openimages.zoo import Zoo

ATTEMPTS = 4
TIMEOUT = 20.0  # seconds without a byte
WORKERS = 8
_ABSENT = (403, 404)  # a public bucket without a listing answers 403 for what is not there
_BUSY = (408, 429)

HINT = (
    "The same command continues where this one stopped, with what came already. Behind a proxy set HTTPS_PROXY; "
    "for a copy elsewhere give --mirror URL."
)


_OVER = "the download is over"


def name_of(image_id: int) -> str:
    """The id of an image as Open Images writes it: 16 hex digits."""
    return f"{image_id:016x}"


def image_path(zoo: Zoo, split: str, image_id: int) -> Path:
    """Where an image is or will be."""
    return zoo.root / split / "data" / f"{name_of(image_id)}.jpg"


def pull(zoo: Zoo, split: str, image_ids: Sequence[int], boxes: bytes) -> dict[int, str]:
    """Bring images into the zoo folder; those that are there and whole are not touched.

    Args:
        zoo: where to.
        split: they are of one split.
        image_ids: which.
        boxes: their rows of the box CSV, with its header.

    Returns:
        image id → why it cannot be had, for those that the server does not have or has only damaged. All others
        are in place, whole, when this returns.

    Raises:
        NetworkError: no connection, a server that stays busy, or `--offline` and an image that is not here.
        ConfigError: FiftyOne is not installed.
        StorageError: the folder cannot be written.
    """
    folder = zoo.root / split
    make_folder(folder / "data")
    with web.only_writer(folder, zoo.reporter):
        missing = [image_id for image_id in image_ids if not _is_whole(image_path(zoo, split, image_id))]
        if not missing:
            return {}
        if zoo.offline:
            raise NetworkError(
                f"{len(missing)} of {len(image_ids)} images are not in {folder / 'data'}, "
                f"and --offline allows no download: {_some(missing)}",
                hint="Run the command once without --offline.",
            )
        _leave_lists(zoo, folder, split, missing, boxes)
        with zoo.reporter.progress(f"Downloading images ({split})", len(missing)) as task:
            client = _download(zoo, split, missing, task)
    return _failures(zoo, split, missing, client)


def _is_whole(path: Path) -> bool:
    """Whether the image is there and decodes; one that does not is removed, so that it is downloaded again."""
    try:
        image_size(path)
    except DataError:
        with storage_errors(path):
            path.unlink(missing_ok=True)
        return False
    return True


def _some(image_ids: Sequence[int]) -> str:
    shown = ", ".join(name_of(image_id) for image_id in image_ids[:5])
    return f"{shown}, …" if len(image_ids) > 5 else shown


def _leave_lists(zoo: Zoo, folder: Path, split: str, image_ids: Sequence[int], boxes: bytes) -> None:
    """Put the lists where FiftyOne looks before it downloads its own, and remove what a killed download left."""
    with storage_errors(folder):
        for leftover in (folder / "data").glob("*.part*"):
            leftover.unlink()
    names = zoo.classes()
    rows = "".join(f"{name_of(image_id)},{split}\n" for image_id in image_ids)
    classes = "".join(f"{label},{_quoted(name)}\n" for name, label in names.items())
    _write(folder / "metadata" / "image_ids.csv", f"ImageID,Subset\n{rows}".encode())
    _write(folder / "metadata" / "classes.csv", classes.encode())
    _write(folder / "labels" / "detections.csv", boxes)
    named = {label: name for name, label in names.items()}
    write_json(folder / "metadata" / "hierarchy.json", _with_names(zoo.hierarchy(), named))


def _write(path: Path, content: bytes) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)


def _quoted(name: str) -> str:
    return f'"{name}"' if "," in name else name


def _with_names(tree: Any, names: dict[str, str]) -> Any:
    """The tree of classes with names for labels, as FiftyOne keeps it."""
    if isinstance(tree, list):
        return [_with_names(part, names) for part in tree]
    if not isinstance(tree, dict):
        return tree
    named = {key: _with_names(value, names) for key, value in tree.items()}
    label = tree.get("LabelName")
    return {**named, "LabelName": names.get(label, "Entity")} if isinstance(label, str) else named


def _download(zoo: Zoo, split: str, image_ids: Sequence[int], task: Task) -> RetryingClient:
    """Download through FiftyOne; the client that is returned holds what failed."""
    openimages = import_fiftyone("fiftyone.utils.openimages")
    client = RetryingClient(_s3_client(zoo.mirror), zoo, task)
    try:
        with quiet(), _default_client(client):
            openimages.download_open_images_split(
                str(zoo.root / split),
                split,
                version=VERSION,
                label_types=["detections"],
                image_ids=[name_of(image_id) for image_id in image_ids],
                num_workers=WORKERS,
                # No shuffle and no seed: they would set Python's global generator.
            )
    except Exception as error:  # whatever it is, what came is kept and the next call continues
        raise NetworkError(f"FiftyOne's download of Open Images {split} failed: {error!r}", hint=HINT) from error
    finally:
        client.trouble = client.trouble or _OVER  # after Ctrl-C its threads live on
    return client


def _failures(zoo: Zoo, split: str, image_ids: Sequence[int], client: RetryingClient) -> dict[int, str]:
    if client.disk is not None:
        with storage_errors(zoo.root / split / "data"):
            raise client.disk
    absent = [image_id for image_id in image_ids if not image_path(zoo, split, image_id).is_file()]
    if client.trouble != _OVER:
        arrived = len(image_ids) - len(absent)
        raise NetworkError(f"{client.trouble}; {arrived} of {len(image_ids)} images came and are kept", hint=HINT)
    return {image_id: client.faulty.get(name_of(image_id), "FiftyOne did not ask for it") for image_id in absent}


# --- S3 ---


@dataclass(slots=True)
class RetryingClient:
    """Takes the place of boto3's client where FiftyOne downloads one file after the other, in several threads.

    Attributes:
        client: boto3's.
        zoo: its reporter receives the retries.
        task: advances by one with every image.
        faulty: image name → why the server's copy cannot be used.
        trouble: what is wrong with the connection or the server; nothing more is tried then.
        disk: the error of a disk that could not be written.
    """

    client: Any
    zoo: Zoo
    task: Task
    faulty: dict[str, str] = field(default_factory=dict)
    trouble: str | None = None
    disk: OSError | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def download_file(self, bucket: str, key: str, filename: str, *_: Any, **__: Any) -> None:
        """Bring one image to `filename`, whole, or note why not."""
        path = Path(filename)
        for attempt in range(1, ATTEMPTS + 1):
            fault = None if self.stopped else self._try(bucket, key, path)
            if self.stopped:
                return
            if fault is None:
                break
            if attempt == ATTEMPTS or not fault.again:
                self._note(path.stem, f"{key}: {fault.reason}", fault)
                return
            self.zoo.reporter.say(f"{key}: {fault.reason}; trying again")
            time.sleep(web.FIRST_PAUSE * 2 ** (attempt - 1))
        with self.lock:
            self.task.advance()

    @property
    def stopped(self) -> bool:
        """Whether trouble elsewhere has made further attempts pointless."""
        return self.trouble is not None or self.disk is not None

    def _try(self, bucket: str, key: str, path: Path) -> _Fault | None:
        part = path.with_name(path.name + ".part")
        try:
            self.client.download_file(bucket, key, str(part))
            image_size(part)
            part.replace(path)
        except DataError as error:
            return _Fault(f"the image is damaged: {error.message.rpartition(': ')[2]}", again=True, image=True)
        except Exception as error:  # botocore's, boto3's, s3transfer's and urllib3's have no common root
            if isinstance(error, OSError) and error.errno in REASONS:
                self.disk = error
            return _fault_of(error)
        finally:
            part.unlink(missing_ok=True)
        return None

    def _note(self, name: str, text: str, fault: _Fault) -> None:
        if fault.image:
            self.faulty[name] = text.partition(": ")[2]
        else:
            self.trouble = f"cannot download {text}"


@dataclass(frozen=True, slots=True)
class _Fault:
    """Why an attempt failed; `again`: another attempt may succeed; `image`: only this image is concerned."""

    reason: str
    again: bool = False
    image: bool = False


def _fault_of(error: Exception) -> _Fault:
    answer = getattr(error, "response", None)
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
    if status in _ABSENT:
        return _Fault(f"the server does not have the image ({status})", image=True)
    if status is not None:
        return _Fault(f"the server answered {status}", again=status in _BUSY or status >= 500)
    return _Fault(str(error) or type(error).__name__, again=True)


def _s3_client(mirror: str | None) -> Any:
    """A client without the user's signature, profile and endpoint: those belong to other buckets.

    Proxy variables and AWS_CA_BUNDLE are honoured.
    """
    import boto3
    import botocore
    import botocore.session
    from botocore.config import Config

    no_settings = {name: (None, None, value, None) for name, value in _NO_SETTINGS.items()}
    session = boto3.Session(botocore_session=botocore.session.Session(no_settings), region_name="us-east-1")
    config = Config(
        signature_version=botocore.UNSIGNED,
        connect_timeout=TIMEOUT,
        read_timeout=TIMEOUT,
        retries={"total_max_attempts": 1},  # RetryingClient's are enough
        max_pool_connections=2 * WORKERS,
        ignore_configured_endpoint_urls=True,
        s3={"addressing_style": "path"} if mirror else None,  # else the bucket would become part of the host's name
    )
    return session.client("s3", endpoint_url=mirror, config=config)


_NO_SETTINGS = {"profile": None, "config_file": os.devnull, "credentials_file": os.devnull}


@dataclass(frozen=True, slots=True)
class _Session:
    """Takes the place of boto3's default session."""

    made: Any

    def client(self, *_: Any, **__: Any) -> Any:
        return self.made


@contextmanager
def _default_client(client: Any) -> Iterator[None]:
    """Make `boto3.client(…)`, which FiftyOne calls, give this client."""
    import boto3

    before = boto3.DEFAULT_SESSION
    boto3.DEFAULT_SESSION = _Session(client)
    try:
        yield
    finally:
        boto3.DEFAULT_SESSION = before
