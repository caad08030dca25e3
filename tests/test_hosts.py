"""What is known of a host: slots and promises, delay and rate, the queue at the gate, parking and giving up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.config import HostPolicy, Limits, RetryPolicy
from fetcher.hosts.health import HostReport
from fetcher.hosts.hosts import CATCH_UP, CHARGES, REPORTED, SHORTLY, Host, Hosts
from fetcher.hosts.slots import PRESENTLY

NOW = 1_000.0
KEPT = 8_192  # hosts remembered beyond those at work, here: an eighth of what it is


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.hosts.hosts.KEPT", KEPT)


def hosts_of(retry: RetryPolicy | None = None, **limits: Any) -> Hosts[str]:
    return Hosts[str](Limits(**limits), retry or RetryPolicy())


def known(hosts: Hosts[str], *keys: str) -> list[Host[str]]:
    """Return hosts that have answered, and may have all that is configured."""
    found = [hosts.get(key, NOW) for key in keys]
    for host in found:
        host.answer(80)
    return found


# Slots and promises


def test_a_new_host_is_a_blank_sheet() -> None:
    hosts = hosts_of()
    host = hosts.get("a", NOW)
    assert hosts.get("a", NOW) is host
    assert (host.on_wire, host.promised, host.answered, host.given_up, len(hosts)) == (0, 0, (), None, 1)
    assert host.idle(NOW)
    assert hosts.opens(host, NOW) == 0.0
    assert hosts.may_start(host, NOW)


def test_both_slots_are_taken_and_given_back_together() -> None:
    hosts = hosts_of(concurrency=3, per_host=2)
    a, b = known(hosts, "a", "b")
    hosts.start(a, NOW)
    hosts.start(a, NOW)
    assert not hosts.may_start(a, NOW)
    hosts.start(b, NOW)
    assert not hosts.may_start(b, NOW)
    assert (hosts.on_wire, a.on_wire, b.on_wire) == (3, 2, 1)
    hosts.finish(a)
    assert hosts.may_start(b, NOW)
    assert (hosts.on_wire, a.on_wire, b.on_wire) == (2, 1, 1)


def test_promises_count_for_admission_and_block_nobody_at_the_gate() -> None:
    hosts = hosts_of(concurrency=2, per_host=2)
    (host,) = known(hosts, "a")
    hosts.promise(host)
    hosts.promise(host)
    assert not hosts.room(NOW)
    assert hosts.may_start(host, NOW)
    assert hosts.opens(host, NOW) == NOW + SHORTLY
    hosts.withdraw(host)
    assert hosts.room(NOW)
    assert (hosts.promised, host.promised) == (1, 1)


def test_a_full_host_opens_when_one_ends() -> None:
    hosts = hosts_of(per_host=2)
    (host,) = known(hosts, "a")
    hosts.start(host, NOW)
    hosts.promise(host)
    assert hosts.opens(host, NOW) is None
    hosts.withdraw(host)
    assert hosts.opens(host, NOW) == 0.0


def test_those_who_wait_at_the_gate_count_before_new_rows() -> None:
    hosts = hosts_of(per_host=2)
    (host,) = known(hosts, "a")
    hosts.charge(host, NOW, 5.0)
    hosts.wait(host, "one")
    assert hosts.opens(host, NOW) == NOW + 5.0
    hosts.wait(host, "two")
    assert hosts.opens(host, NOW) == NOW + 5.0
    assert hosts.opens(host, NOW + 5.0) == NOW + 5.0 + SHORTLY  # they go first, and they may be cancelled


# Delay and rate


def test_the_delay_is_from_start_to_start() -> None:
    hosts = hosts_of(delay=2.0)
    (host,) = known(hosts, "a")
    hosts.start(host, NOW)
    assert not hosts.may_start(host, NOW + 1.99)
    assert hosts.may_start(host, NOW + 2.0)
    assert hosts.opens(host, NOW) == NOW + 2.0
    assert hosts.may_start(hosts.get("b", NOW), NOW)


def test_promises_take_their_turns_in_the_delay() -> None:
    hosts = hosts_of(delay=2.0)
    (host,) = known(hosts, "a")
    hosts.promise(host)
    assert hosts.opens(host, NOW) == NOW + 2.0
    hosts.promise(host)
    assert hosts.opens(host, NOW) == NOW + 4.0


def test_the_rate_is_for_all_hosts_together() -> None:
    hosts = hosts_of(rate=4.0)
    a, b = hosts.get("a", NOW), hosts.get("b", NOW)
    hosts.start(a, NOW)
    assert not hosts.may_start(b, NOW)
    assert not hosts.room(NOW)
    assert hosts.room_from(NOW) == hosts.rate_next == NOW + 0.25 - CATCH_UP
    assert hosts.may_start(b, NOW + 0.25)


def test_an_idle_rate_saves_nothing_up() -> None:
    hosts = hosts_of(rate=100.0, per_host=100)
    (host,) = known(hosts, "a")
    hosts.start(host, NOW)
    started, now = 0, NOW + 3_600
    while hosts.may_start(host, now):
        hosts.start(host, now)
        started += 1
    assert started <= 100 * CATCH_UP + 1


@given(st.lists(st.floats(0.0, 0.4), max_size=120), st.sampled_from([0.5, 3.0, 50.0, 2_000.0]))
def test_no_window_of_time_has_more_starts_than_the_rate(gaps: list[float], rate: float) -> None:
    hosts = hosts_of(rate=rate, per_host=1_000, concurrency=1_000)
    (host,), now, starts = known(hosts, "a"), NOW, []
    for gap in gaps:
        now += gap
        if hosts.may_start(host, now):
            hosts.start(host, now)
            starts.append(now)
    for first, since in enumerate(starts):
        for last in range(first, len(starts)):
            assert last - first + 1 <= rate * (starts[last] - since + CATCH_UP) + 1 + 1e-6


def test_there_is_room_from_when_time_alone_makes_it() -> None:
    hosts = hosts_of(concurrency=1, rate=1.0)
    host = hosts.get("a", NOW)
    assert hosts.room_from(NOW) is None  # there is room
    hosts.start(host, NOW)
    assert hosts.room_from(NOW) is None  # an exchange must end
    hosts.finish(host)
    assert hosts.room_from(NOW) == hosts.rate_next
    assert hosts.room(hosts.rate_next)
    hosts.promise(host)
    assert hosts.room_from(NOW) == NOW + SHORTLY  # it may come to nothing
    hosts.withdraw(host)
    hosts.wait(host, "w")
    assert not hosts.room(hosts.rate_next)
    assert hosts.room_from(hosts.rate_next) == hosts.rate_next + CATCH_UP  # the gate's turn comes first


# The gate


def test_waiters_go_through_one_host_after_the_other() -> None:
    hosts = hosts_of(concurrency=5, per_host=2)
    known(hosts, "a", "b", "c")
    for waiter in ("a1", "a2", "a3", "b1", "b2", "c1"):
        hosts.wait(hosts.get(waiter[0], NOW), waiter)
    through, again = hosts.next_through(NOW)
    assert (through, again) == (["a1", "b1", "c1", "a2", "b2"], None)
    assert hosts.on_wire == 5
    hosts.finish(hosts.get("b", NOW))
    assert hosts.next_through(NOW) == ([], None)  # a is full, and b has no waiter left
    hosts.finish(hosts.get("a", NOW))
    assert hosts.next_through(NOW) == (["a3"], None)


def test_waiters_of_one_host_keep_their_order_and_its_delay() -> None:
    hosts = hosts_of(delay=1.0)
    (host,) = known(hosts, "a")
    for waiter in ("one", "two", "three"):
        hosts.wait(host, waiter)
    assert hosts.next_through(NOW) == (["one"], NOW + 1)
    assert hosts.next_through(NOW + 0.5) == ([], NOW + 1)
    assert hosts.next_through(NOW + 1) == (["two"], NOW + 2)
    assert hosts.next_through(NOW + 9) == (["three"], None)


def test_a_parked_host_holds_up_nobody_at_the_gate() -> None:
    hosts = hosts_of(concurrency=2)
    parked = hosts.get("p", NOW)
    hosts.charge(parked, NOW, 9.0)
    hosts.wait(parked, "p1")
    hosts.wait(hosts.get("a", NOW), "a1")
    assert hosts.next_through(NOW) == (["a1"], NOW + 9)
    assert hosts.room(NOW)
    assert hosts.next_through(NOW + 9) == (["p1"], None)


def test_the_gate_asks_again_when_the_rate_allows() -> None:
    hosts = hosts_of(rate=1.0)
    hosts.start(hosts.get("a", NOW), NOW)
    hosts.wait(hosts.get("b", NOW), "b1")
    assert hosts.next_through(NOW) == ([], hosts.rate_next)
    assert hosts.next_through(hosts.rate_next)[0] == ["b1"]


def test_who_leaves_is_not_let_through() -> None:
    hosts = hosts_of(per_host=1)
    host = hosts.get("a", NOW)
    hosts.start(host, NOW)
    hosts.wait(host, "one")
    hosts.wait(host, "two")
    host.leave("one")
    host.leave("never came")
    hosts.finish(host)
    assert hosts.next_through(NOW) == (["two"], None)
    host.leave("two")
    hosts.finish(host)
    assert hosts.next_through(NOW) == ([], None)


def test_coming_and_going_leaves_nothing_in_the_gate() -> None:
    hosts = hosts_of()
    host = hosts.get("a", NOW)
    hosts.charge(host, NOW, 200.0)
    for n in range(1_000):
        hosts.wait(host, "w")
        assert hosts.next_through(NOW + n / 100) == ([], NOW + 200)
        host.leave("w")
    assert len(hosts._sleepers) + len(hosts._contenders) == 1
    assert hosts.next_through(NOW + 200) == ([], None)
    assert not host.contending


# Whose fault


def charged(policy: RetryPolicy, *charges: tuple[float, float | None]) -> Host[str]:
    hosts = hosts_of(policy)
    host = hosts.get("a.example", NOW)
    for after, wish in charges:
        hosts.charge(host, NOW + after, wish)
    return host


def test_retry_after_is_obeyed() -> None:
    host = charged(RetryPolicy(), (0.0, 17.0))
    assert (host.parked_until, host.not_before, host.given_up) == (NOW + 17, NOW + 17, None)


def test_retry_after_is_obeyed_when_it_is_longer_than_our_patience() -> None:
    host = charged(RetryPolicy(host_patience=60, max_retry_after=300), (0.0, 300.0))
    assert (host.not_before, host.given_up) == (NOW + 300, None)


def test_retry_after_over_the_maximum_gives_the_host_up() -> None:
    host = charged(RetryPolicy(), (0.0, 300.5))
    assert host.given_up == "a.example asks to wait 301 s, max-retry-after is 300 s"
    assert hosts_of().opens(host, NOW) == NOW  # its rows come, to be told


def test_without_retry_after_the_pause_doubles() -> None:
    policy = RetryPolicy(backoff=0.5, max_backoff=3.0, host_patience=1_000)
    hosts = hosts_of(policy)
    host, now, pauses = hosts.get("a", NOW), NOW, []
    for _ in range(6):
        hosts.charge(host, now, None)
        pauses.append(host.not_before - now)
        now = host.not_before
    assert pauses == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0]


def test_a_retry_after_of_nothing_is_no_leave_to_hammer() -> None:
    policy = RetryPolicy(backoff=0.5)
    assert charged(policy, (0.0, 0.0)).not_before == NOW + 0.5
    assert charged(policy, (0.0, 0.0), (0.5, 0.0)).not_before == NOW + 1.5


def test_answers_from_before_the_parking_count_once() -> None:
    host = charged(RetryPolicy(), *[(0.01 * n, 10.0) for n in range(50)])
    assert host.charges == 1
    assert host.given_up is None
    assert host.not_before == pytest.approx(NOW + 10.49)  # the latest wish holds


def test_a_shorter_wish_does_not_shorten_the_parking() -> None:
    assert charged(RetryPolicy(), (0.0, 10.0), (1.0, 2.0)).not_before == NOW + 10


def test_twenty_refusals_are_enough() -> None:
    policy = RetryPolicy(host_patience=1e6)
    assert charged(policy, *[(2.0 * n, 1.0) for n in range(CHARGES - 1)]).given_up is None
    host = charged(policy, *[(2.0 * n, 1.0) for n in range(CHARGES)])
    assert host.given_up == "a.example refused 20 times without one success"


def test_patience_ends() -> None:
    policy = RetryPolicy(host_patience=60)
    assert charged(policy, (0.0, 30.0), (59.9, 1.0)).given_up is None
    host = charged(policy, (0.0, 30.0), (60.0, 1.0))
    assert host.given_up == "a.example refused for 60 s, host-patience is 60 s"


def test_no_patience_at_all() -> None:
    assert charged(RetryPolicy(host_patience=0), (0.0, 1.0)).given_up is not None


def test_a_success_begins_a_new_count() -> None:
    hosts = hosts_of(RetryPolicy(host_patience=60, backoff=0.5))
    host = hosts.get("a", NOW)
    for n in range(CHARGES - 1):
        hosts.charge(host, NOW + n, 0.5)
    host.answer(80)
    assert (host.answered, host.charges) == ((80,), 0)
    hosts.charge(host, NOW + 100, None)
    assert (host.charges, host.given_up, host.not_before) == (1, None, NOW + 100.5)


def test_a_success_while_parked_does_not_break_the_doubling() -> None:
    hosts = hosts_of()
    host = hosts.get("a", NOW)
    hosts.charge(host, NOW, 10.0)
    host.answer(80)
    hosts.charge(host, NOW + 1, None)
    assert host.not_before == NOW + 10


def test_who_is_given_up_stays_so_for_the_first_reason() -> None:
    hosts = hosts_of(RetryPolicy(backoff=0.0))
    host = hosts.get("a", NOW)
    hosts.charge(host, NOW, 999.0)
    for _ in range(5_000):  # what was in flight
        hosts.charge(host, NOW, None)
    host.answer(80)
    assert host.given_up == "a asks to wait 999 s, max-retry-after is 300 s"


def test_a_refusal_is_an_answer_and_no_success() -> None:
    host = charged(RetryPolicy(), (0.0, 1.0))
    host.answer(8080, well=False)
    assert (host.answered, host.charges) == ((8080,), 1)


def test_a_bounded_number_of_ports_is_known() -> None:
    host = hosts_of().get("a", NOW)
    for port in (*range(1, 100), 99):
        host.answer(port)
    assert host.answered == tuple(range(84, 100))


@given(
    st.lists(st.tuples(st.floats(0, 50), st.none() | st.floats(0, 400)), max_size=60),
    st.sampled_from([RetryPolicy(), RetryPolicy(backoff=0.0), RetryPolicy(max_backoff=0.0, host_patience=1e9)]),
)
def test_a_host_is_never_unparked_and_charges_end(
    charges: list[tuple[float, float | None]], policy: RetryPolicy
) -> None:
    hosts = hosts_of(policy)
    host, now = hosts.get("a", NOW), NOW
    for gap, wish in charges:
        now += gap
        before = host.not_before
        hosts.charge(host, now, wish)
        assert host.not_before >= before
        assert host.not_before <= now + max(policy.max_retry_after, policy.max_backoff)
        assert host.charges < CHARGES or host.given_up is not None


# Forgetting


def test_what_nothing_depends_on_is_forgotten_and_nothing_else() -> None:
    hosts = hosts_of(delay=5.0)
    busy, promised, waiting, parked, delayed = (hosts.get(key, NOW) for key in ("b", "p", "w", "k", "d"))
    hosts.start(busy, NOW)
    hosts.promise(promised)
    hosts.charge(parked, NOW, 90.0)
    hosts.wait(waiting, "w")
    hosts.start(delayed, NOW)
    hosts.finish(delayed)
    given_up = hosts.get("g", NOW)
    hosts.charge(given_up, NOW, 1e9)
    for n in range(KEPT):
        hosts.get(f"h{n}", NOW + 1)
    assert len(hosts) < 100
    for host in (busy, promised, waiting, given_up):
        assert hosts.get(host.key, NOW + 1) is host
    for host, until in ((parked, NOW + 90.0), (delayed, NOW + 5.0)):  # of them no more than that
        assert hosts.get(host.key, NOW + 1).not_before == until


def test_a_host_that_rests_is_remembered_in_a_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.hosts.hosts.LONGEST", KEPT)
    hosts = hosts_of()
    (host,) = known(hosts, "a")
    host.answer(8080)
    hosts.set_delay(host, 7.0)
    for wait in range(3):
        hosts.charge(host, NOW + wait, None)
    told = hosts.parked(NOW + 3)
    last = (host.parked_until, host.charges, host.struck_at, host.answered)
    assert len(host.fold()) < 40
    for n in range(KEPT):
        hosts.charge(hosts.get(f"h{n}", NOW + 3), NOW + 3, 50.0)
    assert hosts.find("a") is None
    assert hosts.parked(NOW + 3)["a"] == told["a"] == 7.0
    again = hosts.get("a", NOW + 4)
    assert again is not host
    assert (again.parked_until, again.charges, round(again.struck_at, 3), again.answered) == last
    assert (again.own_delay, again.delay, again.limit) == (7.0, 7.0, 1)
    hosts.charge(again, NOW + 70, None)
    assert again.given_up is not None  # its patience was not forgotten


def test_of_too_many_that_rest_those_that_rest_longest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.hosts.hosts.FOLDED", 2 * KEPT)
    monkeypatch.setattr("fetcher.hosts.hosts.LONGEST", 10)
    hosts = hosts_of()
    for n in range(5 * KEPT):
        hosts.charge(hosts.get(f"h{n}", NOW), NOW, 250.0)
        assert len(hosts) <= KEPT
    assert len(hosts._folded) <= 2 * KEPT
    assert hosts.get("h0", NOW).not_before == NOW + 250.0  # one of the thousand that are told of
    assert hosts.get(f"h{KEPT // 2}", NOW).not_before == 0.0
    assert hosts.get(f"h{5 * KEPT - 1}", NOW).not_before == NOW + 250.0
    assert hosts.get(f"h{4 * KEPT}", NOW).not_before == NOW + 250.0
    assert len(hosts.parked(NOW)) <= KEPT + 10


def test_those_who_refused_are_not_remembered_for_ever() -> None:
    hosts = hosts_of()
    for n in range(3 * KEPT):
        hosts.charge(hosts.get(f"h{n}", NOW), NOW, 1e9)
        assert len(hosts) <= KEPT
    assert hosts.get(f"h{3 * KEPT - 1}", NOW).given_up is not None


def test_when_all_are_at_work_all_are_kept() -> None:
    hosts = hosts_of()
    for n in range(KEPT + 1_000):
        hosts.promise(hosts.get(f"h{n}", NOW))
    assert len(hosts) == hosts.promised == KEPT + 1_000


# Hosts earn their share


def test_a_host_has_one_slot_until_it_answers() -> None:
    hosts = hosts_of(per_host=3)
    host = hosts.get("a", NOW)
    hosts.start(host, NOW)
    assert not hosts.may_start(host, NOW)
    assert hosts.opens(host, NOW) is None
    host.answer(80, well=False)
    assert hosts.may_start(host, NOW)
    assert host.limit == 3


def test_suspect_hosts_hold_a_twelfth_together() -> None:
    hosts = hosts_of(concurrency=48)
    (good,) = known(hosts, "good")
    hosts.start(good, NOW)
    dead = [hosts.get(f"d{n}", NOW) for n in range(30)]
    for host in dead:
        hosts.suspect(host, suspect=True)
    started = 0
    for host in dead:
        if hosts.may_start(host, NOW):
            hosts.start(host, NOW)
            started += 1
    assert started == hosts.suspected == 4
    assert hosts.opens(dead[9], NOW) == NOW + PRESENTLY
    assert hosts.may_start(good, NOW)
    hosts.finish(dead[0])
    assert hosts.may_start(dead[9], NOW)
    hosts.wait(dead[9], "probe")
    hosts.wait(dead[10], "next")
    assert hosts.next_through(NOW) == (["probe"], NOW + SHORTLY)
    hosts.suspect(dead[10], suspect=False)  # it answered to somebody else
    assert hosts.next_through(NOW + SHORTLY) == (["next"], None)


def test_promises_to_suspects_count() -> None:
    hosts = hosts_of(concurrency=24)
    hosts.start(hosts.get("good", NOW), NOW)
    dead = [hosts.get(f"d{n}", NOW) for n in range(5)]
    for host in dead:
        hosts.suspect(host, suspect=True)
        if (opens := hosts.opens(host, NOW)) is not None and opens <= NOW:
            hosts.promise(host)
    assert hosts.suspected == hosts.promised == 2
    hosts.suspect(dead[0], suspect=False)
    assert hosts.suspected == 1
    hosts.withdraw(dead[1])
    assert hosts.suspected == 0


def test_with_nobody_else_at_work_suspects_have_half() -> None:
    hosts = hosts_of(concurrency=24)
    for n in range(24):
        host = hosts.get(f"d{n}", NOW)
        hosts.suspect(host, suspect=True)
        if hosts.may_start(host, NOW):
            hosts.start(host, NOW)
    assert hosts.on_wire == 12
    hosts.start(hosts.get("good", NOW), NOW)
    assert hosts.share == 2


def test_even_of_few_slots_one_may_be_a_suspects() -> None:
    hosts = hosts_of(concurrency=2)
    hosts.start(hosts.get("good", NOW), NOW)
    host = hosts.get("dead", NOW)
    hosts.suspect(host, suspect=True)
    assert hosts.may_start(host, NOW)


# Limits that are shared


def test_a_site_has_its_limit_over_all_its_hosts() -> None:
    hosts = hosts_of(per_site=2, per_host=2)
    a, b, c = known(hosts, "a.site.example", "b.site.example", "site.example")
    (other,) = known(hosts, "other.example")
    hosts.start(a, NOW)
    hosts.promise(b)
    assert hosts.opens(c, NOW) == NOW + PRESENTLY
    assert hosts.opens(other, NOW) == 0.0
    hosts.withdraw(b)
    hosts.start(b, NOW)
    assert not hosts.may_start(c, NOW)
    assert hosts.may_start(other, NOW)
    hosts.wait(c, "c1")
    assert hosts.next_through(NOW) == ([], NOW + SHORTLY)
    assert hosts.freed == []
    hosts.finish(a)
    assert hosts.freed == ["site.example"]
    assert hosts.next_through(NOW + SHORTLY) == (["c1"], None)


def test_those_behind_one_address_share_its_limit() -> None:
    hosts = hosts_of(per_address=2, per_host=2)
    a, b, c, d = known(hosts, "a.example", "b.example", "c.example", "d.example")
    hosts.start(a, NOW)  # before it was known
    hosts.locate(a, "192.0.2.1")
    hosts.locate(b, "192.0.2.1")
    hosts.locate(c, "192.0.2.2")
    hosts.locate(d, None)
    assert hosts.may_start(b, NOW)
    hosts.start(b, NOW)
    assert not hosts.may_start(a, NOW)
    assert hosts.may_start(c, NOW)
    assert hosts.may_start(d, NOW)
    hosts.finish(b)
    hosts.finish(a)
    assert [group.on_wire + group.ahead for host in (a, b, c) for group in host.groups] == [0, 0, 0]


@given(st.lists(st.tuples(st.sampled_from("swpdxlz"), st.integers(0, 5)), max_size=200))
def test_shared_counts_never_drift(steps: list[tuple[str, int]]) -> None:
    hosts = hosts_of(per_site=3, per_host=2, concurrency=6)
    every = known(hosts, *(f"{name}.{site}.example" for name in "abc" for site in ("one", "two")))
    now = NOW
    for step, number in steps:
        host = every[number]
        if step == "s" and hosts.may_start(host, now):
            hosts.start(host, now)
        elif step == "w":
            hosts.wait(host, str(number))
        elif step == "p":
            hosts.promise(host)
        elif step == "d" and host.promised:
            hosts.withdraw(host)
        elif step == "x" and host.on_wire:
            hosts.finish(host)
            hosts.next_through(now)
        elif step == "l":
            host.leave(str(number))
        elif step == "z":
            hosts.suspect(host, suspect=not host.suspect)
        now += 0.01
        assert hosts.suspected == sum(one.on_wire + one.promised for one in every if one.suspect)
        assert hosts.on_wire == sum(one.on_wire for one in every) <= 6
        for group in {id(group): group for one in every for group in one.groups}.values():
            members = [one for one in every if group in one.groups]
            assert group.on_wire == sum(one.on_wire for one in members) <= 3
            assert group.ahead == sum(one.promised + len(one.waiters) for one in members)


# What holds for one host


POLICIES = (
    ("slow.example", HostPolicy(per_host=1, delay=2.0)),
    ("*.example", HostPolicy(per_host=2, host_patience=5.0)),
    ("*.deep.example", HostPolicy(per_host=3, max_crawl_delay=100.0)),
)


@pytest.mark.parametrize(
    ("key", "most", "delay", "patience"),
    [
        ("slow.example", 1, 2.0, 60.0), ("any.example", 2, 0.5, 5.0), ("a.b.example", 2, 0.5, 5.0),
        ("x.deep.example", 3, 0.5, 60.0), ("deep.example", 2, 0.5, 5.0), ("example", 6, 0.5, 60.0),
        ("notexample", 6, 0.5, 60.0), ("192.0.2.1", 6, 0.5, 60.0),
    ],
)  # fmt: skip
def test_the_most_particular_policy_holds(key: str, most: int, delay: float, patience: float) -> None:
    host = Hosts[str](Limits(delay=0.5), RetryPolicy(), POLICIES).get(key, NOW)
    assert (host.most, host.delay, host.retry.host_patience) == (most, delay, patience)


def test_a_crawl_delay_holds_up_to_the_cap_and_a_larger_delay_wins() -> None:
    hosts = Hosts[str](Limits(delay=1.0, max_crawl_delay=30.0), RetryPolicy(), POLICIES)
    for key, asked, delay in (
        ("a.test", 5.0, 5.0), ("b.test", 0.5, 1.0), ("c.test", 600.0, 30.0), ("x.deep.example", 600.0, 100.0),
        ("slow.example", 1.0, 2.0),
    ):  # fmt: skip
        host = hosts.get(key, NOW)
        hosts.start(host, NOW)  # its robots.txt
        hosts.set_delay(host, asked)
        assert (host.delay, host.not_before) == (delay, NOW + delay)
        hosts.finish(host)


def test_a_host_whose_robots_are_unknown_is_promised_one_row() -> None:
    hosts = Hosts[str](Limits(), RetryPolicy(), robots=True)
    (host,) = known(hosts, "a")
    assert hosts.opens(host, NOW) == 0.0
    hosts.promise(host)
    assert hosts.opens(host, NOW) == NOW + SHORTLY
    assert hosts.may_start(host, NOW)  # robots.txt itself, and a hop
    hosts.know_robots(host)
    assert hosts.opens(host, NOW) == 0.0


# From run to run, and what is told


def test_what_is_parked_is_parked_in_the_next_run() -> None:
    first = hosts_of(delay=1.0)
    hosts = [first.get(key, NOW) for key in ("parked", "over", "crawl", "plain")]
    for host in hosts:
        first.start(host, NOW)
        first.finish(host)
    first.charge(hosts[0], NOW, 60.0)
    first.charge(hosts[1], NOW, 5.0)
    first.set_delay(hosts[2], 10.0)
    parked = first.parked(NOW + 20)
    assert parked == {"parked": 40.0, "crawl": 10.0}
    later = NOW + 1_000
    second = hosts_of(delay=1.0)
    early = second.get("early", later)
    second.restore(parked, later)
    found = {key: second.get(key, later + 5).not_before - later for key in ("parked", "crawl", "plain")}
    assert found == {"parked": 40.0, "crawl": 10.0, "plain": 1.0}  # nobody knows when it was asked last
    assert early.not_before == later + 1.0
    second.set_delay(second.get("told", later), 7.0)
    assert second.get("told", later).not_before == later + 7.0
    assert second.parked(later) == {"parked": 40.0, "crawl": 10.0, "told": 7.0}


def test_those_in_trouble_are_told_of_the_worst_first() -> None:
    hosts = hosts_of()
    for n in range(5 * REPORTED):
        hosts.record(hosts.get(f"h{n}", NOW)).refused += n
    found = hosts.troubled()
    assert [report.host for report in found[:3]] == [f"h{5 * REPORTED - n}" for n in (1, 2, 3)]
    assert len(found) == REPORTED
    assert len(hosts._troubled) <= 2 * REPORTED


def test_a_report_says_what_was_found() -> None:
    hosts = hosts_of()
    (host,) = known(hosts, "a.example")
    for _ in range(7):
        hosts.start(host, NOW)
    hosts.charge(host, NOW, 5.0)
    hosts.charge(host, NOW + 1, 10.0)
    hosts.record(host).denied += 2
    assert hosts.troubled() == [HostReport("a.example", requests=7, denied=2, parked=11.0)]
    hosts.charge(host, NOW, 1e9)
    assert hosts.troubled()[0].given_up == host.given_up != ""


def test_many_hosts_leave_what_is_bounded() -> None:
    hosts = hosts_of(per_site=5)
    for n in range(5 * KEPT):
        host = hosts.get(f"h.site{n}.example", NOW)
        hosts.promise(host)
        hosts.withdraw(host)
        hosts.start(host, NOW)
        if n % 10 == 0:
            hosts.record(host).failed += 1
        hosts.finish(host)
    assert len(hosts) <= KEPT
    assert len(hosts._sites) <= KEPT
    assert len(hosts._troubled) <= 2 * REPORTED
