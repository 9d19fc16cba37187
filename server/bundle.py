"""The only bundle there is: configuration that names the installed apps and one run of ours."""

from pathlib import Path

from server.guard import COMPONENTS, CONFIGURATION

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
"""


def build_bundle(folder: Path, run_id: str) -> Path:
    """Write the bundle of a run (32 hexadecimal digits) into `folder` and return it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = TEMPLATE.format(run=run_id, **COMPONENTS)
    (folder / CONFIGURATION).write_text(text)
    return folder
