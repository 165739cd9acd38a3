"""Which block devices are cards: judged on a tree that looks like sysfs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from otgd.guest.device import HostDisks, find_device
from otgd.guest.tree import CardError


@dataclass(frozen=True)
class Disks:
    """A host's disks under a directory."""

    top: Path

    @property
    def host(self) -> HostDisks:
        return HostDisks(
            sys_block=self.top / "class",
            mountinfo=self.top / "mountinfo",
            swaps=self.top / "swaps",
        )

    def add(self, name: str, *, bus: str, removable: str = "0", partitions: int = 2) -> None:
        disk = self.top / bus / name
        self._entry(disk, name, f"8:{16 * (len(list((self.top / 'class').iterdir())) + 1)}")
        (disk / "removable").write_text(f"{removable}\n")
        (disk / "device").mkdir()
        (disk / "device/model").write_text("Card Reader \n")
        for number in range(1, partitions + 1):
            part = f"{name}{number}"
            self._entry(disk / part, part, f"{(disk / 'dev').read_text().strip()}{number}")
            (disk / part / "partition").write_text(f"{number}\n")

    def _entry(self, path: Path, name: str, number: str) -> None:
        path.mkdir(parents=True)
        (path / "dev").write_text(f"{number}\n")
        (path / "size").write_text("31116288\n")
        (path / "holders").mkdir()
        (self.top / "class" / name).symlink_to(path)

    def number(self, name: str) -> str:
        return (self.top / "class" / name / "dev").read_text().strip()


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    (tmp_path / "class").mkdir()
    (tmp_path / "mountinfo").write_text("22 1 254:0 / / rw - ext4 /dev/vda rw\n")
    (tmp_path / "swaps").write_text("Filename\tType\tSize\tUsed\tPriority\n")
    return Disks(tmp_path)


def test_usb_card_reader_is_a_card(disks: Disks) -> None:
    disks.add("sdz", bus="devices/pci0/usb1/1-1/block")

    device = find_device(Path("/dev/sdz"), disks.host)

    assert device.partitions == (Path("/dev/sdz1"), Path("/dev/sdz2"))
    assert (device.model, device.size_bytes) == ("Card Reader", 15931539456)


def test_removable_disk_is_a_card(disks: Disks) -> None:
    disks.add("sdz", bus="devices/pci0/ata1/block", removable="1")

    assert find_device(Path("/dev/sdz"), disks.host)


def test_disk_of_the_host_is_refused_even_when_unused(disks: Disks) -> None:
    disks.add("sdz", bus="devices/pci0/ata1/block")

    with pytest.raises(CardError, match="a disk of this host, no card"):
        find_device(Path("/dev/sdz"), disks.host)


@pytest.mark.parametrize("mounted", ["sdz", "sdz1", "sdz2"])
def test_mounted_card_is_refused(disks: Disks, mounted: str) -> None:
    disks.add("sdz", bus="devices/pci0/usb1/1-1/block")
    with (disks.top / "mountinfo").open("a") as file:
        file.write(f"99 22 {disks.number(mounted)} / /media/pi rw - ext4 /dev/x rw\n")

    with pytest.raises(CardError, match="mounted at /media/pi; unmount it first"):
        find_device(Path("/dev/sdz"), disks.host)


def test_card_that_holds_swap_is_refused(disks: Disks) -> None:
    disks.add("sdz", bus="devices/pci0/usb1/1-1/block")
    with (disks.top / "swaps").open("a") as file:
        file.write("/dev/sdz2 partition 1 0 -2\n")

    with pytest.raises(CardError, match="/dev/sdz2 uses it"):
        find_device(Path("/dev/sdz"), disks.host)


def test_card_under_a_device_mapper_is_refused(disks: Disks) -> None:
    disks.add("sdz", bus="devices/pci0/usb1/1-1/block")
    (disks.top / "class/sdz/sdz2/holders/dm-0").mkdir()

    with pytest.raises(CardError, match="dm-0 uses it"):
        find_device(Path("/dev/sdz"), disks.host)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param("/dev/sdz1", "it is a partition", id="partition"),
        pytest.param("/dev/nothing", "it is no disk", id="unknown"),
    ],
)
def test_anything_but_a_whole_disk_is_refused(disks: Disks, path: str, message: str) -> None:
    disks.add("sdz", bus="devices/pci0/usb1/1-1/block")

    with pytest.raises(CardError, match=message):
        find_device(Path(path), disks.host)


def test_blank_card_is_refused(disks: Disks) -> None:
    disks.add("sdz", bus="devices/pci0/usb1/1-1/block", partitions=1)

    with pytest.raises(CardError, match="write Raspberry Pi OS to it first"):
        find_device(Path("/dev/sdz"), disks.host)
