"""What is wrong with a list, an option or an output: one clear line, its exit code, and nothing else happens."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.lab.command import Ended, argv, environment, judged, run
from tests.lab.ports import refused_port
from tests.lab.server import LabServer

URL = "http://127.0.0.1:9/"  # nothing is asked of it: the run ends before
GOOD = {"l.txt": f"{URL}\n".encode()}

Files = dict[str, bytes]


@dataclass(frozen=True)
class Bad:
    """A command line, the files it finds, and what it must say. ``said`` is that, or a pattern of it."""

    id: str
    arguments: str | list[str]
    said: str
    code: int = 2
    files: Files = field(default_factory=dict)
    stdin: bytes = b""
    env: dict[str, str] = field(default_factory=dict)


def toml(text: str) -> Files:
    return {"f.toml": text.encode(), **GOOD}


LISTS = [
    Bad("missing", "nowhere.txt", "nowhere.txt: no such file"),
    Bad("missing, though it looks like a host", "urls.csv", "urls.csv: no such file"),
    Bad("missing in a missing folder", "no/where.txt", "no/where.txt: no such file"),
    Bad("no name", [""], "'': no such file"),
    Bad("a directory", ".", ".: is a directory, not a list of URLs"),
    Bad("empty", "l.txt", "l.txt: no URLs in it", files={"l.txt": b""}),
    Bad("comments alone", "l.txt", "l.txt: no URLs in it", files={"l.txt": b"\n# one\n\r\n   \n"}),
    Bad("two, both empty", "l.txt m.txt", "l.txt and 1 more: no URLs in them", files={"l.txt": b"", "m.txt": b"\n"}),
    Bad("stdin, empty", [], "stdin: no URLs in it"),
    Bad("stdin by its name, empty", "-", "stdin: no URLs in it"),
    Bad("binary", "l.txt", "l.txt: looks like a binary file, not a list of URLs", files={"l.txt": b"\x7fELF\0\1\2"}),
    Bad("a picture", "l.txt", "l.txt: looks like a binary file (PNG), not a list of URLs",
        files={"l.txt": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"}),
    Bad("binary on stdin", "-", "stdin: looks like a binary file, not a list of URLs", stdin=b"\0\1\2\3\n"),
    Bad("UTF-16 without a mark", "l.txt",
        "l.txt: looks like a binary file (UTF-16? then say so: --encoding utf-16-le), not a list of URLs",
        files={"l.txt": f"{URL}\n".encode("utf-16-le")}),
    Bad("gzip by its name alone", "l.txt.gz", "l.txt.gz: is not gzip data, though its name ends in .gz",
        files={"l.txt.gz": URL.encode()}),
    Bad("another format", "l.xlsx", r"l\.xlsx: a \.xlsx file is no list of URLs that can be read: .*",
        files={"l.xlsx": b"PK"}),
    Bad("a Parquet that is cut short", "l.parquet",
        "l.parquet: is cut short: a Parquet file ends with its footer, and this one has none", files={"l.parquet": b"PAR1\0\0\0\0"}),
    Bad("an encrypted Parquet", "l.parquet", "l.parquet: is encrypted; give a copy that is not",
        files={"l.parquet": b"PARE\0\0\0\0PARE"}),
    Bad("a folder as Parquet", "d.parquet", "d.parquet: is a folder, not a Parquet file; name the files in it (d.parquet/*.parquet)",
        files={"d.parquet/part-1.parquet": b"PAR1"}),
    Bad("a Parquet on stdin", "- --from parquet",
        "stdin: parquet is read from a file, for it cannot be read from its beginning on; save it as one", stdin=b"PAR1"),
    Bad("no database", "l.sqlite", "l.sqlite: is not a SQLite database", files={"l.sqlite": b"url\n"}),
    Bad("a column to carry that there is not", "l.csv --carry nme",
        "l.csv:1: there is no column 'nme' to carry; the columns are: url, name", files={"l.csv": b"url,name\nx.example,x\n"}),
    Bad("a URL for a header", "l.csv",
        "l.csv:1: has a URL where the names of the columns belong; put a line such as name,url before it, or say --from txt "
        "(one URL a line)", files={"l.csv": b"https://a.example/,1\n"}),
    Bad("several columns of URLs", "l.csv",
        "l.csv:1: several columns may hold the URL: Link, Website; say which with --url-column",
        files={"l.csv": b"Link;Website\na.example;b.example\n"}),
    Bad("another scheme", "ftp://127.0.0.1/l", "ftp://127.0.0.1/l: only http:// and https:// URLs can be fetched, and lists read from s3://, gs:// and az://"),
    Bad("a CSV without the column", "l.csv", "l.csv:1: there is no column 'url'; the columns are: img, name; say which has the URL with --url-column",
        files={"l.csv": b"img,name\nhttp://127.0.0.1/,x\n"}),
    Bad("a CSV without the column asked for", "l.csv --url-column href",
        "l.csv:1: there is no column 'href'; the columns are: link, name",
        files={"l.csv": b"link,name\nhttp://127.0.0.1/,x\n"}),
    Bad("JSON that is none", "l.jsonl", r"l\.jsonl:1: is not JSON, so this is no jsonl list \(one JSON value a line\): .+",
        files={"l.jsonl": f"{URL}\n".encode()}),
    Bad("the second is missing", "l.txt nowhere.txt", "nowhere.txt: no such file", files=GOOD),
    Bad("--demo with an INPUT", "--demo l.txt", "--demo: brings its own list: leave out the INPUT, or leave out --demo",
        files=GOOD),
    Bad("a name that steers the terminal", ["\x1b[31m\u202e.txt"], "\\x1b[31m\\u202e.txt: no such file"),
]  # fmt: skip

SETTINGS = [
    Bad("a misspelt key", "l.txt --config f.toml", "f.toml: unknown option 'concurency' (did you mean 'concurrency'?)",
        files=toml("concurency = 5")),
    Bad("a misspelt key of the run", "l.txt --config f.toml", "f.toml: unknown option 'outptu' (did you mean 'output'?)",
        files=toml("outptu = 'x'")),
    Bad("the file that is found is checked as well", "l.txt", "fetcher.toml: unknown option 'per-hots' (did you mean 'per-host'?)",
        files={"fetcher.toml": b"per-hots = 5", **GOOD}),
    Bad("a table", "l.txt --config f.toml", r"f\.toml: .*limits.*",
        files=toml("[limits]\nconcurrency = 5")),
    Bad("a value of no use", "l.txt --config f.toml", "f.toml: timeout soon: must be a time, such as 30, 500ms or 2m", files=toml("timeout = 'soon'")),
    Bad("a number for a text", "l.txt --config f.toml", "f.toml: output 5: must be a text or a list of texts",
        files=toml("output = 5")),
    Bad("a text for a flag", "l.txt --config f.toml", "f.toml: quiet yes: must be true or false", files=toml("quiet = 'yes'")),
    Bad("a text for a count", "l.txt --config f.toml", "f.toml: verbose x: must be a whole number", files=toml("verbose = 'x'")),
    Bad("an unknown choice", "l.txt --config f.toml", "f.toml: format xml: must be one of text, jsonl, csv, parquet, sqlite, warc",
        files=toml("format = 'xml'")),
    Bad("a number for a file", "l.txt --config f.toml", "f.toml: summary 5: must be a text", files=toml("summary = 5")),
    Bad("a number for a cookie", "l.txt --config f.toml", "f.toml: cookie 5: must be a text or a list of texts",
        files=toml("cookie = 5")),
    Bad("a secret for everyone", "l.txt --config f.toml",
        "f.toml: user: a password must name its host: '@HOST USER:PASSWORD'", files=toml("user = 'a:b'")),
    Bad("no TOML", "l.txt --config f.toml", r"f\.toml: not valid TOML: .*\(at line 1, column 15\)",
        files=toml("concurrency = = 5")),
    Bad("TOML that is not UTF-8", "l.txt --config f.toml", r"f\.toml: not valid TOML: .+", files={"f.toml": b"\xff\xfe", **GOOD}),
    Bad("no such configuration", "l.txt --config g.toml", "g.toml: cannot read the configuration: No such file or directory",
        files=GOOD),
    Bad("a directory as configuration", "l.txt --config .", ".: cannot read the configuration: Is a directory", files=GOOD),
    Bad("the environment", "l.txt", "FETCHER_CONCURRENCY: concurrency ten: must be a whole number", files=GOOD,
        env={"FETCHER_CONCURRENCY": "ten"}),
    Bad("a proxy for all of the environment", "l.txt",
        r"ALL_PROXY in the environment: socks5h://127\.0\.0\.1:1: must be an http.*: socks needs .*-x '' does without\)",
        files=GOOD, env={"ALL_PROXY": "socks5h://127.0.0.1:1"}),
    Bad("a proxy of the environment", "l.txt", r"HTTP_PROXY in the environment: socks5://127\.0\.0\.1:1: must be an http.*-x '' does without\)",
        files=GOOD, env={"HTTP_PROXY": "socks5://127.0.0.1:1"}),
    Bad("a selector that does not parse", ["l.txt", "--select", "a=h1[["],
        r"--select 'a=h1\[\[': a closing \] is missing \(write NAME=CSS.*\)", files=GOOD),
    Bad("a pseudo-element of no use", ["l.txt", "--select", "a=h1::before"],
        r"--select 'a=h1::before': 'h1::before' is no CSS selector that can be used.*", files=GOOD),
    Bad("a selector without a name", "l.txt --select h1", r"--select 'h1': there is no '=' \(write NAME=CSS.*\)", files=GOOD),
    Bad("two selectors of one name", "l.txt --select a=h1 --select a=h2",
        r"--select 'a=h2': the name 'a' is taken by an earlier rule .*", files=GOOD),
    Bad("no encoding", "l.txt --encoding cp125x", r"--encoding: 'cp125x' is no encoding of text \(did you mean '.*'\?\)", files=GOOD),
    Bad("no delimiter", ["l.csv", "--delimiter", "ab"],
        "--delimiter: 'ab' is no delimiter: one character such as ';', or 'tab'", files=GOOD),
    Bad("no encoding in the file", "l.txt --config f.toml", r"f\.toml: encoding: 5 is no encoding of text .*", files=toml("encoding = 5")),
    Bad("no columns to carry", "l.txt --config f.toml", "f.toml: carry: this is neither a text nor a list of texts",
        files=toml("carry = 5")),
    Bad("no requests at once", "l.txt -c 0", "--concurrency 0: must be at least 1", files=GOOD),
    Bad("a word for a number", "l.txt -c ten", "--concurrency ten: must be a whole number", files=GOOD),
    Bad("none to a host", "l.txt --per-host 0", "--per-host 0: must be at least 1", files=GOOD),
    Bad("no rate", "l.txt --rate 0", "--rate 0: must be more than 0, for that would fetch nothing", files=GOOD),
    Bad("a rate of no unit", "l.txt --rate 5/day", "--rate 5/day: must be a rate, such as 5/s or 100/m", files=GOOD),
    Bad("no size", "l.txt --max-size x", "--max-size x: must be a size, such as 500K or 10M", files=GOOD),
    Bad("no status", "l.txt --accept 20x",
        "--accept 20x: must be a status code, range or class, such as 200-299,304 or 2xx", files=GOOD),
    Bad("a status of four digits", "l.txt --retry-on 429,1000",
        "--retry-on 1000: must be a status code, range or class, such as 200-299,304 or 2xx", files=GOOD),
    Bad("a certificate for nobody", ["l.txt", "--cert", "c.pem"],
        "--cert: a certificate is an identity and must name its host: '@HOST FILE'", files=GOOD),
    Bad("a certificate that is not there", ["l.txt", "--cert", "@a.example c.pem"],
        "--cert: cannot read c.pem: No such file or directory", files=GOOD),
    Bad("a certificate that is none", ["l.txt", "--cert", "@a.example c.pem"],
        "--cert: cannot read c.pem: no certificate with its key in PEM", files={"c.pem": b"no", **GOOD}),
    Bad("a key to no certificate", "l.txt --key c.key", "--key: there is no certificate that it is for (cert)", files=GOOD),
    Bad("a range the wrong way round", "l.txt --accept 299-200", "--accept 299-200: must be a range of status codes, from 100 to 999, the lower one first", files=GOOD),
    Bad("a negative limit", "l.txt --limit -1", "--limit -1: must be at least 0", files=GOOD),
    Bad("no time", "l.txt --timeout 0", "--timeout 0: must be more than 0 seconds", files=GOOD),
    Bad("a negative delay", "l.txt --delay -1", "--delay -1: must be at least 0", files=GOOD),
    Bad("negative retries", "l.txt --retries -1", "--retries -1: must be at least 0", files=GOOD),
    Bad("no share", "l.txt --max-failed few", "--max-failed few: must be a number or a percentage, such as 10 or 5%",
        files=GOOD),
    Bad("a header without a colon", "l.txt -H nonsense", "--header nonsense: must be 'Name: value'", files=GOOD),
    Bad("a header of two lines", ["l.txt", "-H", "A: b\r\nC: d"], "--header: the value of A has a control character", files=GOOD),
    Bad("a name of two lines", ["l.txt", "-A", "a\nb"], "--user-agent: the value of User-Agent has a control character", files=GOOD),
    Bad("Authorization for a list", ["l.txt", "-H", "Authorization: Bearer x"],
        "--header: Authorization is a secret and must name its host: '@HOST Authorization: …'", files=GOOD),
    Bad("a password for a list", "l.txt -u me:secret", "--user: a password must name its host: '@HOST USER:PASSWORD'", files=GOOD),
    Bad("a password for two origins", "http://127.0.0.1:9/ http://127.0.0.1:10/ -u me:secret",
        "--user: a password must name its host: '@HOST USER:PASSWORD'"),
    Bad("a password for a URL and a list", f"{URL} l.txt -u me:secret",
        "--user: a password must name its host: '@HOST USER:PASSWORD'", files=GOOD),
    Bad("no password", ["l.txt", "-u", "@127.0.0.1 me"], "--user: the credentials for 127.0.0.1 are not USER:PASSWORD", files=GOOD),
    Bad("a cookie for a list", "l.txt -b a=b",
        "--cookie: a cookie must name its host: '@HOST name=value' (or give a cookies.txt)", files=GOOD),
    Bad("a password for the demo", "--demo -u me:secret", "--user: a password must name its host: '@HOST USER:PASSWORD'"),
    Bad("no cookies.txt", "l.txt -b cookies.txt", "--cookie: cannot read cookies.txt: No such file or directory", files=GOOD),
    Bad("a cookies.txt that is none", "l.txt -b c.txt",
        r"--cookie: cannot read c\.txt: .*cookies\.txt.*Netscape format.*", files={"c.txt": b"a=b\n", **GOOD}),
    Bad("no bundle", "l.txt --ca-bundle ca.pem", r"--ca-bundle: cannot read ca\.pem: .*No such file or directory", files=GOOD),
    Bad("a bundle of no certificates", "l.txt --ca-bundle l.txt", r"--ca-bundle: cannot read l\.txt: .+", files=GOOD),
    Bad("a guard that a proxy undoes", "l.txt --private-network deny -x http://127.0.0.1:9",
        "private-network=deny cannot be kept through a proxy, which resolves the names itself: "
        "drop the proxy, or use private-network=listed", files=GOOD),
    Bad("a proxy of another kind", "l.txt -x socks5://127.0.0.1:9",
        "--proxy socks5://127.0.0.1:9: must be an http:// or https:// proxy URL: socks needs an HTTP proxy in front of it",
        files=GOOD),
    Bad("a proxy that is no URL", "l.txt -x foo:bar:baz", r"--proxy .*foo:bar:baz: must be an http:// or https:// proxy URL.*",
        files=GOOD),
    Bad("a proxy with a port of no use", "l.txt -x http://127.0.0.1:99999", r"--proxy .*:99999: must be an http:// or https:// proxy URL.*",
        files=GOOD),
    Bad("a proxy without a host", "l.txt -x http://", "--proxy http://: must be an http:// or https:// proxy URL", files=GOOD),
    Bad("an option there is none of", "l.txt --xyzzy", r"--xyzzy: there is no such flag: 'fetcher crawl' has \d+, in the groups .* \(see 'fetcher crawl --help'\)", files=GOOD),
    Bad("a choice there is none of", "l.txt -f xml", "--format xml: must be one of text, jsonl, csv, parquet, sqlite, warc", files=GOOD),
    Bad("a format of lists there is none of", "l.txt --from xml", "--from xml: must be one of txt, csv, tsv, jsonl, parquet, sqlite, sitemap",
        files=GOOD),
]  # fmt: skip

OUTPUTS = [
    Bad("a folder that does not exist", "l.txt -o no/pages.jsonl", "no/pages.jsonl: the folder no does not exist", 1, GOOD),
    Bad("a folder", "l.txt -o d", "d: is a folder; name a file in it, such as d/pages.jsonl, or give -f parquet for a folder of parts", 1, {"d/x": b"", **GOOD}),
    Bad("a folder with a suffix", "l.txt -o d.csv", "d.csv: is a folder; name a file in it, such as d.csv/pages.jsonl", 1,
        {"d.csv/x": b"", **GOOD}),
    Bad("an unknown suffix", "l.txt -o pages.xml",
        r"pages\.xml: unknown suffix '\.xml': there are \.jsonl, .*or name the format \(text, jsonl, csv, parquet, sqlite, warc\)", files=GOOD),
    Bad("a suffix that was meant otherwise", "l.txt -o pages.json",
        r"pages\.json: unknown suffix '\.json' \(did you mean jsonl, one JSON record a line\?\): there are .*", files=GOOD),
    Bad("a suffix of other databases", "l.txt -o pages.db", r"pages\.db: unknown suffix '\.db' \(did you mean sqlite\?\): .*", files=GOOD),
    Bad("a database that is packed", "l.txt -o pages.sqlite.gz",
        "pages.sqlite.gz: sqlite is not packed while it is written: leave out .gz", files=GOOD),
    Bad("a database on stdout", "l.txt -f sqlite", "standard output: sqlite is no stream: name a file with -o, such as pages.sqlite",
        files=GOOD),
    Bad("a database on a device", "l.txt -f sqlite -o /dev/null",
        "/dev/null: sqlite is no stream: name a file with -o, such as pages.sqlite", files=GOOD),
    Bad("a database in a folder", "l.txt -o d.sqlite", r"d\.sqlite: is a folder; .*", 1, {"d.sqlite/x": b"", **GOOD}),
    Bad("the same database twice", "l.txt -o a.sqlite -o ./a.sqlite", "--output: ./a.sqlite is given twice (as a.sqlite)", files=GOOD),
    Bad("a database that stands", "l.txt -o keep.sqlite", "keep.sqlite exists; use --fresh to overwrite it",
        files={"keep.sqlite": b"mine\n", **GOOD}),
    Bad("json asked for", "l.txt -f json", "--format json: did you mean jsonl, one JSON record a line?", files=GOOD),
    Bad("json asked for in a file", "l.txt --config f.toml",
        "f.toml: format json: did you mean jsonl, one JSON record a line?", files=toml("format = 'json'")),
    Bad("no suffix", "l.txt -o pages", r"pages: unknown suffix '': there are \.jsonl, .*", files=GOOD),
    Bad("one that stands", "l.txt -o keep.jsonl", "keep.jsonl exists; use --fresh to overwrite it",
        files={"keep.jsonl": b"mine\n", **GOOD}),
    Bad("the second of two stands", "l.txt -o new.jsonl -o keep.csv", "keep.csv exists; use --fresh to overwrite it",
        files={"keep.csv": b"mine\n", **GOOD}),
    Bad("the same twice", "l.txt -o a.jsonl -o ./a.jsonl", "--output: ./a.jsonl is given twice (as a.jsonl)", files=GOOD),
    Bad("stdout twice", "l.txt -o - -o /dev/stdout", "--output: /dev/stdout is given twice (as standard output)", files=GOOD),
    Bad("the list itself", "l.txt -o l.txt --fresh", "--output: l.txt is a list that is to be read; write to another file",
        files=GOOD),
    Bad("the list by another name", "l.txt -o d/../l.txt --fresh",
        "--output: d/../l.txt is a list that is to be read; write to another file", files={"d/x": b"", **GOOD}),
    Bad("an output that is read again", "out.csv -o out.csv --fresh",
        "--output: out.csv is a list that is to be read; write to another file",
        files={"out.csv": b"id,url,final_url,status\r\n1,http://127.0.0.1:9/,,\r\n"}),
    Bad("a summary in a folder that does not exist", "l.txt --summary no/s.json", "no/s.json: the folder no does not exist", 1, GOOD),
    Bad("a summary that is a folder", "l.txt --summary d", r"d: is a folder; name a file in it, such as d/.+", 1, {"d/x": b"", **GOOD}),
    Bad("a summary over the output", "l.txt -o a.jsonl --summary a.jsonl", "--summary: a.jsonl is given twice (as a.jsonl)",
        files=GOOD),
    Bad("bodies into a file", "l.txt --body f", "--body: f is no folder: name a folder, or one that is to be made",
        files={"f": b"mine", **GOOD}),
    Bad("bodies below a file", "l.txt --body f/b", r"--body: f/b: the folder .*/f does not exist", files={"f": b"mine", **GOOD}),
    Bad("bodies in a folder that does not exist", "l.txt --body no/b", r"--body: no/b: the folder .*/no does not exist", files=GOOD),
    Bad("bodies beside a file in the place of a folder", "l.txt --body b",
        "--body: b/ab: is no folder, and bodies go into one of that name: take it away, or name another folder",
        files={"b/ab": b"mine", **GOOD}),
    Bad("bodies into the output", "l.txt -o p.jsonl --body ./p.jsonl", "--body: ./p.jsonl is an output; name a folder of its own",
        files=GOOD),
    Bad("bodies into the job", "l.txt -o p.jsonl --body p.jsonl.job", "--body: p.jsonl.job is the folder of the job; name one of its own",
        files=GOOD),
    Bad("bodies into /dev/null", "l.txt --body /dev/null", "--body: /dev/null is no folder: name a folder, or one that is to be made",
        files=GOOD),
    Bad("a column of bodies that go to files", "l.txt -f jsonl --body b --columns url,body", "--columns: 'body' is empty without --body inline",
        files=GOOD),
    Bad("metrics at no port", "l.txt --metrics 70000", "--metrics: 70000 is no port: they go from 0 (any that is free) to 65535", files=GOOD),
    Bad("metrics at a port in words", "l.txt --metrics localhost:http", "--metrics: 'localhost:http' is neither [HOST:]PORT nor the path of a file (./NAME for one with a colon)", files=GOOD),
    Bad("metrics over the output", "l.txt -o a.prom -f jsonl --metrics a.prom", "--metrics: a.prom is given twice (as a.prom)", files=GOOD),
    Bad("metrics over the summary", "l.txt --summary a.prom --metrics a.prom", "--metrics: a.prom is given twice (as a.prom)", files=GOOD),
    Bad("metrics in a folder that does not exist", "l.txt --metrics no/a.prom", "no/a.prom: the folder no does not exist", 1, GOOD),
    Bad("a summary over the list", "l.txt --summary l.txt", "--summary: l.txt is a list that is to be read; write to another file",
        files=GOOD),
]  # fmt: skip


def write(folder: Path, files: Files) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def contents(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def next_step(said: str) -> str:
    """Where a message points to that is about a flag, a line of a file or a variable: to what is said of that."""
    about = re.match(r"(?:--|(?:f\\?\.toml|fetcher\.toml|FETCHER_[A-Z_]+): )([a-z]+(?:-[a-z]+)*)[: ]", said)
    told = about is None or about[1] in ("unknown", "not", "xyzzy")
    return "" if told else f" (see 'fetcher help --{about[1]}')"  # type: ignore[index]  # mypy does not see it


@pytest.mark.parametrize("bad", LISTS + SETTINGS + OUTPUTS, ids=lambda bad: bad.id)
def test_one_line_says_what_is_wrong(bad: Bad, tmp_path: Path) -> None:
    write(tmp_path, bad.files)
    arguments = bad.arguments.split() if isinstance(bad.arguments, str) else bad.arguments
    ended = run("crawl", *arguments, folder=tmp_path, stdin=bad.stdin, env=bad.env)
    assert ended.code == bad.code, ended.said
    assert ended.out == b""
    line = ended.said.removesuffix("\n")
    assert "\n" not in line, "more than one line"
    message = line.removeprefix("fetcher: ")
    said, step = bad.said, next_step(bad.said)
    assert message == said + step or re.fullmatch(said + re.escape(step), message), message
    assert contents(tmp_path) == bad.files, "a file was made or changed"


# Rows


ROWS: dict[str, tuple[bytes, str, str]] = {
    "not UTF-8": (b"http://127.0.0.1/\xff\xfe", "http://127.0.0.1/\ufffd\ufffd", "l.txt:2: the line is not UTF-8"),
    "a megabyte long": (b"http://127.0.0.1/" + b"a" * 1_000_000, r"http://127\.0\.0\.1/a+…",
                        "l.txt:2: the line is over 64 KiB long"),
    "javascript": (b"javascript:alert(1)", "javascript:alert(1)", "the scheme 'javascript' is not http or https"),
    "ftp": (b"ftp://127.0.0.1/x", "ftp://127.0.0.1/x", "the scheme 'ftp' is not http or https"),
    "mailto": (b"mailto:me@example.com", "mailto:me@example.com", "the scheme 'mailto' is not http or https"),
    "a carriage return within": (b"http://127.0.0.1/\rhttp://127.0.0.1/", "http://127.0.0.1/\rhttp://127.0.0.1/",
                                 "l.txt:2: the line has a carriage return within (lines end in LF or CRLF)"),
    "no host": (b"http://", "http://", "not a URL.*"),
    "no port": (b"http://127.0.0.1:99999/", "http://127.0.0.1:99999/", "not a URL.*"),
    "spaces alone in a host": (b"two words.example", "two words.example", "not a URL.*"),
}  # fmt: skip
"""A line of a list that is no URL, as it is shown, and what is said of it."""


@pytest.fixture(scope="module")
def lab() -> Iterator[LabServer]:
    with LabServer.in_thread() as server:
        yield server


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_row_is_a_failure_with_its_number(name: str, lab: LabServer, tmp_path: Path) -> None:
    line, shown, message = ROWS[name]
    good = lab.url("/ok").encode()
    (tmp_path / "l.txt").write_bytes(b"\n".join([good, line, good, b""]))
    ended = run("crawl", "l.txt", "-f", "jsonl", folder=tmp_path)
    assert ended.code == 0, ended.said
    rows = sorted(map(json.loads, ended.lines), key=lambda row: row["id"])
    assert [row["id"] for row in rows] == [1, 2, 3]
    assert [row["error"] for row in rows] == [None, "invalid_url", None]
    bad = rows[1]
    assert bad["url"] == shown or re.fullmatch(shown, bad["url"])
    assert bad["message"] == message or re.fullmatch(message, bad["message"])
    assert (bad["attempts"], bad["status"], bad["final_url"], bad["length"]) == (0, None, None, None)
    assert "3 rows = 2 ok + 1 failed + 0 skipped" in ended.said


def test_spaces_a_mark_and_dos_lines_are_no_trouble(lab: LabServer, tmp_path: Path) -> None:
    first, second = lab.url("/ok?n=1"), lab.url("/ok?n=2")
    (tmp_path / "l.txt").write_bytes(f"\ufeff  {first} \t\r\n\r\n # why\r\n\t{second}".encode())
    ended = run("crawl", "l.txt", folder=tmp_path)
    assert ended.code == 0, ended.said
    assert sorted(line.split(" -> ")[0] for line in ended.lines) == [first, second]


def test_bad_cells_and_lines_are_bad_rows(lab: LabServer, tmp_path: Path) -> None:
    good = lab.url("/ok")
    write(tmp_path, {
        "l.csv": f"url,name\n{good},a\n,b\n{good},c,d\n".encode(),
        "m.jsonl": f'{{"url": "{good}"}}\n{{"link": 1}}\n[]\n{{"url": 5}}\nnonsense\n'.encode(),
    })  # fmt: skip
    ended = run("crawl", "l.csv", "m.jsonl", "-f", "jsonl", folder=tmp_path)
    messages = {row["id"]: row["message"] for row in map(json.loads, ended.lines) if row["error"]}
    assert {number: str(message).split(" ")[0] for number, message in messages.items()} == {
        2: "l.csv:3:", 3: "l.csv:4:", 5: "m.jsonl:2:", 6: "m.jsonl:3:", 7: "m.jsonl:4:", 8: "m.jsonl:5:",
    }  # fmt: skip


def test_nothing_is_asked_for_before_all_is_checked(lab: LabServer, tmp_path: Path) -> None:
    lab.clear()
    (tmp_path / "l.txt").write_text(lab.url("/ok"))
    late = [["--select", "a=h1[["], ["-b", "no.txt"], ["--ca-bundle", "no.pem"], ["-o", "no/x.csv"], ["no.txt"]]
    for arguments in late:
        assert run("crawl", "l.txt", *arguments, folder=tmp_path).code in (1, 2)
    assert lab.log == []


@pytest.mark.parametrize("flags", [["-b", "no.txt"], ["--ca-bundle", "no.pem"], ["--select", "a=h1[["]], ids=str)
def test_an_output_is_not_cut_for_a_run_that_cannot_begin(flags: list[str], tmp_path: Path) -> None:
    write(tmp_path, {"keep.jsonl": b"mine\n", **GOOD})
    assert run("crawl", "l.txt", "-o", "keep.jsonl", "--fresh", *flags, folder=tmp_path).code == 2
    assert (tmp_path / "keep.jsonl").read_bytes() == b"mine\n"


# Where nothing comes from, or nothing goes to


def shell(script: str, folder: Path) -> Ended:
    """Run a line of bash in which ``$CRAWL`` is the command."""
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment(folder, CRAWL=" ".join(argv("crawl"))),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    return judged(Ended(done.returncode, done.stdout, done.stderr))


def test_no_input_on_a_terminal_is_asked_for(tmp_path: Path) -> None:
    theirs, ours = os.openpty()
    try:
        done = subprocess.run(
            argv("crawl"), cwd=tmp_path, env=environment(tmp_path), stdin=ours, capture_output=True, timeout=60
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"fetcher: no INPUT: give a file, '-' for stdin, or URLs")


def test_no_stdin_at_all_is_no_input(tmp_path: Path) -> None:
    ended = shell("$CRAWL <&-", tmp_path)
    assert (ended.code, ended.out) == (2, b"")
    assert ended.said.startswith("fetcher: no INPUT: ")


def test_a_closed_stdout_is_a_broken_output(lab: LabServer, tmp_path: Path) -> None:
    ended = shell(f"$CRAWL {lab.url('/ok')} >&-", tmp_path)
    assert ended.code == 1
    assert ended.said == "fetcher: standard output: is closed\n"


def test_a_closed_stderr_changes_nothing(lab: LabServer, tmp_path: Path) -> None:
    ended = shell(f"$CRAWL {lab.url('/ok')} 2>&-", tmp_path)
    assert ended.code == 0
    assert [line.split(" -> ")[0] for line in ended.lines] == [lab.url("/ok")]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_stderr_changes_nothing(lab: LabServer, tmp_path: Path) -> None:
    ended = shell(f"$CRAWL {lab.url('/ok')} -v 2>/dev/full", tmp_path)
    assert ended.code == 0
    assert len(ended.lines) == 1


def test_a_list_that_the_output_would_grow_is_refused(lab: LabServer, tmp_path: Path) -> None:
    listed = f"{lab.url('/ok')}\n"
    (tmp_path / "l.txt").write_text(listed)
    for script in ("$CRAWL l.txt >> l.txt", "$CRAWL < l.txt >> l.txt"):
        ended = shell(script, tmp_path)
        assert ended.code == 2
        assert "standard output is a list that is to be read" in ended.said
        assert (tmp_path / "l.txt").read_text() == listed


def test_more_at_once_than_there_are_descriptors_is_lowered_and_told_of(lab: LabServer, tmp_path: Path) -> None:
    """The list is done all the same: 64 of the descriptors are kept, and an eighth of the rest is left over."""
    (tmp_path / "l.txt").write_text("".join(f"{lab.url('/ok')}?{n}\n" for n in range(60)))
    ended = shell("ulimit -n 100; exec $CRAWL l.txt -o a.jsonl --summary s.json --per-host 60", tmp_path)
    assert ended.code == 0, ended.said
    note = (
        "-c 100 is lowered to 32: the limit of file descriptors allows no more (ulimit -n); "
        "64 of them are kept for files, parsers and look-ups"
    )
    first, counts, second, *_ = ended.said.splitlines()
    assert (first, second) == (f"fetcher: warning: {note}", f"  {note}")
    assert counts.startswith("60 rows = 60 ok + 0 failed")
    assert json.loads((tmp_path / "s.json").read_text())["notes"] == [note]


def test_so_many_at_once_as_there_are_descriptors_for_are_not_told_of(lab: LabServer, tmp_path: Path) -> None:
    url = lab.url("/ok")
    assert shell(f"ulimit -n 100; exec $CRAWL {url} -c 32 --summary s.json", tmp_path).code == 0
    assert json.loads((tmp_path / "s.json").read_text())["notes"] == []
    ended = shell(f"ulimit -n 100; exec $CRAWL {url} -c 33 -q --summary s.json", tmp_path)
    assert (ended.code, ended.said) == (0, "")
    assert json.loads((tmp_path / "s.json").read_text())["notes"][0].startswith("-c 33 is lowered to 32: ")


def test_a_dead_proxy_fails_every_row(tmp_path: Path) -> None:
    with refused_port() as port:
        (tmp_path / "l.txt").write_text("http://a.example/\nhttps://b.example/\n")
        ended = run(
            "crawl", "l.txt", "-x", f"http://127.0.0.1:{port}", "--retries", "0", "-f", "jsonl", folder=tmp_path
        )
    assert ended.code == 3
    rows = [json.loads(line) for line in ended.lines]
    assert [row["error"] for row in rows] == ["connect_refused"] * 2
    assert all("proxy" in row["message"] for row in rows)


# A full disk


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "flags", ["-o /dev/full", "-o /dev/full -f jsonl", "--summary /dev/full", "-o x.csv --summary /dev/full"]
)
def test_a_full_device_is_named(flags: str, lab: LabServer, tmp_path: Path) -> None:
    ended = run("crawl", lab.url("/ok"), *flags.split(), folder=tmp_path)
    assert ended.code == 1
    assert re.fullmatch(r"fetcher: /dev/full: cannot write.*: No space left on device", ended.said.splitlines()[-1])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_stdout_is_named(lab: LabServer, tmp_path: Path) -> None:
    ended = shell(f"$CRAWL {lab.url('/ok')} > /dev/full", tmp_path)
    assert ended.code == 1
    assert ended.said.splitlines()[-1] == "fetcher: standard output: cannot write: No space left on device"


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a file system of that many bytes, or skip the test where that is not ours to do."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder.mkdir()
    done = subprocess.run([mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run([umount, str(folder)], check=True)


def whole_json(data: bytes) -> int:
    assert data.endswith(b"\n")
    return len([json.loads(line) for line in data.splitlines()])


def whole_csv(data: bytes) -> int:
    import csv

    assert data.endswith(b"\r\n")
    table = list(csv.reader(data.decode().splitlines()))
    assert {len(row) for row in table} == {len(table[0])}
    return len(table) - 1


@pytest.mark.parametrize(("name", "whole"), [("pages.jsonl", whole_json), ("pages.csv", whole_csv)])
def test_a_full_disk_ends_the_run_and_leaves_whole_records(
    name: str, whole: Callable[[bytes], int], lab: LabServer, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 64 * 1024) as disk:
        (tmp_path / "l.txt").write_text("".join(f"{lab.url('/ok')}?n={n}\n" for n in range(600)))
        ended = run("crawl", "l.txt", "-o", f"disk/{name}", "--no-job", folder=tmp_path)
        assert ended.code == 1
        last = ended.said.splitlines()[-1]
        assert last == f"fetcher: disk/{name}: cannot write: No space left on device"
        assert 0 < whole((disk / name).read_bytes()) < 600
        # And what was left is not written over by the next try.
        for flags in (["--no-job"], []):
            again = run("crawl", "l.txt", "-o", f"disk/{name}", *flags, folder=tmp_path)
            assert (again.code, again.said) == (2, f"fetcher: disk/{name} exists; use --fresh to overwrite it\n")


@pytest.mark.parametrize(
    ("name", "whole", "size"),
    [
        *(("pages.jsonl", whole_json, size) for size in (32, 64, 96, 128, 256)),
        *(("pages.csv.gz", whole_csv, size) for size in (32, 64, 80)),
    ],
)
def test_a_job_goes_on_when_a_full_disk_has_room_again(
    name: str, whole: Callable[[bytes], int], size: int, lab: LabServer, tmp_path: Path
) -> None:
    """Full at whatever point: while the job is made, in an output, or in its ledger."""
    with small_disk(tmp_path / "disk", size * 1024) as disk:
        (tmp_path / "l.txt").write_text("".join(f"{lab.url('/ok')}?n={n}\n" for n in range(600)))
        command = ["crawl", "l.txt", "-o", f"disk/{name}", "--summary", "s.json"]
        ended = run(*command, folder=tmp_path)
        assert ended.code == 1, "it was not full"
        assert re.match(rf"fetcher: disk/{name}(\.job(/\S+)?)?: .+", ended.said.splitlines()[-1]), ended.said
        # As full as before, but for what is cut back: it may get further, and harms nothing.
        assert run(*command, folder=tmp_path).code in (0, 1)
        enlarge = ["mount", "-o", f"remount,size={4 << 20}", str(disk)]
        assert subprocess.run(enlarge, capture_output=True).returncode == 0
        ended = run(*command, folder=tmp_path)
        assert ended.code == 0, ended.said
        data = (disk / name).read_bytes()
        assert whole(gzip.decompress(data) if name.endswith(".gz") else data) == 600
        stats = json.loads((tmp_path / "s.json").read_text())
        assert [stats[key] for key in ("input", "ok", "pending", "more")] == [600, 600, 0, False]
