"""The classes of the world, on one screen. A new one is a drawing function and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fewshot_cli.sources.miniature import distractors, made, nature, novel
from fewshot_cli.sources.miniature.pen import Pen


@dataclass(frozen=True, slots=True)
class Thing:
    """How a class is drawn.

    draw: puts one object on the pen; turn: radians by which it may lie turned, to either side.
    """

    draw: Callable[[Pen], None]
    turn: float


STANDS, LEANS, LIES = 0.2, 0.6, 3.1416

BASE: dict[str, Thing] = {
    "apple": Thing(nature.apple, LEANS),
    "banana": Thing(nature.banana, LIES),
    "bird": Thing(nature.bird, LEANS),
    "book": Thing(made.book, LIES),
    "bottle": Thing(made.bottle, LEANS),
    "butterfly": Thing(nature.butterfly, LIES),
    "cactus": Thing(nature.cactus, STANDS),
    "candle": Thing(made.candle, STANDS),
    "car": Thing(made.car, STANDS),
    "cat": Thing(nature.cat, STANDS),
    "chair": Thing(made.chair, STANDS),
    "coffee cup": Thing(made.coffee_cup, STANDS),
    "envelope": Thing(made.envelope, LEANS),
    "glasses": Thing(made.glasses, LEANS),
    "guitar": Thing(made.guitar, LIES),
    "hammer": Thing(made.hammer, LIES),
    "house": Thing(made.house, STANDS),
    "key": Thing(made.key, LIES),
    "lamp": Thing(made.lamp, STANDS),
    "mushroom": Thing(nature.mushroom, LEANS),
    "rocket": Thing(made.rocket, LIES),
    "sailboat": Thing(made.sailboat, STANDS),
    "scissors": Thing(made.scissors, LIES),
    "shoe": Thing(made.shoe, LEANS),
    "snail": Thing(nature.snail, LEANS),
    "television": Thing(made.television, STANDS),
    "tree": Thing(nature.tree, STANDS),
    "umbrella": Thing(made.umbrella, LEANS),
}
"""What the embedded detector was pretrained on. Their order is that of its predictor's outputs."""

NOVEL: dict[str, Thing] = {
    "fish": Thing(novel.fish, LEANS),
    "flower": Thing(novel.flower, LEANS),
    "helmet": Thing(novel.helmet, LEANS),
    "tire": Thing(novel.tire, LEANS),
}
"""Never in a scene that pretrains."""

CLASSES = {**BASE, **NOVEL}

DISTRACTOR = Thing(distractors.distractor, LIES)
"""No class: in scenes beside the objects of a class, never annotated."""
