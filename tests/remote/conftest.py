"""A real S3 server on this machine, and a wire to it that tests can cut."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("moto", reason="the S3 server of these tests is moto: pip install 'moto[s3]' flask flask-cors")
pytest.importorskip("flask", reason="moto's server needs flask and flask-cors")
s3fs = pytest.importorskip("s3fs", reason="s3:// needs s3fs: pip install 'tokensieve[s3]'")

_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # never through a proxy


class Server:
    """moto's S3 server in a process of its own, so that it can be killed like a machine."""

    def __init__(self, port: int = 0) -> None:
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                _open(f"{self.url}/moto-api/", timeout=5).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("moto's server did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ask_for_credentials(self, asked: bool) -> None:
        free = b"0" if asked else b"1000000000"
        request = urllib.request.Request(f"{self.url}/moto-api/reset-auth", free, {"Content-Type": "text/plain"})
        _open(request).close()


class Wire:
    """Forwards connections to a server and cuts them after so many bytes, as often as it is told."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.forwarded = 0
        self.cuts = 0
        self.after = 0
        self.when_cut: Callable[[], None] = lambda: None
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, times: int, after: int, when_cut: Callable[[], None] = lambda: None) -> None:
        """The next `times` connections break after `after` bytes of either direction."""
        self.cuts, self.after, self.when_cut = times, after, when_cut

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                if self._listener.fileno() < 0:
                    return
                near.close()
                continue
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        done = 0
        try:
            while data := source.recv(1 << 14):
                done += len(data)
                if self.cuts > 0 and done > self.after:
                    self.cuts -= 1
                    self.when_cut()
                    break
                self.forwarded += len(data)
                target.sendall(data)
        except OSError:
            pass
        for side in (source, target):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.kill()


@pytest.fixture(scope="session")
def aws_settings() -> dict[str, str]:
    """The environment of an S3 user, but for the endpoint."""
    return {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture(autouse=True)
def aws(
    server: Server, aws_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], None]]:
    """The environment of an S3 user; call it with another endpoint."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in aws_settings.items():
        monkeypatch.setenv(name, value)

    def use(endpoint: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        s3fs.S3FileSystem.clear_instance_cache()

    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    yield use
    if os.environ["AWS_ENDPOINT_URL"] != server.url or "AWS_ACCESS_KEY_ID" not in os.environ:
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    made = Wire(server.port)
    yield made
    made.close()


@pytest.fixture
def s3(aws: Any) -> Any:
    """The driver itself: what another program sees."""
    return s3fs.S3FileSystem(use_listings_cache=False)


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    """A bucket of this test's own."""
    name = f"bucket-{abs(hash(request.node.nodeid))}"
    s3.mkdir(name)
    return name


@pytest.fixture
def put(s3: Any, bucket: str) -> Callable[[str, bytes], str]:
    """Stores an object; gives its URL."""

    def store(key: str, data: bytes) -> str:
        s3.pipe_file(f"{bucket}/{key}", data)
        return f"s3://{bucket}/{key}"

    return store


@pytest.fixture
def files(tmp_path: Path) -> Callable[[], list[str]]:
    """All files below the test's folder, hidden ones too."""
    return lambda: sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
