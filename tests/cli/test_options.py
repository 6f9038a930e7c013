import re
from pathlib import Path

import click
import pytest

from cli.options import parse_names, parse_size
from cli.run import cli
from tests.cli.conftest import run_main

README = Path(__file__).parents[2] / "README.md"
OPTIONS = [parameter for parameter in cli.params if isinstance(parameter, click.Option)]
CONTEXT = click.Context(cli)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("640x352", (352, 640)),
        ("32x32", (32, 32)),
        ("640X352", (352, 640)),
        ("seg50", (512, 1024)),
        ("Seg75", (768, 1536)),
        ("seg100", (1024, 2048)),
        ("auto", None),
    ],
)
def test_sizes(text: str, size: tuple[int, int] | None):
    assert parse_size(CONTEXT, OPTIONS[0], text) == size


@pytest.mark.parametrize(
    "text", ["", "640", "640x", "x352", "640*352", "-64x64", "64.0x64", "seg60", "1x1", "31x640", "10000x64"]
)
def test_what_is_no_size_is_refused_with_an_example(text: str):
    with pytest.raises(click.BadParameter, match=r"640x352|32 to 9999"):
        parse_size(CONTEXT, OPTIONS[0], text)


def test_names_are_split_at_commas():
    assert parse_names(CONTEXT, OPTIONS[0], " road, traffic light ,car,") == ["road", "traffic light", "car"]
    assert parse_names(CONTEXT, OPTIONS[0], None) is None


@pytest.mark.parametrize("text", ["", " , "])
def test_no_names_are_refused(text: str):
    with pytest.raises(click.BadParameter, match="names no class"):
        parse_names(CONTEXT, OPTIONS[0], text)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.opts[-1])
def test_every_option_is_documented(option: click.Option):
    text = option.help or ""
    assert re.fullmatch(r"[A-Z].*\.(  \[default: .*\])?", text), "a sentence, and perhaps a default"
    assert " ".join(text.split()) in " ".join(run_main("--help").stdout.split())


def test_every_option_that_has_a_value_by_itself_shows_it():
    valued = [option for option in OPTIONS if not option.is_flag and isinstance(option.default, str | float)]
    assert {"device", "size", "alpha", "view"} <= {option.name for option in valued}
    assert all(option.show_default for option in valued)


@pytest.mark.skipif(not README.is_file(), reason="an installed package has no README")
def test_the_readme_names_exactly_the_options():
    table = README.read_text().split("| option of `bsdnet-run` |")[1].split("\n\n")[0]
    first_cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    named = {name for cell in first_cells for name in re.findall(r"`(-[-\w]+)`", cell)}
    assert named == {name for option in OPTIONS for name in (*option.opts, *option.secondary_opts)} | {"--help"}
