"""A day's worth of events, at random, on a host that is full of other people's rules."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from otgd.adapters.docker_user import RULE
from tests.lab.deadline import until
from tests.lab.topology import INTERNET_UPLINK, Cable, Lab, config_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.daemon.conftest import Launcher
    from tests.lab.daemon import Daemon

UP = ("configured", "reachable")
EVENTS = 10_000
BATCH = 24
GADGETS = (1, 2, 3, 4)

LEGACY = """\
*raw
-A PREROUTING -s 192.0.2.1 -m comment --comment foreign -j ACCEPT
COMMIT
*mangle
:FOREIGN - [0:0]
-A FORWARD -m mark --mark 0x1 -m comment --comment "not of otgd" -j FOREIGN
-A FOREIGN -p tcp -m tcp --dport 443 -j MARK --set-xmark 0x2/0xff
COMMIT
*nat
:FOREIGN - [0:0]
-A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE
-A POSTROUTING -s 10.0.11.0/24 -d 192.0.2.0/24 -j FOREIGN
-A FOREIGN -j RETURN
COMMIT
*filter
-A INPUT -i usb+ -p udp -m udp --dport 67 -j ACCEPT
-A FORWARD -i ethusb1 -d 192.0.2.0/24 -j REJECT --reject-with icmp-port-unreachable
-A FORWARD -m mark --mark 0x10000000/0x10000000 -m comment --comment otgdish -j ACCEPT
COMMIT
"""
NATIVE = """\
table inet lan {
    set blocked { type ipv4_addr; flags interval; elements = { 192.0.2.0/28, 192.0.2.64 }; }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ip saddr @blocked counter drop comment "foreign"
    }
}
table ip otgd2 {
    chain postrouting {
        type nat hook postrouting priority srcnat
        ip saddr 192.0.2.0/24 masquerade
    }
}
table netdev edge {
    chain in {
        type filter hook ingress device "eth0" priority 0
    }
}
"""
COMMAND = """\
*filter
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER-USER -s 192.0.2.9/32 -j DROP
-A DOCKER-USER -j RETURN
COMMIT
"""


def furnish(lab: Lab) -> None:
    """Have rules of every kind on the host, with names that look like ours among them."""
    lab.host.run_inside("iptables-legacy-restore", stdin=LEGACY)
    lab.host.run_inside("iptables-nft-restore", stdin=COMMAND)
    lab.host.run_inside("nft", "-f", "-", stdin=NATIVE)


def foreign(lab: Lab) -> str:
    """Return everything that is not otgd's, with the handles that tell old from made anew."""
    legacy = lab.host.run_inside("iptables-legacy-save").splitlines()
    kept = [x.split(" [")[0] for x in legacy if "OTGD-" not in x and not x.startswith("#")]
    native = lab.host.run_inside("nft", "--stateless", "--handle", "list", "ruleset")
    tables = native.split("\ntable ")
    ours = ("inet otgd {", "netdev otgd {")
    kept += [t for t in tables if not t.removeprefix("table ").startswith(ours)]
    text = "\n".join(kept)
    return "\n".join(
        x for x in text.splitlines() if "--comment otgd -j" not in x and not _is_way(x)
    )


def _is_way(line: str) -> bool:
    """Tell whether this is, in nft's words, our one rule in DOCKER-USER."""
    return "meta mark & 0x10000000 == 0x10000000" in line


class Chaos:
    """Things that happen to a host; each verb is some events."""

    def __init__(self, lab: Lab, daemon: Daemon, launch: Launcher, rng: random.Random) -> None:
        self.lab = lab
        self.events = 0
        self._daemon = daemon
        self._launch = launch
        self._rng = rng
        self._plugged: set[int] = set()

    def happen(self) -> None:
        """Let something happen."""
        verbs: list[Callable[[], int]] = [self.plug, self.links, self.links, self.routes, self.ours]
        verbs += [self.theirs] if self._rng.random() < 0.3 else []
        verbs += [self.reload] if self._rng.random() < 0.1 else []
        self.events += self._rng.choice(verbs)()

    def plug(self) -> int:
        """Plug and unplug, too fast to be followed."""
        for _ in range(4):
            n = self._rng.choice(GADGETS)
            if n in self._plugged:
                self.lab.unplug(n)
            else:
                self.lab.plug_all(Cable(n=n, ifname=self._rng.choice(("usb%d", "eth%d", "enx%d"))))
            self._plugged ^= {n}
        return 4

    def links(self) -> int:
        """Do to links and addresses what careless administrators do."""
        names = [name for name in self.lab.links() if name not in ("lo", "eth0")]
        changes = ("set dev {} down", "set dev {} up", "set dev {} mtu 1400", "set dev {} mtu 1500")
        lines = [f"link {self._rng.choice(changes).format(name)}" for name in names * BATCH]
        lines += [f"addr flush dev {name}" for name in names]
        self._rng.shuffle(lines)
        lines = lines[:BATCH]
        self.lab.host.run("ip", "-force", "-batch", "-", check=False, stdin="\n".join(lines) + "\n")
        return len(lines)

    def routes(self) -> int:
        """Have networks and ways out come and go."""
        lines = []
        for _ in range(BATCH // 2):
            net = f"192.0.2.{self._rng.randrange(0, 256, 16)}/28"
            lines += [f"route replace {net} dev eth0", f"route del {net} dev eth0"]
        if self._rng.random() < 0.2:
            way = f"default via {INTERNET_UPLINK} dev eth0"
            lines[10:10] = [f"route del {way}", f"route add {way}"]
        self.lab.host.run("ip", "-force", "-batch", "-", check=False, stdin="\n".join(lines) + "\n")
        return len(lines)

    def ours(self) -> int:
        """Take something of otgd's away."""
        blows = (
            "nft delete table inet otgd",
            "nft flush chain inet otgd forward",
            "iptables-legacy -w -t nat -F OTGD-POSTROUTING",
            "iptables-legacy -w -t mangle -D FORWARD -m comment --comment otgd -j OTGD-FORWARD",
            f"iptables-nft -D DOCKER-USER {' '.join(RULE)}",
            "echo 0 > /proc/sys/net/ipv4/ip_forward",
        )
        self.lab.host.run_inside("sh", "-c", f"{self._rng.choice(blows)} 2>&1; true")
        return 1

    def theirs(self) -> int:
        """Have the others change their own rules, and change them back."""
        script = (
            "iptables-legacy -w -A INPUT -s 192.0.2.77 -j DROP;"
            "iptables-legacy -w -D INPUT -s 192.0.2.77 -j DROP;"
            "nft add element inet lan blocked { 192.0.2.99 };"
            "nft delete element inet lan blocked { 192.0.2.99 }"
        )
        self.lab.host.run_inside("sh", "-c", script)
        return 4

    def reload(self) -> int:
        """Have the config changed."""
        more = self._rng.choice(("", "[gadget.ethusb2]\nisolate = true"))
        count = self._rng.choice((2, 4))
        self._daemon.reload(self._launch.config(count=count, more=more))
        return 1


@pytest.mark.timeout(300)
def test_foreign_rules_survive_a_day_byte_for_byte(lab: Lab, launch: Launcher) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    furnish(lab)
    before = foreign(lab)
    assert before.count("\n") > 40
    daemon = launch(measured=False, service="resync_s = 0.5")
    chaos = Chaos(lab, daemon, launch, random.Random(seed))  # noqa: S311 - not for secrets
    checked = 0
    while chaos.events < EVENTS:
        chaos.happen()
        if chaos.events // 1000 > checked:
            checked += 1
            assert foreign(lab) == before

    daemon.reload(
        config_text(backend=daemon.state()["firewall"]["backend"], service="resync_s = 1")
    )
    for n in GADGETS:
        lab.guest(n).run("ip", "link", "del", "usb0", check=False)
    lab.plug_all(*GADGETS)
    for n in GADGETS:
        daemon.wait_for(f"ethusb{n}", *UP, deadline_s=30)
        until(lambda n=n: lab.online(n), what=daemon.stderr)  # type: ignore[misc] # n is bound
    assert foreign(lab) == before
    assert "defect" not in daemon.stderr()
