"""The command line before it does anything: help, version, completion, mistakes, and where a setting comes from."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

import fetcher.cli.run
from fetcher import __version__
from fetcher.buckets import Shard
from fetcher.cli.commands import COMMANDS, cli
from fetcher.cli.crawl import command
from fetcher.cli.settings import RUN_KEYS, make_config
from fetcher.config import OPTIONS, Accept, ClientCertificate, Config, Header
from fetcher.errors import RETRYABLE, ConfigError
from tests.lab.command import Ended
from tests.lab.command import run as command_line

ROOT = Path(__file__).resolve().parents[1]
CONSOLE = Path(sys.executable).with_name("fetcher")
MODULE = [sys.executable, "-m", "fetcher"]

FLAGS = """
--from --url-column --delimiter --encoding --carry --demo -o --output -f --format --preview --job --no-job --fresh --no-fresh --retry-failed
--retry-codes --verify --since --max-age --columns --keep-headers --body --ordered --csv-bom --part-rows -c --concurrency --per-host --delay --rate
--timeout --connect-timeout --read-timeout --retries --max-retry-after --host-patience --default-scheme
--robots --no-robots --max-crawl-delay --per-site --per-address --dry-run --max-redirects --max-size --truncate --accept -A --user-agent -H --header -b --cookie -u --user -x --proxy -k
--insecure --ca-bundle --retry-on --follow --follow-css --depth --within --include --exclude --max-pages --max-pages-per-host --follow-refresh --head --cert --key --tls --private-network --select --select-from --table --explode --with --text --text-format --skip-when --extract
--middleware --isolate --parsers --parse-timeout --dedupe --limit --workers --shard --time-limit --max-failed --progress --no-progress
-q --quiet -v --verbose --log-format --summary --metrics
--ray-address --live --live-at --live-host --live-control --open --config -h --help
""".split()
"""Every flag that is promised."""

NO_SETTING = {"demo", "dry_run", "config", "inputs", "help"}
"""What says how to run rather than how to fetch: no key of the configuration file."""


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder and a home with nothing in them, and no variable of ours."""
    for name in list(os.environ):
        if name.upper().startswith(("FETCHER_", "_FETCHER")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.toml").write_text("[[pages]]\nurl = 're:a'\nselect = 't=h1'\n")
    return tmp_path


def run(*arguments: str, **environment: str) -> Ended:
    return command_line(*arguments, folder=Path.cwd(), env=environment)


Gathered = Callable[..., dict[str, Any]]


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> Gathered:
    """Run ``fetcher crawl`` up to where it would begin, and return the settings it has found."""

    def gather(*arguments: str, **environment: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def crawl(_: list[str], settings: dict[str, Any], *, demo: bool) -> int:
            assert not demo
            found.append(settings)
            return 0

        with monkeypatch.context() as patch:
            patch.setattr(fetcher.cli.run, "crawl", crawl)
            for name, value in environment.items():
                patch.setenv(name, value)
            assert cli.main(["crawl", *arguments], prog_name="fetcher", standalone_mode=False) == 0
        return {name: value for name, value in found[0].items() if name != "inputs"}

    return gather


def config_of(settings: dict[str, Any]) -> Config:
    return make_config(settings, [])


# Help and version


def test_the_version_is_told_however_it_is_called() -> None:
    starts = [MODULE, [str(CONSOLE)]] if CONSOLE.exists() else [MODULE]
    for start in starts:
        done = subprocess.run([*start, "--version"], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"fetcher, version {__version__}\n".encode(), b"")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_help_names_every_command(flag: str) -> None:
    done = run(flag)
    assert (done.code, done.said) == (0, "")
    for name, text in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(text)}$", done.text, re.MULTILINE)
        module = cli.get_command(click.Context(cli), name)
        assert module is not None
        assert module.get_short_help_str(200) == text, "the table of the group repeats the command's own"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    for flag in ("-h", "--help"):
        done = run(name, flag)
        assert (done.code, done.said) == (0, "")
        assert done.text.startswith(f"Usage: fetcher {name} ")


def test_the_help_of_crawl_names_every_flag() -> None:
    text = run("crawl", "--help").text
    listed = set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*", text))
    assert set(FLAGS) - listed == set()
    options = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    assert options - {"inputs"} | {"-h", "--help"} == set(FLAGS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_is_laid_out_as_written(name: str) -> None:
    text = run(name, "--help").text
    assert "\\b" not in text
    examples = [line for line in text.splitlines() if line.startswith(f"    fetcher {name}")]
    assert len(examples) >= {"crawl": 3, "bench": 3, "report": 2, "robots": 2}.get(name, 0)
    for line in text.splitlines():
        assert line.count(f"fetcher {name} ") <= 1


def told_defaults() -> dict[str, str]:
    found = {}
    for param in command.params:
        match = re.search(r"\[default: (.*)\]", getattr(param, "help", None) or "")
        if match and param.name:
            found[param.name] = match[1]
    return found


def test_the_defaults_that_are_told_are_the_codes() -> None:
    told = told_defaults()
    values: dict[str, Any] = {
        name: text for name, text in told.items() if name in OPTIONS and not re.search(r"HTTP_PROXY|system", text)
    }
    values["robots"] = {"on": True, "off": False}[values["robots"]]
    retried = Config.of(retry_on=values.pop("retry_on")).retry.retry_on
    assert retried is not None
    assert {f"http_{status}" for status in range(100, 1000) if status in retried} == {
        code for code in RETRYABLE if code.startswith("http_")
    }
    assert Config.from_mapping(values) == Config()
    assert told["log_format"] == RUN_KEYS["log_format"]


def test_a_default_that_is_a_value_is_told() -> None:
    default = Config()
    for name, (policy, field, _) in OPTIONS.items():
        value = getattr(getattr(default, policy) if policy else default, field)
        param = next((param for param in command.params if param.name == name), None)
        if param is None or isinstance(value, bool) or value in (None, (), 0) or name in ("header", "user", "cookie"):
            continue
        assert name in told_defaults() or name == "user_agent", name


def test_every_flag_has_a_variable_and_a_key() -> None:
    for param in command.params:
        if param.name in NO_SETTING - {"config"}:
            continue
        long = next(name for name in param.opts if name.startswith("--"))
        assert param.envvar == f"FETCHER_{long[2:].replace('-', '_').upper()}"
        assert param.name in {*OPTIONS, *RUN_KEYS} or param.name in NO_SETTING


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["crwal"], "did you mean 'crawl'?"),
        (["completions"], "did you mean 'completion'?"),
        (["xyz"], f"there are {', '.join(COMMANDS)} ("),
        (["urls.txt"], "write 'fetcher crawl urls.txt'"),
        (["https://example.com/a"], "write 'fetcher crawl https://example.com/a'"),
        (["--verson"], "--version"),
        (["crawl", "--concurency", "5"], "--concurrency"),
        (["crawl", "--perhost=5"], "--per-host"),
        (["crawl", "-Z"], "-Z"),
        (["crawl", "-c"], "--concurrency: needs a value, N"),
        (["crawl", "--from", "xml", "-"], "csv"),
        (["crawl", "--private-network", "no", "-"], "deny"),
        (["crawl", "-c", "0", "-"], "concurrency"),
        (["crawl", "--config", "there-is-none.toml", "-"], "there-is-none.toml"),
        (["completion"], "bash, zsh, fish"),
        (["completion", "tcsh"], "fish"),
        (["serve", "--port", "x"], "--port"),
        (["cr\x1b[31mawl\n"], "\\x1b"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_was_meant(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert (done.code, done.text) == (2, "")
    assert done.said.startswith("fetcher: ")
    assert done.said.count("\n") == 1
    assert said in done.said
    assert "Traceback" not in done.said
    assert "\x1b" not in done.said


def test_no_command_shows_the_help() -> None:
    done = run()
    assert "Commands:" in done.text + done.said
    assert done.code in (0, 2)  # as click has it, old and new


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str) -> None:
    done = run("completion", shell)
    assert done.code == 0
    assert f"_FETCHER_COMPLETE={shell}_complete" in done.text
    assert "fetcher" in done.text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("fetcher cr", ["crawl"]),
        ("fetcher ", [*COMMANDS]),
        ("fetcher crawl --per", ["--per-host", "--per-site", "--per-address"]),
        ("fetcher crawl --private-network ", ["allow", "listed", "deny"]),
        ("fetcher completion z", ["zsh"]),
    ],
)
def test_completion_completes(words: str, expected: list[str]) -> None:
    count = str(len(words.split(" ")) - 1)
    done = run(_FETCHER_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=count)
    assert done.code == 0
    assert [line.partition(",")[2] for line in done.text.splitlines()] == expected


# Where a setting comes from


class Row(NamedTuple):
    """A setting as a variable and as flags, where it is kept, and what it comes to."""

    name: str
    value: str
    flags: list[str]
    kept: str
    expected: Any


TABLE = [
    Row("CONCURRENCY", "7", ["-c", "7"], "limits.concurrency", 7),
    Row("PER_HOST", "3", ["--per-host", "3"], "limits.per_host", 3),
    Row("DELAY", "500ms", ["--delay", "500ms"], "limits.delay", 0.5),
    Row("MAX_CRAWL_DELAY", "1m", ["--max-crawl-delay", "1m"], "limits.max_crawl_delay", 60.0),
    Row("PER_SITE", "4", ["--per-site", "4"], "limits.per_site", 4),
    Row("PER_ADDRESS", "5", ["--per-address", "5"], "limits.per_address", 5),
    Row("ROBOTS", "0", ["--no-robots"], "robots", False),
    Row("RATE", "30/m", ["--rate", "30/m"], "limits.rate", 0.5),
    Row("TIMEOUT", "5", ["--timeout", "5"], "timeouts.total", 5.0),
    Row("CONNECT_TIMEOUT", "4", ["--connect-timeout", "4"], "timeouts.connect", 4.0),
    Row("READ_TIMEOUT", "3", ["--read-timeout", "3"], "timeouts.read", 3.0),
    Row("RETRIES", "0", ["--retries", "0"], "retry.retries", 0),
    Row("RETRY_ON", "404,5xx", ["--retry-on", "404,5xx"], "retry.retry_on", Accept(((404, 404), (500, 599)))),
    Row("MAX_RETRY_AFTER", "9", ["--max-retry-after", "9"], "retry.max_retry_after", 9.0),
    Row("HOST_PATIENCE", "2m", ["--host-patience", "2m"], "retry.host_patience", 120.0),
    Row("DEFAULT_SCHEME", "http", ["--default-scheme", "http"], "default_scheme", "http"),
    Row("MAX_REDIRECTS", "0", ["--max-redirects", "0"], "limits.max_redirects", 0),
    Row("FOLLOW", "1", ["--follow"], "follow.links", True),
    Row("FOLLOW_CSS", "a.next", ["--follow-css", "a.next"], "follow.css", "a.next"),
    Row("DEPTH", "2", ["--depth", "2"], "follow.depth", 2),
    Row("WITHIN", "site", ["--within", "site"], "follow.within", "site"),
    Row("INCLUDE", "*/a/*\nre:b", ["--include", "*/a/*", "--include", "re:b"], "follow.include", ("*/a/*", "re:b")),
    Row("EXCLUDE", "*.pdf", ["--exclude", "*.pdf"], "follow.exclude", ("*.pdf",)),
    Row("MAX_PAGES", "9", ["--max-pages", "9"], "follow.max_pages", 9),
    Row("MAX_PAGES_PER_HOST", "9", ["--max-pages-per-host", "9"], "follow.max_pages_per_host", 9),
    Row("FOLLOW_REFRESH", "1", ["--follow-refresh"], "follow_refresh", True),
    Row("EXPLODE", "item", ["--explode", "item"], "explode", "item"),
    Row("HEAD", "1", ["--head"], "head", True),
    Row("MAX_SIZE", "1M", ["--max-size", "1M"], "limits.max_size", 1 << 20),
    Row("TRUNCATE", "1", ["--truncate"], "limits.truncate", True),
    Row("ACCEPT", "2xx,404", ["--accept", "2xx,404"], "accept", Accept(((200, 299), (404, 404)))),
    Row("USER_AGENT", "bot/1 (x)", ["-A", "bot/1 (x)"], "identity.user_agent", "bot/1 (x)"),
    Row(
        "HEADER",
        "X-A: b c\nX-D: e",
        ["-H", "X-A: b c", "-H", "X-D: e"],
        "identity.headers",
        (Header("X-A", "b c"), Header("X-D", "e")),
    ),
    Row(
        "COOKIE",
        "@a.example s=1; t=2",
        ["-b", "@a.example s=1; t=2"],
        "identity.headers",
        (Header("Cookie", "s=1; t=2", "a.example"),),
    ),
    Row("COOKIE", "cookies.txt", ["-b", "cookies.txt"], "identity.cookie_files", ("cookies.txt",)),
    Row(
        "USER",
        "@a.example U:P",
        ["-u", "@a.example U:P"],
        "identity.headers",
        (Header("Authorization", "Basic VTpQ", "a.example"),),
    ),
    Row("PROXY", "127.0.0.1:9", ["-x", "127.0.0.1:9"], "proxy.every", "http://127.0.0.1:9"),
    Row("INSECURE", "true", ["-k"], "tls.verify", False),
    Row(
        "CERT",
        "@a.example c.pem\n@b.example:81 d e.pem",
        ["--cert", "@a.example c.pem", "--cert", "@b.example:81 d e.pem"],
        "tls.certificates",
        (ClientCertificate("c.pem", "a.example"), ClientCertificate("d e.pem", "b.example", 81)),
    ),
    Row("KEY", "c.key", ["--key", "c.key"], "tls.key", "c.key"),
    Row("TLS", "compatible", ["--tls", "compatible"], "tls.profile", "compatible"),
    Row("CA_BUNDLE", "ca.pem", ["--ca-bundle", "ca.pem"], "tls.ca_bundle", "ca.pem"),
    Row("PRIVATE_NETWORK", "deny", ["--private-network", "deny"], "address.private_network", "deny"),
    Row("SELECT", "h=h1\np=a b@href", ["--select", "h=h1", "--select", "p=a b@href"], "select", ("h=h1", "p=a b@href")),
    Row("ISOLATE", "1", ["--isolate"], "parsing.isolate", True),
    Row("PARSERS", "2", ["--parsers", "2"], "parsing.parsers", 2),
    Row("PARSE_TIMEOUT", "500ms", ["--parse-timeout", "500ms"], "parsing.timeout", 0.5),
    Row("DEDUPE", "yes", ["--dedupe"], "dedupe", True),
    Row("PREVIEW", "40", ["--preview", "40"], "preview", 40),
    Row(
        "SELECT_FROM",
        "rules.toml",
        ["--select-from", "rules.toml"],
        "select_from",
        ((("(?:.*?)(?:a)(?:.*)",), ("t=h1",)),),
    ),
    Row("SKIP_WHEN", "noai,NoIndex", ["--skip-when", "noai,NoIndex"], "skip_when", ("noai", "noindex")),
    Row("WITH", "meta,links", ["--with", "meta,links"], "content.parts", ("meta", "links")),
    Row("TEXT", "fast", ["--text", "fast"], "content.text", "fast"),
    Row("TEXT_FORMAT", "markdown", ["--text-format", "markdown"], "content.text_format", "markdown"),
    Row("TABLE", "table#x", ["--table", "table#x"], "table", "table#x"),
    Row("COLUMNS", "id,url", ["--columns", "id,url"], "columns", ("id", "url")),
    Row("KEEP_HEADERS", "Server,ETag", ["--keep-headers", "Server,ETag"], "keep_headers", ("server", "etag")),
    Row("LIMIT", "9", ["--limit", "9"], "limits.rows", 9),
    Row("SHARD", "2/4", ["--shard", "2/4"], "shard", Shard(2, 4)),
    Row("TIME_LIMIT", "2h", ["--time-limit", "2h"], "limits.time", 7200.0),
    Row("MAX_FAILED", "5%", ["--max-failed", "5%"], "max_failed", "5%"),
]
"""The settings of the Config."""

RUN_TABLE = [
    Row("FROM", "csv", ["--from", "csv"], "from", "csv"),
    Row("URL_COLUMN", "link", ["--url-column", "link"], "url_column", "link"),
    Row("DELIMITER", "tab", ["--delimiter", r"\t"], "delimiter", "\t"),
    Row("ENCODING", "windows-1252", ["--encoding", "cp1252"], "encoding", "cp1252"),
    Row("CARRY", "a,b", ["--carry", 'a, "b"'], "carry", ["a", "b"]),
    Row("OUTPUT", "a b.jsonl\nc.csv", ["-o", "a b.jsonl", "-o", "c.csv"], "output", ["a b.jsonl", "c.csv"]),
    Row("FORMAT", "csv", ["-f", "csv"], "format", "csv"),
    Row("JOB", "my.job", ["--job", "my.job"], "job", "my.job"),
    Row("NO_JOB", "1", ["--no-job"], "no_job", True),
    Row("FRESH", "1", ["--fresh"], "fresh", True),
    Row("FRESH", "0", ["--no-fresh"], "fresh", False),
    Row("RETRY_FAILED", "1", ["--retry-failed"], "retry_failed", True),
    Row(
        "RETRY_CODES",
        "5xx,dns\ntimeout",
        ["--retry-codes", "5xx,dns", "--retry-codes", "timeout"],
        "retry_codes",
        ["5xx,dns", "timeout"],
    ),
    Row("BODY", "pages", ["--body", "pages"], "body", "pages"),
    Row("ORDERED", "1", ["--ordered"], "ordered", True),
    Row("CSV_BOM", "1", ["--csv-bom"], "csv_bom", True),
    Row("PART_ROWS", "9", ["--part-rows", "9"], "part_rows", 9),
    Row("VERIFY", "1", ["--verify"], "verify", True),
    Row("SINCE", "a.csv", ["--since", "a.csv"], "since", "a.csv"),
    Row("MAX_AGE", "7d", ["--max-age", "7d"], "max_age", 604_800.0),
    Row("EXTRACT", "shop:price", ["--extract", "shop:price"], "extract", "shop:price"),
    Row(
        "MIDDLEWARE",
        "shop:sign\nshop:tell",
        ["--middleware", "shop:sign", "--middleware", "shop:tell"],
        "middleware",
        ["shop:sign", "shop:tell"],
    ),
    Row("PROGRESS", "0", ["--no-progress"], "progress", False),
    Row("PROGRESS", "1", ["--progress"], "progress", True),
    Row("QUIET", "1", ["-q"], "quiet", True),
    Row("VERBOSE", "2", ["-vv"], "verbose", 2),
    Row("LOG_FORMAT", "json", ["--log-format", "json"], "log_format", "json"),
    Row("SUMMARY", "s.json", ["--summary", "s.json"], "summary", "s.json"),
    Row("WORKERS", "3", ["--workers", "3"], "workers", 3),
    Row("RAY_ADDRESS", "10.0.0.1:6379", ["--ray-address", "10.0.0.1:6379"], "ray_address", "10.0.0.1:6379"),
    Row("METRICS", "9464", ["--metrics", "9464"], "metrics", "9464"),
    Row("LIVE", "1", ["--live"], "live", True),
    Row("LIVE_AT", "8080", ["--live-at", "8080"], "live_at", "8080"),
    Row("LIVE_HOST", "a\nb", ["--live-host", "a", "--live-host", "b"], "live_host", ["a", "b"]),
    Row("LIVE_CONTROL", "1", ["--live-control"], "live_control", True),
    Row("OPEN", "1", ["--open"], "open", True),
]
"""The settings of the run."""


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_setting_by_flag_and_by_variable(gathered: Gathered, row: Row) -> None:
    kept = attrgetter(row.kept)
    assert kept(config_of(gathered("-"))) != row.expected, "the row would hold by default"
    by_flag = gathered(*row.flags, "-")
    assert kept(config_of(by_flag)) == row.expected
    assert gathered("-", **{f"FETCHER_{row.name}": row.value}) == by_flag


@pytest.mark.parametrize("row", RUN_TABLE, ids=lambda row: row.name)
def test_a_setting_of_the_run_by_flag_and_by_variable(gathered: Gathered, row: Row) -> None:
    assert row.kept not in gathered("-")
    by_flag = gathered(*row.flags, "-")
    assert by_flag[row.kept] == row.expected
    assert gathered("-", **{f"FETCHER_{row.name}": row.value}) == by_flag


def test_settings_that_need_each_other_may_come_from_two_places(gathered: Gathered) -> None:
    Path("fetcher.toml").write_text("memory = '1G'\n", encoding="utf-8")
    for settings in (gathered("-", FETCHER_MAX_SIZE="300M"), gathered("--max-size", "300M", "-")):
        limits = config_of(settings).limits
        assert (limits.max_size, limits.memory) == (300 * 2**20, 2**30)
    Path("fetcher.toml").write_text("max-size = '300M'\n", encoding="utf-8")
    assert config_of(gathered("--max-size", "9M", "-")).limits.max_size == 9 * 2**20
    with pytest.raises(ConfigError, match="memory must be at least max-size"):
        config_of(gathered("-"))


def test_a_certificate_without_a_host_is_for_the_one_origin_of_the_inputs(gathered: Gathered) -> None:
    urls = ["https://a.example/1", "https://a.example/2"]
    for settings in (gathered("--cert", "c.pem", *urls), gathered(*urls, FETCHER_CERT="c.pem")):
        assert make_config(settings, urls).tls.certificates == (ClientCertificate("c.pem", "a.example", 443),)
        for inputs in ([], [*urls, "https://b.example/"]):
            with pytest.raises(ConfigError, match="must name its host"):
                make_config(settings, inputs)


def test_a_key_and_its_certificate_may_come_from_two_places(gathered: Gathered) -> None:
    Path("fetcher.toml").write_text("key = 'c.key'\n", encoding="utf-8")
    tls = config_of(gathered("--cert", "@a.example c.pem", "-")).tls
    assert (tls.key, tls.certificates) == ("c.key", (ClientCertificate("c.pem", "a.example"),))


@pytest.mark.parametrize(
    ("variables", "proxies"),
    [
        ({"ALL_PROXY": "a:1"}, ("http://a:1", "http://a:1")),
        ({"all_proxy": "http://a:1", "HTTPS_PROXY": "s:2"}, ("http://a:1", "http://s:2")),
        ({"ALL_PROXY": "a:1", "HTTP_PROXY": "h:3", "HTTPS_PROXY": "s:2"}, ("http://h:3", "http://s:2")),
        ({"ALL_PROXY": "a:1", "FETCHER_PROXY": "x:4"}, ("http://x:4", "http://x:4")),
        ({}, (None, None)),
    ],
)
def test_a_proxy_for_all_stands_behind_those_for_one_scheme(
    monkeypatch: pytest.MonkeyPatch, gathered: Gathered, variables: dict[str, str], proxies: tuple[str | None, ...]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxy = config_of(gathered("-")).proxy
    assert (proxy.before("http", "b.example", 80), proxy.before("https", "b.example", 443)) == proxies
    if variables:
        with pytest.raises(ConfigError, match="through a proxy"):
            config_of(gathered("--private-network", "deny", "-"))


def test_the_tables_have_every_flag() -> None:
    tried = {row.name.lower() for row in (*TABLE, *RUN_TABLE)}
    assert tried == {param.name for param in command.params} - NO_SETTING


def test_a_variable_that_is_empty_or_off_is_none(gathered: Gathered) -> None:
    assert gathered("-", FETCHER_RATE="") == {}
    Path("fetcher.toml").write_text("truncate = true\n", encoding="utf-8")
    assert gathered("-")["truncate"] is True
    assert gathered("-", FETCHER_TRUNCATE="0")["truncate"] is False


def write(path: Path, per_host: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"per-host = {per_host}\n", encoding="utf-8")
    return path


def test_flag_before_variable_before_config_before_folder_before_home(gathered: Gathered, tmp_path: Path) -> None:
    def per_host(*arguments: str, **environment: str) -> int:
        return config_of(gathered(*arguments, "-", **environment)).limits.per_host

    assert per_host() == Config().limits.per_host
    write(tmp_path / "xdg" / "fetcher" / "config.toml", 11)
    assert per_host() == 11
    write(tmp_path / "fetcher.toml", 12)
    assert per_host() == 12
    given = str(write(tmp_path / "given.toml", 13))
    assert per_host("--config", given) == 13
    assert per_host(FETCHER_CONFIG=given) == 13
    assert per_host("--config", given, FETCHER_PER_HOST="14") == 14
    assert per_host("--config", given, "--per-host", "15", FETCHER_PER_HOST="14") == 15


def test_without_xdg_it_is_below_the_home(gathered: Gathered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    write(tmp_path / "home" / ".config" / "fetcher" / "config.toml", 16)
    assert config_of(gathered("-")).limits.per_host == 16


def test_one_file_is_read_and_no_other(gathered: Gathered, tmp_path: Path) -> None:
    write(tmp_path / "xdg" / "fetcher" / "config.toml", 11)
    (tmp_path / "fetcher.toml").write_text("concurrency = 5\n", encoding="utf-8")
    config = config_of(gathered("-"))
    assert (config.limits.concurrency, config.limits.per_host) == (5, Config().limits.per_host)


def test_the_file_that_is_shipped_changes_nothing(gathered: Gathered) -> None:
    shipped = gathered("--config", str(ROOT / "config.toml"), "-")
    assert config_of(shipped) == config_of({})
    assert {key: shipped.get(key, RUN_KEYS[key]) for key in RUN_KEYS} == RUN_KEYS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("per-hots = 3", "did you mean 'per-host'"),
        ("per-host = 'x'", "per-host"),
        ("per-host = ", "TOML"),
        ("[limits]\nper-host = 3", "limits"),
        ("fresh = 'false'", "fresh"),
        ("verbose = 'x'", "verbose"),
        ("output = 5", "output"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_its_key(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "fetcher.toml").write_text(text, encoding="utf-8")
    done = run("crawl", "http://127.0.0.1:1/", "--retries", "0")
    assert (done.code, done.text) == (2, "")
    assert done.said.startswith("fetcher: fetcher.toml: ")
    assert done.said.count("\n") == 1
    assert said in done.said
