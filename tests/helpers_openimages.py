"""A server on this machine that speaks Open Images: CSV files, hierarchy and images, drawn here, with faults to order."""

from __future__ import annotations

import hashlib
import io
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from PIL import Image, ImageDraw

from fewshot_cli.sources.openimages.release import BUCKET, CLASSES, HIERARCHY, SPLITS

LABELS = {
    "Helmet": "/m/0zvk5",
    "Bicycle helmet": "/m/03p3bw",
    "Fish": "/m/0ch_cf",
    "Coffee cup": "/m/02p5f1q",
    "Bird": "/m/015p6",
    "Tire": "/m/0h9mv",
    "Flower": "/m/0c9ph5",
    "Person": "/m/01g317",
    "Cup, saucer": "/m/0cup",
}
BOX_HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
)
IMAGE_HEADER = "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation"
LICENCE = "https://creativecommons.org/licenses/by/2.0/"
SIZE = (64, 48)
"""Width and height of a drawn image, pixels."""

BOX = (0.25, 0.25, 0.75, 0.75)
"""Corners of every box, xyxy, as shares of the image."""

CLEAN = (0, 0, 0, 0, 0)
"""Occluded, truncated, group-of, depiction, inside."""

Row = tuple[int, str, tuple[int, ...]]
"""ImageRecord, class, marks."""


def number(split: str, position: int) -> int:
    """The id of an image, spread over all of 64 bits."""
    return int(hashlib.sha256(f"{split}/{position}".encode()).hexdigest()[:16], 16)


def box_csv(rows: Sequence[Row], corners: tuple[float, float, float, float] = BOX) -> bytes:
    """A box CSV; all boxes have the same corners."""
    x1, y1, x2, y2 = corners
    lines = [
        f"{image:016x},xclick,{LABELS[name]},1,{x1:.6f},{x2:.6f},{y1:.6f},{y2:.6f},{','.join(map(str, marks))}"
        for image, name, marks in rows
    ]
    return "\n".join([BOX_HEADER, *lines, ""]).encode()


def image_csv(split: str, rotations: dict[int, str]) -> bytes:
    """The facts about images; a title holds commas and quotes, as real ones do."""
    lines = [
        f"{image:016x},{split},https://photos.example/{image:x}.jpg,https://photos.example/{image:x},{LICENCE},"
        f'https://photos.example/people/{image % 7},Author {image % 7},"A ""title"", with a comma",100,abc==,,{rotation}'
        for image, rotation in rotations.items()
    ]
    return "\n".join([IMAGE_HEADER, *lines, ""]).encode()


def jpeg(image: int, size: tuple[int, int] = SIZE, orientation: int = 1) -> bytes:
    """An image whose content depends on its id, with a bright rectangle where the boxes are."""
    chance = random.Random(image)
    drawn = Image.effect_noise(size, 40).convert("RGB")
    drawn = Image.blend(drawn, Image.new("RGB", size, tuple(chance.randrange(256) for _ in range(3))), 0.6)
    x1, y1, x2, y2 = BOX
    place = (x1 * size[0], y1 * size[1], x2 * size[0] - 1, y2 * size[1] - 1)
    ImageDraw.Draw(drawn).rectangle(place, fill=(250, 250, chance.randrange(100)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    drawn.save(stream, "JPEG", quality=90, exif=exif)
    return stream.getvalue()


def release(rows: dict[str, list[Row]], rotations: dict[str, dict[int, str]] | None = None) -> dict[str, bytes]:
    """Path → content of everything that a mirror of these boxes has."""
    children = [{"LabelName": label} for label in LABELS.values()]
    files = {
        CLASSES: "".join(f"{label},{_quoted(name)}\n" for name, label in LABELS.items()).encode(),
        HIERARCHY: json.dumps({"LabelName": "/m/0bl9f", "Subcategory": children}).encode(),
    }
    for split, entries in rows.items():
        images = list(dict.fromkeys(image for image, _, _ in entries))
        turned = (rotations or {}).get(split, {})
        files[SPLITS[split].boxes] = box_csv(entries)
        files[SPLITS[split].images] = image_csv(split, {image: turned.get(image, "0.0") for image in images})
        files |= {image_key(split, image): jpeg(image) for image in images}
    return files


def _quoted(name: str) -> str:
    return f'"{name}"' if "," in name else name


def image_key(split: str, image: int) -> str:
    """The path of an image on the mirror."""
    return f"{BUCKET}/{split}/{image:016x}.jpg"


def world() -> dict[str, bytes]:
    """A small Open Images: in validation and test 40 clean helmets each, as many with each mark, fish, and cups."""
    marks = [CLEAN] * 40
    for position in range(5):
        marks += [tuple(int(place == position) for place in range(5))] * 3
    marks += [(-1,) * 5] * 3
    rows: dict[str, list[Row]] = {}
    for split, more in (("validation", 0), ("test", 100)):
        entries: list[Row] = [(number(split, position), "Helmet", each) for position, each in enumerate(marks)]
        entries += [(number(split, 500 + position), "Helmet", CLEAN) for position in range(more)]
        entries += [(number(split, position), "Person", (1, 0, 0, 0, 0)) for position in range(20)]
        entries += [(number(split, 1000 + position), "Fish", CLEAN) for position in range(6)]
        entries += [(number(split, position), "Fish", CLEAN) for position in range(4)]
        rows[split] = entries
    return release(rows, {"validation": {number("validation", 0): "90.0", number("validation", 1): "nan"}})


def table1_world() -> dict[str, bytes]:
    """The paper's six classes, each with 12 clean images to draw shots from and 4 to test on."""
    rows: dict[str, list[Row]] = {"validation": [], "test": []}
    for place, name in enumerate(("Coffee cup", "Bird", "Helmet", "Tire", "Fish", "Flower")):
        for split, count in (("validation", 12), ("test", 4)):
            rows[split] += [(number(split, 100 * place + position), name, CLEAN) for position in range(count)]
    return release(rows)


# --- the server ---

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


class Mirror:
    """Serves files; `faults[path]` are answered first, one a request, the last one for ever if it is in `lasting`."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.faults: dict[str, list[Answer]] = {}
        self.lasting: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self.url = ""

    def got(self, part: str = "", method: str = "GET") -> list[str]:
        """The paths that were asked for and hold `part`."""
        return [path for how, path in self.requests if how == method and part in path]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = urlsplit(request.path).path  # a proxy is asked for whole addresses
        path = asked.lstrip("/").removeprefix("copy/of/")
        with self.lock:
            self.requests.append((request.command, path))
            waiting = self.faults.get(path, [])
            fault = (waiting[0] if path in self.lasting else waiting.pop(0)) if waiting else None
        body = self.files.get(path)
        if fault is not None:
            fault(request, body or b"")
        elif body is None:
            send(request, b"<Error><Code>NoSuchKey</Code></Error>", status=404)
        else:
            send(request, body)


def send(request: BaseHTTPRequestHandler, body: bytes, *, status: int = 200, length: int | None = None) -> None:
    """An answer with ETag and Range; `length` lies about the body's."""
    etag = f'"{hashlib.md5(body).hexdigest()}"'
    start = 0
    asked = request.headers.get("Range", "")
    if status == 200 and asked.startswith("bytes=") and request.headers.get("If-Range", etag) == etag:
        start, status = int(asked.removeprefix("bytes=").partition("-")[0]), 206
    request.send_response(status)
    request.send_header("ETag", etag)
    request.send_header("Content-Type", "application/octet-stream")
    request.send_header("Last-Modified", "Wed, 01 Aug 2018 10:00:00 GMT")
    if status == 206:
        request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    request.send_header("Content-Length", str(len(body) - start if length is None else length))
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body[start:][:length])
    request.close_connection = length is not None or request.close_connection


def status(code: int) -> Answer:
    """Refuse with this status."""
    return lambda request, _: send(request, b"<Error/>", status=code)


def cut(share: float = 0.5) -> Answer:
    """Announce the whole body and close the connection after a share of it."""

    def answer(request: BaseHTTPRequestHandler, body: bytes) -> None:
        send(request, body[: int(len(body) * share)], length=len(body))

    return answer


def short(share: float = 0.5) -> Answer:
    """Announce, and send, only a share of the body: a copy that was cut when the mirror made it."""
    return lambda request, body: send(request, body[: int(len(body) * share)])


def instead(content: bytes) -> Answer:
    """Send something else."""
    return lambda request, _: send(request, content)


def slow(seconds: float) -> Answer:
    """Wait before the answer."""

    def answer(request: BaseHTTPRequestHandler, body: bytes) -> None:
        time.sleep(seconds)
        send(request, body)

    return answer


@contextmanager
def serving(mirror: Mirror) -> Iterator[Mirror]:
    """Serve on a free port of 127.0.0.1 while the context lasts; `mirror.url` has a path, as an intranet copy may."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            try:
                mirror.answer(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # a client that leaves is one of the things tested

    http = Server(("127.0.0.1", 0), Handler)
    mirror.url = f"http://127.0.0.1:{http.server_address[1]}/copy/of"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
