"""``fetcher serve`` as a process: what it says, what it serves, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.lab.command import Running, argv, as_said, environment, run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


def serve(folder: Path, *arguments: str) -> Running:
    return Running("serve", "--port", "0", "--latency", "0", *arguments, folder=folder)


def test_it_lists_serves_logs_and_ends(tmp_path: Path) -> None:
    with serve(tmp_path, "--pages", "20", "--hosts", "2", "--list", "--log", "site.log") as site:
        site.until_said("(Ctrl-C ends it)")
        site.until(lambda site: site.out.count(b"\n") == 24)
        urls = site.out.decode().split()
        page = next(url for url in urls if "/coffee/" in url and "discontinued" not in url)
        with urllib.request.urlopen(page, timeout=30) as answer:
            assert b"<title>" in answer.read() or answer.headers["Content-Encoding"]
        site.send(signal.SIGINT)
        ended = site.end()
    assert (ended.code, ended.said.splitlines()[1:]) == (0, ["closed"])
    assert re.match(rf"serving 24 URLs, the first is {re.escape(urls[0])} ", ended.said)
    (visit,) = map(json.loads, (tmp_path / "site.log").read_text().splitlines())
    assert visit["status"] == 200


def test_its_list_can_be_piped_into_a_crawl(tmp_path: Path) -> None:
    """The list ends, though the site goes on."""
    with serve(tmp_path, "--pages", "20", "--hosts", "2", "--list") as site:
        site.until_said("(Ctrl-C ends it)")
        site.until_printed()
        ended = run("crawl", "-", "-q", folder=tmp_path, stdin=site.out)
        assert (ended.code, len(ended.lines)) == (0, 24)
        site.send(signal.SIGTERM)
        assert site.process.wait(30) in (0, -signal.SIGTERM, 143)


def test_a_reader_of_the_list_that_leaves_ends_it_silently(tmp_path: Path) -> None:
    script = "$SERVE --port 0 --pages 3000 --list | head -1; echo ${PIPESTATUS[0]}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment(tmp_path, SERVE=" ".join(argv("serve"))),
        capture_output=True,
        timeout=60,
    )
    first, code, _ = done.stdout.decode().split("\n")
    assert first.startswith("http://127.0.")
    assert code == "141"
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--port 99999", "port: 99999 is not from 0 to 65535"),
        ("--hosts 0", "hosts 0: must be at least 1"),
        ("--latency 60-20", "latency 60-20: must have the lower number first"),
        ("--latency fast", "latency fast: must be a range of milliseconds, such as 20-60"),
        ("--latency 20ms-60ms", "latency 20ms-60ms: must be a range of milliseconds, such as 20-60"),
        ("--latency -5", "latency -5: must be a range of milliseconds, such as 20-60"),
    ],
)
def test_settings_of_no_use_are_named(arguments: str, said: str, tmp_path: Path) -> None:
    ended = run("serve", "--port", "0", *arguments.split(), folder=tmp_path)
    assert (ended.code, ended.out, ended.said) == (2, b"", f"fetcher: {as_said(said)}\n")


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run("serve", "--port", str(port), folder=tmp_path)
    assert (ended.code, ended.said) == (1, f"fetcher: cannot serve on port {port}: Address already in use\n")


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    ended = run("serve", "--port", "0", "--log", "no/site.log", folder=tmp_path)
    assert (ended.code, ended.said) == (1, "fetcher: no/site.log: cannot write the log: No such file or directory\n")
