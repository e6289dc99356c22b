"""A local S3 server, and a proxy that delays and spoils its answers; for tests and benchmarks."""

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Self

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
}
BUCKET = "episodes"


def endpoint(port: int) -> dict[str, str]:
    """The environment variables with which s3:// means the server at a local port."""
    return ENVIRONMENT | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}


@contextmanager
def moto() -> Iterator[int]:
    """Run moto's S3 server with an empty bucket, and yield its port."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, port):
        make_bucket(port)
        yield port


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """Run a server for the length of the block, which begins when the server answers."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            assert process.poll() is None, f"{command} has ended"
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_bucket(port: int) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=ENVIRONMENT["AWS_REGION"],
        aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=BUCKET)
    everybody = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": f"arn:aws:s3:::{BUCKET}*",
    }
    client.put_bucket_policy(
        Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [everybody]})
    )


def upload(folder: Path, port: int, prefix: str) -> None:
    """Put every file of a folder under a prefix of the bucket, as `aws s3 sync` does."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    with ThreadPoolExecutor(8) as pool:
        keys = [f"{prefix}/{file.relative_to(folder)}" for file in files]
        list(pool.map(lambda key, file: put(port, key, file.read_bytes()), keys, files))


def put(port: int, key: str, data: bytes) -> None:
    import obstore

    obstore.put(_bucket(port), key, data)


def delete(port: int, key: str) -> None:
    import obstore

    obstore.delete(_bucket(port), key)


def _bucket(port: int) -> object:
    from obstore.store import S3Store

    return S3Store(
        BUCKET,
        endpoint=f"http://127.0.0.1:{port}",
        access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
        region=ENVIRONMENT["AWS_REGION"],
        client_options={"allow_http": True},
    )


# -------------------------------------------------------------------------------------------- proxy

# Takes a request's first line, and returns how to spoil the answer: an HTTP status, "cut" or
# "silent"; None passes the answer on.
Spoil = Callable[[str], str | None]


class Proxy:
    """Forwards HTTP/1.1 requests to a local port, each after `delay` seconds, or spoils them.

    requests: the first line of each request so far.
    most: the largest number of requests in flight at once.
    gather: hold requests back until this many are waiting.
    """

    def __init__(self, upstream: int, delay: float = 0.0, port: int = 0) -> None:
        self.delay = delay
        self.spoil: Spoil = lambda _: None
        self.gather = 0
        self.requests: list[str] = []
        self.most = 0
        self._upstream = upstream
        self._waiting = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self.port = int(self._listener.getsockname()[1])

    def run(self) -> None:
        """Serve until another thread stops the event loop."""
        asyncio.set_event_loop(self._loop)
        serving = asyncio.start_server(self._serve, sock=self._listener, limit=2**20)
        self._server = self._loop.run_until_complete(serving)
        self._ready.set()
        self._loop.run_forever()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.run)
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await asyncio.open_connection("127.0.0.1", self._upstream, limit=2**20)
        try:
            while await self._pass_on(reader, writer, *upstream):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # one side has closed the connection
        finally:
            writer.close()
            upstream[1].close()

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> bool:
        """Forward one request and its answer; return whether the connection stays open."""
        request = await _message(reader)
        line = request.partition(b"\r\n")[0].decode()
        self.requests.append(line)
        self._waiting += 1
        self.most = max(self.most, self._waiting)
        try:
            while self._waiting < self.gather:
                await asyncio.sleep(0.002)
            self.gather = 0
            await asyncio.sleep(self.delay)
            if (spoilt := self.spoil(line)) is not None and spoilt.isdecimal():
                writer.write(_error(spoilt))
                return True
            if spoilt == "silent":
                await asyncio.sleep(3600)
            upstream.write(request)
            answer = await _message(answers, head_alone=line.startswith("HEAD"))
            writer.write(answer if spoilt is None else answer[: -max(1, len(answer) // 4)])
            await writer.drain()
            return spoilt is None
        finally:
            self._waiting -= 1


async def _message(reader: asyncio.StreamReader, head_alone: bool = False) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    return head + await reader.readexactly(0 if head_alone or not length else int(length[1]))


def _error(status: str) -> bytes:
    code = {"403": "AccessDenied", "500": "InternalError", "503": "SlowDown"}[status]
    body = (
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>spoilt</Message></Error>".encode()
    )
    head = (
        f"HTTP/1.1 {status} {code}\r\ncontent-type: application/xml\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _run_proxy(upstream: int, delay: float, port: int) -> None:
    Proxy(upstream, delay, port).run()


@contextmanager
def slow_port(upstream: int, delay: float) -> Iterator[int]:
    """Yield a local port at which the server answers `delay` seconds later.

    The proxy runs in a process of its own.
    """
    port = free_port()
    process = get_context("spawn").Process(
        target=_run_proxy, args=(upstream, delay, port), daemon=True
    )
    process.start()
    try:
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.join()
