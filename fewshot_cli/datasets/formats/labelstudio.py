"""Label Studio: the export that it calls "JSON", a list of tasks; images in the file's folder.

Images are looked for in the folder of the file and its images/ by the longest end of their address that exists there:
of `/data/upload/1/1a2b3c4d-photo.jpg` that is `1a2b3c4d-photo.jpg` or, as it was called before the upload, `photo.jpg`.
Nothing is downloaded. Rectangles (also turned ones), polygons and ellipses become the boxes around them; brush strokes,
key points and the like have no box and are left out. Of several annotations of a task the one marked as ground truth
is taken, else the newest; cancelled ones are none. A task whose annotation has no region is a background image; a
task without an annotation is not labelled, and left out. Coordinates belong to the upright image, as browsers show it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import quoteattr

from fewshot_cli.datasets.formats.boxes import Corners, ellipse_hull, hull, turned
from fewshot_cli.datasets.formats.collector import CORRECT, Collector, FoundImage, Where
from fewshot_cli.datasets.formats.documents import read_json, start_of
from fewshot_cli.datasets.formats.image_files import SUFFIXES, find_first, tails
from fewshot_cli.datasets.formats.values import finite, is_id, member, shown
from fewshot_cli.datasets.formats.writing import Labelled
from fewshot_cli.datasets.types import Split
from fewshot_cli.errors import DataError
from fewshot_cli.files import write_json, write_text

__all__ = ["EXPECTED", "open_writer", "read", "recognise"]

EXPECTED = (
    'a .json file of Label Studio (export "JSON": a list of tasks), or a folder with it (result.json) and images.'
)


def recognise(path: Path) -> bool:
    """Whether `path` is a JSON file that holds a list, or a folder with one (result.json, or the only one)."""
    return _find(path) is not None


def read(path: Path, *, decode_images: bool = True, skip_invalid: bool = False) -> Split:
    """Read and check one split; arguments and errors as for `formats.read_split`."""
    file = path if path.is_file() else _find(path)
    if file is None:
        raise DataError(f"{path} holds no tasks of Label Studio", hint=f"Expected {EXPECTED}")
    found = Collector(file, decode=decode_images)
    tasks, _ = read_json(file, found.problems)
    if not found.problems.found and not isinstance(tasks, list):
        found.problem(Where(file, ""), 'not a list of tasks: export it from Label Studio as "JSON"')
    if found.problems.found:
        raise found.problems.error(CORRECT)
    for place, task in enumerate(tasks):
        _read_task(found, file, place, task)
    return found.split(skip_invalid=skip_invalid)


def _find(path: Path) -> Path | None:
    if path.is_dir():
        files = [file for file in sorted(path.glob("*.json")) if _is_list(file)]
        named = [file for file in files if file.name == "result.json"]
        return named[0] if named else files[0] if len(files) == 1 else None
    return path if path.suffix.lower() == ".json" and _is_list(path) else None


def _is_list(file: Path) -> bool:
    return start_of(file).startswith("[")


# --- one task ---


def _read_task(found: Collector, file: Path, place: int, task: Any) -> None:
    task_id = member(task, "id")
    where = Where(file, f"task {task_id}" if is_id(task_id) else f"task at position {place}")
    annotations = member(task, "annotations") or member(task, "completions") or []
    if not isinstance(member(task, "data"), dict) or not isinstance(annotations, list):
        found.problem(where, 'has no "data" and "annotations": export as "JSON", not as "JSON-MIN"')
        return
    annotation = _chosen(annotations, found)
    if annotation is None:
        found.left_out["tasks without an annotation, left out as not labelled"] += 1
        return
    path, reason = find_first(_roots(file), list(_names(task)))
    image = found.image(where, path, reason)
    regions = member(annotation, "result")
    if not isinstance(regions, list):
        found.problem(where, '"result" is not a list')
        return
    named = {member(region, "id") for region in regions if _labels(region) and is_text(member(region, "id"))}
    for count, region in enumerate(regions, start=1):
        # <Rectangle> beside <Labels>: the same region comes once more, with its label.
        if _labels(region) or member(region, "id") not in named:
            _read_region(found, image, Where(file, f"{where.record}, region {count}"), region)


def is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _chosen(annotations: list[Any], found: Collector) -> Any:
    """The annotation that counts, or None."""
    usable = [each for each in annotations if isinstance(each, dict) and not each.get("was_cancelled")]
    if len(usable) > 1:
        found.left_out["tasks with several annotations, of which the ground truth or the newest is taken"] += 1
    return max(usable, key=_rank, default=None)


def _rank(annotation: dict[str, Any]) -> tuple[bool, str, int]:
    number = annotation.get("id")
    newest = annotation.get("updated_at") or annotation.get("created_at")
    return annotation.get("ground_truth") is True, str(newest or ""), number if is_id(number) else 0


def _roots(file: Path) -> list[Path]:
    return [folder for folder in (file.parent, file.parent / "images") if folder.is_dir()]


def _names(task: dict[str, Any]) -> Iterator[str]:
    """Where the image of a task may lie in the folder, the most likely place first."""
    values = [value for value in task["data"].values() if is_text(value)]
    addresses = sorted(map(_path_of, values), key=lambda address: not address.lower().endswith(SUFFIXES))
    upload = task.get("file_upload")
    for address in [*addresses[:1], *([upload] if isinstance(upload, str) and upload else [])]:
        yield from tails(address)
        prefix, _, name = address.replace("\\", "/").rpartition("/")[2].partition("-")
        if name and len(prefix) == 8:  # Label Studio puts eight digits in front of what is uploaded
            yield name


def _path_of(address: str) -> str:
    """The path in an address: of `/data/local-files/?d=a/b.jpg` it is `a/b.jpg`."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    local = parse_qs(parts.query).get("d")
    return local[0] if local else unquote(parts.path)


# --- one region ---


def _labels(region: Any) -> list[Any]:
    value = member(region, "value")
    kinds = (member(region, "type"), "labels")
    return next((names for kind in kinds if isinstance(names := member(value, str(kind)), list) and names), [])


def _read_region(found: Collector, image: FoundImage, where: Where, region: Any) -> None:
    value = member(region, "value")
    if not isinstance(value, dict):
        if member(region, "type") != "relation":
            found.problem(where, "has no value")
        return
    shape = next((read for keys, read in _SHAPES if all(key in value for key in keys)), None)
    if shape is None:
        found.left_out["brush strokes, key points and choices, left out as they have no box"] += 1
    elif not _labels(region):
        found.problem(where, "has no label")
    elif member(region, "image_rotation"):
        found.problem(where, "the image was rotated in Label Studio: save it that way and label it again")
    elif image.size:
        try:
            corners = shape(value, *(side / 100 for side in image.size))
        except ValueError as error:
            found.problem(where, str(error))
            return
        for name in _labels(region):
            found.box(image, where, name, corners)


def _numbers(value: dict[str, Any], *keys: str) -> list[float]:
    known = [number for key in keys if (number := finite(value.get(key))) is not None]
    if len(known) < len(keys):
        raise ValueError(f"{', '.join(keys)} are not all finite numbers: {shown([value.get(key) for key in keys])}")
    return known


def _rotation(value: dict[str, Any]) -> float:
    """Degrees, clockwise."""
    return _numbers(value, "rotation")[0] if value.get("rotation") else 0.0


# A shape's numbers are per cent of the image's sides; `w` and `h` are pixels per per cent.


def _rectangle(value: dict[str, Any], w: float, h: float) -> Corners:
    x, y, width, height = _numbers(value, "x", "y", "width", "height")
    # Turned about its upper left corner.
    return turned((x * w, y * h, (x + width) * w, (y + height) * h), _rotation(value), (x * w, y * h))


def _polygon(value: dict[str, Any], w: float, h: float) -> Corners:
    pairs = value["points"] if isinstance(value["points"], list) else []
    points = [(finite(pair[0]), finite(pair[1])) for pair in pairs if isinstance(pair, list) and len(pair) == 2]
    known = [(x * w, y * h) for x, y in points if x is not None and y is not None]
    if len(known) < 3 or len(known) < len(pairs):
        raise ValueError(f"points is not a list of three or more pairs of finite numbers: {shown(value['points'])}")
    return hull(known)


def _ellipse(value: dict[str, Any], w: float, h: float) -> Corners:
    x, y, a, b = _numbers(value, "x", "y", "radiusX", "radiusY")
    return ellipse_hull((x * w, y * h), (a * w, b * h), _rotation(value))


_SHAPES = ((("points",), _polygon), (("radiusX", "radiusY"), _ellipse), (("x", "width", "height"), _rectangle))
"""Keys of a value → the shape that has them; a key point has a width, and no height."""


# --- writing ---


class _Writer:
    """tasks.json, whose predictions Label Studio imports as pre-labels, and the labelling interface for them."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._folder = folder
        self._tasks: list[dict[str, Any]] = []
        write_text(folder / "label_config.xml", _interface(classes))

    def add(self, image: Labelled) -> None:
        self._tasks.append(_task(image))

    def close(self) -> None:
        write_json(self._folder / "tasks.json", self._tasks)


def open_writer(folder: Path, classes: Sequence[str]) -> _Writer:
    """See `writing.open_writer`.

    Images are named as Label Studio's local storage serves them, below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT. The
    file is written by `close`.
    """
    return _Writer(folder, classes)


def _interface(classes: Sequence[str]) -> str:
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in classes)
    return (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <RectangleLabels name="label" toName="image">\n{labels}  </RectangleLabels>\n</View>\n'
    )


def _task(image: Labelled) -> dict[str, Any]:
    scores = image.scores.tolist() if image.scores is not None else []
    prediction: dict[str, Any] = {"model_version": "fsod", "result": _regions(image, scores)}
    if scores:
        prediction["score"] = sum(scores) / len(scores)
    return {
        "data": {"image": f"/data/local-files/?d={quote(image.name, errors='surrogateescape')}"},
        "predictions": [prediction],
    }


def _regions(image: Labelled, scores: Sequence[float]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"box{place}",
            "type": "rectanglelabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": image.width,
            "original_height": image.height,
            "image_rotation": 0,
            **({"score": scores[place]} if scores else {}),
            "value": {
                "x": 100 * x1 / image.width,
                "y": 100 * y1 / image.height,
                "width": 100 * (x2 - x1) / image.width,
                "height": 100 * (y2 - y1) / image.height,
                "rotation": 0,
                "rectanglelabels": [label],
            },
        }
        for place, ((x1, y1, x2, y2), label) in enumerate(zip(image.boxes.tolist(), image.names, strict=True))
    ]
