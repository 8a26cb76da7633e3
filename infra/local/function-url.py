#!/usr/bin/env python3
"""A Function URL on this machine: HTTP in front of the function's real binary, behind AWS' own Runtime API.

    python3 infra/local/function-url.py --binary target/debug/upwire-ingress --port 8080 --environments 4

Listens on 127.0.0.1 alone, unless told otherwise; ready once GET / is answered. The environment is the function's, and the log of all is
stderr. As on AWS, each environment is a process that serves one request at a time and stays for the next; one that
ends is started anew. Where AWS would start more than so many, requests wait here. SIGTERM ends it, with all it started.

The Runtime API is the Runtime Interface Emulator out of aws-sam-cli, which `make test-needs` installs.
"""

import argparse
import base64
import ctypes
import fcntl
import http.client
import json
import os
import platform
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or Path(__file__).parent.parent.parent / "target")
EMULATOR = "venv/lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-" + {"aarch64": "arm64"}.get(
    platform.machine(), "x86_64"
)
INVOKE = "/2015-03-31/functions/function/invocations"
# On two cores that run servers, clients and other tests at once.
START_SECONDS = 60
# template.yaml's.
FUNCTION_TIMEOUT_SECONDS = 5
# Lambda takes no larger events.
BODY_BYTES_MAX = 6 * 1024 * 1024
PR_SET_PDEATHSIG = 1
TEXT = ("text/", "application/json", "application/xml", "application/javascript")


class Environment:
    """One process of the function behind a Runtime API of its own."""

    def __init__(self, emulator, binary):
        self.port, runtime_port = free_port(), free_port()
        command = [emulator, "--log-level", "error"]
        command += ["--runtime-interface-emulator-address", f"127.0.0.1:{self.port}"]
        command += ["--runtime-api-address", f"127.0.0.1:{runtime_port}", binary]
        variables = {
            "AWS_LAMBDA_FUNCTION_NAME": "ingress",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(FUNCTION_TIMEOUT_SECONDS),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
        }
        self.process = subprocess.Popen(
            command, env=variables | os.environ, stdout=sys.stderr, preexec_fn=end_with_parent
        )
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=FUNCTION_TIMEOUT_SECONDS + 10)

    def wait_until_started(self):
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"upwire: the Runtime Interface Emulator does not start: {error}")
                time.sleep(0.02)

    def invoke(self, event):
        """What the function answers; an error of its own, or of none that answers, as what it is."""
        for last in False, True:
            try:
                self.connection.request("POST", INVOKE, json.dumps(event))
                return json.loads(self.connection.getresponse().read())
            except (http.client.HTTPException, OSError, ValueError) as error:
                self.connection.close()
                # A connection that was kept may have ended meanwhile; it says so before it takes anything.
                if last or not isinstance(error, http.client.RemoteDisconnected):
                    return {"errorMessage": repr(error)}


class FunctionUrl(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    environments = queue.LifoQueue()

    def answer(self):
        length = self.headers.get("content-length", "0")
        if "transfer-encoding" in self.headers or not length.isdigit():
            return self.respond(411, {}, b"", close=True)
        if int(length) > BODY_BYTES_MAX:
            return self.respond(413, {}, b"", close=True)
        event = self.event(self.rfile.read(int(length)))
        environment = self.environments.get()
        try:
            answer = environment.invoke(event)
        finally:
            self.environments.put(environment)
        if "statusCode" not in answer:
            print("function-url: the function failed:", answer, file=sys.stderr)
            return self.respond(502, {"content-type": "application/json"}, b'{"message":"Internal Server Error"}')
        body = answer.get("body") or ""
        body = base64.b64decode(body) if answer.get("isBase64Encoded") else body.encode()
        self.respond(answer["statusCode"], answer.get("headers") or {}, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def event(self, body):
        """Payload format 2.0."""
        path, _, query = self.path.partition("?")
        headers = {}
        for name, value in self.headers.items():
            name = name.lower()
            headers[name] = f"{headers[name]},{value}" if name in headers else value
        headers |= {"x-forwarded-for": "127.0.0.1", "x-forwarded-port": "443", "x-forwarded-proto": "https"}
        now = time.time()
        event = {
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": path,
            "rawQueryString": query,
            "headers": headers,
            "requestContext": {
                "accountId": "anonymous",
                "apiId": "local",
                "domainName": headers.get("host", ""),
                "domainPrefix": "local",
                "http": {
                    "method": self.command,
                    "path": path,
                    "protocol": self.request_version,
                    "sourceIp": "127.0.0.1",
                    "userAgent": headers.get("user-agent", ""),
                },
                "requestId": str(uuid.uuid4()),
                "routeKey": "$default",
                "stage": "$default",
                "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
                "timeEpoch": int(now * 1000),
            },
            "isBase64Encoded": False,
        }
        if body:
            text = headers.get("content-type", "").startswith(TEXT) and "content-encoding" not in headers
            event["body"] = body.decode(errors="replace") if text else base64.b64encode(body).decode()
            event["isBase64Encoded"] = not text
        return event

    def respond(self, status, headers, body, close=False):
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        if close:
            self.send_header("connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        """Nothing: a path is an endpoint, and who reads one can push to it."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, *arguments):
        # A sender that goes away is no trouble of the function's.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*arguments)


def end_with_parent():
    """In a Runtime API before it starts: it ends with us, however that comes about, and the binary ends with it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


# Below the range from which Linux takes the ports of outgoing connections, and that of the tests.
PORT_FIRST, PORT_COUNT, BLOCK_PORTS = 10000, 10000, 16
# Has a lock file for each block of ports: until a port is used, nobody holds it. tests/src/tcp_ports.rs locks the tests' there.
LOCKS = Path(tempfile.gettempdir()) / f"upwire-ports-{os.getuid()}"


def ports():
    """Ports of blocks that no other process takes for as long as this one lives."""
    LOCKS.mkdir(exist_ok=True)
    blocks = [PORT_FIRST + BLOCK_PORTS * number for number in range(PORT_COUNT // BLOCK_PORTS)]
    # Processes of a run that has just ended may not be gone yet: the next run starts elsewhere.
    start = os.getpid() % len(blocks)
    for first in blocks[start:] + blocks[:start]:
        lock = open(LOCKS / str(first), "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        HELD.append(lock)
        yield from range(first, first + BLOCK_PORTS)


HELD = []
PORTS = ports()


def free_port():
    for port in PORTS:
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    sys.exit("upwire: no free port for the function")


def main():
    parser = argparse.ArgumentParser(description="Serves the function over HTTP, as a Function URL does.")
    parser.add_argument("--binary", type=Path, required=True, help="the function")
    parser.add_argument("--address", default="127.0.0.1", help="where to listen")
    parser.add_argument("--port", type=int, required=True, help="where to listen")
    parser.add_argument("--environments", type=int, default=4, help="requests that may be served at once")
    options = parser.parse_args()
    emulator = next(TARGET.glob(EMULATOR), None)
    if emulator is None:
        sys.exit(f"upwire: no {TARGET / EMULATOR}; make test-needs installs it")
    # Bound first, so that a second instance on the port fails before it starts anything.
    server = Server((options.address, options.port), FunctionUrl)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    environments = [Environment(emulator, options.binary.absolute()) for _ in range(options.environments)]
    for environment in environments:
        environment.wait_until_started()
        FunctionUrl.environments.put(environment)
    server.serve_forever()


if __name__ == "__main__":
    main()
