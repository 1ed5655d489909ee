"""Images that are none, that lie about themselves, or that would fill the memory."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fuzz_harness import Case, Change
from fuzz_labels import COCO
from fuzz_values import SPECIAL, content, cut, document, flipped
from fuzz_world import DATA, DONE, LAST, POOL


def _saved(format: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: Any) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.effect_noise(size, 60).convert(mode).save(stream, format, **options)
    return stream.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *more: bytes, rows: bytes = b"\0" * 1000) -> bytes:
    """A PNG of that size, whatever it holds."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _exif(data: bytes) -> bytes:
    return _saved("JPEG", exif=b"Exif\0\0" + data)


def _oriented(value: int) -> bytes:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = value
    return _saved("JPEG", exif=exif.tobytes())


def _text_bomb() -> bytes:
    return _png(40, 30, _chunk(b"zTXt", b"x\0\0" + zlib.compress(b"\0" * (300 << 20), 9)))


def _frames(format: str) -> bytes:
    from PIL import Image

    return _saved(format, save_all=True, append_images=[Image.new("RGB", (40, 30), (n, n, n)) for n in range(200)])


IMAGES: dict[str, tuple[str, Callable[[], bytes], bool]] = {
    "empty": ("x.png", lambda: b"", False),
    "text": ("x.png", lambda: b"not an image\n" * 50, False),
    "HTML": ("x.jpg", lambda: b"<!DOCTYPE html><html></html>", False),
    "a JPEG's first bytes": ("x.jpg", lambda: b"\xff\xd8\xff\xe0" + b"\xff" * 300, False),
    "a PNG's first bytes": ("x.png", lambda: b"\x89PNG\r\n\x1a\n", False),
    "a WebP's first bytes": ("x.webp", lambda: b"RIFF\xff\xff\xff\xffWEBPVP8 ", False),
    "a GIF's first bytes": ("x.gif", lambda: b"GIF89a\xff\xff\xff\xff\xf7\0\0", False),
    "a TIFF's first bytes": ("x.tif", lambda: b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 100, False),
    "a BMP's first bytes": ("x.bmp", lambda: b"BM" + b"\xff" * 60, False),
    "1 × 60,000": ("x.png", lambda: _saved("PNG", (1, 60_000)), True),
    "60,000 × 1": ("x.png", lambda: _saved("PNG", (60_000, 1)), True),
    "1 × 1": ("x.png", lambda: _saved("PNG", (1, 1)), True),
    "no pixels": ("x.png", lambda: _png(0, 0), False),
    "100,000 × 100,000": ("x.png", lambda: _png(100_000, 100_000), False),
    "2^31 × 2^31": ("x.png", lambda: _png(2**31 - 1, 2**31 - 1), False),
    "20,000 × 20,000": ("x.png", lambda: _png(20_000, 20_000), False),
    "a bomb": ("x.png", lambda: _png(30_000, 30_000, rows=b"\0" * (64 << 20)), False),
    "a JPEG of 65,000 × 65,000": ("x.jpg", lambda: _saved("JPEG").replace(b"\0\x1e\0\x28", b"\xfd\xe8\xfd\xe8"), False),
    "a bomb of text": ("x.png", _text_bomb, True),
    "a wrong checksum": ("x.png", lambda: _saved("PNG").replace(b"IDAT", b"IDAU"), False),
    "a huge chunk": ("x.png", lambda: _png(40, 30, struct.pack(">I", 2**31 - 1) + b"tEXt"), False),
    "a PNG called JPEG": ("x.jpg", lambda: _saved("PNG"), True),
    "a JPEG called PNG": ("x.png", lambda: _saved("JPEG"), True),
    "a PDF called JPEG": ("x.jpg", lambda: b"%PDF-1.4\n%\xe2\xe3\n", False),
    "EXIF of nonsense": ("x.jpg", lambda: _exif(b"\xff" * 200), True),
    "EXIF that ends": ("x.jpg", lambda: _exif(b"II*\0\x08\0\0\0\x05\0\x12\x01"), True),
    "EXIF in a circle": ("x.jpg", lambda: _exif(b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"), True),
    "EXIF of 60 kB": ("x.jpg", lambda: _exif(b"MM\0*" + b"\0" * 60_000), True),
    "orientation 99": ("x.jpg", lambda: _oriented(99), True),
    "orientation -1": ("x.jpg", lambda: _oriented(65535), True),
    "CMYK": ("x.jpg", lambda: _saved("JPEG", mode="CMYK"), True),
    "16 bits": ("x.png", lambda: _saved("PNG", mode="I;16"), True),
    "floats": ("x.tif", lambda: _saved("TIFF", mode="F"), True),
    "one bit": ("x.png", lambda: _saved("PNG", mode="1"), True),
    "a palette": ("x.png", lambda: _saved("PNG", mode="P", transparency=0), True),
    "a palette's bytes": ("x.png", lambda: _saved("PNG", mode="P", transparency=b"\0\1\2"), True),
    "transparent": ("x.png", lambda: _saved("PNG", mode="LA"), True),
    "200 frames": ("x.gif", lambda: _frames("GIF"), True),
    "200 pages": ("x.tif", lambda: _frames("TIFF"), True),
    "a profile of nonsense": ("x.jpg", lambda: _saved("JPEG", icc_profile=b"\xff" * 500), True),
    "a comment of 60 kB": ("x.jpg", lambda: _saved("JPEG", comment=b"\x1b[31m" * 10_000), True),
    "bytes after the end": ("x.png", lambda: _saved("PNG") + b"\0" * 100_000, True),
    "EPS": ("x.jpg", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n", False),
    "SVG": ("x.png", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", False),
}  # fmt: skip
"""Name → file name, content, whether it may be taken."""
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "tif": "TIFF", "bmp": "BMP"}
SHOT = f"{DATA}/train/images"


def images() -> Iterator[Case]:
    """In `predict`, in a source that is fetched, and in a data set after it was fetched."""
    for name, (file, make, harmless) in IMAGES.items():
        yield from _cases(name, file, _late(make), harmless)
    for suffix, format in FORMATS.items():
        for share in (0.1, 0.5, 0.9):
            make = _then(_late(lambda format=format: _saved(format)), cut(share))
            yield from _cases(
                f"{share} of {format}",
                f"x.{suffix}",
                make,
                harmless=format in ("BMP", "GIF", "TIFF", "WEBP") or share == 0.9,
            )
        make = _then(_late(lambda format=format: _saved(format)), flipped(5, 20))
        yield from _cases(f"{format} with flipped bytes", f"x.{suffix}", make, harmless=True)
    for name, change in SPECIAL.items():
        yield from _cases(name, "special", change, harmless=name == "folder" and False)
        yield from _in_data(name, change)
    for name, change in {
        "half": cut(0.5),
        "flipped": flipped(2, 3),
        "other": content(_tiny()),
        "text": content(b"x"),
        "empty": content(b""),
    }.items():
        yield from _in_data(name, change)


def _cases(name: str, file: str, change: Change, harmless: bool) -> Iterator[Case]:
    yield Case(
        kind="image", name=f"image: predict {name}", argv=("predict", DONE, file, "--threads", "1"), parts=(DATA, DONE), changes={file: change},
        harmless=harmless, leaves=("predictions*",),
    )  # fmt: skip
    files = [{**each, "file_name": file} for each in COCO["images"][:1]]
    yield Case(
        kind="image", name=f"image: fetch {name}",
        argv=("fetch", "--source", "coco:set", "--class", "cat", "--shots", "1", "--test-images", "0"),
        changes={"set/annotations.json": document({**COCO, "images": files, "annotations": COCO["annotations"][:1]}), f"set/{file}": change},
        harmless=harmless,
    )  # fmt: skip


def _in_data(name: str, change: Change) -> Iterator[Case]:
    """An image of a data set changed after it was fetched."""
    calls = {
        "finetune": ("finetune", "--data", DATA, *LAST), "augment": ("augment", DATA, "--copies", "2", "--threads", "1"),
        "eval": ("eval", DONE, "--threads", "1"), "inspect-layers": ("inspect-layers", "yolox_nano", "--weights", "none", "--threads", "1", "--data", DATA),
    }  # fmt: skip
    for command, argv in calls.items():
        split = "test" if command == "eval" else "train"
        yield Case(
            kind="image",
            name=f"image: {command} {name}",
            argv=argv,
            parts=(POOL, DATA, DONE),
            changes={f"{DATA}/{split}/images": _first(change)},
        )


def _first(change: Change) -> Change:
    """In a folder, done to the first file in it, and not to those it is made of: a loop leads to itself."""

    def apply(folder: Path) -> None:
        first = min(folder.iterdir())
        change(first)
        if first.is_symlink() and first.readlink() == Path("special"):
            first.unlink()
            first.symlink_to(first.name)

    return apply


def _tiny() -> bytes:
    return _png(2, 2, rows=(b"\0" + b"\x80" * 6) * 2)


def _late(make: Callable[[], bytes]) -> Change:
    return lambda path: content(make())(path)


def _then(first: Change, second: Change) -> Change:
    def both(path: Path) -> None:
        first(path)
        second(path)

    return both
