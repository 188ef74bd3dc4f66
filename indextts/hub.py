"""Downloads of the official files (spec 2.1, 2.2) from Hugging Face or ModelScope, or a mirror of one of them.

A file grows beside its place as ``<name>.part`` and gets its name only when its size and sum are those that the hub
tells, so that a broken download is never taken for a model. What is there of it is kept, and the next attempt, also
that of another day, asks for the rest only. The hubs' own client libraries resume as well, but compare no sums, and
each knows one hub.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import logging
import os
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from indextts.errors import DownloadError
from indextts.manifest import CHUNK_BYTES, FileRecord, is_inside, record

logger = logging.getLogger(__name__)

MODEL_REPOSITORY = "IndexTeam/IndexTTS-2"
ATTEMPTS = 5  # that bring nothing, one after the other
LONGEST_WAIT_S = 30.0
MAX_PAGES, MAX_LISTING_BYTES = 100, 16 * 2**20  # of a listing; a page of Hugging Face has a thousand files
DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}

OnBytes = Callable[[int], None]
"""Is told how many bytes of a file are there."""


@dataclass(frozen=True)
class Wanted:
    """Files of a repository that are loaded, and the folder or file below the model folder where they belong."""

    repository: str
    pattern: str
    place: str  # ends with "/" if it is a folder, into which the file's own path goes
    modelscope: str = ""  # its name there, if it is another one


WANTED = (
    *(
        Wanted(MODEL_REPOSITORY, pattern, "")
        for pattern in (
            "config.yaml", "bpe.model", "gpt.pth", "s2mel.pth", "wav2vec2bert_stats.pt", "feat1.pt", "feat2.pt",
            "qwen0.6bemo4-merge/*",
        )
    ),
    *(
        Wanted("facebook/w2v-bert-2.0", name, "hf_cache/w2v-bert-2.0/", "AI-ModelScope/w2v-bert-2.0")
        for name in ("config.json", "preprocessor_config.json", "model.safetensors")
    ),
    Wanted("amphion/MaskGCT", "semantic_codec/model.safetensors", "hf_cache/semantic_codec_model.safetensors"),
    Wanted(
        "funasr/campplus", "campplus_cn_common.bin", "hf_cache/campplus_cn_common.bin",
        "iic/speech_campplus_sv_zh-cn_16k-common",
    ),
    Wanted("nvidia/bigvgan_v2_22khz_80band_256x", "config.json", "hf_cache/bigvgan/"),
    Wanted("nvidia/bigvgan_v2_22khz_80band_256x", "bigvgan_generator.pt", "hf_cache/bigvgan/"),
)  # fmt: skip


@dataclass(frozen=True)
class RemoteFile:
    """A file of a hub. ``digest`` is its SHA-256 sum, or git's name of its content, a salted SHA-1."""

    path: str
    size_bytes: int
    digest: str
    url: str

    def refuse_nonsense(self) -> None:
        """Raises ``DownloadError`` for a path that leads elsewhere, and without a size and a sum to verify by."""
        is_size = type(self.size_bytes) is int and self.size_bytes >= 0
        if not is_inside(self.path) or not is_size or not DIGEST.fullmatch(str(self.digest)):
            raise DownloadError(
                f"the hub announces {self.path!r} with {self.size_bytes!r} bytes and the sum {self.digest!r}, which "
                "cannot be: try another --source or --endpoint"
            )

    @property
    def algorithm(self) -> str:
        return "sha256" if len(self.digest) == 64 else "git-sha1"

    def matches(self, path: Path) -> bool:
        """Whether the file at ``path`` is this one, to the byte."""
        if path.stat().st_size != self.size_bytes:
            return False
        digest = hashlib.sha256()
        if self.algorithm == "git-sha1":
            digest = hashlib.sha1(b"blob %d\x00" % self.size_bytes, usedforsecurity=False)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest() == self.digest


class Hub(ABC):
    """Where repositories of files are.

    Args:
        endpoint: A mirror's address; empty for the hub itself.
        timeout_s: How long a server may be silent.
        wait_s: Pause after the first attempt that brought nothing; it doubles with every further one.
    """

    name: str
    default_endpoint: str

    def __init__(self, endpoint: str = "", timeout_s: float = 30.0, wait_s: float = 1.0) -> None:
        self.endpoint, self.wait_s = (endpoint or self.default_endpoint).rstrip("/"), wait_s
        headers = {"Accept-Encoding": "identity", "User-Agent": "indextts"}  # what is compressed has no byte ranges
        self.client = httpx.Client(timeout=timeout_s, follow_redirects=True, headers=headers)

    def repository(self, wanted: Wanted) -> str:
        """The name here of the repository that has the wanted files."""
        return wanted.repository

    def files(self, repository: str) -> list[RemoteFile]:
        """All files of a repository.

        Raises:
            DownloadError: the hub cannot be asked, or does not answer as a hub does.
        """
        try:
            return list(self._files(repository))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DownloadError(
                f"{self.endpoint} does not answer like {self.name} when asked for the files of {repository} "
                f"({error!r:.200}): are --source and --endpoint right?"
            ) from error

    @abstractmethod
    def _files(self, repository: str) -> Iterator[RemoteFile]: ...

    def ask(self, url: str) -> tuple[Any, str | None]:
        """The content of an answer of the API, and the address of what follows; after several attempts if need be."""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(self.pause_s(attempt - 1))
            try:
                with self.client.stream("GET", url) as answer:
                    content = read_small(refuse_failure(answer))
                    return json.loads(content), answer.links.get("next", {}).get("url")
            except (httpx.RequestError, httpx.HTTPStatusError) as error:
                reason = describe(error)
        raise DownloadError(f"cannot reach {url}: {reason}; check the network, or try another --source or --endpoint")

    def pause_s(self, attempt: int) -> float:
        """How long to wait after the attempt with this number, counted from 0."""
        return min(self.wait_s * 2**attempt, LONGEST_WAIT_S)


class HuggingFace(Hub):
    """Large files have a SHA-256 sum there, small ones git's sum."""

    name, default_endpoint = "huggingface", "https://huggingface.co"

    def _files(self, repository: str) -> Iterator[RemoteFile]:
        url = f"{self.endpoint}/api/models/{repository}/tree/main?recursive=true"
        for _ in range(MAX_PAGES):
            entries, url = self.ask(url)
            for entry in entries:
                if entry["type"] == "file":
                    digest = (entry.get("lfs") or entry)["oid"]
                    place = f"{self.endpoint}/{repository}/resolve/main/{quote(entry['path'])}"
                    yield RemoteFile(entry["path"], entry["size"], digest, place)
            if url is None:
                return
        raise DownloadError(f"{self.endpoint} lists the files of {repository} without end: is --endpoint right?")


class ModelScope(Hub):
    """Every file has a SHA-256 sum there."""

    name, default_endpoint = "modelscope", "https://modelscope.cn"

    def repository(self, wanted: Wanted) -> str:
        return wanted.modelscope or wanted.repository

    def _files(self, repository: str) -> Iterator[RemoteFile]:
        base = f"{self.endpoint}/api/v1/models/{repository}/repo"
        listing, _ = self.ask(f"{base}/files?Revision=master&Recursive=true")
        for entry in listing["Data"]["Files"]:
            if entry["Type"] == "blob":
                place = f"{base}?{urlencode({'Revision': 'master', 'FilePath': entry['Path']})}"
                yield RemoteFile(entry["Path"], entry["Size"], entry["Sha256"], place)


HUBS: dict[str, type[Hub]] = {hub.name: hub for hub in (HuggingFace, ModelScope)}


@dataclass(frozen=True)
class Task:
    """One file to be there in the end. ``state`` is "present", "partial", "missing", or "different"."""

    remote: RemoteFile
    target: Path
    place: str  # from the model folder
    state: str
    have_bytes: int

    @property
    def missing_bytes(self) -> int:
        return max(0, self.remote.size_bytes - self.have_bytes)


def plan(hub: Hub, folder: Path, wanted: Sequence[Wanted] = WANTED) -> list[Task]:
    """What is to be fetched into ``folder``; files that are there are compared with the hub's, to the byte.

    Raises:
        DownloadError: the hub cannot be asked, or does not have all the files, which are all named.
    """
    listings = {name: hub.files(name) for name in dict.fromkeys(hub.repository(item) for item in wanted)}
    tasks, absent = [], []
    for item in wanted:
        repository = hub.repository(item)
        found = [file for file in listings[repository] if fnmatch.fnmatchcase(file.path, item.pattern)]
        if not found:
            absent.append(f"{repository}: {item.pattern}")
        for file in found:
            file.refuse_nonsense()
            name = file.path if not item.place else Path(file.path).name
            place = item.place + name if item.place.endswith("/") else item.place or name
            tasks.append(_task(file, folder / place, place))
    if absent:
        raise DownloadError(f"{hub.endpoint} does not have {', '.join(absent)}; try another --source or --endpoint")
    return tasks


def _task(remote: RemoteFile, target: Path, place: str) -> Task:
    if target.exists():
        same = target.is_file() and remote.matches(target)
        return Task(remote, target, place, "present" if same else "different", remote.size_bytes if same else 0)
    part = part_of(target)
    have_bytes = size_of(part) if part.is_file() else 0
    return Task(remote, target, place, "partial" if have_bytes else "missing", have_bytes)


def part_of(target: Path) -> Path:
    """Where a file grows until it is whole."""
    return target.with_name(f"{target.name}.part")


def check_room(folder: Path, needed_bytes: int) -> None:
    """Raises ``DownloadError`` if the disk of ``folder`` has no room for as much."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise DownloadError(
            f"{folder} has {free_bytes / 1e9:.2f} GB of free disk and needs {needed_bytes / 1e9:.2f} GB: make room, "
            "or name another --model-dir"
        )


def fetch(hub: Hub, task: Task, on_bytes: OnBytes) -> FileRecord:
    """Fetch one file, from where an earlier attempt ended, and put it in its place when it is proven whole.

    Args:
        on_bytes: Is told the size of the file as it grows.

    Raises:
        DownloadError: the hub refuses, stays silent, or sends something else; or the file cannot be written.
    """
    remote, target = task.remote, task.target
    try:
        if task.state != "present":
            target.parent.mkdir(parents=True, exist_ok=True)
            _obtain(hub, remote, part_of(target), on_bytes)
            os.replace(part_of(target), target)
        return FileRecord(remote.size_bytes, remote.digest) if remote.algorithm == "sha256" else record(target)
    except OSError as error:
        raise DownloadError(f"cannot write {target}: {error}") from error


def _obtain(hub: Hub, remote: RemoteFile, part: Path, on_bytes: OnBytes) -> None:
    """All of a file, proven, as ``part``; what was there of another file is thrown away."""
    resumed = part.exists()
    _grow(hub, remote, part, on_bytes)
    if remote.matches(part):
        return
    part.unlink()
    if not resumed:
        raise DownloadError(
            f"{remote.url} sent something else than the hub announces ({remote.algorithm} {remote.digest}): "
            "try again later, or another --source or --endpoint"
        )
    logger.warning("%s: what was there of it does not fit the rest, so it is fetched anew", part)
    _obtain(hub, remote, part, on_bytes)


def _grow(hub: Hub, remote: RemoteFile, part: Path, on_bytes: OnBytes) -> None:
    """Request after request until ``part`` has the size of the whole file."""
    part.touch()
    if size_of(part) > remote.size_bytes:
        os.truncate(part, 0)
    fruitless = 0
    while (before := size_of(part)) < remote.size_bytes:
        try:
            _append(hub.client, remote, part, on_bytes)
            reason = "it ends too early"
        except (httpx.RequestError, httpx.HTTPStatusError) as error:
            reason = describe(error)
        fruitless = 0 if size_of(part) > before else fruitless + 1
        if fruitless == ATTEMPTS:
            raise DownloadError(f"{remote.url} brought nothing {ATTEMPTS} times: {reason}; the same command goes on")
        if fruitless:
            logger.warning("%s: %s; again in %g s", remote.url, reason, hub.pause_s(fruitless - 1))
            time.sleep(hub.pause_s(fruitless - 1))


def _append(client: httpx.Client, remote: RemoteFile, part: Path, on_bytes: OnBytes) -> None:
    """One request: what is missing of the file, or all of it from a server that knows no ranges."""
    size_bytes = size_of(part)
    headers = {"Range": f"bytes={size_bytes}-"} if size_bytes else {}
    with client.stream("GET", remote.url, headers=headers) as answer:
        refuse_failure(answer)
        expected_range = f"bytes {size_bytes}-"
        goes_on = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(expected_range)
        size_bytes = size_bytes if goes_on else 0
        with part.open("ab" if goes_on else "wb") as file:
            for chunk in answer.iter_bytes():  # as they come: pieces of a fixed size are lost when they are cut
                size_bytes += len(chunk)
                if size_bytes > remote.size_bytes:
                    raise DownloadError(f"{remote.url} sends more than the {remote.size_bytes} bytes announced")
                file.write(chunk)
                on_bytes(size_bytes)
            file.flush()
            os.fsync(file.fileno())  # the name comes later, and must not outlive the content in a power cut


def read_small(answer: httpx.Response) -> bytes:
    """The body of an answer that lists files. Raises ``DownloadError`` if it does not end."""
    content = b""
    for chunk in answer.iter_bytes():
        content += chunk
        if len(content) > MAX_LISTING_BYTES:
            raise DownloadError(f"{answer.request.url} answers with more than {MAX_LISTING_BYTES:,} bytes: no listing")
    return content


def size_of(path: Path) -> int:
    """The size of a file in bytes."""
    return path.stat().st_size


def refuse_failure(answer: httpx.Response) -> httpx.Response:
    """The answer, if it is one; ``httpx.HTTPStatusError`` for what may pass by itself, else ``DownloadError``."""
    if answer.status_code in PASSING_STATUS:
        answer.raise_for_status()
    if not answer.is_success:
        raise DownloadError(
            f"{answer.request.url} answers {answer.status_code} {answer.reason_phrase}: is it there, open to all, and "
            "--endpoint right?"
        )
    return answer


def describe(error: httpx.HTTPError) -> str:
    """The kind of a network error, and its message if it has one."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP {error.response.status_code} {error.response.reason_phrase}"
    return f"{type(error).__name__} {error}".strip()
