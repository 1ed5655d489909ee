"""COCO folders are read in every common layout, written in one step, and never believed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_data import SIZE, document_of, draw_coco, draw_image, write_document
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fewshot_cli.datasets.checks import check_images
from fewshot_cli.datasets.formats import read_split
from fewshot_cli.datasets.formats.coco_writer import write_split
from fewshot_cli.datasets.types import Split, to_xywh, to_xyxy
from fewshot_cli.errors import DataError, DatasetError, StorageError
from fewshot_cli.files import write_folder

CONTENTS = [["cat"], ["cat", "dog"], []]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw_coco(tmp_path / "set", CONTENTS)
    return tmp_path / "set"


def problems_of(folder: Path, **options: bool) -> list[str]:
    """The problems a reader finds, as `record: reason`."""
    with pytest.raises(DatasetError) as raised:
        read_split(folder, **options)
    return [f"{problem.record}: {problem.reason}" for problem in raised.value.problems]


def changed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The folder after its document was changed in place."""
    document = json.loads((folder / "annotations.json").read_text())
    change(document)
    return write_document(folder, document)


# Reading


def test_boxes_become_xyxy_pixels_and_labels_indices(folder: Path) -> None:
    """A split holds xyxy boxes, labels that index its classes, and images in the order of the file."""
    split = read_split(folder)
    assert (("cat", "dog"), [1, 2, 3]) == (split.classes, [image.id for image in split.images])
    second = split.images[1]
    assert [[7, 5, 18, 21], [5, 5, 16, 21]] == second.boxes.tolist()
    assert ([0, 1], [False, False], SIZE) == (
        second.labels.tolist(),
        second.crowd.tolist(),
        (second.width, second.height),
    )
    assert ((0, 4), (0,)) == (split.images[2].boxes.shape, split.images[2].labels.shape)


def _ours(root: Path) -> Path:
    return root


def _beside(root: Path) -> Path:
    for file in (root / "images").iterdir():
        file.rename(root / file.name)
    (root / "images").rmdir()
    return root


def _roboflow(root: Path) -> Path:
    (_beside(root) / "annotations.json").rename(root / "_annotations.coco.json")
    return root


def _torchvision(root: Path) -> Path:
    (root / "annotations").mkdir()
    (root / "annotations.json").rename(root / "annotations" / "instances_val2017.json")
    (root / "images").rename(root / "val2017")
    return root


def _torchvision_images(root: Path) -> Path:
    (_torchvision(root) / "val2017").rename(root / "images")
    return root


def _file(root: Path) -> Path:
    return root / "annotations.json"


def _torchvision_file(root: Path) -> Path:
    return _torchvision(root) / "annotations" / "instances_val2017.json"


LAYOUTS = [_ours, _beside, _roboflow, _torchvision, _torchvision_images, _file, _torchvision_file]


@pytest.mark.parametrize("arrange", LAYOUTS)
def test_every_layout_reads_the_same(folder: Path, arrange: Callable[[Path], Path]) -> None:
    """Ours, Roboflow's, torchvision's, or a file given directly: the same images with the same boxes."""
    expected = read_split(folder).to_coco()
    assert expected == read_split(arrange(folder)).to_coco()


def test_a_folder_of_splits_says_which_it_has(folder: Path) -> None:
    """Given a data set instead of a split, the reader names the splits."""
    for name in ("train", "valid"):
        draw_coco(folder.parent / "both" / name, CONTENTS)
    with pytest.raises(DataError, match="several splits: train, valid") as raised:
        read_split(folder.parent / "both")
    assert str(folder.parent / "both" / "train") in (raised.value.hint or "")


def test_a_folder_without_annotations_lists_the_layouts(tmp_path: Path) -> None:
    """A folder that is no COCO, or is not there, says what was expected."""
    with pytest.raises(DataError, match="no COCO annotations") as raised:
        read_split(tmp_path, format="coco")
    assert "annotations.json" in (raised.value.hint or "")
    with pytest.raises(DataError, match="does not exist"):
        read_split(tmp_path / "none", format="coco")


def test_subfolders_are_allowed_in_file_names(folder: Path) -> None:
    """A file_name may point into a subfolder of the image folder."""
    (folder / "images" / "deep").mkdir()
    (folder / "images" / "0001.jpg").rename(folder / "images" / "deep" / "a.jpg")
    changed(folder, lambda document: document["images"][0].update(file_name="deep/a.jpg"))
    assert folder / "images" / "deep" / "a.jpg" == read_split(folder).images[0].path


def test_size_is_that_of_the_upright_image(folder: Path) -> None:
    """With an EXIF orientation, the size and the boxes belong to the image as a viewer shows it."""
    draw_image(folder / "images" / "0001.jpg", 1, orientation=6)
    assert ["image 1: the annotations say 40×30 pixels, the image has 30×40 (EXIF orientation applied)"] == (
        problems_of(folder)
    )
    changed(folder, lambda document: document["images"][0].update(width=30, height=40))
    image = read_split(folder).images[0]
    assert (30, 40) == (image.width, image.height)


@pytest.mark.parametrize("decode_images", [True, False])
def test_a_missing_size_is_taken_from_the_image(folder: Path, decode_images: bool) -> None:
    """Where the file does not state width and height, the image does."""
    changed(folder, lambda document: document["images"][0].pop("width"))
    image = read_split(folder, decode_images=decode_images).images[0]
    assert SIZE == (image.width, image.height)


def test_boxes_are_clipped_within_a_pixel(folder: Path) -> None:
    """A box that leaves the image by rounding is clipped to it."""
    changed(folder, lambda document: document["annotations"][0].update(bbox=[-0.5, -1, 41, 32]))
    assert [[0, 0, 40, 30]] == read_split(folder).images[0].boxes.tolist()


def test_categories_may_have_any_ids_and_an_unused_group_is_dropped(folder: Path) -> None:
    """Category ids are arbitrary; Roboflow's entry 0, which names the group, is no class."""

    def change(document: dict[str, Any]) -> None:
        document["categories"] = [
            {"id": 0, "name": "cat", "supercategory": "none"},
            {"id": 900, "name": "cat", "supercategory": "pets"},
            {"id": -7, "name": "dog", "supercategory": "pets"},
            {"id": 5, "name": "bird", "supercategory": "pets"},
            {"id": 6, "name": "pets", "supercategory": "none"},
        ]
        for record in document["annotations"]:
            record["category_id"] = {1: 900, 2: -7}[record["category_id"]]

    split = read_split(changed(folder, change))
    assert ("cat", "dog", "bird") == split.classes
    assert [0, 1] == split.images[1].labels.tolist()


def test_crowd_boxes_are_marked(folder: Path) -> None:
    """iscrowd survives the way in and out."""
    split = read_split(changed(folder, lambda document: document["annotations"][1].update(iscrowd=1)))
    assert [True, False] == split.images[1].crowd.tolist()
    assert [0, 1, 0] == [record["iscrowd"] for record in split.to_coco()["annotations"]]


def test_licences_are_collected(folder: Path) -> None:
    """What the file says about rights is kept, from `licenses` and from `info`."""

    def change(document: dict[str, Any]) -> None:
        document["info"] = {"licence": "MIT"}
        document["licenses"] = [{"id": 1, "name": "CC BY", "url": "https://example.org"}, "junk", {"name": 3}]

    assert ("MIT", "CC BY https://example.org") == read_split(changed(folder, change)).licences


# Problems


def _image(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda document: document["images"][0].update(values)


def _annotation(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda document: document["annotations"][0].update(values)


def _category(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda document: document["categories"][0].update(values)


NOT_A_NUMBER = "bbox holds something that is not a finite number"
FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "image missing": (_image(file_name="none.jpg"), "image 1: 'none.jpg' does not exist"),
    "image above": (_image(file_name="../annotations.json"), "image 1: '../annotations.json' leads out of the folder"),
    "image above, Windows": (_image(file_name="..\\x.jpg"), "image 1: '..\\\\x.jpg' leads out of the folder"),
    "image absolute": (_image(file_name="/etc/passwd"), "image 1: '/etc/passwd' leads out of the folder"),
    "image on a drive": (_image(file_name="C:x.jpg"), "image 1: 'C:x.jpg' leads out of the folder"),
    "image with NUL": (_image(file_name="a\0b"), "image 1: 'a\\x00b'"),
    "image name too long": (_image(file_name="a" * 5000), "image 1: 'aaa"),
    "image is the folder": (_image(file_name="."), "image 1: '.' is not a file"),
    "image name empty": (_image(file_name=""), "image 1: the file_name is not a non-empty string"),
    "image name a list": (_image(file_name=["0001.jpg"]), "image 1: the file_name is not a non-empty string"),
    "image twice": (_image(file_name="./0002.jpg"), "image 2: '0002.jpg' is already image 1"),
    "image size wrong": (_image(width=41), "image 1: the annotations say 41×30 pixels, the image has 40×30"),
    "image size zero": (_image(width=0), "image 1: width and height are not positive integers"),
    "image size text": (_image(width="40"), "image 1: width and height are not positive integers"),
    "image size huge": (_image(width=10**400), "image 1: width and height are not positive integers"),
    "image id twice": (_image(id=2), "image 2: the id is used twice"),
    "image id true": (_image(id=True), "image at position 0: the id is not an integer: True"),
    "image id text": (_image(id="1"), "image at position 0: the id is not an integer: '1'"),
    "image id huge": (_image(id=2**63), "image at position 0: the id is not an integer"),
    "image a number": (lambda document: document["images"].append(7), "image at position 3: not an object"),
    "annotation without image": (_annotation(image_id=99), "annotation 1: no image has the id 99"),
    "annotation image a list": (_annotation(image_id=[1]), "annotation 1: no image has the id [1]"),
    "annotation without category": (_annotation(category_id=99), "annotation 1: no category has the id 99"),
    "annotation id twice": (_annotation(id=2), "annotation 2: the id is used twice"),
    "annotation null": (lambda document: document["annotations"].append(None), "annotation at position 3: not an"),
    "annotation crowd odd": (_annotation(iscrowd="yes"), "annotation 1: iscrowd is neither 0 nor 1: 'yes'"),
    "box missing": (lambda document: document["annotations"][0].pop("bbox"), "annotation 1: bbox is not a list"),
    "box of three": (_annotation(bbox=[1, 2, 3]), "annotation 1: bbox is not a list of four numbers: [1, 2, 3]"),
    "box of text": (_annotation(bbox=["1", 2, 3, 4]), f"annotation 1: {NOT_A_NUMBER}"),
    "box with true": (_annotation(bbox=[True, 2, 3, 4]), f"annotation 1: {NOT_A_NUMBER}"),
    "box NaN": (_annotation(bbox=[float("nan"), 2, 3, 4]), f"annotation 1: {NOT_A_NUMBER}"),
    "box infinite": (_annotation(bbox=[0, 0, float("inf"), 4]), f"annotation 1: {NOT_A_NUMBER}"),
    "box huge": (_annotation(bbox=[0, 0, 10**400, 4]), f"annotation 1: {NOT_A_NUMBER}"),
    "box inverted": (_annotation(bbox=[9, 9, -3, 4]), "annotation 1: bbox has no positive width and height"),
    "box empty": (_annotation(bbox=[9, 9, 3, 0]), "annotation 1: bbox has no positive width and height"),
    "box thinner than float32": (_annotation(bbox=[9, 9, 1e-12, 4]), "annotation 1: bbox [9, 9, 1e-12, 4] has no area"),
    "box outside": (_annotation(bbox=[50, 50, 5, 5]), "annotation 1: bbox [50, 50, 5, 5] (x, y, width, height) leaves"),
    "box half outside": (_annotation(bbox=[35, 5, 10, 5]), "annotation 1: bbox [35, 5, 10, 5] (x, y, width, height)"),
    "box on the edge": (_annotation(bbox=[40, 5, 1, 5]), "annotation 1: bbox [40, 5, 1, 5] has no area inside"),
    "category name twice": (_category(name="dog"), "category 2: another category has the name 'dog' too"),
    "category name a number": (_category(name=3), "category 1: the name is not a non-empty string: 3"),
    "category id a list": (_category(id=[1]), "category at position 0: the id is not an integer: [1]"),
    "NaN anywhere": (lambda document: document.update(version=float("nan")), ": holds NaN, which is not JSON"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_reported_with_record_and_reason(folder: Path, fault: str) -> None:
    """Every fault is a problem that names the record and the reason."""
    change, expected = FAULTS[fault]
    found = problems_of(changed(folder, change))
    assert any(problem.startswith(expected) for problem in found), found


def test_all_problems_come_at_once(folder: Path) -> None:
    """Faults of images, boxes and categories are listed together, each once."""

    def change(document: dict[str, Any]) -> None:
        _image(file_name="none.jpg")(document)
        document["annotations"][1]["bbox"] = [0, 0, -1, 5]
        document["annotations"][2]["category_id"] = 44
        document["categories"].append({"id": 9, "name": ""})

    records = [problem.split(":")[0] for problem in problems_of(changed(folder, change))]
    assert ["annotation 2", "annotation 3", "category 9", "image 1"] == sorted(records)


def test_a_broken_image_does_not_blame_its_boxes(folder: Path) -> None:
    """One missing image is one problem, not one more for each of its boxes."""
    (folder / "images" / "0002.jpg").unlink()
    assert 1 == len(problems_of(folder))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


SPOILED: dict[str, tuple[Callable[[Path], Any], str, bool]] = {
    "missing": (Path.unlink, "does not exist", True),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty", True),
    "corrupt": (lambda path: path.write_bytes(b"no image at all"), "not readable as an image", False),
    "truncated": (_cut, "not readable as an image: image file is truncated", False),
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_spoiled_images_are_reported(folder: Path, spoil: str) -> None:
    """An image that is missing, empty, corrupt or truncated is a problem of its record."""
    damage, reason, without_decoding = SPOILED[spoil]
    whole = read_split(folder)
    damage(folder / "images" / "0002.jpg")
    (problem,) = problems_of(folder)
    assert problem.startswith("image 2: ") and reason in problem
    assert [2] == list(check_images(whole.images))
    if without_decoding:
        assert [problem] == problems_of(folder, decode_images=False)
    else:
        assert 3 == len(read_split(folder, decode_images=False).images)


def test_links_out_of_the_folder_are_refused(folder: Path) -> None:
    """A symbolic link may not show an image from elsewhere; one inside the folder may."""
    outside = folder.parent / "secret.jpg"
    draw_image(outside, 9)
    for name in ("0001.jpg", "0002.jpg"):
        (folder / "images" / name).unlink()
    (folder / "images" / "0001.jpg").symlink_to(outside)
    (folder / "images" / "0002.jpg").symlink_to("0002.jpg")
    found = problems_of(folder)
    assert "image 1: '0001.jpg' is a link that leads out of the folder" == found[0]
    assert found[1].startswith("image 2: '0002.jpg'") and len(found) == 2


def test_a_linked_image_folder_is_the_users_choice(folder: Path) -> None:
    """images/ itself may be a link to another disk."""
    (folder / "images").rename(folder.parent / "elsewhere")
    (folder / "images").symlink_to(folder.parent / "elsewhere")
    assert 3 == len(read_split(folder).images)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("\xff\xfe", "not valid JSON"),
        ("[]", "the top level is not an object"),
        ("{}", '"images" is missing'),
        ('{"images": {}, "annotations": [], "categories": []}', '"images" is not a list'),
        ('{"images": [], "annotations": [], "categories": []}', "no usable image"),
    ],
)
def test_a_file_that_is_not_coco_says_why(tmp_path: Path, text: str, reason: str) -> None:
    """What is no COCO at all is an error, also when faulty records may be left out."""
    (tmp_path / "annotations.json").write_bytes(text.encode("latin-1"))
    for skip_invalid in (True, False):
        assert reason in problems_of(tmp_path, skip_invalid=skip_invalid)[0]


def test_faulty_records_can_be_left_out(folder: Path) -> None:
    """With skip_invalid a faulty box goes alone, a faulty image with its boxes, and both are listed."""
    (folder / "images" / "0001.jpg").write_bytes(b"")
    changed(folder, lambda document: document["annotations"][1].update(bbox=[0, 0, 0, 0]))
    split = read_split(folder, skip_invalid=True)
    assert [2, 3] == [image.id for image in split.images]
    assert [1] == split.images[0].labels.tolist()
    assert ["image 1", "annotation 2"] == [problem.record for problem in split.skipped]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([0, 1, 2, 10**30, "0001.jpg", "../x", "cat", float("nan")])
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["id", "file_name", "width", "height", "image_id", "category_id", "bbox", "iscrowd", "name", "supercategory"]
records = st.lists(st.dictionaries(st.sampled_from(KEYS), json_values, max_size=8) | json_values, max_size=4)
documents = st.fixed_dictionaries({"images": records, "annotations": records, "categories": records}) | json_values


@settings(max_examples=20)
@given(documents, st.booleans(), st.booleans())
def test_garbage_is_a_data_error_or_a_split(document: Any, decode_images: bool, skip_invalid: bool) -> None:
    """Whatever JSON a folder holds, the reader gives a split or a DataError, nothing else."""
    with tempfile.TemporaryDirectory() as name:
        write_document(Path(name), document)
        draw_image(Path(name) / "images" / "0001.jpg", 1)
        try:
            split = read_split(Path(name), decode_images=decode_images, skip_invalid=skip_invalid)
        except DataError as error:
            assert error.message
        else:
            assert split.images


@settings(max_examples=50)
@given(st.sampled_from(["images", "annotations", "categories"]), st.sampled_from(KEYS), json_values)
def test_one_odd_value_leaves_boxes_inside(part: str, key: str, value: Any) -> None:
    """One field replaced by anything: an error, or a split whose boxes are positive and inside their images."""
    document = document_of(CONTENTS, ["cat", "dog"])
    document[part][0][key] = value
    with tempfile.TemporaryDirectory() as name:
        for record in range(1, 4):
            draw_image(Path(name) / "images" / f"{record:04}.jpg", record)
        write_document(Path(name), document)
        try:
            split = read_split(Path(name))
        except DataError:
            return
    for image in split.images:
        assert np.isfinite(image.boxes).all()
        assert (image.boxes[:, 2:] > image.boxes[:, :2]).all()
        assert (image.boxes >= 0).all() and (image.boxes <= [image.width, image.height] * 2).all()


# Writing


@settings(max_examples=60)
@given(st.lists(st.tuples(*[st.floats(0, 4000, width=32)] * 4), max_size=5))
def test_xywh_and_back_is_the_same_box(rows: list[tuple[float, ...]]) -> None:
    """xyxy → xywh → xyxy gives the same float32 boxes when the middle is float64, as it is in a file."""
    boxes = np.array(rows, dtype=np.float32).reshape(-1, 4)
    back = to_xyxy(to_xywh(boxes.astype(np.float64))).astype(np.float32)
    assert np.allclose(boxes, back, rtol=0, atol=1e-6)


def test_a_written_split_reads_back_the_same(folder: Path, tmp_path: Path) -> None:
    """Writing and reading keeps ids, order, classes, boxes, crowd marks, licences and the images' bytes."""

    def change(document: dict[str, Any]) -> None:
        document["annotations"][0].update(bbox=[1.37, 2.19, 7.003, 11.1], iscrowd=1)
        document["info"] = {"license": "MIT"}

    split = read_split(changed(folder, change))
    written = write_split(tmp_path / "copy", split)
    again = read_split(tmp_path / "copy")
    assert split.to_coco() == again.to_coco() == written.to_coco()
    assert ("MIT",) == again.licences
    for one, other in zip(split.images, again.images, strict=True):
        assert np.array_equal(one.boxes, other.boxes)
        assert one.path.read_bytes() == other.path.read_bytes()


def test_images_of_the_same_name_do_not_overwrite_each_other(folder: Path, tmp_path: Path) -> None:
    """Two images called alike in different subfolders both survive, also on disks that ignore case."""
    for number, name in [(1, "a/x.jpg"), (2, "b/X.jpg")]:
        (folder / "images" / name).parent.mkdir()
        (folder / "images" / f"{number:04}.jpg").rename(folder / "images" / name)

    def change(document: dict[str, Any]) -> None:
        document["images"][0]["file_name"] = "a/x.jpg"
        document["images"][1]["file_name"] = "b/X.jpg"

    write_split(tmp_path / "copy", read_split(changed(folder, change)))
    assert ["0003.jpg", "2_X.jpg", "x.jpg"] == sorted(file.name for file in (tmp_path / "copy" / "images").iterdir())


def test_sideways_images_are_written_upright(folder: Path, tmp_path: Path) -> None:
    """An image with an EXIF orientation lies upright after writing, and fits its stated size."""
    draw_image(folder / "images" / "0001.jpg", 1, orientation=6)
    changed(folder, lambda document: document["images"][0].update(width=30, height=40))
    write_split(tmp_path / "copy", read_split(folder))
    with Image.open(tmp_path / "copy" / "images" / "0001.jpg") as image:
        assert (30, 40) == image.size
    assert 3 == len(read_split(tmp_path / "copy").images)


def test_pycocotools_reads_the_document(folder: Path) -> None:
    """pycocotools scores the ground truth against itself with an AP of 1."""
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    truth = coco.COCO()
    truth.dataset = read_split(folder).to_coco()
    truth.createIndex()
    found = [{**record, "score": 0.9} for record in truth.dataset["annotations"]]
    scores = evaluation.COCOeval(truth, truth.loadRes(found), "bbox")
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    assert 1.0 == pytest.approx(scores.stats[0])


def test_a_failed_write_leaves_the_old_folder_alone(folder: Path, tmp_path: Path) -> None:
    """If an image cannot be copied, the folder that was there stays, and no leftover is seen."""
    write_split(tmp_path / "copy", read_split(folder))
    split = read_split(folder)
    split.images[2].path.unlink()
    with pytest.raises(DataError, match=r"0003\.jpg"):
        write_split(tmp_path / "copy", split)
    assert 3 == len(read_split(tmp_path / "copy").images)
    assert ["copy", "set"] == sorted(path.name for path in tmp_path.iterdir())


def test_an_interrupted_replacement_brings_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the worst place, between the two renames, does not cost the folder that was there."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old.txt").write_text("kept")
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "there", lambda folder: None, overwrite=True)
    assert ["there"] == [path.name for path in tmp_path.iterdir()]
    assert "kept" == (tmp_path / "there" / "old.txt").read_text()


def test_an_existing_folder_is_not_overwritten_unasked(tmp_path: Path) -> None:
    """Without `overwrite`, a folder that appeared meanwhile wins."""
    (tmp_path / "there").mkdir()
    with pytest.raises(DataError, match="already exists"):
        write_folder(tmp_path / "there", lambda folder: None, overwrite=False)
    assert ["there"] == [path.name for path in tmp_path.iterdir()]


def test_writing_below_a_file_is_a_storage_error(folder: Path, tmp_path: Path) -> None:
    """A path that cannot become a folder is a StorageError that says why."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_split(tmp_path / "file" / "copy", read_split(folder))


def test_an_interrupted_write_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    """Ctrl-C while images are copied leaves no folder at all."""

    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "copy", interrupted, overwrite=True)
    assert ["set"] == [path.name for path in tmp_path.iterdir()]


# Real data


@pytest.mark.parametrize("name", ["helmet/pool", "fish/test", "flower/pool", "raccoon/test", "coco_val128/test"])
def test_real_data_reads_without_a_problem(name: str, real: Path) -> None:
    """The real sets are valid COCO, every image decodes, and every annotation becomes a box."""
    folder = real / "data" / name
    split: Split = read_split(folder)
    document = json.loads((folder / "annotations.json").read_text())
    assert len(document["annotations"]) == sum(len(image.boxes) for image in split.images)
    assert () == replace(split).skipped
