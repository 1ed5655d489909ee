"""Base classes that people make. Each function draws one object; its variation is drawn from the pen's generator."""

from __future__ import annotations

import math

from fewshot_cli.sources.miniature.pen import Paint, Pen, any_color, any_paint, hsv, shade

METALS = ((190, 190, 195), (120, 120, 128), (205, 175, 90), (90, 85, 80), (160, 110, 70))


def coffee_cup(pen: Pen) -> None:
    """A cup seen a little from above: body, handle, coffee, often a saucer."""
    rng = pen.rng
    china = any_paint(rng, 0.6)
    taper, deep, rim = rng.uniform(0.6, 1.0), rng.uniform(0.4, 0.75), rng.uniform(0.12, 0.26)
    if rng.random() < 0.55:
        pen.oval(0, deep + 0.05, 1.0, 0.24, Paint(shade(china.color, 0.9)))
        pen.oval(0, deep + 0.02, 0.75, 0.16, shade(china.color, 0.7))
    ring = rng.uniform(0.2, 0.34)
    handle = [(0.55, -0.35), (0.6 + ring, -0.3), (0.65 + ring, 0.05), (0.5 * taper + 0.1, 0.3)]
    pen.line(handle, rng.uniform(0.1, 0.17), Paint(shade(china.color, 0.92)), curved=True)
    pen.blob(
        [
            (-0.62, -0.45),
            (0.62, -0.45),
            (0.58 * taper, deep * 0.7),
            (0.3 * taper, deep),
            (-0.3 * taper, deep),
            (-0.58 * taper, deep * 0.7),
        ],
        china,
    )
    pen.oval(0, -0.45, 0.64, rim, Paint(shade(china.color, 1.15)))
    pen.oval(0, -0.43, 0.53, rim * 0.75, hsv(0.07, rng.uniform(0.4, 0.8), rng.uniform(0.15, 0.5)))


def bottle(pen: Pen) -> None:
    """Body, shoulder, neck, cap and label."""
    rng = pen.rng
    glass = any_paint(rng, 0.85)
    body, neck, shoulder = rng.uniform(0.26, 0.42), rng.uniform(0.09, 0.15), rng.uniform(-0.4, 0.0)
    right = [(neck, -0.9), (neck, shoulder - 0.25), (body, shoulder), (body, 0.98)]
    pen.poly([*right, *((-x, y) for x, y in reversed(right))], glass)
    pen.box(-neck * 1.2, -1.02, neck * 1.2, -0.84, any_color(rng))
    if rng.random() < 0.75:
        top = shoulder + rng.uniform(0.12, 0.25)
        pen.box(-body, top, body, top + rng.uniform(0.3, 0.5), any_paint(rng, 0.3))


def car(pen: Pen) -> None:
    """From the side: body, cabin with windows, dark wheels half hidden by the body."""
    rng = pen.rng
    paint = Paint(any_color(rng))
    roof, front, back = rng.uniform(-0.6, -0.4), rng.uniform(-0.62, -0.35), rng.uniform(0.35, 0.8)
    pen.poly([(front - 0.1, -0.1), (front + 0.15, roof), (back - 0.15, roof), (back + 0.1, -0.1)], paint)
    pen.poly([(front, -0.12), (front + 0.18, roof + 0.07), (0.02, roof + 0.07), (0.02, -0.12)], (170, 200, 215))
    pen.poly([(0.1, -0.12), (0.1, roof + 0.07), (back - 0.18, roof + 0.07), (back, -0.12)], (150, 185, 205))
    for x in (-0.55, 0.55):
        pen.oval(x, 0.32, 0.19, 0.19, (35, 35, 38))
    pen.blob([(-1.02, 0.25), (-1.0, -0.02), (-0.5, -0.14), (0.6, -0.14), (1.0, -0.05), (1.02, 0.25), (0, 0.29)], paint)
    pen.oval(-0.95, 0.06, 0.07, 0.06, (250, 240, 190))
    pen.oval(0.97, 0.06, 0.05, 0.06, (200, 40, 40))


def house(pen: Pen) -> None:
    """Walls, pitched roof, door, windows, perhaps a chimney."""
    rng = pen.rng
    wall, roof = any_paint(rng, 0.6), any_paint(rng, 0.5)
    wide, eaves, ridge = rng.uniform(0.6, 0.9), rng.uniform(-0.3, 0.05), rng.uniform(-0.98, -0.7)
    if rng.random() < 0.5:
        pen.box(wide * 0.4, ridge, wide * 0.65, eaves, (120, 70, 60))
    pen.box(-wide, eaves, wide, 0.9, wall)
    flat = rng.choice((0.0, 0.0, 0.4))
    pen.poly([(-wide - 0.15, eaves), (-flat, ridge), (flat, ridge), (wide + 0.15, eaves)], roof)
    door = rng.uniform(-0.5, 0.3) * wide
    pen.box(door, 0.4, door + 0.28, 0.9, any_color(rng))
    for x in (-0.75, 0.35) if rng.random() < 0.5 else (-0.75, -0.2, 0.4):
        pen.box(x * wide, eaves + 0.12, x * wide + 0.26, eaves + 0.36, (180, 210, 225))


def sailboat(pen: Pen) -> None:
    """A hull, a mast, one or two sails."""
    rng = pen.rng
    mast, sail = rng.uniform(-0.15, 0.15), any_paint(rng, 0.5)
    pen.line([(mast, 0.55), (mast, -1.0)], 0.06, (110, 80, 50))
    pen.poly([(mast + 0.06, -0.95), (mast + 0.06, 0.4), (rng.uniform(0.65, 0.9), 0.4)], sail)
    if rng.random() < 0.7:
        pen.poly([(mast - 0.06, -0.8), (mast - 0.06, 0.4), (-rng.uniform(0.5, 0.75), 0.4)], any_paint(rng, 0.6))
    deep = rng.uniform(0.75, 0.95)
    pen.poly([(-0.95, 0.5), (1.0, 0.5), (0.65, deep), (-0.65, deep)], any_paint(rng, 0.7))


def chair(pen: Pen) -> None:
    """Back rest, seat and legs, seen from the front and the side."""
    rng = pen.rng
    wood = any_paint(rng, 0.8)
    thick, back = rng.uniform(0.08, 0.14), rng.uniform(0.5, 0.95)
    depth = rng.uniform(0.15, 0.35)
    for x, y in ((-0.5, 0.95), (0.35, 0.95), (-0.5 + depth, 0.75), (0.35 + depth, 0.75)):
        pen.line([(x, 0.1), (x, y)], thick, Paint(shade(wood.color, 0.8)))
    for x in (-0.5 + depth, 0.35 + depth):
        pen.line([(x, 0.0), (x, -back)], thick, wood)
    for i in range(rng.choice((1, 2, 3))):
        y = -back + 0.05 + 0.22 * i
        pen.line([(-0.5 + depth, y), (0.35 + depth, y)], thick * 1.4, wood)
    pen.poly([(-0.58, 0.18), (0.42, 0.18), (0.45 + depth, -0.05), (-0.52 + depth, -0.05)], wood)


def lamp(pen: Pen) -> None:
    """A shade on a thin stand with a foot."""
    rng = pen.rng
    metal = rng.choice(METALS)
    top, bottom, low = rng.uniform(0.2, 0.4), rng.uniform(0.5, 0.75), rng.uniform(-0.35, -0.1)
    pen.line([(0, low), (rng.uniform(-0.08, 0.08), 0.4), (0, 0.9)], rng.uniform(0.06, 0.12), metal, curved=True)
    pen.oval(0, 0.9, rng.uniform(0.3, 0.5), 0.1, metal)
    pen.poly([(-top, -0.95), (top, -0.95), (bottom, low), (-bottom, low)], any_paint(rng, 0.5))


def key(pen: Pen) -> None:
    """A bow with a hole (two half bows), a long shaft and teeth."""
    rng = pen.rng
    metal, bow = rng.choice(METALS), rng.uniform(0.24, 0.34)
    thick = rng.uniform(0.1, 0.15)
    corners = rng.choice((4, 5, 8))
    ring = [(-0.62 + bow * math.cos(t), bow * math.sin(t)) for t in (2 * math.pi * i / corners for i in range(corners))]
    pen.line([*ring, ring[0], ring[1]], thick, metal)
    pen.line([(-0.62 + bow, 0), (0.95, 0)], thick, metal)
    for i in range(rng.choice((2, 3, 4))):
        pen.line([(0.9 - 0.17 * i, 0), (0.9 - 0.17 * i, rng.uniform(0.2, 0.38))], 0.09, metal)


def hammer(pen: Pen) -> None:
    """A handle and a heavy head, with a claw or a second face."""
    rng = pen.rng
    handle, metal = any_paint(rng, 0.8), rng.choice(METALS)
    pen.line([(0, -0.6), (rng.uniform(-0.05, 0.05), 0.98)], rng.uniform(0.13, 0.2), handle)
    pen.box(-0.5, -0.82, 0.2, -0.5, metal)
    pen.box(-0.62, -0.88, -0.42, -0.44, shade(metal, 0.85))
    if rng.random() < 0.6:
        pen.blob([(0.15, -0.82), (0.5, -0.75), (0.75, -0.35), (0.45, -0.52), (0.15, -0.5)], metal)
    else:
        pen.box(0.15, -0.88, 0.45, -0.44, metal)


def umbrella(pen: Pen) -> None:
    """An open canopy with a scalloped rim, a shaft and a crook."""
    rng = pen.rng
    first, second = any_color(rng), any_color(rng)
    if rng.random() < 0.4:
        second = shade(first, 0.75)
    high, panels = rng.uniform(0.5, 0.8), rng.choice((4, 5, 6))
    side = rng.choice((-1, 1))
    pen.line([(0, -0.2), (0, 0.75), (side * 0.1, 0.92), (side * 0.25, 0.78)], 0.06, rng.choice(METALS), curved=True)
    for i in range(panels):
        left, right = -1 + 2 * i / panels, -1 + 2 * (i + 1) / panels
        middle = (left + right) / 2
        edge = [(right, 0.0), (middle, -0.12), (left, 0.0)]
        top = [(left * 0.72, -high * 0.62), (0, -high), (right * 0.72, -high * 0.62)]
        pen.poly([*top, *edge], Paint(first if i % 2 else second))
    pen.line([(0, -high), (0, -high - 0.12)], 0.05, (60, 60, 60))


def book(pen: Pen) -> None:
    """Closed with its pages showing, or open."""
    rng = pen.rng
    cover = any_paint(rng, 0.7)
    if rng.random() < 0.5:
        thick = rng.uniform(0.12, 0.3)
        pen.poly(
            [(-0.7, -0.85), (0.5, -0.85), (0.5 + thick, -0.7), (0.5 + thick, 0.95), (-0.7 + thick, 0.95), (-0.7, 0.8)],
            (235, 230, 215),
        )
        pen.box(-0.72, -0.88, 0.52, 0.8, cover)
        pen.box(-0.5, -0.6, 0.3, -0.4, any_color(rng))
        pen.box(-0.72, -0.88, -0.58, 0.8, shade(cover.color, 0.65))
        return
    lift = rng.uniform(0.1, 0.3)
    pen.poly([(-1.05, -0.5), (0, -0.5 + lift), (1.05, -0.5), (1.05, 0.65), (0, 0.65 + lift), (-1.05, 0.65)], cover)
    for side in (-1, 1):
        pen.blob(
            [
                (0, -0.5 + lift),
                (side * 0.5, -0.65),
                (side * 0.97, -0.5),
                (side * 0.97, 0.55),
                (side * 0.5, 0.45),
                (0, 0.6 + lift),
            ],
            (240, 236, 225),
        )
        for y in (-0.3, -0.1, 0.1, 0.3):
            pen.line([(side * 0.2, y), (side * 0.8, y - 0.05)], 0.03, (120, 120, 120))


def guitar(pen: Pen) -> None:
    """A waisted body with a sound hole, a long neck, a head."""
    rng = pen.rng
    wood = any_paint(rng, 0.8)
    upper, lower, waist = rng.uniform(0.3, 0.4), rng.uniform(0.42, 0.55), rng.uniform(0.22, 0.3)
    pen.line([(0, 0.0), (0, -0.9)], 0.12, (70, 45, 30))
    pen.poly([(-0.1, -0.82), (-0.15, -1.05), (0.15, -1.05), (0.1, -0.82)], shade(wood.color, 0.6))
    right = [(0.1, -0.15), (upper, 0.02), (waist, 0.3), (lower, 0.62), (0.2, 0.98)]
    pen.blob([*right, *((-x, y) for x, y in reversed(right))], wood)
    pen.oval(0, 0.3, 0.13, 0.13, (30, 22, 18))
    pen.box(-0.2, 0.66, 0.2, 0.73, (40, 28, 20))


def scissors(pen: Pen) -> None:
    """Two crossed blades with finger rings."""
    rng = pen.rng
    metal, grip, opening = rng.choice(METALS), any_color(rng), rng.uniform(0.12, 0.6)
    ring = rng.uniform(0.2, 0.28)
    for side in (-1, 1):
        tip, eye = (side * opening, -0.98), (-side * (opening * 0.6 + 0.18), 0.65)
        circle = [
            (eye[0] + ring * math.cos(t), eye[1] + 1.2 * ring * math.sin(t))
            for t in (math.pi * i / 5 for i in range(11))
        ]
        pen.line(circle, 0.11, grip)
        pen.line([(0, 0.05), (eye[0] * 0.8, 0.42)], 0.13, grip)
        pen.poly([(-0.1, 0.1), tip, (0.1, 0.1)], metal)
    pen.oval(0, 0.05, 0.06, 0.06, shade(metal, 0.5))


def envelope(pen: Pen) -> None:
    """A flat cover with its flap, perhaps sealed or stamped."""
    rng = pen.rng
    paper = Paint(hsv(rng.random(), rng.uniform(0.0, 0.45), rng.uniform(0.6, 0.98)))
    high, dark = rng.uniform(0.5, 0.75), shade(paper.color, rng.uniform(0.6, 0.8))
    pen.box(-1.0, -high, 1.0, high, paper)
    point = rng.uniform(-0.1, 0.3) * high
    pen.poly([(-1.0, -high), (0, point), (1.0, -high)], Paint(dark))
    for side in (-1, 1):
        pen.line([(side * 1.0, high), (side * 0.25, point * 0.7)], 0.04, dark)
    if rng.random() < 0.6:
        pen.oval(0, point, 0.16, 0.16, any_color(rng))


def rocket(pen: Pen) -> None:
    """A pointed hull with fins, a porthole, perhaps a flame."""
    rng = pen.rng
    hull, fin = any_paint(rng, 0.7), Paint(any_color(rng))
    wide, sweep = rng.uniform(0.26, 0.4), rng.uniform(0.3, 0.5)
    if rng.random() < 0.6:
        pen.blob([(-wide * 0.6, 0.6), (0, rng.uniform(0.9, 1.15)), (wide * 0.6, 0.6), (0, 0.5)], (250, 150, 40))
    for side in (-1, 1):
        pen.poly([(side * wide * 0.8, 0.1), (side * (wide + sweep), 0.7), (side * wide * 0.8, 0.6)], fin)
    pen.blob(
        [
            (0, -1.0),
            (wide * 0.8, -0.5),
            (wide, 0.1),
            (wide * 0.75, 0.62),
            (-wide * 0.75, 0.62),
            (-wide, 0.1),
            (-wide * 0.8, -0.5),
        ],
        hull,
    )
    pen.poly([(0, -1.0), (wide * 0.72, -0.58), (-wide * 0.72, -0.58)], fin)
    pen.oval(0, -0.2, wide * 0.5, wide * 0.5, (60, 80, 110))


def glasses(pen: Pen) -> None:
    """Two lenses, a bridge and temples."""
    rng = pen.rng
    frame, lens = any_color(rng), hsv(rng.random(), rng.uniform(0.05, 0.5), rng.uniform(0.2, 0.95))
    rx, ry, square = rng.uniform(0.3, 0.4), rng.uniform(0.2, 0.38), rng.random() < 0.4
    rim = rng.uniform(0.04, 0.09)
    for side in (-1, 1):
        pen.line([(side * (0.48 + rx), -0.1), (side * 1.05, -0.05), (side * 1.1, 0.15)], 0.07, frame)
        if square:
            pen.box(side * 0.48 - rx - rim, -ry - rim, side * 0.48 + rx + rim, ry + rim, frame)
            pen.box(side * 0.48 - rx, -ry, side * 0.48 + rx, ry, lens)
        else:
            pen.oval(side * 0.48, 0, rx + rim, ry + rim, frame)
            pen.oval(side * 0.48, 0, rx, ry, lens)
    pen.line([(-0.12, -0.08), (0, -0.15), (0.12, -0.08)], 0.08, frame)


def shoe(pen: Pen) -> None:
    """From the side: sole, upper, opening, laces."""
    rng = pen.rng
    upper, sole = any_paint(rng, 0.7), any_color(rng)
    ankle, toe = rng.uniform(-0.7, -0.25), rng.uniform(0.0, 0.2)
    pen.blob(
        [(-0.85, 0.4), (-0.85, ankle), (-0.35, ankle + 0.02), (0.1, toe - 0.1), (0.8, toe + 0.1), (1.0, 0.4)], upper
    )
    pen.oval(-0.6, ankle + 0.03, 0.25, 0.08, shade(upper.color, 0.4))
    heel = rng.uniform(0.0, 0.22)
    pen.poly([(-0.95, 0.36), (1.05, 0.36), (1.0, 0.55), (-0.3, 0.55), (-0.35, 0.55 + heel), (-0.95, 0.55 + heel)], sole)
    for i in range(3):
        x = -0.25 + 0.17 * i
        pen.line([(x, ankle * (0.75 - 0.3 * i)), (x + 0.16, ankle * (0.75 - 0.3 * i) + 0.12)], 0.04, (240, 240, 240))


def candle(pen: Pen) -> None:
    """A wax column with a flame, perhaps in a holder."""
    rng = pen.rng
    wax, wide, top = any_paint(rng, 0.8), rng.uniform(0.16, 0.3), rng.uniform(-0.5, -0.1)
    pen.box(-wide, top, wide, 0.85, wax)
    pen.oval(0, top, wide, 0.07, shade(wax.color, 1.2))
    pen.line([(0, top), (0, top - 0.12)], 0.04, (40, 35, 30))
    pen.blob([(0, top - 0.55), (0.13, top - 0.22), (0, top - 0.08), (-0.13, top - 0.22)], (255, 180, 50))
    pen.blob([(0, top - 0.38), (0.06, top - 0.2), (0, top - 0.1), (-0.06, top - 0.2)], (255, 240, 170))
    if rng.random() < 0.6:
        pen.blob([(-0.5, 0.75), (0.5, 0.75), (0.35, 0.98), (-0.35, 0.98)], rng.choice(METALS))


def television(pen: Pen) -> None:
    """A screen in a frame on feet, with aerials or without."""
    rng = pen.rng
    frame, image = Paint(shade(any_color(rng), rng.uniform(0.3, 0.9))), any_paint(rng, 0.3)
    high = rng.uniform(0.5, 0.72)
    if rng.random() < 0.5:
        for side in (-1, 1):
            pen.line([(0, -high), (side * rng.uniform(0.25, 0.6), -high - 0.38)], 0.04, (110, 110, 115))
    for side in (-1, 1):
        pen.line([(side * 0.5, high), (side * 0.65, high + 0.2)], 0.1, shade(frame.color, 0.7))
    pen.box(-1.0, -high, 1.0, high, frame)
    margin = rng.uniform(0.08, 0.14)
    right = 1.0 - margin - rng.choice((0.0, 0.28))
    pen.box(-1.0 + margin, -high + margin, right, high - margin, image)
    if right < 0.8:
        for y in (-0.25, 0.05):
            pen.oval(0.82, y, 0.07, 0.07, (210, 210, 205))
