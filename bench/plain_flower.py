"""Run stock Flower for comparison: a SuperLink, four `flower-supernode` and a plain app.

It has no TLS and no node authentication, which would only make it slower. Our federation has both.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

PROGRAMS = Path(sys.executable).parent
APP = Path(__file__).with_name("stock")
NODES = 4
RUN_SECONDS = 400.0


def plain_messages(folder: Path, *, dimension: int, messages: int) -> dict[str, float]:
    """Return the median seconds of a message to four stock nodes, by way of waiting for replies."""
    results = folder / "stock.json"
    link, *ports = (_free_port() for _ in range(NODES + 1))
    environment = _environment(folder, link)
    app = shutil.copytree(APP, folder / "app")
    with ExitStack() as ended:
        start = _Starter(folder, environment, ended)
        start("flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(link))
        _wait_until_listening(link)
        for port in ports:
            where = ("--superlink", f"127.0.0.1:{link}", "--port", str(port))
            start("flower-supernode", "--insecure", *where)
        config = f"results='{results}' dimension={dimension} messages={messages}"
        _command(environment, "flwr", "run", str(app), "local", "--run-config", config)
        _wait_for(results)
    return {way: median(seconds) for way, seconds in json.loads(results.read_text()).items()}


class _Starter:
    """Starts stock programs that end when the stack is left."""

    def __init__(self, folder: Path, environment: dict[str, str], ended: ExitStack) -> None:
        self._folder, self._environment, self._ended = folder, environment, ended

    def __call__(self, program: str, *arguments: str) -> None:
        log = self._ended.enter_context((self._folder / "stock.log").open("ab"))
        process = subprocess.Popen(
            [str(PROGRAMS / program), *arguments],
            env=self._environment,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        self._ended.callback(_end, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _command(environment: dict[str, str], program: str, *arguments: str) -> None:
    command: Sequence[str] = [str(PROGRAMS / program), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")


def _environment(folder: Path, port: int) -> dict[str, str]:
    home = folder / "flwr"
    home.mkdir()
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "local"\n\n[superlink.local]\n'
        f'address = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    path = f"{PROGRAMS}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    return {"PATH": path, "HOME": str(folder), "FLWR_HOME": str(home), **quiet}


def _wait_until_listening(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError("the stock SuperLink did not start")


def _wait_for(file: Path) -> None:
    deadline = time.monotonic() + RUN_SECONDS
    while not (file.exists() and file.read_text().endswith("}")):
        if time.monotonic() > deadline:
            raise RuntimeError("the stock run did not end")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
