"""Images are read upright, whole and as RGB, or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_data import SIZE, draw_coco, draw_image
from PIL import Image

from fewshot_cli.datasets.images import copy_upright, image_size, open_image, read_image, size_and_thumbnail
from fewshot_cli.errors import DataError, StorageError


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "one.jpg"
    draw_image(path, 1)
    return path


def test_tensor_has_channels_height_width(image: Path) -> None:
    """An image becomes a (3, H, W) uint8 tensor with the values that Pillow decodes."""
    tensor = read_image(image)
    assert ((3, SIZE[1], SIZE[0]), torch.uint8) == (tuple(tensor.shape), tensor.dtype)
    assert np.array_equal(np.asarray(Image.open(image)), tensor.permute(1, 2, 0).numpy())


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    """Whatever way a camera was held, the red corner is where a viewer shows it."""
    for orientation in range(1, 9):
        corner_after = {1: "NW", 2: "NE", 3: "SE", 4: "SW", 5: "NW", 6: "NE", 7: "SE", 8: "SW"}[orientation]
        image = Image.new("RGB", (40, 20))
        image.paste((255, 0, 0), (0, 0, 8, 8))
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(tmp_path / "a.png", exif=exif)
        upright = open_image(tmp_path / "a.png")
        assert ((20, 40) if orientation >= 5 else (40, 20)) == upright.size, orientation
        assert upright.size == image_size(tmp_path / "a.png", decode=False), orientation
        right, bottom = upright.width - 2, upright.height - 2
        places = {"NW": (1, 1), "NE": (right, 1), "SW": (1, bottom), "SE": (right, bottom)}
        assert [corner_after] == [name for name, place in places.items() if upright.getpixel(place) == (255, 0, 0)], (
            orientation
        )


def test_every_mode_becomes_rgb(tmp_path: Path) -> None:
    """Grey, palette, transparent and print images all come out with three channels."""
    for mode in ["L", "LA", "RGBA", "P", "1", "CMYK"]:
        path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
        Image.new(mode, (7, 5)).save(path)
        assert (3, 5, 7) == tuple(read_image(path).shape), mode


def test_sixteen_bit_grey_keeps_its_upper_bits(tmp_path: Path) -> None:
    """A 16-bit image is scaled to 8 bits, not clipped to white."""
    Image.fromarray(np.full((4, 4), 0x8040, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert {0x80} == set(read_image(tmp_path / "deep.png").flatten().tolist())


def _truncated(path: Path) -> bytes:
    return path.read_bytes()[:-40]


def _hostile_eps(_: Path) -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"


DAMAGED = {
    "empty": (lambda _: b"", "empty"),
    "text": (lambda _: b"this is no image", "unknown format"),
    "truncated": (_truncated, "truncated"),
    "header only": (lambda path: path.read_bytes()[:30], "not readable"),
    "a format that starts a program": (_hostile_eps, "unknown format"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_files_are_data_errors(image: Path, damage: str) -> None:
    """A damaged file is an error that names the file and the damage, however it is read."""
    spoil, reason = DAMAGED[damage]
    image.write_bytes(spoil(image))
    for read in (open_image, read_image, image_size):
        with pytest.raises(DataError, match=reason) as raised:
            read(image)
        assert str(image) in raised.value.message
        assert raised.value.hint


def test_every_truncation_is_a_data_error(image: Path) -> None:
    """Cut anywhere before its end mark, a file gives a DataError, whatever the decoder raised."""
    whole = image.read_bytes()
    for length in range(0, len(whole) - 2, 7):
        image.write_bytes(whole[:length])
        with pytest.raises(DataError):
            open_image(image)


def test_missing_files_and_folders_are_data_errors(tmp_path: Path) -> None:
    """A path that is nothing, or a folder, or no path at all, says so."""
    with pytest.raises(DataError, match="does not exist"):
        open_image(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="not a file"):
        open_image(tmp_path)
    with pytest.raises(DataError):
        open_image("nul\0byte.jpg")


def test_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """A file of a few kilobytes that claims 20000 × 20000 pixels is not unpacked."""
    stream = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(stream, format="PNG")
    (tmp_path / "bomb.png").write_bytes(stream.getvalue())
    with pytest.raises(DataError, match="decompression bomb"):
        read_image(tmp_path / "bomb.png")


def test_damaged_exif_does_not_cost_the_image(tmp_path: Path) -> None:
    """Metadata that cannot be read counts as upright."""
    Image.new("RGB", SIZE).save(tmp_path / "a.jpg", exif=b"Exif\0\0garbage that is no TIFF header")
    assert SIZE == open_image(tmp_path / "a.jpg").size


def test_upright_images_are_copied_byte_for_byte(image: Path, tmp_path: Path) -> None:
    """An image that needs no turning keeps its bytes."""
    copy_upright(image, tmp_path / "copy.jpg")
    assert image.read_bytes() == (tmp_path / "copy.jpg").read_bytes()


def test_sideways_images_are_copied_upright(tmp_path: Path) -> None:
    """An image with an orientation is written turned, in its format, without metadata, close to the original."""
    draw_image(tmp_path / "a.jpg", 3, orientation=6)
    copy_upright(tmp_path / "a.jpg", tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as copy:
        assert ("JPEG", SIZE[::-1], {}) == (copy.format, copy.size, dict(copy.getexif()))
    difference = np.asarray(open_image(tmp_path / "a.jpg"), int) - np.asarray(open_image(tmp_path / "b.jpg"), int)
    assert np.abs(difference).mean() < 4


def test_copy_reports_a_refusing_disk(image: Path, tmp_path: Path) -> None:
    """A target below a regular file is a StorageError that names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a part of the path is a file"):
        copy_upright(image, tmp_path / "file" / "copy.jpg")


def test_very_large_images_are_read_at_half_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond WHOLE_PIXELS the decoder halves JPEGs, and others are halved; sizes are still those of the file."""
    monkeypatch.setattr("fewshot_cli.datasets.images.WHOLE_PIXELS", 500)
    for name in ("a.jpg", "a.png"):
        draw_image(tmp_path / name, 1, orientation=6)
        assert (SIZE[1] // 2, SIZE[0] // 2) == open_image(tmp_path / name).size
        assert SIZE[::-1] == image_size(tmp_path / name) == size_and_thumbnail(tmp_path / name, 8)[0]
        copy_upright(tmp_path / name, tmp_path / f"copy-{name}")
        assert SIZE[::-1] == image_size(tmp_path / f"copy-{name}")


def test_extreme_proportions_are_read(tmp_path: Path) -> None:
    """An image of one column of pixels is an image."""
    Image.new("RGB", (1, 60_000)).save(tmp_path / "line.png")
    assert (1, 60_000) == open_image(tmp_path / "line.png").size


def test_boxes_of_a_halved_image_are_those_of_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample has its boxes where the objects are in the pixels that were decoded."""
    from fewshot_cli.augmentation.operations import load_sample
    from fewshot_cli.datasets.formats import read_split

    draw_coco(tmp_path, [["cat"]])
    image = read_split(tmp_path).images[0]
    whole = load_sample(image)
    monkeypatch.setattr("fewshot_cli.datasets.images.WHOLE_PIXELS", 500)
    half = load_sample(image)
    assert (SIZE[1] // 2, SIZE[0] // 2) == tuple(half.image.shape[-2:])
    assert torch.equal(whole.boxes / 2, half.boxes)
