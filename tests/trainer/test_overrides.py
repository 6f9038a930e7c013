from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path

import pytest

import trainer.recipes
from bsdnet.errors import ConfigError, TrainingError
from trainer.overrides import override, parse_settings, read_toml, write_toml
from trainer.recipes import CAMVID_360, CITYSCAPES_SEG100, TINY_IMAGENET, OptimizerRecipe, SegmentationRecipe

RECIPES = {name: value for name, value in vars(trainer.recipes).items() if isinstance(value, OptimizerRecipe)}
PAIRS = [pair for pair in product(RECIPES, RECIPES) if len({type(RECIPES[name]) for name in pair}) == 1]


@pytest.mark.parametrize(
    ("name", "given", "got"),
    [
        ("batch_size", 12, 12),
        ("lr", 1e-4, 1e-4),
        ("theta", 2, 2.0),
        ("channels_last", False, False),
        ("block", "res", "res"),
        ("distill", "none", "none"),
        ("crop_size", [352, 480], (352, 480)),
        ("scale_range", (1, 2), (1.0, 2.0)),
        ("dasp_rates", [3], (3,)),
        ("dasp_rates", [1, 2, 3, 4], (1, 2, 3, 4)),
        ("teachers", [], ()),
        ("teachers", ["runs/a", "nvidia/b"], ("runs/a", "nvidia/b")),
        ("class_weight_offset", None, None),
        ("class_weight_offset", "none", None),
        ("class_weight_offset", 2, 2.0),
    ],
)
def test_a_field_takes_a_value_of_its_type(name: str, given: object, got: object):
    changed = override(CAMVID_360, {name: given})
    assert repr(getattr(changed, name)) == repr(got)
    assert changed == replace(CAMVID_360, **{name: got})


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("batch_size", 8.0, "batch_size must be a whole number, got 8.0"),
        ("batch_size", True, "batch_size must be a whole number, got True"),
        ("batch_size", "8", "batch_size must be a whole number, got '8'"),
        ("batch_size", None, "batch_size must be a whole number, got None"),
        ("lr", "1e-3", "lr must be a number, got '1e-3'"),
        ("lr", False, "lr must be a number, got False"),
        ("lr", float("inf"), "lr must be a number, got inf"),
        ("lr", float("nan"), "lr must be a number, got nan"),
        pytest.param("lr", 10**400, "lr must be a number, got 1000", id="lr-huge"),
        ("channels_last", 1, "channels_last must be true or false, got 1"),
        ("block", 3, "block must be a text, got 3"),
        ("block", None, "block must be a text, got None"),
        ("distill", "kd", "distill must be one of none, cwd, ofa, sidm, got 'kd'"),
        ("distill", ["cwd"], r"distill must be one of .*, got \['cwd'\]"),
        ("crop_size", "480x352", "crop_size must be a height and a width, got '480x352'"),
        ("crop_size", [352], r"crop_size must be a height and a width, got \[352\]"),
        ("crop_size", [352, 480, 3], "crop_size must be a height and a width"),
        ("crop_size", [352, 480.5], "crop_size must be a height and a width"),
        ("scale_range", [1, "2"], r"scale_range must be 2 numbers, got \[1, '2'\]"),
        ("dasp_rates", 3, "dasp_rates must be a list, each a whole number, got 3"),
        ("dasp_rates", [1, 2.5], "dasp_rates must be a list, each a whole number"),
        ("teachers", "runs/a", "teachers must be a list, each a text, got 'runs/a'"),
        ("class_weight_offset", "null", "class_weight_offset must be a number or 'none', got 'null'"),
        ("lr", 0, "lr must be greater than 0"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, given: object, message: str):
    with pytest.raises(ConfigError, match=f"^{message}"):
        override(CAMVID_360, {name: given})


def test_a_field_that_does_not_exist_is_answered_by_the_nearest():
    with pytest.raises(ConfigError, match=r"SegmentationRecipe has no setting 'batchsize'; did you mean batch_size"):
        override(CAMVID_360, {"batchsize": 4})
    with pytest.raises(ConfigError, match=r"PretrainRecipe has no setting 'zebra=1'; its settings are: model, it"):
        override(TINY_IMAGENET, {"zebra=1": 4})
    with pytest.raises(ConfigError, match=r"no setting 'weight-decay'; did you mean weight_decay"):
        parse_settings(["weight-decay=0.1"], SegmentationRecipe)
    with pytest.raises(ConfigError, match=r"no setting '__post_init__'"):
        override(CAMVID_360, {"__post_init__": 1})


def test_iterations_and_epochs_take_each_others_place():
    by_iterations = override(CAMVID_360, {"iterations": 20})
    assert (by_iterations.iterations, by_iterations.epochs) == (20, None)
    by_epochs = override(CITYSCAPES_SEG100, {"epochs": 3})
    assert (by_epochs.iterations, by_epochs.epochs) == (None, 3)
    assert override(CAMVID_360, {"iterations": 20, "epochs": None}) == by_iterations
    with pytest.raises(ConfigError, match="got 20 and 3"):
        override(CAMVID_360, {"iterations": 20, "epochs": 3})
    with pytest.raises(ConfigError, match="got None and None"):
        override(CAMVID_360, {"epochs": None})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("batch_size=12", 12),
        (" lr = 1e-3 ", 1e-3),
        ("theta=2", 2.0),
        ("channels_last=False", False),
        ("channels_last=true", True),
        ("block=res", "res"),
        ("distill=none", "none"),
        ("crop_size=480x352", (352, 480)),
        ("scale_range=0.5, 2", (0.5, 2.0)),
        ("dasp_rates=3", (3,)),
        ("dasp_rates=2,4,6", (2, 4, 6)),
        ("teachers=", ()),
        ("teachers=runs/a=1,nvidia/b", ("runs/a=1", "nvidia/b")),
        ("class_weight_offset=None", None),
        ("class_weight_offset=1.5", 1.5),
    ],
)
def test_the_command_line_is_read_by_the_fields_type(text: str, value: object):
    settings = parse_settings([text], SegmentationRecipe)
    name = text.partition("=")[0].strip()
    assert repr(settings) == repr({name: value})
    assert getattr(override(CAMVID_360, settings), name) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "'lr' is no setting; expected key=value, such as lr=1e-3"),
        ("lr=fast", "lr must be a number, got 'fast'"),
        ("lr=", "lr must be a number, got ''"),
        ("batch_size=1e2", "batch_size must be a whole number, got '1e2'"),
        ("channels_last=1", "channels_last must be true or false, got '1'"),
        ("crop_size=352,480", "crop_size must be WIDTHxHEIGHT, such as 480x352, got '352,480'"),
        ("dasp_rates=1,,2", "dasp_rates must be a list, each a whole number, got '1,,2'"),
        ("class_weight_offset=no", "class_weight_offset must be a number or 'none', got 'no'"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, message: str):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        parse_settings([text], SegmentationRecipe)


def test_the_later_setting_counts():
    assert parse_settings(["lr=1", "seed=3", "lr=2"], SegmentationRecipe) == {"lr": 2.0, "seed": 3}


@pytest.mark.parametrize(("base", "name"), PAIRS)
def test_what_a_run_wrote_makes_the_same_recipe_of_any_other(tmp_path: Path, base: str, name: str):
    write_toml(tmp_path / "recipe.toml", RECIPES[name])
    assert override(RECIPES[base], read_toml(tmp_path / "recipe.toml")) == RECIPES[name]


def as_text(name: str, value: object) -> str:
    if name in ("crop_size", "train_size"):
        return f"{value[1]}x{value[0]}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize("name", RECIPES)
def test_every_field_can_be_set_on_the_command_line(name: str):
    recipe = RECIPES[name]
    texts = [f"{field.name}={as_text(field.name, getattr(recipe, field.name))}" for field in fields(recipe)]
    assert parse_settings(texts, type(recipe)) == vars(recipe)


def test_every_kind_of_value_survives_the_file(tmp_path: Path):
    names = ('a "quoted" \\ name', "two\nlines\t\x01\x7f", "Straße 🚦", "")
    recipe = replace(CAMVID_360, teachers=names, theta=1e-7, lr=1e22, channels_last=False, dasp_rates=())
    write_toml(tmp_path / "recipe.toml", recipe)
    assert override(CITYSCAPES_SEG100, read_toml(tmp_path / "recipe.toml")) == recipe
    settings = read_toml(tmp_path / "recipe.toml")
    assert list(settings) == [field.name for field in fields(recipe)]
    assert (settings["crop_size"], settings["iterations"]) == ([352, 480], "none")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"lr = ", "is no TOML file: "),
        (b"\xff", "is no TOML file: "),
        (b"lr = 1\n[data]\nx = 1", r"has a table \[data\]; expected settings alone"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["runs/a", "not\udcffutf-8"])
def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, name: str):
    path = tmp_path if name == "runs/a" else tmp_path / "recipe.toml"
    with pytest.raises(TrainingError, match="cannot be written: "):
        write_toml(path, replace(CAMVID_360, teachers=(name,)))


def test_a_recipe_may_have_a_text_or_none():
    @dataclass(frozen=True, kw_only=True)
    class Named(SegmentationRecipe):
        note: str | None = "x"

    named = Named(**vars(CAMVID_360))
    assert override(named, parse_settings(["note=none"], Named)).note is None
    assert override(named, parse_settings(["note=nobody"], Named)).note == "nobody"
