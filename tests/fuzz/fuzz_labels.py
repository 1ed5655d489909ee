"""Label files of every format with values of another kind, boxes that are none, and structures without an end."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from fuzz_harness import Case, Change
from fuzz_values import BROKEN, DEEP, JSON_VALUES, content, document, flipped, places, replaced, without

SIZE = (40, 30)


def image(seed: int) -> Change:
    from helpers_data import draw_image

    return lambda path: draw_image(path, seed, SIZE)


BOX = {
    "id": 1,
    "image_id": 1,
    "category_id": 1,
    "bbox": [5, 4, 10, 16],
    "area": 160,
    "iscrowd": 0,
    "segmentation": [[5, 4, 15, 4, 15, 20]],
}
COCO: dict[str, Any] = {
    "info": {"year": 2026},
    "licenses": [{"id": 1, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"}],
    "images": [{"id": number, "file_name": f"000{number}.jpg", "width": 40, "height": 30, "license": 1} for number in (1, 2)],
    "annotations": [BOX, {**BOX, "id": 2, "image_id": 2}],
    "categories": [{"id": 1, "name": "cat", "supercategory": "animal"}],
}  # fmt: skip
LABELME: dict[str, Any] = {
    "version": "5.4.1", "flags": {}, "shapes": [{"label": "cat", "points": [[5, 4], [15, 20]], "shape_type": "rectangle", "group_id": None, "flags": {}}],
    "imagePath": "0001.jpg", "imageData": None, "imageHeight": 30, "imageWidth": 40,
}  # fmt: skip
_VALUE = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 5, "rectanglelabels": ["cat"]}
_RESULT = {
    "id": "a",
    "type": "rectanglelabels",
    "value": _VALUE,
    "original_width": 40,
    "original_height": 30,
    "from_name": "label",
    "to_name": "image",
}
LABELSTUDIO: list[Any] = [
    {"id": number, "data": {"image": f"/data/upload/1/000{number}.jpg"}, "annotations": [{"id": number, "was_cancelled": False, "result": [_RESULT]}]}
    for number in (1, 2)
]  # fmt: skip
CSV = "image,x1,y1,x2,y2,class\n0001.jpg,5,4,15,20,cat\n0002.jpg,5,4,15,20,cat\n"
CVAT = (
    "<annotations><version>1.1</version><meta><task><labels><label><name>cat</name></label></labels></task></meta>"
    + "".join(
        f'<image id="{number}" name="000{number}.jpg" width="40" height="30"><box label="cat" xtl="5" ytl="4" xbr="15" ybr="20" rotation="3"/>'
        '<polygon label="cat" points="1,2;3,4;5,9"/></image>'
        for number in (1, 2)
    )
    + "</annotations>"
)
VOC = (
    "<annotation><folder>x</folder><filename>0001.jpg</filename><size><width>40</width><height>30</height><depth>3</depth></size><object><name>cat</name>"
    "<difficult>0</difficult><bndbox><xmin>5</xmin><ymin>4</ymin><xmax>15</xmax><ymax>20</ymax></bndbox></object></annotation>"
)
YOLO = "0 0.5 0.5 0.2 0.2\n0 0.1 0.1 0.2 0.2 0.3 0.1\n"
LABELS: dict[str, tuple[str, str]] = {
    "coco": ("annotations.json", json.dumps(COCO)), "labelme": ("0001.json", json.dumps(LABELME)), "labelstudio": ("result.json", json.dumps(LABELSTUDIO)),
    "csv": ("boxes.csv", CSV), "cvat": ("annotations.xml", CVAT), "voc": ("0001.xml", VOC), "yolo": ("0001.txt", YOLO),
}  # fmt: skip
"""Format → its label file, valid."""

NUMBERS = ("nan", "inf", "-1", "1e400", "9" * 400, "", "x", "½", "1;2", "\x1b[31m", "-0.0", "5.5.5", "0")
WORDS = ("", "../../etc/passwd", "/dev/zero", "x" * 5000, "a&#10;b", "&lt;b&gt;", "0002.jpg", "CON", "..")
IGNORED = {
    "coco": ("info", "licenses", "segmentation", "area", "iscrowd", "supercategory", "license", "annotations 0 id", "annotations 1 id", "width", "height"),
    "labelme": ("version", "flags", "group_id", "imageData", "shapes 0 flags"),
    "labelstudio": ("original_width", "original_height", "from_name", "to_name", "was_cancelled", "0 id", "1 id", "result 0 id", "rotation"),
}  # fmt: skip
"""What a reader need not look at; the size of an image that is not drawn is not compared with its file."""


def labels() -> Iterator[Case]:
    """All formats."""
    for format, (file, text) in LABELS.items():
        for name, data in BROKEN.items():
            yield _case(format, name, content(data), harmless=True)
        for seed in range(12):
            yield _case(format, f"damaged {seed}", _damaged(text, seed), harmless=True)
        yield _case(format, "flipped", _after(content(text), flipped(3, 5)), harmless=True)
        if file.endswith(".json"):
            yield from _json_cases(format, json.loads(text))
        else:
            yield from _text_cases(format, text)
    for name, (format, change, harmless) in ENDLESS.items():
        yield _case(format, name, change, harmless=harmless)


def _case(format: str, name: str, change: Change, *, harmless: bool) -> Case:
    """A data set with two images, of which one is drawn."""
    skip = Random(name).random() < 0.3
    file = f"set/{LABELS[format][0]}"
    images = {f"set/000{number}.jpg": image(number) for number in (1, 2)}
    source = ("--source", f"{format}:set", "--class", "object" if format == "yolo" else "cat")
    return Case(
        kind="labels", name=f"labels: {format} {name}{' skipping' * skip}",
        argv=("fetch", *source, "--shots", "1", "--test-images", "0", *["--skip-invalid"] * skip),
        changes={**images, file: change}, harmless=harmless or skip,
    )  # fmt: skip


def _json_cases(format: str, value: Any) -> Iterator[Case]:
    """Each value, some of the other kinds."""
    for place in places(value):
        where = " ".join(map(str, place)) or "all"
        unread = any(part in where for part in IGNORED[format])
        for name in Random(f"{format} {where}").sample(sorted(JSON_VALUES), 3 if place else 8):
            # A reader that takes what can be meant, such as "1" or 5.5, need not refuse it; what it made is checked elsewhere.
            numeric = isinstance(_at(value, place), int | float) and name in (
                "nan",
                "infinity",
                "10^30",
                "object",
                "list",
                "nested",
                "long",
            )
            yield _case(
                format,
                f"{where}: {name}",
                document(replaced(value, place, JSON_VALUES[name])),
                harmless=unread or not numeric,
            )
        if place:
            yield _case(format, f"{where}: missing", document(without(value, place)), harmless=True)


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def _text_cases(format: str, text: str) -> Iterator[Case]:
    """Each number and each word of a text, some others in its place."""
    for found in re.finditer(r"(?<=[\s,;>\"])[\d.]+(?=[\s,;<\"])", text):
        for value in Random(f"{format} {found.start()}").sample(NUMBERS, 4):
            change = content(text[: found.start()] + value + text[found.end() :])
            yield _case(format, f"{found.start()}: {value[:8]!r}", change, harmless=True)
    for found in re.finditer(r"cat|000\d\.jpg", text):
        for value in Random(f"{format} {found.start()}").sample(WORDS, 3):
            change = content(text[: found.start()] + value + text[found.end() :])
            yield _case(format, f"{found.start()}: {value[:8]!r}", change, harmless=True)


def _damaged(text: str, seed: int) -> Change:
    """Pieces are replaced by whatever."""
    chance, data = Random(seed), text.encode()
    pieces = (
        b"",
        b"\0",
        b"\xff",
        b"nan",
        b"-1",
        b"1e999",
        b"9" * 30,
        b"null",
        b"[]",
        b'"',
        b"<",
        b">",
        b",",
        b"..",
        b"/",
        b"\n",
        b"&x;",
    )
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(data))
        data = data[:place] + chance.choice(pieces) + data[place + chance.randrange(13) :]
    return content(data)


def _after(first: Change, second: Change) -> Change:
    def both(path: Path) -> None:
        first(path)
        second(path)

    return both


# --- without an end ---

_LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha">' + "".join(f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True)) + "]>"  # fmt: skip
_EXTERNAL = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
MANY = 20_000


def _coco(**changes: Any) -> Change:
    return lambda path: document({**COCO, **changes})(path)


def _made(make: Any) -> Change:
    """Content that is made when it is needed: it is large."""
    return lambda path: content(make())(path)


_categories = [{"id": number, "name": f"c{number}"} for number in range(2, MANY)]
ENDLESS: dict[str, tuple[str, Change, bool]] = {
    "20,000 categories": ("coco", _coco(categories=[*COCO["categories"], *_categories]), True),
    "20,000 categories of one name": ("coco", _coco(categories=[{"id": number, "name": "cat"} for number in range(1, MANY)]), True),
    "20,000 boxes of an image": ("coco", _coco(annotations=[{**BOX, "id": number} for number in range(1, MANY)]), True),
    "20,000 boxes of one id": ("coco", _coco(annotations=[BOX] * MANY), True),
    "20,000 boxes of no image": ("coco", _coco(annotations=[{**BOX, "id": number, "image_id": -number} for number in range(MANY)]), True),
    "20,000 images that are missing": ("coco", _coco(images=[*COCO["images"], *({"id": number, "file_name": f"{number}.jpg", "width": 9, "height": 9} for number in range(3, MANY))]), True),
    "20,000 images of one id": ("coco", _coco(images=[COCO["images"][0]] * MANY), True),
    "odd licences": ("coco", _coco(licenses=[None, 7, {"id": {}}, {"id": 1, "name": ["x"]}, {"id": float("nan")}]), True),
    "licences that are no list": ("coco", _coco(licenses={"a": 1}), True),
    "NaN boxes": ("coco", _coco(annotations=[{**BOX, "bbox": [math.nan] * 4}]), False),
    "boxes outside": ("coco", _coco(annotations=[{**BOX, "bbox": [1e9, 1e9, 1, 1]}]), False),
    "boxes of text": ("coco", _coco(annotations=[{**BOX, "bbox": ["5", "4", "x", "16"]}]), False),
    "deep info": ("coco", _made(lambda: json.dumps(COCO)[:-1] + ', "x": ' + "[" * DEEP + "]" * DEEP + "}"), True),
    "huge digits": ("coco", _made(lambda: json.dumps(COCO).replace('"id": 1', f'"id": {"9" * 5000}')), True),
    "laughs": ("voc", content(_LAUGHS + VOC.replace("cat", "&i;")), False),
    "laughs of cvat": ("cvat", content(_LAUGHS + CVAT.replace('"cat"', '"&i;"')), False),
    "external": ("voc", content(_EXTERNAL + VOC.replace("cat", "&a;")), False),
    "external of cvat": ("cvat", content(_EXTERNAL + CVAT.replace("cat", "&a;")), False),
    "deep voc": ("voc", _made(lambda: "<a>" * DEEP), False),
    "deep cvat": ("cvat", _made(lambda: "<annotations>" + "<image>" * DEEP), False),
    "closed deep cvat": ("cvat", _made(lambda: CVAT.replace("</image></annotations>", "<a>" * DEEP + "</a>" * DEEP + "</image></annotations>")), True),
    "50,000 attributes": ("cvat", _made(lambda: "<annotations " + " ".join(f'a{number}="1"' for number in range(50_000)) + "/>"), True),
    "20,000 objects": ("voc", _made(lambda: VOC.replace("</object>", "</object><object>" + "<name>x</name></object><object>" * MANY)), True),
    "20,000 lines": ("yolo", _made(lambda: YOLO * (MANY // 2)), True),
    "20,000 classes": ("yolo", _made(lambda: "".join(f"{number} 0.5 0.5 0.2 0.2\n" for number in range(MANY))), True),
    "class 10^20": ("yolo", content("100000000000000000000 0.5 0.5 0.2 0.2\n"), False),
    "class -1": ("yolo", content("-1 0.5 0.5 0.2 0.2\n"), False),
    "class 1.5": ("yolo", content("1.5 0.5 0.5 0.2 0.2\n"), False),
    "no end of a line": ("yolo", _made(lambda: "0 " + "0.5 " * 200_000), True),
    "a long field": ("csv", _made(lambda: CSV + "x" * 1_000_000 + ",1,2,3,4,cat\n"), True),
    "an open quote": ("csv", _made(lambda: CSV + '"' + "0002.jpg,1,2,3,4,cat\n" * MANY), True),
    "20,000 rows": ("csv", _made(lambda: CSV + "0002.jpg,1,2,3,4,cat\n" * MANY), True),
    "20,000 classes of csv": ("csv", _made(lambda: CSV + "".join(f"0002.jpg,1,2,30,24,c{number}\n" for number in range(MANY))), True),
    "20,000 columns": ("csv", _made(lambda: ",".join(f"c{number}" for number in range(MANY)) + "\n"), False),
    "20,000 shapes": ("labelme", _made(lambda: json.dumps({**LABELME, "shapes": LABELME["shapes"] * MANY})), True),
    "a polygon of 100,000 points": ("labelme", _made(lambda: json.dumps({**LABELME, "shapes": [{**LABELME["shapes"][0], "shape_type": "polygon", "points": [[5, 4], [15, 20], [6, 9]] * 33_000}]})), True),
    "image data that is none": ("labelme", content(json.dumps({**LABELME, "imagePath": "9.jpg", "imageData": "!" * 1000})), True),
    "20,000 tasks": ("labelstudio", _made(lambda: json.dumps(LABELSTUDIO * (MANY // 2))), True),
    "20,000 results": ("labelstudio", _made(lambda: json.dumps([{**LABELSTUDIO[0], "annotations": [{"result": [_RESULT] * MANY}]}])), True),
}  # fmt: skip
"""Name → format, content, whether it may be taken."""

YAML = {
    "code": "!!python/object/apply:os.system ['touch hacked']", "laughs": "a: &a [x]\n" + "\n".join(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefghi", "bcdefghij", strict=True)) + "\nnames: *j",
    "names of another kind": "names: 7\ntrain: .", "names null": "names:\ntrain: .", "nested names": "names: [[a], {b: c}]\ntrain: .", "a list": "[1, 2]",
    "a loop": "names: &a [*a]\ntrain: .", "a path elsewhere": "path: /\ntrain: etc\nnames: [cat]", "a device": "path: /dev\ntrain: zero\nnames: [cat]",
    "an index of 10^20": "names: {100000000000000000000: cat}\ntrain: .", "a negative index": "names: {-1: cat}\ntrain: .", "open": "names: [cat", "tabs": "\tnames: x",
    "deep": "names: " + "[" * 5000, "a date": "names: 2026-11-24", "train of another kind": "train: {a: 1}\nnames: [cat]", "NUL": "names: [\0]", "nc": "nc: 10000000000\nnames: [cat]\ntrain: .",
}  # fmt: skip


def yaml() -> Iterator[Case]:
    """`data.yaml` of a YOLO data set."""
    for name, text in YAML.items():
        changes = {"set/0001.jpg": image(1), "set/0001.txt": content(YOLO), "set/data.yaml": content(text)}
        argv = ("fetch", "--source", "yolo:set", "--class", "cat", "--shots", "1", "--test-images", "0")
        yield Case(
            kind="labels",
            name=f"labels: data.yaml {name}",
            argv=argv,
            changes=changes,
            harmless=name in ("nc", "a loop", "train of another kind"),
        )
