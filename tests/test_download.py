"""Downloads against a real HTTP server on this machine, with the faults that networks have."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import fewshot_cli.download as module
from fewshot_cli.download import cache_folder, download
from fewshot_cli.errors import NetworkError, StorageError
from fewshot_cli.progress import SilentReporter, SilentTask

BODY = bytes(range(256)) * 4096  # 1 MiB: several chunks
NEW_BODY = BODY[::-1]
Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Gives the scripted answers in order, the last one again and again, and remembers the requests."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[dict[str, str]] = []
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests.append({"path": self.path, **dict(self.headers.items())})
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                answer(self)
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/weights.pth"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the machine must not stand between the test and its own server."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def serving(*answers: Answer) -> Iterator[Server]:
    server = Server(*answers)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def send(
    status: int = 200,
    body: bytes = BODY,
    *,
    cut: int | None = None,
    etag: str | None = '"one"',
    ranges: bool = True,
    length: bool = True,
    **headers: str,
) -> Answer:
    """An answer; `cut` ends the body after so many bytes of it, `ranges` honours Range and If-Range."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        start, code = 0, status
        asked = request.headers.get("Range")
        if status == 200 and asked and ranges and request.headers.get("If-Range") == etag:
            start, code = int(asked.removeprefix("bytes=").removesuffix("-")), 206
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        if etag:
            request.send_header("ETag", etag)
        if code == 206:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if length:
            request.send_header("Content-Length", str(len(body) - start))
        request.send_header("Connection", "close")
        request.end_headers()
        request.wfile.write(body[start:cut])

    return answer


def get(server: Server, folder: Path, **options: Any) -> Path:
    pauses: list[float] = options.pop("pauses", [])
    return download(server.url, folder / "weights.pth", pause=pauses.append, **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_whole_file_arrives_and_nothing_else_stays(tmp_path: Path) -> None:
    """A download leaves exactly the file, byte for byte, in a folder that it makes."""
    with serving(send()) as server:
        path = get(
            server, tmp_path / "new", expected_size=len(BODY), sha256_prefix=hashlib.sha256(BODY).hexdigest()[:8]
        )
    assert path.read_bytes() == BODY
    assert names(path.parent) == ["weights.pth"]


def test_a_busy_server_is_asked_again_after_a_pause(tmp_path: Path) -> None:
    """503 and 429 are tried again, with pauses that double and heed Retry-After."""
    pauses: list[float] = []
    with serving(send(503, b"busy"), send(503, b"busy"), send(429, b"slow down", Retry_After="9"), send()) as server:
        assert get(server, tmp_path, pauses=pauses).read_bytes() == BODY
    assert pauses == [1.0, 2.0, 9.0]


def test_a_server_that_stays_busy_is_given_up_after_the_last_attempt(tmp_path: Path) -> None:
    """Attempts are bounded, and the error says the address, the cause and what the caller advises."""
    with serving(send(503, b"busy")) as server:
        with pytest.raises(NetworkError, match="503.*tried 3 times") as caught:
            get(server, tmp_path, attempts=3, hint="--weights FILE works offline")
        assert len(server.requests) == 3
    assert server.url in caught.value.message
    assert caught.value.hint == "--weights FILE works offline"
    assert caught.value.exit_code == 7
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_not_tried_again(tmp_path: Path, status: int) -> None:
    """404 and 403 will not change by asking again."""
    with serving(send(status, b"no")) as server:
        with pytest.raises(NetworkError, match=str(status)):
            get(server, tmp_path)
        assert len(server.requests) == 1


def test_a_server_that_does_not_answer_times_out(tmp_path: Path) -> None:
    """Silence before the answer ends at the timeout, and the next attempt can succeed."""

    def say_nothing(_: BaseHTTPRequestHandler) -> None:
        server.released.wait(5)

    with serving(say_nothing, send()) as server:
        assert get(server, tmp_path, timeout=0.2).read_bytes() == BODY
    assert len(server.requests) == 2


def test_a_body_that_stalls_is_gone_on_with(tmp_path: Path) -> None:
    """Silence in the middle of a body ends at the timeout; the next attempt asks only for the rest."""

    def stall(request: BaseHTTPRequestHandler) -> None:
        send(cut=600_000)(request)
        request.wfile.flush()
        server.released.wait(5)

    with serving(stall, send()) as server:
        assert get(server, tmp_path, timeout=0.3).read_bytes() == BODY
    start = int(server.requests[1]["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= 600_000


def test_a_cut_body_is_gone_on_with(tmp_path: Path) -> None:
    """After a cut the next attempt asks for the rest of the same version, and the parts make the file."""
    with serving(send(cut=300_000), send(cut=700_000), send()) as server:
        assert get(server, tmp_path).read_bytes() == BODY
    assert [request.get("Range") for request in server.requests] == [None, "bytes=300000-", "bytes=700000-"]
    assert server.requests[2]["If-Range"] == '"one"'
    assert names(tmp_path) == ["weights.pth"]


def test_a_cut_body_is_never_taken_for_the_file(tmp_path: Path) -> None:
    """When every attempt is cut, the target does not appear, and an older one stays as it was."""
    (tmp_path / "weights.pth").write_bytes(b"old")
    with (
        serving(send(cut=300_000, etag=None)) as server,
        pytest.raises(NetworkError, match="300,000 of 1,048,576 bytes"),
    ):
        get(server, tmp_path)
    assert (tmp_path / "weights.pth").read_bytes() == b"old"


def test_a_later_call_goes_on_where_a_failed_one_stopped(tmp_path: Path) -> None:
    """The part and its version outlive the process that was killed or gave up."""
    with serving(send(cut=400_000), send()) as server:
        with pytest.raises(NetworkError):
            get(server, tmp_path, attempts=1)
        assert get(server, tmp_path).read_bytes() == BODY
    assert server.requests[1]["Range"] == "bytes=400000-"


def test_a_server_without_ranges_sends_all_of_it_again(tmp_path: Path) -> None:
    """A 200 answer to a Range request replaces the part instead of being appended to it."""
    with serving(send(cut=400_000), send(ranges=False)) as server:
        assert get(server, tmp_path).read_bytes() == BODY
    assert "Range" in server.requests[1]


def test_two_versions_are_never_joined(tmp_path: Path) -> None:
    """If the file changed between attempts, the new version is downloaded from its beginning."""
    with serving(send(cut=400_000), send(body=NEW_BODY, etag='"two"')) as server:
        assert get(server, tmp_path).read_bytes() == NEW_BODY


def test_a_server_that_ignores_if_range_does_not_join_versions_either(tmp_path: Path) -> None:
    """A 206 answer that bears another ETag is refused, and the next attempt starts anew."""

    def careless(request: BaseHTTPRequestHandler) -> None:
        request.headers.replace_header("If-Range", '"two"')
        send(body=NEW_BODY, etag='"two"')(request)

    with serving(send(cut=400_000), careless, send(body=NEW_BODY, etag='"two"')) as server:
        assert get(server, tmp_path).read_bytes() == NEW_BODY
    assert "Range" not in server.requests[2]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_etag_a_cut_file_starts_anew(tmp_path: Path, etag: str | None) -> None:
    """Only a strong ETag promises the same bytes, so without one no part is gone on with."""
    with serving(send(cut=400_000, etag=etag), send(etag=etag)) as server:
        assert get(server, tmp_path).read_bytes() == BODY
    assert "Range" not in server.requests[1]


def test_a_part_of_another_address_is_not_used(tmp_path: Path) -> None:
    """A part belongs to one address; another one with the same ETag starts from the beginning."""
    with serving(send(cut=400_000), send(body=NEW_BODY)) as server:
        with pytest.raises(NetworkError):
            get(server, tmp_path, attempts=1)
        path = download(server.url + "?v=2", tmp_path / "weights.pth", pause=lambda _: None)
    assert path.read_bytes() == NEW_BODY


def test_a_part_that_is_already_whole_does_not_stand_in_the_way(tmp_path: Path) -> None:
    """416 (nothing left of the range) drops the part and downloads again."""
    with serving(send(cut=400_000), send(416, b""), send()) as server:
        assert get(server, tmp_path).read_bytes() == BODY


def test_a_file_of_the_wrong_length_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """The announced length is compared with the expected one, at once and without another attempt."""
    with serving(send()) as server:
        with pytest.raises(NetworkError, match="1,048,576 bytes instead of 99"):
            get(server, tmp_path, expected_size=99)
        assert len(server.requests) == 1
    assert names(tmp_path) == []


def test_an_unannounced_wrong_length_is_refused_too(tmp_path: Path) -> None:
    """Without Content-Length the bytes that came are counted."""
    with serving(send(length=False)) as server, pytest.raises(NetworkError, match="1,048,576 bytes instead of 99"):
        get(server, tmp_path, expected_size=99)
    assert names(tmp_path) == []


def test_a_body_whose_end_cannot_be_told_is_refused(tmp_path: Path) -> None:
    """Without length, size or hash a cut could not be noticed, so nothing is kept."""
    with serving(send(length=False)) as server, pytest.raises(NetworkError, match="does not say how long"):
        get(server, tmp_path)
    assert names(tmp_path) == []


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    """Zero bytes are never the file."""
    with serving(send(body=b"")) as server, pytest.raises(NetworkError, match="0 bytes"):
        get(server, tmp_path)


def test_a_wrong_hash_is_refused_and_forgotten(tmp_path: Path) -> None:
    """Bytes with another hash reach neither the target nor a later resumption."""
    with serving(send()) as server, pytest.raises(NetworkError, match="SHA-256 begins with .* instead of 0badf00d"):
        get(server, tmp_path, sha256_prefix="0badf00d")
    assert names(tmp_path) == []


def test_a_web_page_is_not_taken_for_the_file(tmp_path: Path) -> None:
    """A login page, which proxies send with status 200, is an error."""
    page = send(body=b"<html>log in</html>", Content_Type="text/html; charset=utf-8")
    with serving(page) as server, pytest.raises(NetworkError, match="web page"):
        get(server, tmp_path)
    assert names(tmp_path) == []


def test_redirects_are_followed(tmp_path: Path) -> None:
    """A release address that points elsewhere works, resumption included."""
    moved = send(302, b"", Location="/elsewhere")
    with serving(moved, send(cut=300_000), moved, send()) as server:
        assert get(server, tmp_path).read_bytes() == BODY
    assert [request["path"] for request in server.requests] == ["/weights.pth", "/elsewhere"] * 2
    assert server.requests[3]["Range"] == "bytes=300000-"


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_out_of_the_web_is_refused(tmp_path: Path, target: str) -> None:
    """A server cannot make the program read local files or other protocols."""
    with serving(send(302, b"", Location=target)) as server, pytest.raises(NetworkError):
        get(server, tmp_path)
    assert names(tmp_path) == []


def test_only_web_addresses_are_downloaded(tmp_path: Path) -> None:
    """Anything but http and https is an error before the disk is touched."""
    for url in ["file:///etc/passwd", "ftp://host/x", "weights.pth", "http://", ""]:
        with pytest.raises(NetworkError, match="only http"):
            download(url, tmp_path / "folder" / "x")
        assert names(tmp_path) == []


def test_nobody_listening_is_a_network_error(tmp_path: Path) -> None:
    """A refused connection is reported at once."""
    with serving(send()) as server:
        pass
    with pytest.raises(NetworkError, match="refused"):
        get(server, tmp_path)


def test_a_disk_that_refuses_is_not_a_network_error(tmp_path: Path) -> None:
    """A file where the folder should be is reported as the disk's fault, exit code 3."""
    (tmp_path / "file").write_text("")
    with serving(send()) as server, pytest.raises(StorageError):
        get(server, tmp_path / "file")


def test_a_full_disk_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that the disk will not take end the download as a full disk, not as a network fault."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with serving(send()) as server, pytest.raises(StorageError, match="disk is full"):
        get(server, tmp_path)
    assert not (tmp_path / "weights.pth").exists()


def test_progress_counts_every_byte_once(tmp_path: Path) -> None:
    """The last bar goes from the bytes kept to the bytes of the whole file."""

    class Steps(SilentTask):
        def __init__(self, done: float) -> None:
            self.done = done

        def advance(self, steps: float = 1) -> None:
            self.done += steps

    class Counter(SilentReporter):
        def __init__(self) -> None:
            self.bars: list[tuple[float | None, Steps]] = []

        @contextmanager
        def progress(self, description: str, total: float | None, done: float = 0) -> Iterator[SilentTask]:
            self.bars.append((total, Steps(done)))
            yield self.bars[-1][1]

    reporter = Counter()
    with serving(send(cut=300_000), send()) as server:
        get(server, tmp_path, reporter=reporter)
    assert [(total, steps.done) for total, steps in reporter.bars] == [(len(BODY), 300_000), (len(BODY), len(BODY))]


def test_two_downloads_of_one_file_do_not_write_into_each_other(tmp_path: Path) -> None:
    """The second caller waits for the first, finds the file, and asks the server nothing."""
    pytest.importorskip("fcntl", reason="this system cannot lock folders")
    begun = threading.Event()

    def slow(request: BaseHTTPRequestHandler) -> None:
        begun.set()
        waiting.wait(5)
        send()(request)

    class Second(SilentReporter):
        def say(self, text: str) -> None:
            waiting.set()

    waiting = threading.Event()
    with serving(slow) as server:
        first = threading.Thread(target=get, args=(server, tmp_path))
        first.start()
        begun.wait(5)
        assert get(server, tmp_path, reporter=Second()).read_bytes() == BODY
        first.join()
    assert len(server.requests) == 1


def test_a_proxy_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With http_proxy set, the request goes there and names the whole address."""
    with serving(send()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/weights.pth"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        download("http://weights.invalid/file.pth", tmp_path / "file.pth", pause=lambda _: None)
    assert proxy.requests[0]["path"] == "http://weights.invalid/file.pth"


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FSOD_CACHE comes before XDG_CACHE_HOME, which comes before ~/.cache; relative XDG paths are ignored."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FSOD_CACHE", "~/mine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("FSOD_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "fsod"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "fsod"
