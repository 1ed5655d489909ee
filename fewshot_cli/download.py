"""Files from the network: whole or not at all.

The body goes to `NAME.part` beside the target, which takes its place in one step when length and hash are
right. `NAME.part.etag` holds the version of the file that the part belongs to, so that a later call continues
from there, and never joins two versions.
"""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from fewshot_cli.errors import NetworkError
from fewshot_cli.files import make_folder, sha256_of, storage_errors
from fewshot_cli.progress import Reporter, SilentReporter

CHUNK = 1 << 18  # bytes; small enough that the progress moves on a slow line
FIRST_PAUSE = 1.0  # seconds; doubles with every attempt
LONGEST_PAUSE = 30.0  # seconds; if the server demands a longer pause, the download fails and can be started again later
_BUSY = (408, 429)  # besides every 5xx: the server says that later may be better


class _TryAgainError(Exception):
    """This attempt failed in a way that another one may not."""

    def __init__(self, cause: str, wait: float = 0.0) -> None:
        super().__init__(cause)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class _Job:
    """What one download needs to know in each attempt."""

    url: str
    part: Path
    expected_size: int | None
    verifiable: bool
    timeout: float
    reporter: Reporter
    hint: str | None

    @property
    def etag_file(self) -> Path:
        return self.part.with_name(self.part.name + ".etag")

    def error(self, cause: str) -> NetworkError:
        advice = self.hint or "Check the connection and the proxy settings (HTTPS_PROXY), then run the command again."
        return NetworkError(f"cannot download {self.url}: {cause}", hint=advice)

    def forget(self) -> None:
        with storage_errors(self.part):
            self.part.unlink(missing_ok=True)
            self.etag_file.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where downloads are kept: FSOD_CACHE, else XDG_CACHE_HOME/fsod, else ~/.cache/fsod. Not created here."""
    own = os.environ.get("FSOD_CACHE")
    if own:
        return Path(own).expanduser()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification has relative paths ignored.
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "fsod"


def download(
    url: str,
    path: Path,
    *,
    expected_size: int | None = None,
    sha256_prefix: str | None = None,
    reporter: Reporter | None = None,
    timeout: float = 20.0,
    attempts: int = 4,
    hint: str | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Path:
    """Download a file; `path` holds all of it afterwards, or is as it was.

    Args:
        url: http or https; proxy variables of the environment are honoured.
        path: the target; its folder is made.
        expected_size: bytes, if known.
        sha256_prefix: the first hex digits of the file's SHA-256, if known.
        reporter: receives the progress, in bytes.
        timeout: seconds without a byte before an attempt is given up.
        attempts: tries in all; timeouts, cut bodies, 408, 429 and 5xx are tried again, other errors are not.
        hint: what the caller would have a person do instead, for the error.
        pause: waits so many seconds between attempts.

    Returns:
        path.

    Raises:
        NetworkError: no connection, an HTTP error, a web page instead of the file, or a wrong length or hash.
        StorageError: the disk cannot be written.
    """
    part = path.with_name(path.name + ".part")
    verifiable = expected_size is not None or sha256_prefix is not None
    job = _Job(url, part, expected_size, verifiable, timeout, reporter or SilentReporter(), hint)
    _check_scheme(job, url)
    make_folder(path.parent)
    existed = path.exists()
    with only_writer(path.parent, job.reporter):
        if path.exists() and not existed:
            return path  # another process finished it while this one waited
        _try_repeatedly(job, attempts, pause)
        _check_hash(job, sha256_prefix)
        with storage_errors(path):
            part.replace(path)
            job.etag_file.unlink(missing_ok=True)
    return path


def _try_repeatedly(job: _Job, attempts: int, pause: Callable[[float], None]) -> None:
    for attempt in range(1, attempts + 1):
        try:
            _attempt(job)
            return
        except _TryAgainError as fault:
            if attempt == attempts:
                tries = "once" if attempts == 1 else f"{attempts} times"
                raise job.error(f"{fault} (tried {tries})") from fault
            wait = min(max(FIRST_PAUSE * 2 ** (attempt - 1), fault.wait), LONGEST_PAUSE)
            job.reporter.say(f"{job.url}: {fault}; trying again in {wait:.0f} s")
            pause(wait)


def _attempt(job: _Job) -> None:
    """Bring the part to its full length, going on from what is there if the server still has that version."""
    etag, have = _kept(job)
    with _opened(job, etag, have) as response:
        have = have if response.status == 206 else 0  # a server that ignores Range sends all of it again
        total = _announced_size(job, response, have)
        new_etag = response.headers.get("ETag", "")
        if have and new_etag not in ("", etag):
            job.forget()
            raise _TryAgainError("the file changed on the server")
        if not have:
            _begin_anew(job, new_etag)
        got = _copy(job, response, have, total)
    if total is not None and got < total:
        raise _TryAgainError(f"the connection was cut after {got:,} of {total:,} bytes")
    _check_size(job, got)


def _kept(job: _Job) -> tuple[str, int]:
    """The strong ETag and length of what an earlier attempt left, or ("", 0)."""
    try:
        etag, url = job.etag_file.read_text(encoding="utf-8").split("\n")[:2]
        have = job.part.stat().st_size
    except (OSError, ValueError):
        return "", 0
    return (etag, have) if url == job.url and have else ("", 0)


def _begin_anew(job: _Job, etag: str) -> None:
    """Drop what is there, then note the version to come. In this order no kill can leave old bytes under a new ETag."""
    job.forget()
    if etag.startswith('"'):  # a weak ETag (W/"…") does not promise the same bytes
        with storage_errors(job.part):
            job.etag_file.write_text(f"{etag}\n{job.url}\n", encoding="utf-8")


def _opened(job: _Job, etag: str, have: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": "fsod", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": etag}
    try:
        response: http.client.HTTPResponse = _opener().open(Request(job.url, headers=headers), timeout=job.timeout)
    except HTTPError as error:
        error.close()
        raise _http_error(job, error) from error
    except (URLError, OSError, http.client.HTTPException) as error:
        raise _no_connection(job, error) from error
    if response.headers.get_content_type() == "text/html":
        response.close()
        raise job.error("the server answered with a web page instead of the file (a login page, or a proxy's?)")
    return response


def _http_error(job: _Job, error: HTTPError) -> Exception:
    cause = f"the server answered {error.code} {error.reason}"
    if error.code == 416:  # the part is as long as the file or longer: begin again
        job.forget()
        return _TryAgainError(cause)
    if error.code in _BUSY or error.code >= 500:
        return _TryAgainError(cause, _retry_after(error.headers))
    return job.error(cause)


def _no_connection(job: _Job, error: Exception) -> Exception:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return _TryAgainError(f"no answer within {job.timeout:g} s")
    if isinstance(reason, (ConnectionResetError, BrokenPipeError, http.client.HTTPException)):
        return _TryAgainError(f"the connection was cut ({reason or type(reason).__name__})")
    return job.error(str(reason))


def _retry_after(headers: Message) -> float:
    value = headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else 0.0


def _announced_size(job: _Job, response: http.client.HTTPResponse, have: int) -> int | None:
    """Bytes of the whole file, or None for a chunked body, whose end is marked in the body."""
    length = response.headers.get("Content-Length", "")
    if have and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        job.forget()
        raise _TryAgainError("the server sent another piece of the file than the one requested")
    if not length.isdigit():
        if not response.chunked and not job.verifiable:
            raise job.error("the server does not say how long the file is, so a cut body could not be detected")
        return None
    total = have + int(length)
    _check_size(job, total)
    return total


def _copy(job: _Job, response: http.client.HTTPResponse, have: int, total: int | None) -> int:
    """Append the body to the part (or begin it anew when `have` is 0); returns the part's length."""
    with storage_errors(job.part), job.part.open("ab" if have else "wb") as stream:
        with job.reporter.progress(f"Downloading {job.part.stem}", total, have) as task:
            got = have
            while piece := _read(job, response):
                stream.write(piece)
                got += len(piece)
                task.advance(len(piece))
        os.fsync(stream.fileno())
    return got


def _read(job: _Job, response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK)
    except TimeoutError as error:
        raise _TryAgainError(f"no byte within {job.timeout:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise _TryAgainError(f"the connection was cut ({type(error).__name__})") from error


def _check_size(job: _Job, size: int) -> None:
    wanted = job.expected_size
    if size == 0 or wanted not in (None, size):
        job.forget()
        raise job.error(f"the file has {size:,} bytes" + (f" instead of {wanted:,}" if wanted is not None else ""))


def _check_hash(job: _Job, prefix: str | None) -> None:
    if prefix is None:
        return
    digest = sha256_of(job.part)
    if not digest.startswith(prefix.lower()):
        job.forget()
        raise job.error(f"the file's SHA-256 begins with {digest[: len(prefix)]} instead of {prefix.lower()}")


def _check_scheme(job: _Job, url: str) -> None:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise job.error("only http:// and https:// addresses are downloaded")


def _opener() -> OpenerDirector:
    return build_opener(_WebOnly())


class _WebOnly(HTTPRedirectHandler):
    """Follows redirects within the web; urllib alone would also follow one to ftp."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise HTTPError(req.full_url, code, f"not followed: a redirect to {newurl}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def only_writer(folder: Path, reporter: Reporter) -> Iterator[None]:
    """Let one process at a time download into a folder, where the system can lock folders; leaves no lock file."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        _lock(fcntl, handle, folder, reporter)
        yield
    finally:
        os.close(handle)


def _lock(fcntl: Any, handle: int, folder: Path, reporter: Reporter) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        reporter.say(f"Another process is downloading into {folder}; waiting for it.")
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        pass  # some network file systems have no locks; length and hash are checked all the same
