"""Workers on the machines of a cluster: the outcomes are those of one process, whatever becomes of a machine.

What needs Ray runs on a cluster of two nodes on loopback, and is skipped, by name, where it is not installed. The lab's
log is the judge of what was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from fetcher import Config, ConfigError, Failure, Fetcher, Page, Response
from fetcher.compression import decompress
from fetcher.config import ClientCertificate
from fetcher.middleware.cookies import CookieFiles
from fetcher.model import Outcome
from fetcher.parallel.carried import carried_files, placed
from fetcher.parallel.channel import LENGTH, open_channel
from fetcher.parallel.cluster import workers_of_ray
from fetcher.parallel.messages import CrawlSettings, encode
from fetcher.parallel.ray_gateway import Bridge, Machines, RefusedError
from fetcher.parallel.ray_relay import versions
from fetcher.spawn import command, environment
from fetcher.transport.tls import TLSContexts
from fetcher.urls import parse
from tests.lab import command as commands
from tests.lab.bucket import Bucket, missing, serving_bucket
from tests.lab.ray_cluster import HAS_RAY, LoopbackCluster, cluster
from tests.lab.server import LabServer

HOSTS = 8
DEADLINE = 240.0
TIMES = ("elapsed", "waited", "fetched_at")
SECRET = "Bearer b8f1c3-told-to-its-host-alone"

needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: pip install -e '.[test,ray]'")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="on Windows there is one process")


@pytest.fixture
async def lab() -> AsyncIterator[LabServer]:
    async with LabServer(hosts=HOSTS) as server:
        yield server


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[LoopbackCluster]:
    with cluster() as made:
        yield made


def told(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    records = [outcome.record() for outcome in outcomes]
    for record in records:
        for name in TIMES:
            record.pop(name)
    return sorted(records, key=lambda record: record["id"])


async def outcomes_of(urls: list[str], **options: Any) -> list[Outcome]:
    async with asyncio.timeout(DEADLINE), Fetcher(robots=False, **options) as fetcher:
        async with fetcher.stream(urls) as outcomes:
            return [outcome async for outcome in outcomes]


def length_or_death(response: Response) -> int:
    """An extractor that a page ends the process of."""
    if "deadly" in response.url:
        os.kill(os.getpid(), signal.SIGKILL)
    return len(response.body)


# On a cluster


@needs_ray
async def test_the_outcomes_are_those_of_one_process(lab: LabServer, two_nodes: LoopbackCluster) -> None:
    urls = []
    for host in range(1, HOSTS + 1):
        urls += [
            lab.url(f"/ok?n={host}&title=t{host}&links=3", host),
            lab.url(f"/status/404?n={host}", host),
            lab.url(f"/hops/4?hosts={HOSTS}&n={host}", host),
            lab.url(f"/flaky/{host}?fail=1&status=500", host),
        ]
    urls += ["http://[::1", lab.url("/loop")]
    options: dict[str, Any] = {"backoff": 0.01, "retries": 1, "keep_body": True, "keep_headers": "all"}
    one = told(await outcomes_of(urls, workers=1, **options))
    asked = Counter((entry.host, entry.path) for entry in lab.log)
    lab.clear()
    on_cluster = told(await outcomes_of(urls, workers="ray:3", ray_address=two_nodes.address, **options))
    assert on_cluster == one
    assert Counter((entry.host, entry.path) for entry in lab.log) == asked


@needs_ray
@pytest.mark.parametrize("how", ["kill", "remove"])
async def test_a_node_that_dies_costs_a_second_fetch_at_most(
    how: str, lab: LabServer, two_nodes: LoopbackCluster
) -> None:
    urls = [lab.url(f"/delay/10/ok?n={n}", 1 + n % HOSTS) for n in range(1_200)]
    options: dict[str, Any] = {"workers": "ray:4", "ray_address": two_nodes.address, "per_host": 1, "robots": False}
    seen: list[str] = []
    try:
        async with asyncio.timeout(DEADLINE), Fetcher(**options) as fetcher, fetcher.stream(urls) as outcomes:
            async for outcome in outcomes:
                assert isinstance(outcome, Page), outcome
                seen.append(outcome.request.url)
                if len(seen) == 300:
                    assert len(two_nodes.raylets) == 2
                    await asyncio.to_thread(two_nodes.order, how)
            assert sorted(seen) == sorted(urls), "each once"
            assert outcomes.stats.pending == 0
        assert max(lab.peak(host) for host in range(1, HOSTS + 1)) == 1, "two workers asked one host"
        given_again = len(lab.log) - len(urls)
        assert 0 < given_again < 600
    finally:
        if len(two_nodes.raylets) == 1:
            await asyncio.to_thread(two_nodes.order, "add")


@needs_ray
async def test_a_page_that_kills_its_worker_is_parsed_apart(lab: LabServer, two_nodes: LoopbackCluster) -> None:
    urls = [lab.url(f"/ok?n={n}", 1 + n % HOSTS) for n in range(60)]
    urls.insert(30, lab.url("/ok?n=deadly", 5))
    found = await outcomes_of(urls, workers="ray:2", ray_address=two_nodes.address, extract=length_or_death)
    (failed,) = (outcome for outcome in found if isinstance(outcome, Failure))
    assert (failed.request.url, failed.error.code) == (urls[30], "parse_crash")
    assert len(found) == 61


@needs_ray
async def test_no_secret_lies_in_rays_books(lab: LabServer, two_nodes: LoopbackCluster, tmp_path: Path) -> None:
    """Neither what a log says nor the memory of the cluster's own server, which keeps each driver's command line."""
    (tmp_path / "l.txt").write_text("".join(f"{lab.url('/echo', host)}\n" for host in range(1, 5)))
    name = parse(lab.url("/", 2)).host
    words = ["l.txt", "-o", "pages.jsonl", "--body", "inline", "-H", f"@{name} Authorization: {SECRET}"]
    ended = await asyncio.to_thread(
        commands.run,
        *("crawl", *words, "--workers", "ray:2", "--ray-address", two_nodes.address),
        folder=tmp_path,
        env=commands.environment(tmp_path, FETCHER_COOKIE=f"@{name} token={SECRET}"),
        anew=True,
    )
    assert ended.code == 0, ended.said
    sent = [entry.host for entry in lab.log if ("authorization", SECRET) in [(k.lower(), v) for k, v in entry.headers]]
    assert len(sent) == 1
    for log in two_nodes.logs.rglob("*"):
        if log.is_file():
            assert SECRET.encode() not in log.read_bytes(), log
    assert not holds(two_nodes.gcs, SECRET.encode())
    assert holds(two_nodes.gcs, b"fetcher.parallel.ray_gateway"), "it is looked at where the command line would be"


def holds(pid: int, what: bytes) -> bool:
    """Whether a process has these bytes in its memory."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            span, mode, *_ = line.split()
            begin, end = (int(word, 16) for word in span.split("-"))
            if not mode.startswith("rw") or end - begin > 1 << 30:
                continue
            with contextlib.suppress(OSError, OverflowError):
                memory.seek(begin)
                if what in memory.read(end - begin):
                    return True
    return False


@needs_ray
async def test_another_version_on_the_cluster_is_refused(lab: LabServer, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    shutil.copytree(commands.ROOT / "fetcher", tmp_path / "there" / "fetcher")
    own = tmp_path / "there" / "fetcher" / "__init__.py"
    own.write_text(own.read_text() + '\n__version__ = "0.0.1"\n')
    with cluster(first=tmp_path / "there") as other:
        words = ["-q", "--workers", "ray:1", "--ray-address", other.address]
        ended = await asyncio.to_thread(crawled, tmp_path / "here", lab.url("/ok"), *words)
    assert ended.code == 2
    assert "of the cluster has fetcher 0.0.1, and this one has " in ended.said
    assert len(ended.said.splitlines()) == 1, ended.said
    assert lab.log == []


OWN = """
def length(response):
    return {"length": len(response.body)}
"""

ONCE = """
import os
before = os.path.join(os.path.dirname(__file__), "imported")
if os.path.exists(before):
    raise ImportError("it is not on this machine")
open(before, "w").close()
"""

TOGETHER = {
    "--since, --body DIR": ["--since", "old.jsonl", "--body", "bodies"],
    "--follow, --shard": ["--follow", "--depth", "2", "--shard", "2/2"],
    "--explode": ["--select", "mark[]=a", "--explode", "mark"],
    "--extract, --isolate": ["--extract", "own:length", "--isolate"],
}
UNLIKE = (*TIMES, "checked_at", "id")  # rows that are found are numbered as they are found


@needs_ray
@pytest.mark.parametrize("what", TOGETHER)
async def test_it_goes_on_with_what_else_is_asked_for(
    what: str, lab: LabServer, two_nodes: LoopbackCluster, tmp_path: Path
) -> None:
    """The records, and the folder of bodies, are those of one process."""
    urls = [lab.url(f"/ok?n={n}&links={n % 4}&title=t{n}", 1 + n % HOSTS) for n in range(40)]
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "l.txt").write_text("".join(f"{url}\n" for url in urls[:30]))
    if "--since" in TOGETHER[what]:
        assert (await crawl_in(tmp_path, "-o", "old.jsonl")).code == 0
    (tmp_path / "l.txt").write_text("".join(f"{url}\n" for url in urls))
    found = {}
    for workers in (["1"], ["ray:2", "--ray-address", two_nodes.address]):
        output = f"{workers[0][:3]}.jsonl"
        words = [word.replace("bodies", f"bodies-{workers[0][:3]}") for word in TOGETHER[what]]
        lab.clear()
        ended = await crawl_in(tmp_path, "-o", output, *words, "--workers", *workers)
        assert ended.code == 0, ended.said
        records = [json.loads(line) for line in (tmp_path / output).read_text().splitlines()]
        found[output] = (
            sorted(json.dumps({name: record[name] for name in record if name not in UNLIKE}) for record in records),
            sorted((entry.host, entry.local) for entry in lab.log),
        )
    assert found["1.jsonl"][0] == found["ray.jsonl"][0]
    assert found["1.jsonl"][1] == found["ray.jsonl"][1], "what was asked of the hosts"
    assert len(found["1.jsonl"][0]) > 10
    bodies = [sorted(path.name for path in (tmp_path / name).rglob("*")) for name in ("bodies-1", "bodies-ray")]
    assert bodies[0] == bodies[1]
    assert bool(bodies[0]) is ("--body" in TOGETHER[what])


@needs_ray
async def test_an_extractor_that_a_machine_does_not_have_is_told(
    lab: LabServer, two_nodes: LoopbackCluster, tmp_path: Path
) -> None:
    """The parent has imported it; where the worker is it is not found, as on a machine without the file."""
    (tmp_path / "own.py").write_text(f"{ONCE}{OWN}")
    (tmp_path / "l.txt").write_text(f"{lab.url('/ok')}\n")
    words = ("-q", "--extract", "own:length", "--workers", "ray:1", "--ray-address", two_nodes.address)
    ended = await crawl_in(tmp_path, "-o", "pages.jsonl", *words)
    assert (ended.code, len(ended.said.splitlines())) == (2, 1), ended.said
    assert "own:length cannot be loaded by a worker: ImportError: it is not on this machine" in ended.said
    assert lab.log == []


@needs_ray
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
async def test_parts_in_a_store_are_gone_on_with_elsewhere(
    lab: LabServer, two_nodes: LoopbackCluster, tmp_path: Path
) -> None:
    urls = [lab.url(f"/delay/20/ok?n={n}", 1 + n % HOSTS) for n in range(200)]
    (tmp_path / "l.txt").write_text("".join(f"{url}\n" for url in urls))
    words = ["-o", "s3://lab/pages/", "-f", "jsonl", "--part-rows", "20"]
    words += ["--workers", "ray:2", "--ray-address", two_nodes.address]
    with serving_bucket() as bucket:
        crawl = ("crawl", "l.txt", *words, "--rate", "40/s")
        with commands.Running(*crawl, folder=tmp_path, env=bucket.environment(), anew=True) as running:
            while not parts_in(bucket) and running.process.poll() is None:
                await asyncio.sleep(0.05)
            running.process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(running.process.wait)
        shutil.rmtree(tmp_path / "pages.job")
        bucket.remove("pages/_job/owner")  # as half a minute does
        lab.clear()
        ended = await crawl_in(tmp_path, *words, **bucket.environment())
        assert ended.code == 0, ended.said
        lines = [
            line
            for name in parts_in(bucket)
            for line in b"".join(decompress(iter([bucket.get(f"pages/{name}")]), "zstd", max_block=65536)).splitlines()
        ]
    assert sorted(json.loads(line)["url"] for line in lines) == sorted(urls)
    assert len({entry.local for entry in lab.log}) <= 180, "what stood in the store was not asked for again"


def parts_in(bucket: Bucket) -> list[str]:
    return [name for name in bucket.names("pages/") if name.startswith("part-")]


async def crawl_in(folder: Path, *words: str, **env: str) -> commands.Ended:
    return await asyncio.to_thread(commands.run, "crawl", "l.txt", *words, folder=folder, env=env, anew=True)


# What needs no cluster


@pytest.mark.parametrize(
    ("value", "workers"), [("ray", 0), ("ray:1", 1), ("ray:40", 40), ("ray:0", None), ("ray:", None), ("rays", None)]
)
def test_what_is_asked_for(value: str, workers: int | None) -> None:
    assert workers_of_ray(value) == workers


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": "ray:0"}, "workers ray:0: must be a number of processes, at least 1, or auto, ray or ray:N"),
        ({"workers": 2, "ray_address": "auto"}, "ray-address: is for workers that are on a cluster"),
        ({"workers": "ray", "per_address": 3}, "per-address would be counted in each"),
        ({"workers": "ray", "extract": lambda response: 1}, "has no name"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Fetcher(**options)


@needs_ray
@pytest.mark.parametrize("address", ["auto:x", "ray://127.0.0.1:10001", "127.0.0.1"])
async def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"ray-address: .* is no HOST:PORT and not auto"):
        await outcomes_of(["http://127.0.0.1:1/"], workers="ray:1", ray_address=address)


@needs_ray
@pytest.mark.parametrize("silent", [False, True])
async def test_an_address_where_nobody_answers(silent: bool) -> None:
    """A port that is closed, and one that takes what it is told and says nothing."""
    with socket.socket() as end:
        end.bind(("127.0.0.2", 0))
        if silent:
            end.listen()
        began = time.monotonic()
        address = f"127.0.0.2:{end.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"ray-address: nobody answers .*{address}"):
            await outcomes_of(["http://127.0.0.1:1/"], workers="ray:1", ray_address=address)
        assert time.monotonic() - began < 5 * 20


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({"python": "3.4"}, f"has python 3.4, and this one has {versions()['python']}: have the same on all of them"),
        ({"fetcher": None}, "has fetcher None, and this one has"),
    ],
)
async def test_a_machine_with_another_python_is_refused(
    there: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hello(self: Bridge, cores: int, patience: float) -> bytes:
        return json.dumps({**versions(), "machine": "node-7", "pid": 1, "node": "n", **there}).encode()

    monkeypatch.setattr(Bridge, "_hello", hello)
    ours, theirs = socket.socketpair()
    with theirs:
        bridge = Bridge(None, await open_channel(ours, most=1 << 20), 1, Machines(None))
        with pytest.raises(RefusedError, match=f"the machine node-7 of the cluster {re.escape(said)}"):
            await bridge._place(True)
        bridge._channel.close()


@pytest.fixture
def spy(tmp_path: Path) -> Path:
    """A package by the name of Ray's that writes a file when it is imported, and is none."""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text(
        f"open({str(tmp_path / 'imported')!r}, 'w').close()\nraise ImportError('no Ray')\n"
    )
    return tmp_path / "imported"


def crawled(folder: Path, url: str, *words: str) -> commands.Ended:
    way = os.pathsep.join([str(folder), str(commands.ROOT)])
    env = commands.environment(folder, PYTHONPATH=way)
    return commands.run("crawl", url, "-o", "p.jsonl", *words, folder=folder, env=env, anew=True)


async def test_without_it_what_to_do_is_said(spy: Path, lab: LabServer) -> None:
    ended = await asyncio.to_thread(crawled, spy.parent, lab.url("/ok"), "--workers", "ray:2")
    assert (ended.code, ended.out) == (2, b"")
    message = "workers: ray is not installed: pip install 'fetcher-crawl[ray]'"
    assert ended.said == f"fetcher: {commands.as_said(message)}\n"
    assert spy.exists()
    assert lab.log == []


async def test_a_run_that_does_not_ask_for_it_never_imports_it(spy: Path, lab: LabServer) -> None:
    for words in (["--workers", "2"], []):
        ended = await asyncio.to_thread(crawled, spy.parent, lab.url("/ok"), "--fresh", *words)
        assert ended.code == 0, ended.said
    assert not spy.exists()


def test_a_worker_that_is_told_nothing_ends_by_itself() -> None:
    """As long as it hears so much as that there is somebody it goes on."""
    settings = CrawlSettings(
        config=Config(robots=False), number=0, epoch=1, concurrency=1, rate=None, extract=None, middleware=(), parsers=1,
        path=[os.fsencode(entry) for entry in sys.path], folder=os.getcwdb(), slots=None, suspects=frozenset(),
        compares=False, parked={}, delays={}, level=30,
    )  # fmt: skip
    ours, theirs = socket.socketpair()
    with ours, theirs:
        words = command("fetcher.parallel.worker", "--lease", "2.0")
        process = subprocess.Popen(words, stdin=theirs.fileno(), env=environment())
        theirs.close()
        batch = encode(settings)
        ours.sendall(LENGTH.pack(len(batch)) + batch)
        assert ours.recv(1), "it has begun"
        until = time.monotonic() + 5.0
        while time.monotonic() < until:
            ours.sendall(LENGTH.pack(0))
            ours.recv(
                1 << 20
            )  # its words, ten times a second where there is anything to say and once a second at least
            assert process.poll() is None
        assert process.wait(60) == 1


# A relay by itself


RELAY = """
import asyncio, sys
from fetcher.parallel import ray_relay
ray_relay.LEASE_SECONDS = float(sys.argv[1])

async def main():
    relay = ray_relay.Relay()
    await relay.begin(1 << 20)
    print(relay._process.pid, relay._folder, flush=True)
    for _ in range(int(sys.argv[2])):
        await relay.deliver(bytes(8))
        await asyncio.sleep(ray_relay.LEASE_SECONDS / 4)
    print("told", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_a_relay_without_a_parent_ends_with_its_worker() -> None:
    relay = subprocess.Popen([sys.executable, "-c", RELAY, "2.0", "8"], stdout=subprocess.PIPE, env=environment())
    with relay:
        assert relay.stdout is not None
        pid, folder = relay.stdout.readline().decode().split()
        assert relay.stdout.readline() == b"told\n", "it has lived through two leases"
        assert relay.wait(60) == 1
    assert not Path(folder).exists()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


# Files that a config names


def test_files_go_along(tmp_path: Path, lab_ca: tuple[Path, Path]) -> None:
    authorities, certificate = lab_ca
    jar = tmp_path / "cookies.txt"
    jar.write_text(".shop.test\tTRUE\t/\tFALSE\t0\tseen\tyes\n")
    config = Config.from_mapping(
        {"cookie_file": [str(jar)], "ca_bundle": str(authorities), "cert": [f"@shop.test {certificate}"]}
    )
    files = carried_files(config)
    for path in (authorities, certificate, jar):
        path.unlink()
    with placed(config, files) as here:
        TLSContexts(here.tls)
        assert CookieFiles(here.identity.cookie_files).has_any("shop.test")
        assert isinstance(here.tls.certificates[0], ClientCertificate)
        assert here.limits == config.limits
    with pytest.raises(ConfigError, match=r"cookies\.txt: cannot be read"):
        carried_files(Config.from_mapping({"cookie_file": [str(jar)]}))


@pytest.fixture
def lab_ca(tmp_path: Path) -> tuple[Path, Path]:
    import trustme

    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ca.issue_cert("client.test").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
    return tmp_path / "ca.pem", tmp_path / "client.pem"
