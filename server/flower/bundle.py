"""Builds the only kind of bundle: configuration that names the installed apps and one run."""

from pathlib import Path

from server.flower.bundle_guard import COMPONENTS, CONFIGURATION

TEMPLATE = """\
[project]
name = "pratique-run"
version = "1.0.0"
description = "Carries one run; holds no code."
license = "Apache-2.0"
dependencies = []

[tool.hatch.build.targets.wheel]
packages = []

[tool.flwr.app]
publisher = "pratique"

[tool.flwr.app.components]
serverapp = "{serverapp}"
clientapp = "{clientapp}"

[tool.flwr.app.config]
run = "{run}"
attempt = {attempt}
"""


def build_bundle(folder: Path, run_id: str, attempt: int) -> Path:
    """Write the bundle of a run's attempt into `folder`; return the folder.

    `run_id` has 32 hexadecimal digits; attempts count from 1.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = TEMPLATE.format(run=run_id, attempt=attempt, **COMPONENTS)
    (folder / CONFIGURATION).write_text(text)
    return folder
