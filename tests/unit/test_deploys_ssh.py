"""Connections as pyinfra gets them, between two ends of this process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import paramiko
import pytest

from deploys import ssh


class Server(paramiko.ServerInterface):
    """Lets anybody in, and does as it is told by saying so."""

    def check_auth_none(self, username: str) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        def answer() -> None:
            channel.recv(1)  # which comes once the client knows that its command was taken
            channel.sendall(command)
            channel.send_exit_status(0)
            channel.close()

        threading.Thread(target=answer).start()
        return True


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Iterator[paramiko.Transport]:
    monkeypatch.setattr(ssh, "LOOK", 0.5)
    listener = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listener.getsockname())
    theirs, _ = listener.accept()
    server = paramiko.Transport(theirs)
    server.add_server_key(paramiko.ECDSAKey.generate())
    server.start_server(event=threading.Event(), server=Server())
    made = ssh.transport(ours)
    made.start_client(timeout=10)
    made.auth_none("admin")
    yield made
    for each in (made, server, listener):
        each.close()


def test_a_connection_is_tuned_and_works(connected: paramiko.Transport) -> None:
    assert connected.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert connected.sock.gettimeout() == ssh.LOOK
    assert "gcm" in connected.remote_cipher
    for _ in range(3):
        channel = connected.open_session()
        channel.exec_command("uname -n")
        channel.sendall(b"\n")
        assert channel.makefile().read() == b"uname -n"
        assert channel.recv_exit_status() == 0


def test_an_idle_connection_still_sends_keepalives_and_ends(
    connected: paramiko.Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = threading.Event()
    monkeypatch.setattr(connected, "global_request", lambda *_, **__: sent.set())
    connected.set_keepalive(0.1)
    assert sent.wait(30)
    connected.close()
    until = time.monotonic() + 30
    while connected.sock.fileno() != -1:
        assert time.monotonic() < until, "it goes on though it was closed"
        time.sleep(0.05)
