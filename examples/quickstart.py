"""The whole way on drawn pictures: data set → what would train → fine-tune → measure. Needs nothing but the package.

    python examples/quickstart.py

Draws 40 pictures with Pillow (a "target": two rings, among other shapes), then runs the four commands that one's own
photographs would go through, printing each. yolox_nano's COCO weights (4 MB) are downloaded once; without a network the
script says so and goes on with random ones, which shows the way but detects nothing.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageDraw

SIZE, PICTURES, NETWORK_ERROR = 320, 40, 7
HERE = Path("quickstart")


def draw(number: int) -> tuple[Image.Image, list[list[int]]]:
    """A picture and the xywh boxes of its targets."""
    chance = random.Random(number)
    image = Image.new("RGB", (SIZE, SIZE), tuple(chance.randrange(60, 200) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, side = chance.randrange(SIZE), chance.randrange(SIZE), chance.randrange(20, 90)
        shape = chance.choice([pen.rectangle, pen.ellipse])
        shape((x, y, x + side, y + side), fill=tuple(chance.randrange(256) for _ in range(3)))
    boxes = []
    for column in range(chance.randrange(1, 3)):
        side = chance.randrange(50, 130)
        x, y = column * SIZE // 2 + chance.randrange(SIZE // 2 - side + 1), chance.randrange(SIZE - side)
        pen.ellipse((x, y, x + side, y + side), fill="white", outline="black", width=2)
        pen.ellipse((x + side // 4, y + side // 4, x + side * 3 // 4, y + side * 3 // 4), fill=(200, 30, 30))
        boxes.append([x, y, side, side])
    return image, boxes


def make_pictures(folder: Path) -> None:
    """A COCO data set as an annotation tool would export it."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(1, PICTURES + 1):
        image, boxes = draw(number)
        image.save(folder / "images" / f"{number:03}.png")
        images.append({"id": number, "file_name": f"{number:03}.png", "width": SIZE, "height": SIZE})
        for box in boxes:
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": box, "iscrowd": 0}
            annotations.append({**entry, "area": box[2] * box[3]})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "target"}]}
    (folder / "annotations.json").write_text(json.dumps(document))


def fsod(*arguments: str) -> int:
    """Run one command as it would be typed; its exit code."""
    print(f"\n$ fsod {' '.join(arguments)}", flush=True)
    return subprocess.run([sys.executable, "-m", "fewshot_cli", *arguments], cwd=HERE).returncode


def main() -> int:
    make_pictures(HERE / "photos")
    train = ("finetune", "--policy", "symmetric", "--budget", "3")
    steps = [
        ("fetch", "--source", "coco:photos", "--class", "target", "--shots", "10", "--force"),
        ("inspect-layers", "yolox_nano", "--policy", "symmetric", "--budget", "3"),
        train,
        ("eval",),
    ]
    for step in steps:
        code = fsod(*step)
        if code == NETWORK_ERROR and step is train:
            print("\nNo network: going on with random weights. The numbers below mean nothing.", flush=True)
            code = fsod(*step, "--weights", "none", "--iterations", "20")
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
