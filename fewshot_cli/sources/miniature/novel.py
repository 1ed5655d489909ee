"""The novel classes: never drawn in a scene that pretrains a detector."""

from __future__ import annotations

import math

from fewshot_cli.sources.miniature.pen import Paint, Pen, any_color, any_paint, hsv, shade


def helmet(pen: Pen) -> None:
    """From the side, open-faced or full-faced: a shell over the back of the head, a visor or peak, a strap, vents."""
    rng = pen.rng
    shell, full = any_paint(rng, 0.6), rng.random() < 0.5
    high, back = rng.uniform(0.75, 0.95), rng.uniform(0.75, 0.95)
    low = rng.uniform(0.55, 0.85) if full else rng.uniform(0.15, 0.4)
    if full:
        chin = [(-0.85, 0.75), (-0.9, 0.35), (-0.45, 0.3), (0.1, 0.35)]
        pen.blob(
            [
                (-0.8, -0.35),
                (-0.4, -high),
                (0.25, -high),
                (back, -0.3),
                (back, 0.4),
                (0.6, low),
                (-0.4, low + 0.1),
                *chin[:1],
                (-0.88, 0.2),
            ],
            shell,
        )
        glass = hsv(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.1, 0.5))
        pen.blob([(-0.9, -0.28), (-0.35, -0.42), (0.2, -0.3), (0.22, 0.02), (-0.3, 0.2), (-0.92, 0.2)], glass)
        pen.line([(-0.75, 0.5), (-0.35, 0.55)], 0.07, shade(shell.color, 0.4))
    else:
        strap = shade(any_color(rng), 0.5)
        pen.line([(-0.35, low), (-0.3, 0.85), (0.3, low)], 0.07, strap)
        pen.blob(
            [
                (-0.85, low * 0.5),
                (-0.65, -0.45),
                (-0.1, -high),
                (0.5, -high * 0.8),
                (back, -0.1),
                (back * 0.95, low),
                (0.3, low * 0.8),
                (-0.3, low * 0.7),
            ],
            shell,
        )
        pen.poly(
            [(-0.7, low * 0.3), (-1.15, low * 0.5 + 0.15), (-1.1, low * 0.5 + 0.3), (-0.4, low * 0.85)],
            Paint(shade(shell.color, 0.7)),
        )
    for i in range(rng.randrange(1, 4)):
        x = -0.3 + 0.32 * i
        pen.line([(x, -high * 0.72), (x + 0.22, -high * 0.6)], 0.08, shade(shell.color, rng.choice((0.35, 1.5))))


def fish(pen: Pen) -> None:
    """From the side: spindle body, forked tail, fins above and below, an eye, gills, scales as pattern."""
    rng = pen.rng
    scales, fin = any_paint(rng, 0.35), Paint(any_color(rng))
    deep, tail = rng.uniform(0.22, 0.55), rng.uniform(0.25, 0.5)
    if rng.random() < 0.5:
        fin = Paint(shade(scales.color, 0.7))
    pen.poly([(0.5, 0.0), (1.05, -tail), (rng.uniform(0.75, 0.95), 0.0), (1.05, tail)], fin)
    pen.blob([(-0.35, -deep * 0.7), (rng.uniform(-0.2, 0.2), -deep - rng.uniform(0.15, 0.4)), (0.4, -deep * 0.4)], fin)
    pen.blob([(-0.1, deep * 0.7), (0.15, deep + rng.uniform(0.1, 0.3)), (0.35, deep * 0.4)], fin)
    pen.blob(
        [
            (-0.95, 0.03),
            (-0.55, -deep * 0.8),
            (-0.1, -deep),
            (0.4, -deep * 0.5),
            (0.68, 0.0),
            (0.4, deep * 0.5),
            (-0.1, deep),
            (-0.55, deep * 0.8),
        ],
        scales,
    )
    pen.line([(-0.42, -deep * 0.55), (-0.33, 0.0), (-0.42, deep * 0.55)], 0.04, shade(scales.color, 0.5), curved=True)
    pen.blob([(-0.25, 0.02), (0.05, 0.05), (0.1, 0.2), (-0.15, 0.14)], fin)
    pen.oval(-0.66, -deep * 0.25, 0.08, 0.08, (240, 240, 235))
    pen.oval(-0.66, -deep * 0.25, 0.04, 0.04, (10, 10, 10))


def tire(pen: Pen) -> None:
    """A thick dark ring with a tread, from the front or at an angle, with a rim, spokes, or a dark hole."""
    rng = pen.rng
    rubber = hsv(rng.random(), rng.uniform(0.0, 0.15), rng.uniform(0.08, 0.3))
    narrow, offset = rng.uniform(0.45, 1.0), rng.uniform(0.0, 0.4)
    inner = rng.uniform(0.45, 0.68)
    knobs = rng.randrange(16, 30)
    pen.oval(offset, 0, narrow * 0.97, 0.97, shade(rubber, 0.7))
    for i in range(knobs):
        angle = 2 * math.pi * i / knobs
        x, y = narrow * math.cos(angle), math.sin(angle)
        pen.line([(x * 0.93, y * 0.93), (x + offset * 0.5, y)], 0.09, shade(rubber, 0.75))
    pen.oval(0, 0, narrow * 0.95, 0.95, rubber)
    pen.oval(0, 0, narrow * 0.82, 0.82, shade(rubber, 1.35))
    pen.oval(0, 0, narrow * (inner + 0.08), inner + 0.08, shade(rubber, 0.8))
    if rng.random() < 0.3:
        pen.oval(0, 0, narrow * inner, inner, shade(rubber, 0.35))
        return
    metal = hsv(rng.random(), rng.uniform(0.0, 0.2), rng.uniform(0.45, 0.9))
    pen.oval(0, 0, narrow * inner, inner, shade(metal, 0.45))
    spokes = rng.randrange(4, 11)
    for i in range(spokes):
        angle = 2 * math.pi * i / spokes
        pen.line([(0, 0), (narrow * inner * 0.95 * math.cos(angle), inner * 0.95 * math.sin(angle))], 0.1, metal)
    pen.oval(0, 0, narrow * 0.16, 0.16, shade(metal, 1.1))


def flower(pen: Pen) -> None:
    """Petals around a disc, one or two rows of them, often with a stem and leaves."""
    rng = pen.rng
    petals, length, wide = rng.randrange(5, 15), rng.uniform(0.42, 0.62), rng.uniform(0.5, 1.15)
    petal = hsv(rng.choice((0.0, 0.08, 0.14, 0.6, 0.75, 0.85, 0.93)), rng.uniform(0.0, 0.9), rng.uniform(0.6, 1.0))
    centre_y = 0.0
    if rng.random() < 0.6:
        centre_y = -0.4
        green = hsv(rng.uniform(0.22, 0.4), 0.7, rng.uniform(0.25, 0.6))
        pen.line([(0, 0), (rng.uniform(-0.15, 0.15), 0.5), (0, 1.05)], 0.08, green, curved=True)
        for side in (-1, 1):
            if rng.random() < 0.7:
                y = rng.uniform(0.45, 0.8)
                pen.blob([(0, y), (side * 0.3, y - 0.25), (side * 0.55, y - 0.22), (side * 0.3, y - 0.02)], green)
    turn = rng.uniform(0, math.pi)
    for row, share in enumerate((1.0, 0.68) if rng.random() < 0.4 else (1.0,)):
        for i in range(petals):
            angle = turn + 2 * math.pi * (i + 0.5 * row) / petals
            reach = share * length * rng.uniform(0.92, 1.08)
            x, y = 0.62 * reach * math.cos(angle), centre_y + 0.62 * reach * math.sin(angle)
            breadth = wide * reach * math.sin(math.pi / petals)
            pen.oval(x, y, 0.5 * reach, breadth, shade(petal, (0.85, 1.0)[i % 2] * (1.15 if row else 1.0)), angle)
    disc = rng.uniform(0.12, 0.28)
    heart = Paint(hsv(rng.uniform(0.05, 0.17), 0.8, rng.uniform(0.25, 0.95)))
    pen.oval(0, centre_y, disc, disc, Paint(heart.color, "speckle", shade(heart.color, 0.6)))
