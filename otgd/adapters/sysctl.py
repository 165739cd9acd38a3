"""``net.ipv4.ip_forward`` through /proc/sys, which belongs to the reader's network namespace.

One of the adapters; knows the file and the errors.
"""

from __future__ import annotations

from pathlib import Path

from otgd.errors import PermanentError

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


class ProcForwarding:
    """Reads and sets the host's forwarding; implements ``ForwardingPort``."""

    def __init__(self, path: Path = IP_FORWARD) -> None:
        self._path = path

    def enabled(self) -> bool:
        """Tell whether the host forwards.

        Raises:
            PermanentError: the file cannot be read.
        """
        try:
            return self._path.read_bytes().strip() == b"1"
        except OSError as err:
            raise PermanentError(f"read {self._path}: {err.strerror}") from err

    def enable(self) -> None:
        """Make the host forward.

        Raises:
            PermanentError: the file cannot be written: no CAP_NET_ADMIN, or a read-only /proc/sys.
        """
        try:
            self._path.write_bytes(b"1\n")
        except OSError as err:
            cause = f"{err.strerror}; put net.ipv4.ip_forward=1 into /etc/sysctl.d"
            raise PermanentError(f"write {self._path}: {cause}") from err
