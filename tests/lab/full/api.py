"""The API as a client of it sees it, with its own connections: many writes, and a watch as controllers have one."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

PATH = "/api/v1/namespaces/default/configmaps"


class Api:
    """The API of a kubeconfig, as its administrator."""

    def __init__(self, kubeconfig: Path, directory: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        for name in ("client-certificate-data", "client-key-data"):
            (directory / name).touch(mode=0o600)
            (directory / name).write_bytes(base64.b64decode(user[name]))
        ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.server = urlsplit(cluster["server"])
        self.context = ssl.create_default_context(cadata=ca)
        self.context.load_cert_chain(directory / "client-certificate-data", directory / "client-key-data")
        self.own = threading.local()

    def connect(self, seconds: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            self.server.hostname or "", self.server.port, timeout=seconds, context=self.context
        )

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request on this thread's own connection. Raises OSError for an answer that is none of success."""
        if not hasattr(self.own, "connection"):
            self.own.connection = self.connect(30)
        headers = {"Content-Type": "application/json"}
        try:
            self.own.connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = self.own.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            del self.own.connection
            raise
        if answer.status >= 300:
            raise OSError(f"{method} {path}: {answer.status} {text[:300]!r}")
        found: dict[str, Any] = json.loads(text)
        return found

    def write(self, names: list[str]) -> None:
        """ConfigMaps of these names, each of which holds its own."""

        def one(name: str) -> None:
            self.ask("POST", PATH, {"metadata": {"name": name, "labels": {"by": "test"}}, "data": {"name": name}})

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, names))

    def remove(self, names: list[str]) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: self.ask("DELETE", f"{PATH}/{name}"), names))

    def written(self) -> dict[str, str]:
        """What those that are there hold, by name; asked by a new connection: old ones died with a restore."""
        self.own = threading.local()
        items = self.ask("GET", f"{PATH}?labelSelector=by%3Dtest")["items"]
        return {each["metadata"]["name"]: each["data"]["name"] for each in items}


class Watcher(threading.Thread):
    """A controller's watch: list, watch from there on, and list again only when the API says that this is too old.

    As client-go's Reflector does it: a watch that ends is begun anew where the last one was.
    """

    def __init__(self, api: Api) -> None:
        super().__init__(daemon=True)
        self.api, self.names, self.lists, self.over = api, set[str](), 0, threading.Event()

    def run(self) -> None:
        version = ""
        while not self.over.is_set():
            try:
                version = self.watch(version or self.list())
            except (OSError, http.client.HTTPException, ValueError):
                self.over.wait(0.5)

    def list(self) -> str:
        found = self.api.ask("GET", f"{PATH}?labelSelector=by%3Dtest")
        self.names = {each["metadata"]["name"] for each in found["items"]}
        self.lists += 1
        return str(found["metadata"]["resourceVersion"])

    def watch(self, version: str) -> str:
        """Take part in what happens from a version on; return that from which to go on, "" to list."""
        connection = self.api.connect(10)
        try:
            connection.request(
                "GET", f"{PATH}?labelSelector=by%3Dtest&watch=1&timeoutSeconds=8&resourceVersion={version}"
            )
            answer = connection.getresponse()
            if answer.status == 410:
                return ""
            if answer.status != 200:
                raise OSError(str(answer.status))
            while line := answer.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return "" if event["object"].get("code") == 410 else version
                meta = event["object"]["metadata"]
                (self.names.discard if event["type"] == "DELETED" else self.names.add)(meta["name"])
                version = str(meta["resourceVersion"])
        finally:
            connection.close()
        return version
