"""The site checker finds everything that a browser would load from another host."""

from pathlib import Path

import pytest

from docs.site.check import check_site, external_sources, main

ELSEWHERE = "https://cdn.example/x"


def addresses(file: str, text: str) -> list[str]:
    return [external.address for external in external_sources(file, text)]


@pytest.mark.parametrize(
    "markup",
    [
        f'<script src="{ELSEWHERE}"></script>',
        f'<link rel="stylesheet" href="{ELSEWHERE}">',
        f'<link rel="preconnect" href="{ELSEWHERE}">',
        f"<LINK REL=stylesheet HREF={ELSEWHERE}>",
        '<img src="//cdn.example/x.png">',
        f'<img srcset="a.png 1x, {ELSEWHERE} 2x">',
        f'<iframe src="{ELSEWHERE}"></iframe>',
        f"<iframe srcdoc=\"<img src='{ELSEWHERE}'>\"></iframe>",
        f'<video poster="{ELSEWHERE}"></video>',
        f'<object data="{ELSEWHERE}"></object>',
        f'<base href="{ELSEWHERE}">',
        f'<form action="{ELSEWHERE}"></form>',
        f'<meta http-equiv="Refresh" content="0; url={ELSEWHERE}">',
        f'<p style="background: url({ELSEWHERE})">',
        f"<style>@import '{ELSEWHERE}';</style>",
        f'<script>fetch("{ELSEWHERE}")</script>',
        "<script>new Worker('//cdn.example/x.js')</script>",
        f'<svg><use xlink:href="{ELSEWHERE}#a"/></svg>',
        '<img src="https&#58;//cdn.example/x.png">',
        '<img src=" https://cdn.example/x.png">',
    ],
)
def test_everything_that_a_page_loads_from_elsewhere_is_found(markup: str) -> None:
    assert external_sources("page.html", markup)


@pytest.mark.parametrize(
    "markup",
    [
        f'<a href="{ELSEWHERE}">read on</a>',
        '<link rel="stylesheet" href="../site/style.css">',
        '<script src="js/theme.js"></script>',
        '<img src="data:image/png;base64,AAAA//BB">',
        '<img srcset="a.png 1x, b.png 2x">',
        f"<p>{ELSEWHERE}</p><pre>fetch('{ELSEWHERE}')</pre>",
        '<script>var base_url = "..";</script>',
        "<script>// a comment</script>",
        '<div itemtype="http://schema.org/Article"></div>',
        '<svg xmlns="http://www.w3.org/2000/svg"></svg>',
        '<p style="background: url(a.png)">',
    ],
)
def test_links_and_the_site_s_own_files_are_allowed(markup: str) -> None:
    assert not external_sources("page.html", markup)


def test_style_sheets_are_read_without_their_comments() -> None:
    text = f"/* url({ELSEWHERE}) */\na {{ b: url(c.woff) }}\n@import url('{ELSEWHERE}');\n"
    assert addresses("style.css", text) == [ELSEWHERE]
    assert external_sources("style.css", text)[0].line == 3
    assert addresses("style.css", "@font-face { src: url(//fonts.example/a.woff2) }")


def test_scripts_may_hold_no_absolute_address() -> None:
    assert addresses("app.js", f"import('{ELSEWHERE}')") == [ELSEWHERE]
    assert addresses("app.js", "a = `wss://live.example/`") == ["wss://live.example/"]
    assert not addresses(
        "app.js", "x = 'a//b'; y = '../search/worker.js'; // see https://a.example"
    )


def test_files_of_other_kinds_load_nothing() -> None:
    assert not external_sources("notes.txt", f'<script src="{ELSEWHERE}"></script>')


def test_a_finding_names_file_line_and_address() -> None:
    (address,) = external_sources("a/b.html", f'<p>\n<img src="{ELSEWHERE}">')
    assert str(address) == f"a/b.html:2: img src loads {ELSEWHERE}"


def test_the_program_lists_what_it_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    (tmp_path / "index.html").write_text("<p>home</p>")
    assert main([str(tmp_path)]) == 0
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "page.html").write_text(f'<img src="{ELSEWHERE}">')
    assert [source.file for source in check_site(tmp_path)] == ["deep/page.html"]
    capsys.readouterr()
    assert main([str(tmp_path)]) == 1
    assert "deep/page.html:1: img src loads" in capsys.readouterr().err
