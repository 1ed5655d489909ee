"""Videos: frames in order, and a clear message for those that break off."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fewshot_cli.errors import DataError, StorageError
from fewshot_cli.inference.video import USUAL_RATE, VideoFile, frame_count, frame_rate, read_frames


def film(path: Path, frames: int = 30, size: tuple[int, int] = (64, 48), codec: str = "mp4v", rate: float = 10) -> Path:
    """A video that becomes brighter."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), rate, size)
    for number in range(frames):
        writer.write(np.full((size[1], size[0], 3), (0, 0, 5 * number), dtype=np.uint8))
    writer.release()
    return path


def test_frames_come_in_order_as_rgb(tmp_path: Path) -> None:
    """All of them, red, brighter and brighter; their number and rate are known before."""
    path = film(tmp_path / "a.mp4")
    frames = list(read_frames(path))
    reds = [frame[..., 0].mean() for frame in frames]
    assert (30, 10.0, (48, 64, 3)) == (frame_count(path), frame_rate(path), frames[0].shape)
    assert 30 == len(frames) and sorted(reds) == reds
    assert reds[-1] > 100 > 40 > frames[-1][..., 2].mean()


def test_a_video_is_written_whole(tmp_path: Path) -> None:
    """After close; until then nothing is at its place."""
    path = tmp_path / "deep" / "b.mp4"
    video = VideoFile(path, 12.5)
    for number in range(5):
        video.add(np.full((48, 64, 3), (40 * number, 0, 0), dtype=np.uint8))
    assert not path.exists()
    video.close()
    assert [path] == list(path.parent.iterdir())
    assert (5, 12.5) == (frame_count(path), frame_rate(path))
    assert next(read_frames(path))[..., 1:].mean() < 20


def test_a_video_without_frames_leaves_nothing(tmp_path: Path) -> None:
    """Neither a file nor a temporary one."""
    VideoFile(tmp_path / "c.mp4", USUAL_RATE).close()
    assert [] == list(tmp_path.iterdir())


def test_a_video_cut_in_the_middle_gives_what_it_has(tmp_path: Path) -> None:
    """The frames before the cut, then an error that counts them."""
    path = film(tmp_path / "cut.avi", 40, codec="MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = read_frames(path)
    seen = 0
    with pytest.raises(DataError, match=r"ends after \d+ of 40 frames: cut or damaged"):
        for _ in frames:
            seen += 1
    assert 0 < seen < 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not readable as a video"),
        (b"no video " * 1000, "not readable as a video"),
        (None, "does not exist"),
    ],
)
def test_what_is_no_video_is_told(content: bytes | None, message: str, tmp_path: Path) -> None:
    """Empty, of something else, or absent."""
    path = tmp_path / "bad.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        next(read_frames(path))
    assert 0 == frame_count(path)


def test_a_video_of_zero_frames_is_told(tmp_path: Path) -> None:
    """Its header is whole, but no frame follows."""
    path = film(tmp_path / "zero.avi", 3, codec="MJPG")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"movi") + 4])
    with pytest.raises(DataError, match="no frame can be decoded|not readable as a video"):
        next(read_frames(path))


def test_an_unknown_codec_is_told(tmp_path: Path) -> None:
    """The container opens, and its frames say nothing to the decoder."""
    path = film(tmp_path / "odd.avi", 5, codec="MJPG")
    path.write_bytes(path.read_bytes().replace(b"MJPG", b"ZZZZ"))
    with pytest.raises(DataError, match="no frame can be decoded|not readable as a video"):
        next(read_frames(path))


def test_a_full_disk_leaves_no_part_of_a_video(tmp_path: Path) -> None:
    """A disk of 100 kB: an error that names the video, and neither it nor a temporary file."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        video = VideoFile(tmp_path / "drawn" / "clip.mp4", 25)
        for number in range(20):
            noise = np.random.default_rng(number).integers(0, 255, (240, 320, 3), dtype=np.uint8)
            video.add(noise)
        with pytest.raises(StorageError, match="clip.mp4: what was written cannot be read: is the disk full"):
            video.close()
        assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
