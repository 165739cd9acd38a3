"""One pass against fakes: what fails, for whom, and what is left over."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING

import pytest

from otgd.damper import FREE
from otgd.describe import describe
from otgd.errors import OtgdError, PermanentError, TransientError
from otgd.model import DesiredState, GadgetSpec, Passage, Report, Rule, Stray, UnknownPolicy
from otgd.reconciler import Reconciler
from tests.fake_kernel import FakeKernel
from tests.fakes import FakeFirewall

if TYPE_CHECKING:
    from collections.abc import Collection


class PickyFirewall(FakeFirewall):
    """Fails in one verb and not in the other."""

    def __init__(self) -> None:
        super().__init__()
        self.fail_apply: list[OtgdError] = []
        self.fail_observe: list[OtgdError] = []

    def observe(self) -> frozenset[Rule]:
        if self.fail_observe:
            raise self.fail_observe.pop(0)
        return super().observe()

    def apply(self, *, remove: Collection[Rule], add: Collection[Rule]) -> None:
        if self.fail_apply:
            raise self.fail_apply.pop(0)
        super().apply(remove=remove, add=add)


class Bench:
    """A reconciler on fakes, two gadgets wanted, an uplink there, and a clock that is told."""

    def __init__(self, **desired: object) -> None:
        self.kernel = FakeKernel()
        self.firewall = PickyFirewall()
        self.now = 0.0
        self.looks = 0
        self.desired = DesiredState(gadgets=(spec(1), spec(2)), **desired)  # type: ignore[arg-type]
        self.reconciler = Reconciler(
            links=self.kernel,
            firewall=self.firewall,
            forwarding=self.kernel,
            before_look=self._look,
            clock=lambda: self.now,
        )
        uplink = self.kernel.plug("eth0", "b8:27:eb:00:00:01", driver="smsc95xx")
        self.kernel.change(uplink, up=True)
        self.kernel.default_route(uplink)

    def _look(self) -> None:
        self.looks += 1

    def plug(self, number: int) -> int:
        return self.kernel.plug(f"usb{number}", f"00:22:82:ff:ff:0{number}")

    def run(self) -> Report:
        return self.reconciler.run_pass(self.desired)


def spec(number: int) -> GadgetSpec:
    return GadgetSpec(
        name=f"ethusb{number}",
        mac=f"00:22:82:ff:ff:0{number}",
        host=IPv4Interface(f"10.0.1{number}.1/24"),
        guest=IPv4Address(f"10.0.1{number}.2"),
    )


def failed(report: Report) -> list[str]:
    return [describe(failure.step) for failure in report.failures]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_one_pass_converges(bench: Bench) -> None:
    bench.plug(1)
    bench.plug(2)

    report = bench.run()

    assert report.remaining.converged
    assert (report.failures, report.skipped, report.held) == ((), (), ())
    assert bench.kernel.forwards
    assert {link.ifname for link in bench.kernel.links.values()} == {"eth0", "ethusb1", "ethusb2"}


def test_a_pass_with_nothing_to_do_looks_once_and_changes_nothing(bench: Bench) -> None:
    bench.plug(1)
    bench.run()
    bench.looks = 0
    before = dict(bench.kernel.links)

    report = bench.run()

    assert report.applied == ()
    assert bench.looks == 1
    assert bench.kernel.links == before


def test_the_duration_is_told(bench: Bench) -> None:
    assert bench.run().elapsed_s == 0.0


@pytest.mark.parametrize("verb", ["rename", "add_address", "set_up"])
@pytest.mark.parametrize("error", [TransientError("busy"), PermanentError("refused")])
def test_one_gadgets_failure_leaves_the_other_alone(
    bench: Bench, verb: str, error: OtgdError
) -> None:
    first, second = bench.plug(1), bench.plug(2)
    bench.kernel.fail[verb] = [error]

    report = bench.run()

    assert len(report.failures) == 1
    assert report.failures[0].reason.endswith(str(error))
    assert report.needs_retry is isinstance(error, TransientError)
    assert not bench.kernel.links[first].up
    assert bench.kernel.links[second].ifname == "ethusb2"
    assert bench.kernel.links[second].up
    assert bench.run().remaining.converged


def test_a_busy_firewall_holds_address_and_link_back(bench: Bench) -> None:
    ifindex = bench.plug(1)
    bench.firewall.fail_apply = [TransientError("the lock is held")]

    report = bench.run()

    assert report.needs_retry
    assert bench.kernel.links[ifindex].addresses == ()
    assert not bench.kernel.links[ifindex].up
    assert any("rename" in describe(step) for step in report.skipped)
    assert bench.run().remaining.converged


def test_a_firewall_that_refuses_costs_no_address(bench: Bench) -> None:
    ifindex = bench.plug(1)
    bench.firewall.fail_apply = [PermanentError("no such target")]

    report = bench.run()

    assert not report.needs_retry
    assert bench.kernel.links[ifindex].up
    assert len(report.failures) == 3


def test_a_gadget_that_cannot_be_isolated_stays_off(bench: Bench) -> None:
    one, two = bench.desired.gadgets
    bench.desired = replace(bench.desired, gadgets=(replace(one, isolate=True), two))
    isolated, other = bench.plug(1), bench.plug(2)
    bench.firewall.fail_apply = [PermanentError("no lock")] * 3

    report = bench.run()

    assert not bench.kernel.links[isolated].up
    assert not bench.kernel.links[isolated].addresses
    assert bench.kernel.links[other].up
    assert any(text.startswith("add forwarding of ethusb1") for text in failed(report))
    assert bench.run().remaining.converged
    assert bench.kernel.links[isolated].up


def test_a_refused_batch_is_tried_for_each_gadget_alone(bench: Bench) -> None:
    bench.plug(1)
    bench.plug(2)
    bench.firewall.fail_apply = [PermanentError("bad rule"), PermanentError("bad rule")]

    report = bench.run()

    assert {describe(f.step).split()[-1] for f in report.failures}
    assert all("ethusb1" in text or "10.0.11" in text for text in failed(report))
    assert {rule.gadget for rule in bench.firewall.observe()} == {"ethusb2"}  # type: ignore[union-attr]


def test_a_firewall_that_cannot_be_read_is_told_and_the_rest_goes_on(bench: Bench) -> None:
    ifindex = bench.plug(1)
    fault = PermanentError("install iptables")
    bench.firewall.fail_observe = [fault, fault]

    report = bench.run()

    assert report.observed.firewall_fault == "install iptables"
    assert bench.kernel.links[ifindex].up


def test_a_pass_without_links_is_no_pass(bench: Bench) -> None:
    bench.kernel.fail["observe_links"] = [TransientError("no buffer")]

    with pytest.raises(TransientError):
        bench.run()


def test_forwarding_that_cannot_be_set_is_told_and_the_links_come_up(bench: Bench) -> None:
    ifindex = bench.plug(1)
    bench.kernel.fail["enable"] = [PermanentError("read-only")]

    report = bench.run()

    assert failed(report) == ["set net.ipv4.ip_forward to 1"]
    assert bench.kernel.links[ifindex].up


def test_an_altname_in_the_way_and_an_address_too_many_are_cleared(bench: Bench) -> None:
    ifindex = bench.plug(1)
    bench.kernel.change(ifindex, altnames=("ethusb1",))
    bench.kernel.add_address(ifindex, IPv4Interface("10.0.99.1/24"))

    report = bench.run()

    assert report.remaining.converged
    assert [str(a.interface) for a in bench.kernel.links[ifindex].addresses] == ["10.0.11.1/24"]


def test_an_unlisted_link_in_quarantine_is_taken_down() -> None:
    bench = Bench(unknown=UnknownPolicy.BLOCK)
    ifindex = bench.plug(7)
    bench.kernel.set_up(ifindex)

    assert bench.run().remaining.converged
    assert not bench.kernel.links[ifindex].up


def test_strays_go(bench: Bench) -> None:
    bench.firewall.held.add(Stray(text="leftover"))

    assert bench.run().remaining.converged
    assert bench.firewall.observe() == frozenset()


def test_a_fight_is_held_back_and_ends_with_a_replug(bench: Bench) -> None:
    ifindex = bench.plug(1)
    report = bench.run()
    for _ in range(FREE + 1):
        bench.kernel.set_up(ifindex, up=False)
        bench.now += 0.01
        report = bench.run()

    assert [describe(held.step) for held in report.held] == ["set ethusb1 up"]
    assert not bench.kernel.links[ifindex].up

    bench.now += report.held[0].wait_s
    assert bench.run().held == ()
    assert bench.kernel.links[ifindex].up

    bench.kernel.unplug(ifindex)
    bench.run()
    again = bench.plug(1)
    assert bench.run().held == ()
    assert bench.kernel.links[again].up


def test_steps_behind_a_held_one_are_skipped(bench: Bench) -> None:
    ifindex = bench.plug(1)
    report = bench.run()
    for round_ in range(FREE + 2):
        bench.kernel.rename(ifindex, "stolen")
        bench.kernel.set_up(ifindex, up=round_ <= FREE)
        bench.now += 0.01
        report = bench.run()

    assert [describe(held.step) for held in report.held] == ["rename stolen to ethusb1"]
    assert [describe(step) for step in report.skipped] == ["set ethusb1 up"]
    assert not bench.kernel.links[ifindex].up


def test_a_step_that_is_undone_within_the_pass_is_told(bench: Bench) -> None:
    class Stubborn(FakeKernel):
        def set_up(self, ifindex: int, *, up: bool = True) -> None:
            """Say yes and do nothing, as somebody would who takes it down at once."""

    kernel = Stubborn()
    kernel.plug("usb1", "00:22:82:ff:ff:01")

    report = Reconciler(links=kernel, firewall=bench.firewall, forwarding=kernel).run_pass(
        bench.desired
    )

    assert [describe(step) for step in report.undone] == ["set ethusb1 up"]
    assert not report.remaining.converged


def test_a_gadget_that_comes_during_a_pass_is_served_by_it(bench: Bench) -> None:
    late: list[int] = []

    class Busy(FakeKernel):
        def set_up(self, ifindex: int, *, up: bool = True) -> None:
            super().set_up(ifindex, up=up)
            if not late:
                late.append(self.plug("usb2", "00:22:82:ff:ff:02"))

    kernel = Busy()
    kernel.plug("usb1", "00:22:82:ff:ff:01")

    report = Reconciler(links=kernel, firewall=bench.firewall, forwarding=kernel).run_pass(
        bench.desired
    )

    assert report.remaining.converged
    assert kernel.links[late[0]].ifname == "ethusb2"


def test_a_gadget_that_is_replugged_during_a_pass_is_no_failure(bench: Bench) -> None:
    replugged: list[int] = []

    class Loose(FakeKernel):
        def set_up(self, ifindex: int, *, up: bool = True) -> None:
            super().set_up(ifindex, up=up)
            if len(replugged) < 3:
                self.unplug(ifindex)
                replugged.append(self.plug("usb1", "00:22:82:ff:ff:01"))

    kernel = Loose()
    kernel.plug("usb1", "00:22:82:ff:ff:01")

    report = Reconciler(links=kernel, firewall=bench.firewall, forwarding=kernel).run_pass(
        bench.desired
    )

    assert (report.remaining.converged, report.undone) == (True, ())
    assert kernel.links[replugged[-1]].up


def test_endless_news_end_the_pass_and_are_told_as_fresh(bench: Bench) -> None:
    class Endless(FakeKernel):
        def set_up(self, ifindex: int, *, up: bool = True) -> None:
            super().set_up(ifindex, up=up)
            self.unplug(ifindex)
            self.plug("usb1", "00:22:82:ff:ff:01")

    kernel = Endless()
    kernel.plug("usb1", "00:22:82:ff:ff:01")

    report = Reconciler(links=kernel, firewall=bench.firewall, forwarding=kernel).run_pass(
        bench.desired
    )

    assert report.fresh
    assert report.undone == ()


class Gate:
    """Somebody's FORWARD chain that drops, and our rule in it; implements ``PassagePort``."""

    def __init__(self) -> None:
        self.granted = False

    def look(self) -> Passage:
        return Passage.GRANTED if self.granted else Passage.CLOSED

    def open(self) -> None:
        self.granted = True

    def shut(self) -> None:
        self.granted = False


def test_the_way_through_forward_is_opened_and_shut_again(bench: Bench) -> None:
    gate = Gate()
    reconciler = Reconciler(
        links=bench.kernel, firewall=bench.firewall, forwarding=bench.kernel, passage=gate
    )

    assert reconciler.run_pass(bench.desired).remaining.converged
    assert gate.granted

    assert reconciler.run_pass(DesiredState()).remaining.converged
    assert not gate.granted
