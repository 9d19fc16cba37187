"""Check that a built site loads nothing from another host.

    python -m docs.site.check build/site

A page may link to other sites for a reader to follow. It may not load from them: no script, style,
font, image or frame, no redirect, and no absolute address in a script. What is found is listed with
its file and line, and the exit status is 1.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

LOADING = {
    "audio": ("src",),
    "base": ("href",),
    "embed": ("src",),
    "form": ("action",),
    "frame": ("src",),
    "iframe": ("src", "srcdoc"),
    "image": ("href", "xlink:href"),
    "img": ("src", "srcset"),
    "input": ("src",),
    "link": ("href", "imagesrcset"),
    "object": ("data",),
    "script": ("src", "href", "xlink:href"),
    "source": ("src", "srcset"),
    "track": ("src",),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}
"""Attributes by which a browser fetches something by itself, by element."""
ELSEWHERE = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
LISTED_ELSEWHERE = re.compile(r"(?:^|[\s,=\"'])(?:[a-z][a-z0-9+.-]*:)?//[^/\s]", re.IGNORECASE)
CSS_LOADS = re.compile(
    r"""(?:url\(\s*["']?|@import\s+(?:url\(\s*)?["']?)(?P<address>[^"')\s;]+)""", re.IGNORECASE
)
SCRIPT_ADDRESS = re.compile(r"""["'`](?P<address>(?:(?:https?|wss?):)?//[\w-]+(?:\.|:)[^"'`\s]*)""")
CSS_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class External:
    """An address on another host that a browser would load."""

    file: str
    line: int
    what: str
    address: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what} loads {self.address}"


class _Page(HTMLParser):
    """Collects what one page loads from other hosts."""

    def __init__(self, file: str) -> None:
        super().__init__(convert_charrefs=True)
        self._file, self._inside = file, ""
        self.found: list[External] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag if tag in ("script", "style") else ""
        given = {name: value or "" for name, value in attrs}
        for name in LOADING.get(tag, ()):
            self._check(tag, name, given.get(name, ""))
        if tag == "meta" and given.get("http-equiv", "").lower() == "refresh":
            self._check(tag, "content", given.get("content", ""), listed=True)
        self._add_all(css_loads(given.get("style", "")), f"{tag} style")

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 (given by the base class)
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self._add_all(css_loads(data), "style")
        if self._inside == "script":
            self._add_all(script_addresses(data), "script")

    def _check(self, tag: str, name: str, value: str, *, listed: bool = False) -> None:
        several = listed or name in ("srcset", "imagesrcset", "srcdoc")
        elsewhere = LISTED_ELSEWHERE.search(value) if several else ELSEWHERE.match(value)
        if elsewhere:
            self._add_all([(0, value)], f"{tag} {name}")

    def _add_all(self, addresses: Sequence[tuple[int, str]], what: str) -> None:
        line = self.getpos()[0]
        self.found += [External(self._file, line + after, what, text) for after, text in addresses]


def css_loads(text: str) -> list[tuple[int, str]]:
    """Return what a style sheet loads from other hosts: (lines before it, address)."""
    bare = CSS_COMMENT.sub(lambda comment: "\n" * comment[0].count("\n"), text)
    matches = [match for match in CSS_LOADS.finditer(bare) if ELSEWHERE.match(match["address"])]
    return [(bare.count("\n", 0, match.start()), match["address"]) for match in matches]


def script_addresses(text: str) -> list[tuple[int, str]]:
    """Return the absolute addresses in a script's strings: (lines before it, address)."""
    matches = SCRIPT_ADDRESS.finditer(text)
    return [(text.count("\n", 0, match.start()), match["address"]) for match in matches]


def external_sources(file: str, text: str) -> list[External]:
    """Return what one file of a site loads from other hosts; its suffix gives its kind."""
    kind = Path(file).suffix.lower()
    if kind in (".html", ".htm", ".svg"):
        page = _Page(file)
        page.feed(text)
        page.close()
        return page.found
    readers = {".css": (css_loads, "style"), ".js": (script_addresses, "script")}
    if kind not in readers:
        return []
    reader, what = readers[kind]
    return [External(file, 1 + before, what, address) for before, address in reader(text)]


def check_site(folder: Path) -> Iterator[External]:
    """Yield everything that a built site loads from other hosts."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            yield from external_sources(path.relative_to(folder).as_posix(), text)


def main(arguments: Sequence[str]) -> int:
    """Check the site in the given folder; return the exit status."""
    folder = Path(arguments[0]) if len(arguments) == 1 else Path()
    if not (folder / "index.html").is_file():
        print(f"{folder} contains no built site; run `make docs` first.", file=sys.stderr)
        return 2
    externals = list(check_site(folder))
    for external in externals:
        print(external, file=sys.stderr)
    if externals:
        print(f"{len(externals)} external sources; serve them from the site.", file=sys.stderr)
    return 1 if externals else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
