"""Add the API reference and the repository's other pages to the site (a hook of MkDocs).

- one page of API reference for each folder of the five packages, made from its modules;
- pages and files outside `docs/` that a page links to, at the path that `PROJECT_PAGES` names, or
  below `files/`;
- the colours of code, as a style sheet in the site, so that none is loaded from another host.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).parents[2]
ROOMS = ("keys", "protocols", "governance", "client", "server")
LEFT_OUT = {"migrations", "__pycache__"}
PROJECT_PAGES = {
    "README.md": "project/readme.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "CHANGELOG.md": "project/changelog.md",
    "bench/README.md": "project/bench.md",
    "tests/README.md": "project/tests.md",
    "tests/vectors/README.md": "project/vectors.md",
}
"""Pages of the repository outside `docs/`, and their paths in the site."""
CODE_COLOURS = "site/code.css"
LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)]*)?(\))")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the API reference to the navigation, and leave out the theme's error page (404)."""
    config.theme.static_templates.discard("404.html")
    rooms = [{room: [page for _, page in _api_pages(room)]} for room in ROOMS]
    navigation: list[Any] = list(config.nav or [])
    config.nav = [*navigation, {"API reference": ["api/index.md", *rooms]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every page and file that is not in `docs/`."""
    for room in ROOMS:
        for folder, page in _api_pages(room):
            files.append(File.generated(config, page, content=_api_page(folder)))
    files.append(File.generated(config, "api/index.md", content=_api_index()))
    for source, page in PROJECT_PAGES.items():
        if (ROOT / source).is_file():
            text = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, page, content=text))
    colours = HtmlFormatter(style="default").get_style_defs(".highlight")
    files.append(File.generated(config, CODE_COLOURS, content=colours))
    for linked in _linked_files(files):
        files.append(linked(config))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    here = page.file.src_uri
    base = posixpath.dirname(_repository_path(here))

    def moved(link: re.Match[str]) -> str:
        start, target, part, end = link[1], link[2], link[3] or "", link[4]
        if "://" in target:
            return link[0]
        there = _site_path(posixpath.normpath(posixpath.join(base, target)))
        return f"{start}{posixpath.relpath(there, posixpath.dirname(here) or '.')}{part}{end}"

    return _outside_fences(markdown, lambda text: LINK.sub(moved, text))


def _outside_fences(markdown: str, change: Any) -> str:
    fences = FENCE.findall(markdown)
    parts = FENCE.split(markdown)
    rest = [*fences, ""]
    return "".join(change(part) + fence for part, fence in zip(parts, rest, strict=True))


def _repository_path(page: str) -> str:
    """Return the path in the repository of the file that a page of the site shows."""
    sources = {place: source for source, place in PROJECT_PAGES.items()}
    return sources.get(page, posixpath.join("docs", page))


def _site_path(path: str) -> str:
    """Return the path in the site of a file or folder of the repository."""
    if path in PROJECT_PAGES:
        return PROJECT_PAGES[path]
    if (ROOT / path).is_dir():
        return f"files/{path}.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}"


def _linked_files(files: Files) -> Iterator[Any]:
    """Yield a function for each file or folder that pages link to and the site lacks.

    The function makes the file, or the page that lists the folder.
    """
    known = {file.src_uri for file in files}
    for path in sorted(_targets(files)):
        place = _site_path(path)
        if place in known or not (ROOT / path).exists():
            continue
        known.add(place)
        yield _listing(path, place) if (ROOT / path).is_dir() else _copy(path, place)
        if (ROOT / path).is_dir() and not path.startswith("docs/"):
            for inside in sorted((ROOT / path).iterdir()):
                if inside.is_file():
                    yield _copy(f"{path}/{inside.name}", _site_path(f"{path}/{inside.name}"))


def _targets(files: Files) -> set[str]:
    """Return the files and folders of the repository that pages link to."""
    targets = set()
    for file in files.documentation_pages():
        if file.src_uri.startswith("api/"):
            continue
        source = _repository_path(file.src_uri)
        text = FENCE.sub("", (ROOT / source).read_text(encoding="utf-8"))
        links = [link[2] for link in LINK.finditer(text) if "://" not in link[2]]
        base = posixpath.dirname(source)
        targets |= {posixpath.normpath(posixpath.join(base, link)) for link in links}
    return targets


def _copy(path: str, place: str) -> Any:
    return lambda config: File.generated(config, place, abs_src_path=str(ROOT / path))


def _listing(path: str, place: str) -> Any:
    names = sorted(file.name for file in (ROOT / path).iterdir() if file.is_file())
    here = posixpath.dirname(place)
    places = {name: posixpath.relpath(_site_path(f"{path}/{name}"), here) for name in names}
    lines = "\n".join(f"- [{name}]({there})" for name, there in places.items())
    return lambda config: File.generated(config, place, content=f"# {path}\n\n{lines}\n")


def _api_pages(room: str) -> list[tuple[Path, str]]:
    """Return the folders of a room that contain modules, each with its page."""
    folders = [ROOT / room, *sorted(path for path in (ROOT / room).rglob("*") if path.is_dir())]
    wanted = [folder for folder in folders if not LEFT_OUT & set(folder.parts)]
    return [
        (folder, f"api/{folder.relative_to(ROOT).as_posix().replace('/', '.')}.md")
        for folder in wanted
        if _modules(folder)
    ]


def _modules(folder: Path) -> list[str]:
    """Return the dotted names of a folder's modules, without generated code."""
    written = [path for path in sorted(folder.glob("*.py")) if "_pb2" not in path.name]
    names = [path.stem for path in written if path.stem != "__init__"]
    room = ".".join(folder.relative_to(ROOT).parts)
    return [f"{room}.{name}" for name in names]


def _api_page(folder: Path) -> str:
    room = ".".join(folder.relative_to(ROOT).parts)
    blocks = "\n\n".join(f"::: {module}" for module in _modules(folder))
    return f"# {room}\n\n{_purpose(folder)}\n\n{blocks}\n"


def _api_index() -> str:
    lines = [
        f"- [`{'.'.join(folder.relative_to(ROOT).parts)}`]({page.removeprefix('api/')}): "
        f"{_purpose(folder)}"
        for room in ROOMS
        for folder, page in _api_pages(room)
    ]
    listed = "\n".join(lines)
    return (
        "# API reference\n\nThe public functions and classes of every module, from their "
        "docstrings. [The architecture](../architecture.md) says how they work together."
        f"\n\n{listed}\n"
    )


def _purpose(folder: Path) -> str:
    """Return the first line of a package's docstring."""
    text = (folder / "__init__.py").read_text(encoding="utf-8")
    quoted = re.match(r'"""(.*?)(?:"""|\n)', text)
    return quoted[1] if quoted else ""
