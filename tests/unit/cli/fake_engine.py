"""A Docker engine that knows a swarm's nodes, on a UNIX socket (Docker Engine API)."""

from __future__ import annotations

import json
import socketserver
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

VERSION = {"Version": "28.1.0", "ApiVersion": "1.45", "MinAPIVersion": "1.24"}


def raw_node(id_: str, hostname: str, address: str, state: str = "ready") -> dict[str, Any]:
    """Return a node as ``GET /nodes`` has it."""
    return {
        "ID": id_,
        "Spec": {"Role": "worker", "Availability": "active"},
        "Description": {"Hostname": hostname, "Platform": {"Architecture": "armv6l"}},
        "Status": {"State": state, "Addr": address},
    }


@dataclass(slots=True)
class FakeEngine:
    """What it answers; ``swarm`` is its membership, ``refusal`` an answer to everything else."""

    nodes: list[dict[str, Any]] = field(default_factory=list)
    swarm: dict[str, Any] = field(default_factory=lambda: {"LocalNodeState": "inactive"})
    refusal: tuple[int, str] | None = None
    initialised: dict[str, Any] | None = None

    def lead(self, address: str = "10.0.10.1") -> None:
        """Be a manager."""
        self.swarm = {
            "LocalNodeState": "active",
            "ControlAvailable": True,
            "NodeAddr": address,
            "NodeID": "hub",
        }
        manager = {"Leader": True, "Addr": f"{address}:2377"}
        self.nodes.append(raw_node("hub", "pi3", address) | {"ManagerStatus": manager})

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Return status and JSON."""
        if path == "/version":
            return 200, VERSION
        if self.refusal:
            return self.refusal[0], {"message": self.refusal[1]}
        match method, path.removeprefix("/v1.45").split("?")[0].split("/")[1:]:
            case "GET", ["info"]:
                info = {"Name": "pi3", "ServerVersion": "28.1.0", "Architecture": "aarch64"}
                return 200, info | {"Swarm": self.swarm}
            case "GET", ["nodes"]:
                return 200, self.nodes
            case "DELETE", ["nodes", gone]:
                self.nodes = [node for node in self.nodes if node["ID"] != gone]
                return 200, {}
            case "POST", ["swarm", "init"]:
                self.initialised = body
                self.lead(body["AdvertiseAddr"])
                return 200, "hub"
            case "POST", ["swarm", "leave"]:
                self.swarm = {"LocalNodeState": "inactive"}
                return 200, {}
        return 404, {"message": f"no {method} {path}"}


class Serving:
    """Serves an engine until ``close``."""

    def __init__(self, engine: FakeEngine, path: Path) -> None:
        class Handler(BaseHTTPRequestHandler):
            def _reply(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                status, answer = engine.answer(self.command, self.path, body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = _reply  # noqa: N815 - http.server's names

            def address_string(self) -> str:
                return "unix"

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
                pass

        self._server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
