"""``fetcher robots``: what it says of URLs, in words and in JSON, and that it asks for nothing but robots.txt."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fetcher.cli.robots import command
from fetcher.errors import ConfigError
from tests.lab.exchange import Exchange
from tests.lab.server import LabServer, refused_port

Told = Callable[..., Result]


async def broken(exchange: Exchange) -> None:
    await exchange.reply("", 500)


@pytest.fixture(scope="module")
def site() -> Iterator[LabServer]:
    with LabServer.in_thread(hosts=2) as lab:
        lab.add("/robots.txt", "User-agent: fetcher\nDisallow: /private\nCrawl-delay: 3\n", host=1)
        lab.add("/robots.txt", broken, host=2)
        yield lab


@pytest.fixture
def told(site: LabServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    """Run the command in an empty folder, and see afterwards that no page was asked for."""
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))

    def tell(*arguments: str) -> Result:
        site.clear()
        done = CliRunner().invoke(command, [*arguments, "--retries", "0"], prog_name="fetcher robots")
        assert {entry.path for entry in site.log} <= {"/robots.txt"}
        return done

    return tell


def test_it_says_why(site: LabServer, told: Told) -> None:
    here = site.url("")
    done = told(site.url("/private/x"), site.url("/ok"), site.url("/ok", 2), "http://[nowhere")
    assert done.exit_code == 0
    denied, allowed, unreachable, invalid = done.stdout.splitlines()
    assert denied == (
        f"{here}/private/x -> denied: 'Disallow: /private' in line 2 of {here}/robots.txt; 3 s between two requests"
    )
    assert allowed == (
        f"{here}/ok -> allowed: none of the 1 rule for fetcher in {here}/robots.txt is about it; "
        "3 s between two requests"
    )
    assert unreachable.startswith(f"{site.url('/ok', 2)} !! robots_unreachable: ")
    assert invalid.startswith("http://[nowhere !! invalid_url: ")
    assert len(site.log) == 2


def test_it_tells_in_json_and_for_another_name(site: LabServer, told: Told) -> None:
    done = told("--json", "-A", "Other/2.0", site.url("/private/x"))
    assert (done.exit_code, json.loads(done.stdout)) == (
        0,
        {
            "url": site.url("/private/x"), "allowed": True, "robots": site.url("/robots.txt"), "line": None,
            "rule": None, "rules": 0, "delay": 0.0, "agent": "Other", "error": None, "message": None,
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "delay"),
    [
        ("", 3.0),
        ("max-crawl-delay = 2", 2.0),
        ("delay = 5", 5.0),
        ("robots = false", 3.0),  # asked is asked
        ('[hosts."127.0.0.1"]\nmax-crawl-delay = 1', 1.0),
        ('[hosts."127.0.0.1"]\ndelay = 7', 7.0),
        ('[hosts."127.0.0.2"]\ndelay = 7', 3.0),
    ],
)
def test_the_delay_is_the_one_a_crawl_would_leave(site: LabServer, told: Told, settings: str, delay: float) -> None:
    Path("fetcher.toml").write_text(settings)
    (found,) = map(json.loads, told("--json", site.url("/ok")).stdout.splitlines())
    assert (found["allowed"], found["delay"]) == (True, delay)


def test_a_bare_host_is_judged_by_the_scheme_it_speaks(site: LabServer, told: Told) -> None:
    bare = site.url("/private/x").removeprefix("http://")
    (found,) = map(json.loads, told("--json", bare).stdout.splitlines())
    assert (found["url"], found["allowed"], found["robots"]) == (bare, False, site.url("/robots.txt"))
    for given in (("--default-scheme", "https", bare), (f"https://{bare}",)):
        (found,) = map(json.loads, told("--json", *given).stdout.splitlines())
        assert found["error"] == "tls_protocol"
    with refused_port() as port:
        (found,) = map(json.loads, told("--json", f"127.0.0.1:{port}").stdout.splitlines())
    assert found["error"] == "connect_refused"


def test_its_exit_codes(site: LabServer, told: Told) -> None:
    assert told(site.url("/ok", 2), "http://[nowhere").exit_code == 3
    assert told().exit_code == 2
    assert isinstance(told("--timeout", "soon", site.url("/ok")).exception, ConfigError)
