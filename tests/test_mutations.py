"""A sample of the sweep of mutants, and proof that it makes, draws and judges them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.command import environment
from tests.sweeps import mutations
from tests.sweeps.mutants import Mutant, mutants_of
from tests.sweeps.mutations import NEAREST, ROOT, NearTest, Swept, drawn, judges_of, listed, nearest_files, sources_of

SAMPLED = ("middleware/accept", "middleware/robots_rules", "frontier/spill", "hosts/adaptive", "hosts/breaker",
           "hosts/network", "frontier/queues")  # fmt: skip
"""What is changed in the sample: modules whose own tests take a second."""


def changed(line: str) -> set[tuple[str, str]]:
    """What the mutants of one line make of it, with their words."""
    source = f"def f(a, b):\n    {line}\n".encode()
    texts = ((mutant.applied(source).decode(), mutant.words) for mutant in mutants_of("f.py", source))
    return {(text.splitlines()[1].strip(), words) for text, words in texts}


@pytest.mark.parametrize(
    ("line", "mutants"),
    [
        ("a < b", {"a <= b": "< becomes <=", "a >= b": "< becomes >="}),
        ("a != (b)", {"a == (b)": "!= becomes =="}),
        ("a is  not b", {"a is b": "is not becomes is"}),
        ("a in b", {"a not in b": "in becomes not in"}),
        ("a < b == 0", {"a <= b == 0": "< becomes <=", "a >= b == 0": "< becomes >=", "a < b != 0": "== becomes !=",
                        "a < b == 1": "0 becomes 1"}),
        ("a and b or a", {"a or b or a": "and becomes or", "a and b and a": "or becomes and"}),
        ("a += b - a", {"a -= b - a": "+ becomes -", "a += b + a": "- becomes +"}),
        ("a = not b", {"a = b": "not is dropped"}),
        ("a = max(a, b)", {"a = min(a, b)": "max becomes min"}),
        ("a = True", {"a = False": "True becomes False"}),
        ("a = 3, 0.5, 1_000", {"a = 4, 0.5, 1_000": "3 becomes 4", "a = 3, 1.5, 1_000": "0.5 becomes 1.5",
                               "a = 3, 0.5, 2000": "1000 becomes 2000"}),
        ("a.close()", {"pass": "the call is dropped"}),
        ("return a(b)", {"return None": "None is returned"}),
        ("if a: return", {"if False: return": "the condition becomes False", "if a: pass": "return is dropped"}),
        ("while a: continue", {"while a: pass": "continue is dropped"}),
        ("é = 'é' if a == b else b", {"é = 'é' if a != b else b": "== becomes !="}),
    ],
)  # fmt: skip
def test_a_line_is_changed_in_one_spot(line: str, mutants: dict[str, str]) -> None:
    assert changed(line) == set(mutants.items())


@pytest.mark.parametrize(
    "line",
    [
        "assert a < 1",
        "import a",
        "log.info(a + 1)",
        "'''a < 1'''",
        "a: list[1] = b",
        "return None",
        "b = f'{a + 1}'",
        "class A(B, frozen=True, gc=False): pass",
        "if TYPE_CHECKING: import a",
    ],
)
def test_what_only_says_something_is_left_alone(line: str) -> None:
    assert changed(line) == set()


def test_a_mutant_is_known_by_what_surrounds_it_but_not_by_where() -> None:
    source = b"class A:\n    def f(self):\n        return self.x + 1 + 1\n"
    keys = [mutant.key for mutant in mutants_of("a.py", source)]
    line = "\n    return self.x + 1 + 1"
    assert keys[:2] == [f"a.py A.f: None is returned{line}", f"a.py A.f: + becomes -{line}"]
    assert keys[2:] == [f"a.py A.f: {words}{line}" for words in ("1 becomes 2", "+ becomes - (2)", "1 becomes 2 (2)")]
    assert [mutant.key for mutant in mutants_of("a.py", b"# more\n" + source)] == keys


@pytest.mark.parametrize("room", NEAREST)
def test_every_mutant_of_the_core_is_python_and_another_program(room: str) -> None:
    for path in sources_of(room):
        source = path.read_bytes()
        for mutant in mutants_of(path.relative_to(ROOT).as_posix(), source)[::25]:
            assert ast.dump(ast.parse(mutant.applied(source))) != ast.dump(ast.parse(source)), mutant.key


@pytest.mark.parametrize("room", NEAREST)
def test_every_room_has_its_tests(room: str) -> None:
    for pattern in NEAREST[room]:
        assert list((ROOT / "tests").glob(pattern)), f"no test file is named {pattern}"
    assert all(path.exists() for path in sources_of(room))


def made(file: str, number: int) -> list[Mutant]:
    return [Mutant(file, f"f{one}", "x", "w", 1, 0, 0, "") for one in range(number)]


def test_mutants_are_drawn_by_the_share_of_their_module_and_stay_drawn() -> None:
    sites = [made("a.py", 60), made("b.py", 30), made("c.py", 0), made("d.py", 10)]
    lots = drawn(sites, 10, 1)
    assert [[mutant.file for mutant in lots].count(name) for name in ("a.py", "b.py", "d.py")] == [6, 3, 1]
    assert drawn([[*sites[0], *made("a.py", 61)[60:]], *sites[1:]], 10, 1)[6:] == lots[6:]
    assert drawn(sites, 10, 2) != lots
    assert len(drawn(sites, 1_000, 1)) == 100


def test_the_quickest_of_the_nearest_tests_that_run_a_function_judge_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutations, "BUDGET_SECONDS", 5.0)
    near, far = "tests/test_accept.py", "tests/test_cli_job.py"
    runs, other = frozenset({"fetcher/a.py A.f"}), frozenset({"fetcher/a.py A.g"})
    tests = {
        near: [
            NearTest(f"{near}::slow", 3.0, runs),
            NearTest(f"{near}::other", 0.1, other),
            NearTest(f"{near}::fast", 1.0, runs),
        ],
        far: [NearTest(f"{far}::command", 1.0, frozenset()), NearTest(f"{far}::long", 9.0, frozenset())],
    }
    judged = Mutant("fetcher/a.py", "A.f", "x", "w", 1, 0, 0, "")
    assert [test.name for test in judges_of(judged, [near, far], tests)] == [
        f"{near}::fast",
        f"{near}::slow",
        f"{far}::command",
    ]
    outside = Mutant("fetcher/a.py", "A", "x", "w", 1, 0, 0, "")
    assert len(judges_of(outside, [near], tests)) == 3


def test_a_module_is_judged_by_the_file_of_its_name() -> None:
    def named(part: str) -> str:
        return nearest_files(sources_of(part)[0])[0]

    assert named("middleware/redirects") == "tests/test_redirects.py"
    assert named("middleware/robots_rules") == "tests/test_robots_rules.py"
    assert nearest_files(sources_of("middleware/redirects")[0], own=True) == ["tests/test_redirects.py"]


def test_the_list_of_the_equivalent_is_read_and_each_of_them_exists() -> None:
    text = "# words\n\na.py A.f: + becomes -\n    return a + b\n    it is\n    zero\n"
    assert listed(text) == {"a.py A.f: + becomes -\n    return a + b": "it is zero"}
    found = {
        mutant.key
        for file in {key.partition(" ")[0] for key in listed()}
        for mutant in mutants_of(file, (ROOT / file).read_bytes())
    }
    assert [key for key in listed() if key not in found] == []
    assert [key for key, reason in listed().items() if not reason] == []


def test_a_report_shows_what_survived() -> None:
    file = "fetcher/middleware/accept.py"
    first, *others = mutants_of(file, (ROOT / file).read_bytes())
    assert len(others) > 11
    swept = Swept(killed=others[:8], late=others[8:9], survived=[(first, 7)], equivalent=others[9:11])
    *shown, last = mutations.report(swept).splitlines()
    assert shown[:2] == f"out of time: {others[8].key}".splitlines()
    assert shown[2] == f"survived 7 tests: {first.key.splitlines()[0]}"
    assert {line.strip()[:1] for line in shown[4:]} >= {"-", "+", "@"}
    assert last == "12 mutants: 8 killed, 1 out of time, 1 survived, 2 equivalent: 90.0% of those that are not"


def test_a_sample_of_the_mutants(tmp_path: Path) -> None:
    """In a process of its own: its forks should be of nothing else."""
    command = [sys.executable, "-m", "tests.sweeps.mutations", *SAMPLED, "--own", "--count", "30", "--seed", "1"]
    swept = subprocess.run(command, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert swept.returncode == 0, swept.stdout + swept.stderr[-2_000:]
    assert swept.stdout.startswith("30 mutants: ")
