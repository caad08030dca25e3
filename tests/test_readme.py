"""README and CONTRIBUTING: what they show is run, what they name is looked for in the code."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fetcher import errors
from fetcher.cli import exits
from fetcher.cli.commands import COMMANDS, cli
from fetcher.cli.settings import gather, make_config
from fetcher.config import OPTIONS, Config
from fetcher.errors import DISTRIBUTION, RETRYABLE, FetchError, StatusError
from fetcher.sinks import COLUMNS
from fetcher.sources import is_url_argument
from tests.lab.command import environment, run
from tests.test_house import CONFINED, HOUSE, ORDER

ROOT = Path(__file__).resolve().parents[1]
WHOLE = (ROOT / "README.md").read_text(encoding="utf-8")
README = re.sub(r"<!-- coming from -->\n(?:\|.*\n)+", "", WHOLE)  # that has flags of others
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table whose first heading is ``heading``."""
    found = re.search(rf"^\| {heading} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert found, f"there is no table of {heading!r}"
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found[1].splitlines()]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


# What is shown is run

TWO = [line for block in blocks(README, "sh") for line in block.splitlines() if line.startswith("python3 -m venv")]


def test_the_two_commands_are_a_line_each() -> None:
    """``.ci/fresh`` pastes them into a fresh clone; here it is seen that there is something to paste."""
    demo, tests = TWO
    assert [block.strip() for block in blocks(README, "sh")[:2]] == [demo, tests]
    assert demo.endswith("&& .venv/bin/fetcher crawl --demo")
    assert tests.endswith("&& .venv/bin/python -m pytest")
    extras = [set(re.findall(r"\.\[([a-z,]+)\]", line)[0].split(",")) for line in TWO]
    assert extras == [{"speed"}, {"speed", "test"}]
    assert extras[1] <= set(PROJECT["optional-dependencies"])


SHOWN = re.compile(r"http://127\.0\.0\.\d+:\d+(?P<path>/\S*) (?P<rest>-> \d+|!! \w+: .*)")
SUMMARY = re.compile(
    r"(?P<stats>\d+ rows = \d+ ok \+ \d+ failed \+ \d+ skipped), in \d+\.\d s \(\d+ pages/s, (?P<size>\d+\.\d MB)\)"
)


def test_the_first_screen_shows_what_the_demo_prints(tmp_path: Path) -> None:
    place = README.index("```console")
    assert README[:place].count("\n") < 8, "the result is on the first screen"
    command, *shown = blocks(README, "console")[0].splitlines()
    assert command == "$ fetcher crawl --demo"
    demo = run("crawl", "--demo", folder=tmp_path, env={"FETCHER_ROBOTS": ""})
    assert demo.code == 0
    printed = {match["path"]: match["rest"] for line in demo.lines if (match := SHOWN.fullmatch(line))}
    assert len(printed) == len(demo.lines)
    end = next(number for number, line in enumerate(shown) if SUMMARY.fullmatch(line))
    rest = shown.index("…")
    matches = [SHOWN.fullmatch(line) for line in shown[:rest] + shown[rest + 1 : end]]
    for match in matches:
        assert match
        assert printed[match["path"]] == match["rest"]
    said = demo.said.splitlines()
    now, then = SUMMARY.fullmatch(said[0]), SUMMARY.fullmatch(shown[end])
    assert now and then
    assert now.groupdict() == then.groupdict()
    assert said[1:] == shown[end + 1 :]
    total, ok, failed, skipped = map(int, re.findall(r"\d+", now["stats"]))
    assert total == ok + failed + skipped == len(printed)


@pytest.mark.parametrize("text", [*blocks(README, "python"), *blocks(CONTRIBUTING, "python")])
def test_each_python_block_runs_as_pasted(text: str, tmp_path: Path) -> None:
    for library in re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE):
        pytest.importorskip(library)  # those of the extra "integration" are seldom there
    program = tmp_path / "pasted.py"
    program.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        env=environment(tmp_path, PYTHONWARNINGS="error"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout.strip()) == ("print(" in text)


def test_ten_lines_are_ten_lines() -> None:
    library = blocks(README, "python")[0]
    assert sum(bool(line.strip()) and not line.startswith("from") for line in library.splitlines()) <= 10
    assert len(blocks(README, "sh")[2].splitlines()) == 10


def shell_commands(text: str) -> Iterator[list[str]]:
    """The words behind each ``fetcher`` of the shell blocks and of what stands in backquotes."""
    lines = [line for block in blocks(text, "sh") + blocks(text, "console") for line in block.splitlines()]
    for line in [*lines, *quoted(text)]:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, "|"] if line.lstrip("$ ").startswith(("fetcher ", "python3", "gzip")) else []:
            if word in ("|", "&&", ">", "<"):
                while words and words[0] == "$":
                    del words[0]
                if words and Path(words[0]).name == "fetcher":
                    yield words[1:]
                words = []
            else:
                words.append(word)


COMMAND_LINES = [" ".join(map(shlex.quote, words)) for words in shell_commands(README)]


def parsed(words: list[str]) -> tuple[str, click.Context]:
    """Parse as ``fetcher`` would, and run nothing."""
    name, *rest = words
    group = click.Context(cli, info_name="fetcher")
    command = cli.get_command(group, name)
    assert command, f"there is no command {name}"
    return name, command.make_context(name, rest, parent=group)


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_each_command_is_one_that_fetcher_takes(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config.toml").write_bytes((ROOT / "config.toml").read_bytes())
    words = shlex.split(line)
    if "--help" in words or "-h" in words:
        with pytest.raises(click.exceptions.Exit):
            parsed(words)
        return
    name, context = parsed(words)
    if name == "crawl":
        settings = gather(context, context.params["config"])
        inputs = context.params["inputs"]
        make_config(settings, inputs if all(map(is_url_argument, inputs)) else [])


def test_the_commands_are_found_at_all() -> None:
    assert len(COMMAND_LINES) >= 12
    assert {shlex.split(line)[0] for line in COMMAND_LINES} == set(COMMANDS)


# What is named exists


def flags_of(command: click.Command) -> set[str]:
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts) if name.startswith("-")}


def test_every_flag_that_is_named_exists() -> None:
    group = click.Context(cli)
    known = {flag for name in COMMANDS if (command := cli.get_command(group, name)) for flag in flags_of(command)}
    known |= {"--help", "-h", "--version", "-vv"}
    named = {flag for code in quoted(README) for flag in re.findall(r"(?:^|\s)(--?[a-zA-Z][\w-]*)", code)}
    others = {"-e", "-USR1", "-m", "-L", "-l"}  # pip's, kill's, python's, ssh's, man's
    assert named - others <= known


def test_every_variable_that_is_named_exists() -> None:
    command = cli.get_command(click.Context(cli), "crawl")
    assert command
    known = {str(param.envvar) for param in command.params}
    assert set(re.findall(r"FETCHER_[A-Z_]+", README)) <= known


def test_every_file_that_is_named_exists() -> None:
    paths = re.findall(r"\]\(([\w./-]+)\)", README + CONTRIBUTING)
    paths += [code for code in quoted(CONTRIBUTING) if re.fullmatch(r"(?:\.ci|fetcher|tests|examples)/[\w/.]*", code)]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert len(paths) > 20


def test_the_exit_codes_are_the_codes() -> None:
    codes = {value for name, value in vars(exits).items() if name.isupper()}
    assert {int(code) for code, _ in rows(README, "exit")} == codes


def test_the_record_is_the_record() -> None:
    assert tuple(name.strip("`") for name, _ in rows(README, "name")) == COLUMNS


def test_the_error_codes_are_the_codes() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FetchError)]
    table = {name.strip("`"): text for name, text in rows(README, "error")}
    kinds = [kind for kind in kinds if kind.__bases__[0] is FetchError]  # the others are timeouts of these
    assert list(table) == [kind.__name__ for kind in kinds]
    for kind in kinds:
        if kind.codes:
            assert set(quoted(table[kind.__name__])) == kind.codes
    assert {code for text in table.values() for code in re.findall(r"`(\w+)`↻", text)} == RETRYABLE
    assert set(quoted(table[StatusError.__name__])) == {"http_NNN"} | {code for code in RETRYABLE if "http_" in code}


def test_the_defaults_are_the_defaults() -> None:
    config = Config()
    table = rows(README, r"flag \| default")
    assert len(table) > 5
    for flag, value, _ in table:
        policy, field, convert = OPTIONS[flag.strip("`").lstrip("-").replace("-", "_")]
        told = convert({"on": True, "off": False}.get(value, value))
        assert told == getattr(getattr(config, policy) if policy else config, field), flag


def test_the_extras_are_the_extras() -> None:
    extras = PROJECT["optional-dependencies"]
    table = {name.strip("`"): text for name, text in rows(README, "extra")}
    assert set(table) == set(extras)
    for extra in ("speed", "integration", "dev"):
        libraries = {re.split(r"[^\w.-]", requirement)[0] for requirement in extras[extra]} - {DISTRIBUTION}
        assert [name for name in libraries if name not in table[extra]] == []


def test_the_versions_are_the_versions() -> None:
    versions = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    (told,) = re.findall(r"with Python ([\d., and]+);", README)
    assert re.findall(r"\d\.\d+", told) == versions
    floor = PROJECT["requires-python"].removeprefix(">=")
    assert f"Python {floor} or later" in README
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{re.findall(r'[0-9.]+', text.split('## [')[1])[0]}]" in text


# The map of the house


def test_the_table_of_rooms_names_each_room_once() -> None:
    named = [name.strip("`").rstrip("/").removesuffix(".py") for name, _ in rows(CONTRIBUTING, "room")]
    assert sorted(named) == sorted({module.room for module in HOUSE} - {"fetcher", "__main__"})


def test_the_dependency_table_is_the_one_that_is_tested() -> None:
    (drawn,) = [block for block in blocks(CONTRIBUTING, "text") if "◀" in block]
    assert [tuple(floor.split(", ")) for floor in re.split(r"\s*◀\s*", drawn.strip())] == list(ORDER)
    for library, homes_of in rows(CONTRIBUTING, "library"):
        pattern = CONFINED[library.strip("`")]
        homes = [room.replace(".py", "").rstrip("/*").replace("/", ".") for room in quoted(homes_of)]
        assert [f"fetcher.{home}" for home in homes] == [home.rstrip("*.") for home in pattern], library
    assert {library.strip("`") for library, _ in rows(CONTRIBUTING, "library")} == set(CONFINED)
