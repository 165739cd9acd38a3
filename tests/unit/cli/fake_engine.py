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
    joined: dict[str, Any] | None = None
    manager: FakeEngine | None = None
    machine: str = "aarch64"
    archives: dict[str, bytes] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)
    loaded: list[bytes] = field(default_factory=list)

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

    def _image(self, name: str) -> tuple[int, Any]:
        if name not in self.archives and name != "old":
            return 404, {"message": f"No such image: {name}"}
        image = {"Id": f"sha256:{name}", "Architecture": "arm", "Variant": "v6"}
        return 200, image | {"RootFS": {"Layers": self.layers}}

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Return status and JSON, or bytes."""
        if path == "/version":
            return 200, VERSION
        if self.refusal:
            return self.refusal[0], {"message": self.refusal[1]}
        parts = path.removeprefix("/v1.45").split("?")[0].split("/")[1:]
        about = {
            "swarm": self._about_swarm,
            "nodes": self._about_nodes,
            "images": self._about_images,
        }
        if parts[0] in about:
            return about[parts[0]](method, parts[1:], body)
        info = {"Name": "pi3", "ServerVersion": "28.1.0", "Architecture": self.machine}
        return 200, info | {"Swarm": self.swarm, "Type": "node"}  # info and events

    def _about_swarm(self, _: str, parts: list[str], body: dict[str, Any]) -> tuple[int, Any]:
        match parts:
            case ["init"]:
                self.initialised = body
                self.lead(body["AdvertiseAddr"])
                return 200, "hub"
            case ["join"]:
                self.joined = body
                self.swarm = {"LocalNodeState": "active", "NodeID": "new"}
                if self.manager:
                    self.manager.nodes.append(raw_node("new", "worker1", body["AdvertiseAddr"]))
            case ["leave"]:
                self.swarm = {"LocalNodeState": "inactive"}
        return 200, {"JoinTokens": {"Worker": "SWMTKN-secret"}}

    def _about_nodes(self, method: str, parts: list[str], _: object) -> tuple[int, Any]:
        if method == "DELETE":
            self.nodes = [node for node in self.nodes if node["ID"] != parts[0]]
        return 200, self.nodes

    def _about_images(self, _: str, parts: list[str], body: dict[str, Any]) -> tuple[int, Any]:
        match parts:
            case ["json"]:
                return 200, [{"Id": "old"}] if self.layers else []
            case ["load"]:
                self.loaded.append(body["raw"])
                return 200, {"stream": "Loaded"}
            case [*name, "json"]:
                return self._image("/".join(name))
            case [*name, _]:
                return 200, self.archives["/".join(name)]
        raise AssertionError(parts)


class Serving:
    """Serves an engine until ``close``."""

    def __init__(self, engine: FakeEngine, path: Path) -> None:
        class Handler(BaseHTTPRequestHandler):
            def _body(self) -> dict[str, Any]:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    chunks = b""
                    while size := int(self.rfile.readline(), 16):
                        chunks += self.rfile.read(size)
                        self.rfile.readline()
                    return {"raw": chunks}
                length = int(self.headers.get("Content-Length") or 0)
                body: dict[str, Any] = json.loads(self.rfile.read(length) or b"{}")
                return body

            def _reply(self) -> None:
                status, answer = engine.answer(self.command, self.path, self._body())
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
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
