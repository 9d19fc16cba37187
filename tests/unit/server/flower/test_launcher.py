"""Every process of Flower is started by its path, runs this code, and ends with its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.flower import launcher
from server.flower.launcher import LAUNCHER, PROGRAMS, ROOT, command

SHOW = """\
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from types import ModuleType
from server.flower import launcher
shown = ModuleType("shown")
shown.run = lambda: print(sys.argv, flush=True) or {then}
sys.modules["shown"] = shown
launcher.PROGRAMS = {{"flwr": ("shown", "run")}}
launcher.main(Path(__file__).resolve())
"""
PARENT = """\
import sys
sys.path.insert(0, {root!r})
import pathlib, subprocess, time
from server.flower.launcher import command
child = subprocess.Popen(command(pathlib.Path({file!r}), "flwr"))
print(child.pid, flush=True)
time.sleep(60)
"""
FOLDER_NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=20
).filter(lambda name: name not in {".", ".."} and len(name.encode()) < 200)


def written(folder: Path, then: str = "None") -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "launcher.py"
    file.write_text(SHOW.format(root=str(ROOT), then=then))
    return file


def test_the_programs_exist_in_the_installed_flower() -> None:
    for module, function in PROGRAMS.values():
        source = f"from {module} import {function} as run; assert callable(run)"
        subprocess.run([sys.executable, "-c", source], check=True, cwd=ROOT)


def test_a_child_uses_the_code_of_its_daemon() -> None:
    assert Path(launcher.__file__).resolve() == LAUNCHER
    assert (ROOT / "server" / "flower" / "launcher.py").samefile(LAUNCHER)


@settings(max_examples=8)
@given(name=FOLDER_NAMES)
def test_a_program_starts_from_a_folder_of_any_name(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    file = written(tmp_path_factory.mktemp("f") / name)
    environment = {"PATH": f"{file.parent}:/nowhere", "PYTHONPATH": str(file.parent)}
    done = subprocess.run(
        command(file, "flwr", "list", name),
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        encoding="utf-8",
    )
    assert done.stdout.strip() == str(["flwr", "list", name]).encode().decode("utf-8", "replace")


def test_a_process_is_killed_with_its_parent(tmp_path: Path) -> None:
    file = written(tmp_path / "f", "__import__('time').sleep(60)")
    source = PARENT.format(root=str(ROOT), file=str(file))
    words = [sys.executable, "-c", source]
    parent = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.stdout.readline()  # the child has set its death signal
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while _alive(child):
        assert time.monotonic() < deadline


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


def test_a_process_whose_parent_has_ended_does_not_begin(tmp_path: Path) -> None:
    file = written(tmp_path / "f")
    words = command(file, "flwr")
    words[3] = str(os.getpid() + 1)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert not done.stdout
    assert "has ended" in done.stderr
