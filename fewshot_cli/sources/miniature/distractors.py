"""Objects that belong to no class: what a photograph is full of, and what keeps "some object" from being an answer."""

from __future__ import annotations

import math

from fewshot_cli.sources.miniature.pen import Pen, any_color, any_paint


def distractor(pen: Pen) -> None:
    """A body with parts on it, no two alike; half of them are symmetric, as most things are."""
    rng = pen.rng
    sides = (-1, 1) if rng.random() < 0.5 else (rng.choice((-1, 1)),)
    for _ in range(rng.randrange(0, 4)):
        start, end = (0.0, rng.uniform(-0.4, 0.5)), (rng.uniform(0.3, 1.0), rng.uniform(-1.0, 1.0))
        paint, width = any_color(rng), rng.uniform(0.05, 0.2)
        for side in sides:
            pen.line([start, (side * end[0], end[1])], width, paint)
    corners = rng.randrange(3, 9)
    radii = [rng.uniform(0.35, 0.8) for _ in range(corners)]
    body = [
        (r * math.cos(2 * math.pi * i / corners), r * math.sin(2 * math.pi * i / corners)) for i, r in enumerate(radii)
    ]
    (pen.blob if rng.random() < 0.6 else pen.poly)(body, any_paint(rng))
    for _ in range(rng.randrange(1, 5)):
        x, y, size, part = rng.uniform(0.0, 0.6), rng.uniform(-0.6, 0.6), rng.uniform(0.08, 0.3), any_paint(rng, 0.8)
        ratio, kind = rng.uniform(0.5, 1.8), rng.random()
        for side in sides:
            if kind < 0.5:
                pen.oval(side * x, y, size, size * ratio, part)
            else:
                pen.box(side * x - size, y - size * ratio / 2, side * x + size, y + size * ratio / 2, part)
