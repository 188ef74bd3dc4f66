"""Downloads from a hub that cuts, stalls, lies and refuses: what gets a file's name is that file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from indextts import hub as hub_module
from indextts.errors import DownloadError
from indextts.hub import (
    HUBS,
    WANTED,
    Hub,
    HuggingFace,
    ModelScope,
    RemoteFile,
    Wanted,
    check_room,
    fetch,
    part_of,
    plan,
)
from indextts.manifest import FileRecord, record
from tests.hub_server import FakeHub, serve

LARGE = bytes(range(256)) * 4000  # 1 MB
WANTED_HERE = (Wanted("some/model", "large.pth", ""), Wanted("some/model", "small.yaml", "sub/"))
CONTENT = {"large.pth": LARGE, "small.yaml": b"version: 2.0\n"}


@pytest.fixture
def server() -> Iterator[FakeHub]:
    with serve(FakeHub({"some/model": dict(CONTENT)})) as server:
        yield server


@pytest.fixture
def hub(server: FakeHub) -> Iterator[Hub]:
    hub = HuggingFace(server.endpoint, timeout_s=0.3, wait_s=0.01)
    yield hub
    hub.client.close()


def download(hub: Hub, folder: Path) -> dict[str, FileRecord]:
    return {task.place: fetch(hub, task, lambda _: None) for task in plan(hub, folder, WANTED_HERE)}


def assert_complete(folder: Path) -> None:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files == {"large.pth": LARGE, "sub/small.yaml": CONTENT["small.yaml"]}


@pytest.mark.parametrize("source", HUBS)
def test_all_is_well(server: FakeHub, source: str, tmp_path: Path) -> None:
    hub = HUBS[source](server.endpoint + "/")
    records = download(hub, tmp_path)
    assert_complete(tmp_path)
    assert records == {place: record(tmp_path / place) for place in ("large.pth", "sub/small.yaml")}
    before = len(server.requests)
    assert [task.state for task in plan(hub, tmp_path, WANTED_HERE)] == ["present", "present"]
    assert download(hub, tmp_path) == records and len(server.requests) == before
    hub.client.close()


def test_listings_of_several_pages(server: FakeHub, hub: Hub, tmp_path: Path) -> None:
    server.page_size = 1
    assert len(plan(hub, tmp_path, WANTED_HERE)) == 2


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_what_broke_off_goes_on(server: FakeHub, hub: Hub, fault: str, tmp_path: Path) -> None:
    server.faults["large.pth"] = [fault, fault, fault]
    download(hub, tmp_path)
    assert_complete(tmp_path)
    starts = [0 if header is None else int(header[6:-1]) for header in server.asked("large.pth")]
    assert starts == [0, len(LARGE) // 2, len(LARGE) * 3 // 4, len(LARGE) * 7 // 8]


def test_another_run_goes_on(server: FakeHub, hub: Hub, tmp_path: Path) -> None:
    part_of(tmp_path / "large.pth").write_bytes(LARGE[:1000])
    task = plan(hub, tmp_path, WANTED_HERE)[0]
    assert (task.state, task.missing_bytes) == ("partial", len(LARGE) - 1000)
    seen: list[int] = []
    fetch(hub, task, seen.append)
    assert server.asked("large.pth") == ["bytes=1000-"]
    assert seen == sorted(seen) and seen[0] > 1000 and seen[-1] == len(LARGE)


def test_a_server_without_ranges(server: FakeHub, hub: Hub, tmp_path: Path) -> None:
    server.ranges, server.faults["large.pth"] = False, ["cut"]
    download(hub, tmp_path)
    assert_complete(tmp_path)


@pytest.mark.parametrize("start", [b"other" * 100, LARGE + b"x"])
def test_the_start_of_another_file_is_thrown_away(server: FakeHub, hub: Hub, start: bytes, tmp_path: Path) -> None:
    part_of(tmp_path / "large.pth").write_bytes(start)
    download(hub, tmp_path)
    assert_complete(tmp_path)
    assert server.asked("large.pth")[-1] is None


@pytest.mark.parametrize("name", CONTENT)
def test_wrong_bytes_never_get_the_name(server: FakeHub, hub: Hub, name: str, tmp_path: Path) -> None:
    server.faults[name] = ["wrong"] * 9
    with pytest.raises(DownloadError, match="something else than the hub announces"):
        download(hub, tmp_path)
    assert len(server.asked(name)) == 1
    assert not [path for path in tmp_path.rglob(f"*{name}*")]


def test_too_many_bytes(server: FakeHub, hub: Hub, tmp_path: Path) -> None:
    server.faults["large.pth"] = ["more"]
    with pytest.raises(DownloadError, match="more than the 1024000 bytes"):
        download(hub, tmp_path)
    assert not (tmp_path / "large.pth").exists()


def test_a_refusal_ends_at_once(server: FakeHub, hub: Hub, tmp_path: Path) -> None:
    server.faults["large.pth"] = [404] * 9
    with pytest.raises(DownloadError, match="answers 404"):
        download(hub, tmp_path)
    assert len(server.asked("large.pth")) == 1
    assert not (tmp_path / "large.pth").exists()


def test_what_passes_is_waited_for(server: FakeHub, hub: Hub, tmp_path: Path) -> None:
    server.listing_faults, server.faults["large.pth"] = [503, 429], [503, "cut", 500]
    download(hub, tmp_path)
    assert_complete(tmp_path)


def test_what_does_not_pass_is_given_up(server: FakeHub, hub: Hub, tmp_path: Path) -> None:
    server.faults["large.pth"] = ["cut", *[503] * 20]
    with pytest.raises(DownloadError, match="brought nothing 5 times: HTTP 503"):
        download(hub, tmp_path)
    assert part_of(tmp_path / "large.pth").read_bytes() == LARGE[: len(LARGE) // 2]
    server.faults["large.pth"] = []
    download(hub, tmp_path)
    assert_complete(tmp_path)
    assert server.asked("large.pth")[-1] == f"bytes={len(LARGE) // 2}-"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (404, "answers 404"),
        ("html", "does not answer like huggingface"),
        ("endless", "more than 1,000,000 bytes: no listing"),
        ("in a circle", "without end"),
    ],
)
def test_no_hub(
    server: FakeHub, hub: Hub, fault: str | int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "MAX_LISTING_BYTES", 1_000_000)
    server.listing_faults = [fault] * hub_module.MAX_PAGES
    with pytest.raises(DownloadError, match=says):
        plan(hub, tmp_path, WANTED_HERE)


def test_nobody_there(tmp_path: Path) -> None:
    hub = HuggingFace("http://127.0.0.1:9", wait_s=0.0)
    with pytest.raises(DownloadError, match=r"cannot reach http://127\.0\.0\.1:9.*ConnectError"):
        plan(hub, tmp_path, WANTED_HERE)
    hub.client.close()


def test_all_that_a_hub_lacks_is_named(server: FakeHub, hub: Hub, tmp_path: Path) -> None:
    wanted = (*WANTED_HERE, Wanted("some/model", "a.bin", ""), Wanted("some/model", "b/*", ""))
    with pytest.raises(DownloadError, match=r"does not have some/model: a\.bin, some/model: b/\*"):
        plan(hub, tmp_path, wanted)


@pytest.mark.parametrize("path", ["sub/../../evil", "/etc/evil", "..", "a\\..\\evil", "c:evil", ""])
def test_a_hub_cannot_write_elsewhere(server: FakeHub, hub: Hub, path: str, tmp_path: Path) -> None:
    server.repositories["some/model"][path] = b"evil"
    assert len(plan(hub, tmp_path / "models", WANTED_HERE)) == 2  # who does not want it need not care
    with pytest.raises(DownloadError, match="which cannot be"):
        plan(hub, tmp_path / "models", (Wanted("some/model", "*", ""),))
    assert not list(tmp_path.iterdir())


def test_own_files_are_seen(server: FakeHub, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "large.pth").write_bytes(LARGE[::-1])
    task = plan(hub, tmp_path, WANTED_HERE)[0]
    assert task.state == "different" and (tmp_path / "large.pth").read_bytes() == LARGE[::-1]
    fetch(hub, task, lambda _: None)
    assert (tmp_path / "large.pth").read_bytes() == LARGE


def test_a_place_that_cannot_be_written(server: FakeHub, hub: Hub, tmp_path: Path) -> None:
    task = plan(hub, tmp_path, WANTED_HERE)[1]
    (tmp_path / "sub").write_text("in the way")
    with pytest.raises(DownloadError, match="cannot write"):
        fetch(hub, task, lambda _: None)


def test_a_power_cut_finds_the_bytes_before_the_name(
    server: FakeHub, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(hub_module.os, "fsync", lambda number: (order.append("content"), sync(number)))
    monkeypatch.setattr(hub_module.os, "replace", lambda a, b: (order.append("name"), replace(a, b)))
    fetch(hub, plan(hub, tmp_path, WANTED_HERE)[0], lambda _: None)
    assert order == ["content", "name"]


def test_no_room(tmp_path: Path) -> None:
    check_room(tmp_path / "new" / "folder", 1)
    with pytest.raises(DownloadError, match="make room"):
        check_room(tmp_path / "new" / "folder", 1 << 60)


def test_every_hub_has_the_repositories_by_its_own_names() -> None:
    face, scope = HuggingFace(), ModelScope()
    names = [(face.repository(item), scope.repository(item)) for item in WANTED]
    assert ("funasr/campplus", "iic/speech_campplus_sv_zh-cn_16k-common") in names
    assert ("amphion/MaskGCT", "amphion/MaskGCT") in names
    face.client.close(), scope.client.close()


@pytest.mark.parametrize(("size", "digest"), [(-1, "0" * 64), (True, "0" * 64), (1, "0" * 63), (1, "")])
def test_a_file_without_a_sum_is_none(size: int, digest: str) -> None:
    with pytest.raises(DownloadError, match=r"'x\.bin'"):
        RemoteFile("x.bin", size, digest, "http://there").refuse_nonsense()
