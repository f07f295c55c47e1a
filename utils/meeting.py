"""How the processes of a run find each other: through a store that all know, each two of them over a socket of theirs.

Each listens, and writes into the store where. It is called by those that come after it, who prove that they belong to
this run by a secret that the first one put there. What the store holds from an earlier round of the same launch, since
torchrun keeps one over restarts, is seen by a call that fails, and read again.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import secrets
import socket
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from utils.errors import UserError
from utils.launch import Launch
from utils.peers import Member, Peers

_ANSWERS_WITHIN_S = 5.0
_AGAIN_AFTER_S = 0.2
_LENGTH = struct.Struct("!I")
_MOST_BYTES = 4096
_SIOCGIFADDR = 0x8915


class Store(Protocol):
    """What all processes of a launch can write to and read from."""

    def set(self, key: str, value: bytes) -> None:
        """Write a value under a name."""

    def get(self, key: str) -> bytes:
        """Return the value of a name, once it is there."""

    def check(self, keys: list[str]) -> bool:
        """Return whether all these names have values."""


def own_member(index: int) -> Member:
    """Return who this process is."""
    host = f"{socket.gethostname()} {_boot()}"
    name = f"process {index} (host {socket.gethostname()}, process id {os.getpid()})"
    return Member(name, host, os.getpid(), began_at(os.getpid()))


def began_at(pid: int) -> int:
    """Return when a process of this machine began, in the kernel's ticks since boot; 0 where that is not known."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        return int(after_name.split()[19])  # field 22, starttime (proc(5))
    except (OSError, IndexError, ValueError):
        return 0


def meet(launch: Launch, store: Store, within_s: float) -> tuple[Peers, str]:
    """Return the other processes, connected, and the secret; raises UserError where they are not there in time."""
    until = time.monotonic() + within_s
    member = own_member(launch.index)
    if launch.is_first:
        store.set("secret", secrets.token_hex(16).encode())
    with socket.create_server(("", 0), backlog=max(128, launch.count)) as listener:
        place = {"addresses": _own_addresses(launch), "port": listener.getsockname()[1], "host": member.host}
        store.set(f"place/{launch.index}", json.dumps(place).encode())
        members, connections = {launch.index: member}, {}
        secret = ""
        for index in range(launch.index):
            connections[index], members[index], secret = _call(launch, store, index, member, until)
        secret = secret or store.get("secret").decode()
        while len(connections) < launch.count - 1:
            listener.settimeout(max(_AGAIN_AFTER_S, until - time.monotonic()))
            if called := _answer(listener, member, secret):
                index, members[index], connections[index] = called
            elif time.monotonic() > until:
                raise UserError(_missing([one for one in range(launch.count) if one not in members], launch))
    return Peers(launch.index, members, connections), secret


def wait_for_first(launch: Launch, within_s: float) -> None:
    """Return once the first process keeps its store; raises UserError where it does not in time.

    torch would wait longer than it was told, hear no signal meanwhile, and complain in its own words.
    """
    until = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection((launch.address, launch.port), _ANSWERS_WITHIN_S).close()
        except OSError as error:
            if time.monotonic() > until:
                raise not_reached(launch, error) from error
            time.sleep(_AGAIN_AFTER_S)
        else:
            return


def not_reached(launch: Launch, error: Exception) -> UserError:
    """Return what is said where a process cannot reach the store."""
    return UserError(
        f"process {launch.index} of {launch.count} does not reach the others at {launch.address}, port {launch.port} "
        f"({str(error).splitlines()[0]}): see whether the first one runs, and whether another program uses that port"
    )


def _call(launch: Launch, store: Store, index: int, member: Member, until: float) -> tuple[socket.socket, Member, str]:
    while time.monotonic() < until:
        if not store.check([f"place/{index}", "secret"]):
            time.sleep(_AGAIN_AFTER_S)
            continue
        place, secret = json.loads(store.get(f"place/{index}")), store.get("secret").decode()
        addresses = ["127.0.0.1"] if place["host"] == member.host else place["addresses"]
        for address in addresses:
            with suppress(OSError, ValueError, KeyError, TypeError):
                connection = socket.create_connection((address, place["port"]), _ANSWERS_WITHIN_S)
                try:
                    _send(connection, {"secret": secret, "index": launch.index, "member": asdict(member)})
                    return connection, Member(**_receive(connection)["member"]), secret
                except BaseException:
                    connection.close()
                    raise
        time.sleep(_AGAIN_AFTER_S)
    raise UserError(_missing([index], launch))


def _answer(listener: socket.socket, member: Member, secret: str) -> tuple[int, Member, socket.socket] | None:
    """Return who called, and the connection; None where it was nobody of this run, or nobody in time."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        connection, _ = listener.accept()
        connection.settimeout(_ANSWERS_WITHIN_S)
        try:
            hello = _receive(connection)
            if not hmac.compare_digest(str(hello["secret"]), secret):
                raise ValueError("of another run")
            _send(connection, {"member": asdict(member)})
            return hello["index"], Member(**hello["member"]), connection
        except BaseException:
            connection.close()
            raise
    return None


def _missing(indices: list[int], launch: Launch) -> str:
    who = f"process {indices[0]}" if len(indices) == 1 else f"processes {', '.join(map(str, indices))}"
    return (
        f"{who} of {launch.count} did not come: see whether each one was started, with the same command, and whether "
        f"its machine reaches the others (they met at {launch.address}, port {launch.port})"
    )


def _send(connection: socket.socket, value: Mapping[str, object]) -> None:
    content = json.dumps(value).encode()
    connection.sendall(_LENGTH.pack(len(content)) + content)


def _receive(connection: socket.socket) -> dict[str, Any]:
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if length > _MOST_BYTES:
        raise ValueError("not of this program")
    found = json.loads(_exactly(connection, length))
    if not isinstance(found, dict):
        raise ValueError("not of this program")
    return found


def _exactly(connection: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        more = connection.recv(length - len(content))
        if not more:
            raise ConnectionError("it hung up")
        content += more
    return content


def _own_addresses(launch: Launch) -> list[str]:
    """Return the addresses at which other machines may reach this one, the likeliest first."""
    found = []
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards:
        towards.connect((launch.address, launch.port))  # sends nothing; the system chooses the way
        found.append(towards.getsockname()[0])
    for _, name in socket.if_nameindex():
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            answer = fcntl.ioctl(one.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            found.append(socket.inet_ntoa(answer[20:24]))
    return [address for address in dict.fromkeys(found) if not address.startswith("127.")]


def _boot() -> str:
    """Return what tells this start of this machine, or container, from all others."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino} {os.stat('/proc/self/ns/net').st_ino}"  # noqa: PTH116
    return ""
