"""What lies behind the objects: textured grounds and walls, and clutter that belongs to no class."""

from __future__ import annotations

import math
from random import Random

from PIL import Image, ImageDraw, ImageFilter

from fewshot_cli.sources.miniature.pen import Color, any_color, enlarged, hsv, shade, smooth

Size = tuple[int, int]


def backdrop(size: Size, rng: Random) -> Image.Image:
    """A background: one surface, or a wall above a floor, with clutter on it."""
    image = _surface(size, rng)
    if rng.random() < 0.5:
        width, height = size
        horizon, tilt = round(height * rng.uniform(0.3, 0.8)), round(height * rng.uniform(-0.08, 0.08))
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).polygon(
            [(0, horizon - tilt), (width, horizon + tilt), (width, height), (0, height)], fill=255
        )
        image.paste(_surface(size, rng), (0, 0), mask)
    _add_clutter(image, rng)
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 1.5)))


def noise(size: Size, cells: int, rng: Random) -> Image.Image:
    """Smooth random grey: a grid of `cells` random levels on the longer side, blown up."""
    width, height = size
    columns, rows = (max(2, round(cells * side / max(size))) for side in (width, height))
    grid = Image.frombytes("L", (columns, rows), rng.randbytes(columns * rows))
    return enlarged(grid, size)


def _surface(size: Size, rng: Random) -> Image.Image:
    first = hsv(rng.random(), rng.betavariate(1.5, 3), rng.uniform(0.2, 0.95))
    second = any_color(rng) if rng.random() < 0.25 else shade(first, rng.choice((0.5, 0.65, 0.8, 1.3)))
    kind = rng.choice(("cloudy", "cloudy", "cloudy", "grainy", "boards", "bricks", "tiles", "gradient"))
    if kind in ("cloudy", "grainy"):
        coarse = noise(size, rng.randrange(3, 10), rng)
        fine = noise(size, rng.randrange(20, 60) if kind == "cloudy" else rng.randrange(80, 160), rng)
        mask = Image.blend(coarse, fine, rng.uniform(0.15, 0.6))
    elif kind == "gradient":
        mask = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize(size, Image.Resampling.NEAREST)
    else:
        mask = Image.blend(_masonry(size, kind, rng), noise(size, rng.randrange(10, 50), rng), rng.uniform(0.1, 0.45))
    return Image.composite(Image.new("RGB", size, first), Image.new("RGB", size, second), mask)


def _masonry(size: Size, kind: str, rng: Random) -> Image.Image:
    """Boards, bricks or tiles in several greys with dark joints."""
    width, height = size
    image = Image.new("L", size, 40)
    draw = ImageDraw.Draw(image)
    rows = rng.uniform(12, 40)
    columns = {"boards": 4 * width, "bricks": 2.2 * rows, "tiles": rows}[kind]
    for row in range(int(height / rows) + 1):
        shift = columns / 2 if kind == "bricks" and row % 2 else 0
        for column in range(-1, int(width / columns) + 1):
            left, top = round(column * columns + shift), round(row * rows)
            box = (left + 1, top + 1, round(left + columns) - 1, round(top + rows) - 1)
            draw.rectangle(box, fill=rng.randrange(110, 256))
    return image.rotate(90, expand=True).resize(size, Image.Resampling.NEAREST) if rng.random() < 0.4 else image


def _add_clutter(image: Image.Image, rng: Random) -> None:
    """Shapes without a class: blobs, beams, wires, shards, letters of no alphabet."""
    draw = ImageDraw.Draw(image)
    width, height = image.size
    for _ in range(rng.choice((0, 2, 4, 6, 10, 14))):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        reach = math.exp(rng.uniform(math.log(5), math.log(0.3 * max(image.size))))
        rng.choice((_shard, _pebble, _wire, _beam, _scribble))(draw, x, y, reach, rng)


def _around(x: float, y: float, reach: float, count: int, rng: Random) -> list[tuple[float, float]]:
    angles = sorted(rng.uniform(0, 2 * math.pi) for _ in range(count))
    return [
        (x + reach * rng.uniform(0.4, 1) * math.cos(a), y + reach * rng.uniform(0.4, 1) * math.sin(a)) for a in angles
    ]


def _pixels(points: list[tuple[float, float]]) -> list[tuple[int, int]]:
    return [(round(x), round(y)) for x, y in points]


def _color(rng: Random) -> Color:
    return shade(any_color(rng), rng.uniform(0.4, 1.1))


def _shard(draw: ImageDraw.ImageDraw, x: float, y: float, reach: float, rng: Random) -> None:
    draw.polygon(_pixels(_around(x, y, reach, rng.randrange(3, 6), rng)), fill=_color(rng))


def _pebble(draw: ImageDraw.ImageDraw, x: float, y: float, reach: float, rng: Random) -> None:
    draw.polygon(_pixels(smooth(_around(x, y, reach, rng.randrange(5, 9), rng), closed=True)), fill=_color(rng))


def _wire(draw: ImageDraw.ImageDraw, x: float, y: float, reach: float, rng: Random) -> None:
    path = smooth(_around(x, y, 1.5 * reach, 4, rng), closed=False)
    draw.line(_pixels(path), fill=_color(rng), width=rng.randrange(1, 4), joint="curve")


def _beam(draw: ImageDraw.ImageDraw, x: float, y: float, reach: float, rng: Random) -> None:
    angle, color = rng.uniform(0, math.pi), _color(rng)
    dx, dy = 2 * reach * math.cos(angle), 2 * reach * math.sin(angle)
    draw.line(_pixels([(x - dx, y - dy), (x + dx, y + dy)]), fill=color, width=max(2, round(0.2 * reach)))


def _scribble(draw: ImageDraw.ImageDraw, x: float, y: float, reach: float, rng: Random) -> None:
    color, step = _color(rng), max(3.0, reach / 6)
    for i in range(rng.randrange(2, 7)):
        ends = [(x + i * step + rng.uniform(0, step), y + rng.uniform(-step, step)) for _ in range(3)]
        draw.line(_pixels(ends), fill=color, width=max(1, round(step / 5)))
