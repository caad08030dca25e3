"""Functions of the user's own, by ``--extract`` and ``--middleware``: found in the folder, run, and isolated."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.command import Ended, as_said, run
from tests.lab.desk import Desk
from tests.lab.server import LabServer

MINE = '''
"""What a user writes."""
import json
import os
import sys
import time

from fetcher import Response, StatusError, parse


def size(response):
    return len(response.body)


def title(response):
    return {"title": parse(response).title, "length": len(response.body)}


class Shop:
    @staticmethod
    def price(response):
        return "5 €"


def failing(response):
    raise ValueError(f"no price in \\x1b[31m{response.url}")


def hostile(response):
    title = parse(response).title
    if title == "abort":
        os.abort()
    if title == "hang":
        time.sleep(600)
    return title


async def later(response):
    return 1


def starve(response):
    raise MemoryError


def starve_here(response):
    if sys.modules["__main__"].__spec__.name != "fetcher.page.worker":
        raise MemoryError
    return "read elsewhere"


def starve_by_size(response):
    if len(response.body) > 2**20:
        raise MemoryError
    return "small"


def plain_sign(request, proceed):
    return None


async def swallow(request, proceed):
    await proceed(request)


value = 5


async def sign(request, proceed):
    response = await proceed(request.__class__(request.id, request.url, (("X-Sign", "me"),), request.fields, request.tag))
    return response


async def count(request, proceed):
    with open("counted", "a") as file:
        file.write(f"{request.url}\\n")
    return await proceed(request)


async def refuse(request, proceed):
    raise StatusError(451, "by my own rule")


async def inner(request, proceed):
    return await proceed(request.__class__(request.id, request.url, (("X-Order", "inner"),)))


async def outer(request, proceed):
    return await proceed(request.__class__(request.id, request.url, (("X-Order", "outer"),)))
'''


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.fixture
def desk(lab: LabServer, tmp_path: Path) -> Desk:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "pages.py").write_text("from mine import size as price\n")
    return Desk(lab, tmp_path)


def records(ended: Ended) -> list[dict[str, Any]]:
    return sorted((json.loads(line) for line in ended.lines), key=lambda record: int(record["id"]))


# An extractor


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("mine:size", 181),
        ("mine:title", {"title": "hello", "length": 181}),
        ("mine:Shop.price", "5 €"),
        ("shop.pages:price", 181),
    ],
)
@pytest.mark.parametrize("flags", ["", "--isolate", "--parsers 1"])
def test_what_a_function_returns_is_the_data(name: str, data: object, flags: str, desk: Desk) -> None:
    url = desk.lab.url("/ok?title=hello")
    ended = run("crawl", url, "-f", "jsonl", "--extract", name, *flags.split(), folder=desk.folder)
    assert ended.code == 0, ended.said
    (record,) = records(ended)
    assert record["data"] == data
    assert record["title"] == "hello"


def test_a_function_is_found_in_the_folder_by_the_installed_command(desk: Desk) -> None:
    """As ``fetcher`` rather than ``python -m fetcher``, which has the folder in its path by itself."""
    import subprocess

    from tests.lab.command import environment

    script = "import sys; sys.path.remove(''); from fetcher.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "crawl", desk.lab.url("/ok"), "-f", "jsonl", "--extract", "mine:size"],
        cwd=desk.folder,
        env=environment(desk.folder),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["data"] == 178


@pytest.mark.parametrize("flags", ["", "--isolate"])
def test_what_a_function_raises_costs_its_row(flags: str, desk: Desk) -> None:
    url = desk.lab.url("/ok")
    ended = run("crawl", url, "--extract", "mine:failing", *flags.split(), folder=desk.folder)
    assert ended.code == 3
    assert ended.lines == [f"{url} !! extract_failed: ValueError: no price in \\x1b[31m{url}"]


@pytest.mark.parametrize("flags", ["", "--isolate", "--parsers 1"])
def test_a_failed_extractor_leaves_what_was_known_of_the_page(flags: str, desk: Desk) -> None:
    url = desk.lab.url("/ok?title=hello")
    plain = run("crawl", url, "-f", "jsonl", folder=desk.folder)
    ended = run("crawl", url, "-f", "jsonl", "--extract", "mine:failing", *flags.split(), folder=desk.folder)
    (page,), (failure,) = records(plain), records(ended)
    assert failure["error"] == "extract_failed"
    assert failure["title"] == "hello"
    for name in ("elapsed", "waited", "fetched_at", "error", "message", "digest"):
        page.pop(name), failure.pop(name)
    assert failure == page


@pytest.mark.parametrize("flags", ["", "--dry-run"])
def test_rules_beside_a_function_are_refused(flags: str, desk: Desk) -> None:
    desk.pages("a")
    words = ["--select", "h=h1", "--extract", "mine:size", *flags.split()]
    ended = run("crawl", "l.txt", "-o", "pages.jsonl", *words, folder=desk.folder)
    desk.refused(ended, "select: says what a page's data is, and so does extract: leave one of them out", 2)
    assert not (desk.folder / "pages.jsonl").exists()
    ended = run("crawl", "l.txt", "--select", "h=h1 >", *flags.split(), folder=desk.folder)
    assert ended.code == 2
    assert "no CSS selector" in ended.said


SHAPES = {
    "extract mine:sign": "extract: 'mine:sign' is async, and what reads a page is a plain function",
    "extract mine:plain_sign": "extract is called as function(response), and mine:plain_sign(request, proceed) does not take "
    "that: missing a required argument: 'proceed'",
    "middleware mine:size": "middleware is called as await function(request, next), and mine:size(response) does not take "
    "that: too many positional arguments",
    "middleware mine:plain_sign": "middleware: mine:plain_sign is not async (it returned NoneType): write 'async def'",
    "middleware mine:swallow": "middleware: mine:swallow returned NoneType, and must return a Response",
}


@pytest.mark.parametrize("flag", SHAPES)
def test_a_function_of_the_wrong_shape_is_named(flag: str, desk: Desk) -> None:
    option, name = flag.split()
    ended = run("crawl", desk.lab.url("/ok"), "-q", f"--{option}", name, folder=desk.folder)
    assert (ended.code, ended.said, ended.out) == (2, f"fetcher: {as_said(SHAPES[flag])}\n", b"")


def test_a_want_of_memory_ends_the_run_with_a_word(desk: Desk) -> None:
    for flags in ([], ["--isolate"]):
        ended = run("crawl", desk.lab.url("/ok"), "-q", "--extract", "mine:starve", *flags, folder=desk.folder)
        assert (ended.code, ended.out) == (1, b"")
        assert ended.said.startswith("fetcher: no memory is left")
        assert ended.said.count("\n") == 1


def test_a_page_there_is_no_memory_for_is_read_in_another_process(desk: Desk) -> None:
    ended = run("crawl", desk.lab.url("/ok"), "-q", "--extract", "mine:starve_here", "-f", "jsonl", folder=desk.folder)
    assert (ended.code, ended.said) == (0, "")
    assert json.loads(ended.out)["data"] == "read elsewhere"


def test_a_page_that_takes_too_much_memory_costs_its_own_row(desk: Desk) -> None:
    urls = [desk.lab.url("/ok"), desk.lab.url("/ok?size=1500000"), desk.lab.url("/ok?2")]
    ended = run("crawl", *urls, "-q", "--extract", "mine:starve_by_size", "-f", "jsonl", folder=desk.folder)
    found = {record["url"]: record["error"] or record["data"] for record in map(json.loads, ended.lines)}
    assert found == dict(zip(urls, ["small", "parse_crash", "small"], strict=True))


WRONG = {
    "mine": "mine: must be MODULE:FUNCTION, such as shop.pages:price",
    "mine:": "mine:: must be MODULE:FUNCTION, such as shop.pages:price",
    ":size": ":size: must be MODULE:FUNCTION, such as shop.pages:price",
    "./mine:size": "./mine:size: must be MODULE:FUNCTION, such as shop.pages:price",
    "..mine:size": "..mine:size: must be MODULE:FUNCTION, such as shop.pages:price",
    "mine\x1b[31m:size": "'mine\\x1b[31m:size': must be MODULE:FUNCTION, such as shop.pages:price",
    "nowhere:size": "cannot import 'nowhere': No module named 'nowhere'",
    "shop.nowhere:size": "cannot import 'shop.nowhere': No module named 'shop.nowhere'",
    "needy:size": "cannot import 'needy': No module named 'not_there_either'",
    "torn:size": "importing 'torn' raised SyntaxError: '(' was never closed (torn.py, line 1)",
    "broken:size": "importing 'broken' raised ZeroDivisionError: division by zero",
    "script:size": "importing 'script' raised SystemExit: 7",
    "mine:nothing": "'mine' has no 'nothing'",
    "mine:Shop.nothing": "'mine' has no 'Shop.nothing'",
    "mine:value": "'mine:value' is no function",
}
FILES = {
    "needy.py": "import not_there_either\n",
    "torn.py": "def size(\n",
    "broken.py": "1 / 0\n",
    "script.py": "import sys\nsys.exit(7)\n",
}


@pytest.mark.parametrize("option", ["extract", "middleware"])
@pytest.mark.parametrize("name", WRONG)
def test_a_name_that_is_wrong_is_told_with_its_reason(option: str, name: str, desk: Desk) -> None:
    for file, text in FILES.items():
        (desk.folder / file).write_text(text)
    desk.pages("a")
    ended = run("crawl", "l.txt", "-o", "pages.jsonl", f"--{option}", name, folder=desk.folder)
    between = " " if "must be" in WRONG[name] else ": "
    desk.refused(ended, f"{option}{between}{WRONG[name]}", 2)
    assert ended.said.count("\n") == 1
    assert ended.out == b""
    assert not (desk.folder / "pages.jsonl").exists()


def test_an_extractor_that_is_async_is_told(desk: Desk) -> None:
    ended = run("crawl", desk.lab.url("/ok"), "--extract", "mine:later", folder=desk.folder)
    desk.refused(ended, "extract: 'mine:later' is async, and what reads a page is a plain function", 2)


def test_a_name_in_the_configuration_is_used(desk: Desk) -> None:
    (desk.folder / "fetcher.toml").write_text('extract = "mine:size"\nmiddleware = ["mine:count"]\n')
    ended = run("crawl", desk.lab.url("/ok"), "-f", "jsonl", folder=desk.folder)
    assert records(ended)[0]["data"] == 178
    assert (desk.folder / "counted").read_text() == desk.lab.url("/ok") + "\n"


# An extractor that is hostile


def bombs(desk: Desk, *titles: str) -> None:
    urls = [desk.lab.url(f"/ok?title=page{n}&n={n}") for n in range(20)]
    for place, title in enumerate(titles):
        urls.insert(7 * (place + 1), desk.lab.url(f"/ok?title={title}&n={title}"))
    desk.write(urls)


def test_isolated_it_costs_its_own_rows(desk: Desk) -> None:
    bombs(desk, "abort", "hang")
    flags = ["--extract", "mine:hostile", "--isolate", "--parse-timeout", "1"]
    ended = desk.crawl(*flags)
    assert ended.code == 0, ended.said
    found = {record["url"].rpartition("=")[2]: record for record in desk.records()}
    assert {name: record["error"] for name, record in found.items() if record["error"]} == {
        "abort": "parse_crash",
        "hang": "parse_timeout",
    }
    assert all(found[name]["status"] == 200 for name in ("abort", "hang"))
    assert all(found[str(n)]["data"] == f"page{n}" for n in range(20))
    desk.asked()
    # By its class it can be tried again.
    assert desk.crawl("--retry-codes", "parse", *flags).code == 0
    assert desk.asked() == ["abort", "hang"]


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_a_page_that_brings_everything_down_is_read_apart_by_the_next_run(desk: Desk) -> None:
    bombs(desk, "abort")
    flags = ["--extract", "mine:hostile"]
    ended = run(*desk.words(*flags), folder=desk.folder)
    assert ended.code == -signal.SIGABRT
    ended = desk.crawl(*flags)
    assert ended.code == 0, ended.said
    assert "fetcher: row 8 was being parsed when the last run died: it is parsed apart now" in ended.said.splitlines()
    found = {record["id"]: record for record in desk.records()}
    assert {row: record["error"] for row, record in found.items() if record["error"]} == {8: "parse_crash"}
    assert desk.crawl(*flags).said.splitlines()[-1].startswith("fetcher: all rows were done already")


# Middleware


def test_middleware_stands_around_each_request(desk: Desk) -> None:
    urls = [desk.lab.url(f"/echo?n={n}") for n in range(3)]
    desk.write(urls)
    ended = run(
        "crawl", "l.txt", "--middleware", "mine:sign", "--middleware", "mine:count", "--preview", "500",
        folder=desk.folder,
    )  # fmt: skip
    assert ended.code == 0, ended.said
    assert ended.text.count("X-Sign: me") == 3
    assert sorted((desk.folder / "counted").read_text().splitlines()) == sorted(urls)


def test_the_first_middleware_is_the_outermost(desk: Desk) -> None:
    words = ["--middleware", "mine:outer", "--middleware", "mine:inner"]
    ended = run("crawl", desk.lab.url("/echo"), *words, "--preview", "500", folder=desk.folder)
    assert "X-Order: inner" in ended.text
    assert "outer" not in ended.text


def test_middleware_may_refuse_a_row(desk: Desk) -> None:
    ended = run("crawl", desk.lab.url("/ok"), "--middleware", "mine:refuse", folder=desk.folder)
    assert ended.code == 3
    assert ended.lines == [f"{desk.lab.url('/ok')} !! http_451: by my own rule"]
    assert desk.asked() == []


def test_middleware_may_change_from_run_to_run_of_a_job(desk: Desk) -> None:
    """It decides how a page is asked for, not what stands in its record."""
    desk.pages(*"abc")
    assert desk.crawl("--limit", "1").code == 0
    assert desk.crawl("--middleware", "mine:count").code == 0
    assert (desk.folder / "counted").read_text().count("\n") == 2
