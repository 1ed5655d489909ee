"""From a drawn scene to a photograph: light, colour, blur, sensor noise, JPEG."""

from __future__ import annotations

import io
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from fewshot_cli.sources.miniature.pen import enlarged


def photograph(image: Image.Image, rng: Random) -> bytes:
    """The scene as a JPEG file, with random brightness, tint, blur, noise and compression."""
    image = _tinted(_lit(image, rng), rng)
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))
    image = _noisy(image, rng)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=rng.randrange(35, 96))
    return file.getvalue()


def _lit(image: Image.Image, rng: Random) -> Image.Image:
    """Uneven light: the corners of the image get between half and all of it."""
    corners = bytes(round(255 * rng.uniform(0.55, 1.0)) for _ in range(4))
    light = enlarged(Image.frombytes("L", (2, 2), corners), image.size)
    return ImageChops.multiply(image, Image.merge("RGB", (light,) * 3))


def _tinted(image: Image.Image, rng: Random) -> Image.Image:
    """Colour temperature, exposure and contrast, as a curve for each channel."""
    exposure, gamma = rng.uniform(0.9, 1.5), rng.uniform(0.75, 1.2)
    gains = [exposure * rng.uniform(0.88, 1.12) for _ in range(3)]
    curve = [min(255, round(255 * min(1.0, gain * level / 255) ** gamma)) for gain in gains for level in range(256)]
    return image.point(curve)


def _noisy(image: Image.Image, rng: Random) -> Image.Image:
    """Noise that is nearly Gaussian, made of whole numbers only, so that every machine computes the same."""
    strength = rng.choice((0, 0, 1, 2, 3, 4))
    if strength == 0:
        return image
    pixels = np.asarray(image, dtype=np.int32)
    grain = np.frombuffer(rng.randbytes(3 * pixels.size), dtype=np.uint8).reshape(3, *pixels.shape)
    offset = (grain.sum(axis=0, dtype=np.int32) - 382) * strength // 48
    return Image.fromarray(np.clip(pixels + offset, 0, 255).astype(np.uint8))
