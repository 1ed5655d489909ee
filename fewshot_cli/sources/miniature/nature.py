"""Base classes that live or grow. Each function draws one object; its variation is drawn from the pen's generator."""

from __future__ import annotations

import math

from fewshot_cli.sources.miniature.pen import Paint, Pen, any_paint, hsv, shade


def bird(pen: Pen) -> None:
    """From the side, perched or flying: plump body, round head, beak, wing, tail, legs when perched."""
    rng = pen.rng
    plumage = any_paint(rng, 0.7)
    plump, neck, flying = rng.uniform(0.3, 0.46), rng.uniform(0.0, 0.22), rng.random() < 0.4
    tail = rng.uniform(0.3, 0.75)
    tail_drop = rng.uniform(-0.2, 0.3)
    pen.poly([(0.35, 0.0), (0.55 + tail, tail_drop - 0.12), (0.55 + tail, tail_drop + 0.12), (0.3, 0.2)], plumage)
    if not flying:
        leg = hsv(rng.uniform(0.03, 0.13), 0.6, rng.uniform(0.3, 0.8))
        for x in (-0.08, 0.14):
            pen.line([(x, plump * 0.8), (x + 0.03, plump + 0.38), (x - 0.12, plump + 0.4)], 0.06, leg)
    pen.blob(
        [(-0.6, -0.2), (-0.2, -plump), (0.3, -plump * 0.6), (0.55, 0.05), (0.2, plump), (-0.35, plump * 0.8)], plumage
    )
    head = rng.uniform(0.2, 0.28)
    x, y = -0.58, -0.28 - neck
    pen.oval(x, y, head, head, plumage if rng.random() < 0.6 else any_paint(rng, 0.9))
    beak, drop = rng.uniform(0.15, 0.42), rng.uniform(-0.02, 0.14)
    pen.poly(
        [(x - head * 0.8, y - 0.09), (x - head - beak, y + drop), (x - head * 0.8, y + 0.1)],
        hsv(rng.uniform(0.03, 0.15), 0.85, rng.uniform(0.5, 1)),
    )
    pen.oval(x - 0.06, y - 0.05, 0.05, 0.05, (20, 20, 20))
    wing = Paint(shade(plumage.color, rng.choice((0.6, 0.75, 1.35))))
    if flying:
        lift = rng.uniform(0.5, 0.95) * rng.choice((-1, -1, 1))
        pen.blob([(-0.3, -0.1), (-0.05, lift * 0.6), (0.35, lift), (0.45, lift * 0.75), (0.35, 0.0)], wing)
    else:
        pen.blob([(-0.3, -0.12), (0.1, -0.18), (0.6, 0.12), (0.2, 0.18), (-0.2, 0.12)], wing)


def cat(pen: Pen) -> None:
    """A face from the front: pointed ears, eyes, nose, whiskers."""
    rng = pen.rng
    fur = Paint(hsv(rng.choice((0.07, 0.09, 0.6)), rng.uniform(0.05, 0.7), rng.uniform(0.2, 0.95)))
    if rng.random() < 0.5:
        fur = Paint(fur.color, rng.choice(("stripes", "speckle")), shade(fur.color, 0.6))
    width, ear = rng.uniform(0.65, 0.85), rng.uniform(0.75, 1.0)
    for side in (-1, 1):
        pen.poly([(side * width, -0.15), (side * (width - 0.1), -ear), (side * 0.18, -0.5)], fur)
        pen.poly(
            [(side * width * 0.85, -0.3), (side * (width - 0.14), -ear * 0.85), (side * 0.35, -0.5)], (214, 150, 150)
        )
    pen.blob([(-width, 0.05), (-0.5, -0.52), (0.5, -0.52), (width, 0.05), (0.45, 0.62), (-0.45, 0.62)], fur)
    iris, open_eye = hsv(rng.uniform(0.12, 0.6), 0.7, 0.9), rng.uniform(0.06, 0.16)
    for side in (-1, 1):
        pen.oval(side * 0.33, -0.05, 0.15, open_eye, iris)
        pen.oval(side * 0.33, -0.05, 0.05, open_eye, (15, 15, 15))
        for height in (0.2, 0.3, 0.4):
            pen.line([(side * 0.25, 0.28), (side * 1.05, height)], 0.025, (235, 235, 235))
    pen.oval(0, 0.3, 0.28, 0.18, shade(fur.color, 1.25))
    pen.poly([(-0.1, 0.16), (0.1, 0.16), (0, 0.28)], (190, 90, 100))


def butterfly(pen: Pen) -> None:
    """Four wings around a thin body, open or half closed."""
    rng = pen.rng
    wings, marks = any_paint(rng, 0.4), any_paint(rng, 0.9)
    spread = rng.uniform(0.55, 1.0)
    upper, lower = rng.uniform(0.6, 0.95), rng.uniform(0.4, 0.85)
    for side in (-1, 1):
        s = side * spread
        pen.blob([(s * 0.05, 0.05), (s * 0.5, 0.1), (s * 0.75, lower * 0.55), (s * 0.45, lower), (s * 0.1, 0.5)], wings)
        pen.blob(
            [(s * 0.05, 0.1), (s * 0.3, -upper * 0.7), (s * 0.85, -upper), (s * 0.95, -0.4), (s * 0.6, 0.12)], wings
        )
        pen.oval(s * 0.62, -0.45, 0.13, 0.17, marks)
        pen.oval(s * 0.45, 0.4, 0.1, 0.1, marks)
        pen.line([(side * 0.02, -0.45), (side * 0.22, -0.85)], 0.03, (25, 20, 20))
    pen.oval(0, 0.0, 0.08, 0.5, (45, 35, 30))


def snail(pen: Pen) -> None:
    """A spiral shell on a flat foot with two stalks."""
    rng = pen.rng
    skin, shell = hsv(rng.uniform(0.05, 0.2), rng.uniform(0.2, 0.6), rng.uniform(0.4, 0.85)), any_paint(rng, 0.8)
    foot = rng.uniform(0.75, 1.0)
    pen.blob([(-foot, 0.5), (-0.95, 0.1), (-0.7, 0.15), (-0.3, 0.35), (0.8, 0.4), (foot + 0.1, 0.58), (0, 0.6)], skin)
    for lean in (-0.15, 0.08):
        pen.line([(-0.88, 0.15), (-0.92 + lean, -0.25)], 0.05, skin)
        pen.oval(-0.92 + lean, -0.27, 0.05, 0.05, shade(skin, 0.5))
    radius = rng.uniform(0.48, 0.62)
    pen.oval(0.15, -0.02, radius, radius * 0.95, shell)
    turns, dark = rng.uniform(2.0, 3.2), shade(shell.color, 0.5)
    spiral = [(0.15 + r * math.cos(t), -0.02 + r * math.sin(t)) for t, r in _spiral(turns, radius * 0.85)]
    pen.line(spiral, 0.07, dark)


def _spiral(turns: float, radius: float) -> list[tuple[float, float]]:
    steps = 36
    return [(2 * math.pi * turns * i / steps, radius * i / steps) for i in range(steps + 1)]


def tree(pen: Pen) -> None:
    """Trunk and crown: round, layered like a fir, or several clumps."""
    rng = pen.rng
    leaf = Paint(hsv(rng.uniform(0.1, 0.42), rng.uniform(0.4, 0.9), rng.uniform(0.25, 0.75)))
    if rng.random() < 0.6:
        leaf = Paint(leaf.color, "speckle", shade(leaf.color, rng.choice((0.6, 1.4))))
    trunk = rng.uniform(0.08, 0.16)
    pen.poly(
        [(-trunk, 1.0), (trunk, 1.0), (trunk * 0.6, -0.1), (-trunk * 0.6, -0.1)],
        hsv(0.07, 0.55, rng.uniform(0.2, 0.55)),
    )
    kind = rng.randrange(3)
    if kind == 0:
        for top, width in ((-0.2, 0.75), (-0.55, 0.6), (-0.9, 0.42)):
            pen.poly([(0, top - 0.3), (width, top + 0.55), (-width, top + 0.55)], leaf)
    elif kind == 1:
        height = rng.uniform(0.5, 0.8)
        pen.oval(0, -0.3, rng.uniform(0.5, 0.8), height, leaf)
    else:
        for _ in range(7):
            pen.oval(
                rng.uniform(-0.5, 0.5), rng.uniform(-0.8, 0.05), rng.uniform(0.25, 0.42), rng.uniform(0.25, 0.4), leaf
            )


def mushroom(pen: Pen) -> None:
    """A cap with spots on a thick stalk."""
    rng = pen.rng
    cap = Paint(hsv(rng.choice((0.0, 0.04, 0.08, 0.12)), rng.uniform(0.4, 0.95), rng.uniform(0.4, 0.9)))
    stalk, wide, high = rng.uniform(0.14, 0.28), rng.uniform(0.65, 0.95), rng.uniform(0.5, 0.9)
    pen.blob([(-stalk, 0.0), (stalk, 0.0), (stalk * 1.4, 0.9), (0, 1.0), (-stalk * 1.4, 0.9)], (232, 222, 200))
    pen.blob(
        [(-wide, 0.1), (-wide * 0.7, -high * 0.6), (0, -high), (wide * 0.7, -high * 0.6), (wide, 0.1), (0, 0.2)], cap
    )
    for _ in range(rng.randrange(4, 9)):
        x = rng.uniform(-0.55, 0.55) * wide
        pen.oval(x, rng.uniform(-high * 0.65, -0.05), 0.09, 0.07, (240, 235, 225))


def cactus(pen: Pen) -> None:
    """A ribbed column with bent arms, often in a pot."""
    rng = pen.rng
    green = Paint(hsv(rng.uniform(0.25, 0.45), rng.uniform(0.4, 0.8), rng.uniform(0.3, 0.7)))
    width, top = rng.uniform(0.26, 0.4), rng.uniform(-0.95, -0.7)
    pen.line([(0, 0.7), (0, top)], width, green)
    for side in (-1, 1):
        if rng.random() < 0.85:
            low, reach, up = rng.uniform(-0.2, 0.3), rng.uniform(0.4, 0.6), rng.uniform(0.35, 0.6)
            pen.line([(0, low), (side * reach, low), (side * reach, low - up)], width * 0.65, green)
    for x in (-0.25, 0.0, 0.25):
        pen.line([(x * width * 1.2, 0.7), (x * width * 1.2, top + 0.1)], 0.025, shade(green.color, 0.6))
    if rng.random() < 0.7:
        pen.poly([(-0.5, 0.55), (0.5, 0.55), (0.35, 1.05), (-0.35, 1.05)], any_paint(rng, 0.7))


def apple(pen: Pen) -> None:
    """A round fruit dented at the top, with a stem and mostly a leaf."""
    rng = pen.rng
    skin = Paint(hsv(rng.choice((0.0, 0.02, 0.1, 0.25, 0.3)), rng.uniform(0.6, 0.95), rng.uniform(0.5, 0.95)))
    if rng.random() < 0.4:
        skin = Paint(skin.color, "speckle", hsv(rng.uniform(0, 0.2), 0.7, 0.9))
    wide = rng.uniform(0.7, 0.9)
    outline = [(0, -0.55), (0.4, -0.7), (wide, -0.25), (wide * 0.85, 0.4), (0.3, 0.8), (0, 0.72)]
    pen.blob([*outline, *((-x, y) for x, y in reversed(outline[1:-1]))], skin)
    pen.line([(0, -0.5), (rng.uniform(-0.1, 0.15), -0.95)], 0.08, (80, 55, 30))
    if rng.random() < 0.75:
        pen.blob([(0.05, -0.7), (0.3, -1.0), (0.6, -0.95), (0.35, -0.72)], hsv(0.3, 0.7, rng.uniform(0.3, 0.7)))
    pen.oval(-0.4 * wide, -0.3, 0.12, 0.2, shade(skin.color, 1.5), 0.4)


def banana(pen: Pen) -> None:
    """A bent fruit, sometimes two, with dark ends."""
    rng = pen.rng
    for number in range(rng.choice((1, 1, 2, 3))):
        skin = hsv(rng.uniform(0.12, 0.19), rng.uniform(0.6, 0.95), rng.uniform(0.65, 1.0))
        bend, thick, shift = rng.uniform(0.35, 0.75), rng.uniform(0.2, 0.3), 0.25 * number
        outer = [
            (-0.95, -0.3 + shift),
            (-0.5, bend * 0.6 + shift),
            (0.05, bend + shift),
            (0.6, bend * 0.6 + shift),
            (0.95, -0.3 + shift),
        ]
        inner = [(x * 0.85, y - 1.5 * thick) for x, y in reversed(outer[1:-1])]
        pen.blob([*outer, *inner], skin)
        pen.oval(-0.95, -0.32 + shift, 0.07, 0.09, (70, 55, 30))
        pen.oval(0.95, -0.32 + shift, 0.07, 0.09, (90, 85, 30))
