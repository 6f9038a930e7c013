import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bsdnet.errors import ConfigError, TrainingError
from trainer import recipes
from trainer.overrides import override, parse_settings, read_toml, write_toml
from trainer.recipes import CAMVID_360, CITYSCAPES_SEG100, OptimizerRecipe

RECIPES = {name: value for name, value in vars(recipes).items() if isinstance(value, OptimizerRecipe)}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_that_was_written_is_read_back(recipe: OptimizerRecipe, tmp_path: Path):
    write_toml(tmp_path / "recipe.toml", recipe)
    other = replace(recipe, seed=99, lr=1.0, model="b")
    assert override(other, read_toml(tmp_path / "recipe.toml")) == recipe


@given(name=st.text(max_size=20))
def test_any_teachers_name_survives(name: str, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("toml") / "recipe.toml"
    safe = "".join(character for character in name if character.isprintable() or character in "\n\t")
    recipe = replace(CAMVID_360, teachers=(safe, "a/b\\c"))
    write_toml(path, recipe)
    assert override(CAMVID_360, read_toml(path)) == recipe


def test_each_field_is_set_from_the_command_line():
    texts = [
        "iterations=50", "lr=1e-3", "crop_size=480x352", "scale_range=0.5,2", "dasp_rates=1,2", "distill=cwd",
        "teachers=a,b/c", "channels_last=false", "class_weight_offset=none", "block=res",
    ]  # fmt: skip
    recipe = override(CAMVID_360, parse_settings(CAMVID_360, texts))
    expected = replace(
        CAMVID_360, iterations=50, epochs=None, lr=1e-3, crop_size=(352, 480), scale_range=(0.5, 2.0),
        dasp_rates=(1, 2), distill="cwd", teachers=("a", "b/c"), channels_last=False, class_weight_offset=None,
        block="res",
    )  # fmt: skip
    assert recipe == expected
    assert all(isinstance(scale, float) for scale in recipe.scale_range)


def test_iterations_and_epochs_take_each_others_place():
    assert (override(CAMVID_360, {"iterations": 5}).epochs, override(CITYSCAPES_SEG100, {"epochs": 5}).iterations) == (
        None,
        None,
    )
    with pytest.raises(ConfigError, match="exactly one of iterations and epochs"):
        override(CAMVID_360, {"iterations": 5, "epochs": 5})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learning_rate": 1}, "no field 'learning_rate'; did you mean"),
        ({"batchsize": 1}, "did you mean batch_size"),
        ({"lr": "fast"}, "lr must be of the type float, got 'fast'"),
        ({"lr": True}, "lr must be of the type float, got True"),
        ({"batch_size": 2.5}, "batch_size must be of the type int, got 2.5"),
        ({"batch_size": True}, "batch_size must be of the type int"),
        ({"crop_size": 480}, "crop_size must be a list, got 480"),
        ({"crop_size": [1, 2, 3]}, "crop_size must have 2 entries"),
        ({"crop_size": [352, "480"]}, "crop_size must be of the type int, got '480'"),
        ({"distill": "some"}, "distill must be none, cwd, ofa or sidm, got 'some'"),
        ({"channels_last": 1}, "channels_last must be of the type bool"),
        ({"lr": -1}, "lr must be greater than 0"),
        ({"model": {"name": "s"}}, "model must be of the type str"),
    ],
)
def test_what_cannot_be_set_is_named(settings: dict[str, object], words: str):
    with pytest.raises(ConfigError, match=words):
        override(CAMVID_360, settings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr", "'lr' is no setting; expected FIELD=VALUE"),
        ("lr=fast", "lr must be of the type float, got 'fast'"),
        ("crop_size=480", "crop_size must be WIDTHxHEIGHT"),
        ("channels_last=maybe", "channels_last must be true or false"),
    ],
)
def test_a_text_that_is_no_value_is_named(text: str, words: str):
    with pytest.raises(ConfigError, match=words):
        parse_settings(CAMVID_360, [text])


def test_an_unknown_field_of_the_command_line_is_named_too():
    with pytest.raises(ConfigError, match="no field 'lrr'"):
        override(CAMVID_360, parse_settings(CAMVID_360, ["lrr=1"]))


def test_files_that_are_no_toml_are_one_line(tmp_path: Path):
    (tmp_path / "bad.toml").write_text("lr = = 3")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name, words in (("bad", "is no TOML file"), ("binary", "is no TOML file"), ("none", "cannot be read: No such")):
        with pytest.raises(ConfigError, match=words):
            read_toml(tmp_path / f"{name}.toml")
    with pytest.raises(TrainingError, match="cannot be written"):
        write_toml(tmp_path / "none" / "recipe.toml", CAMVID_360)


def test_every_field_of_every_recipe_can_be_parsed():
    """A field of a type that the command line cannot read would be found here."""
    for recipe in RECIPES.values():
        for field in dataclasses.fields(recipe):
            value = getattr(recipe, field.name)
            if field.name.endswith("_size") and isinstance(value, tuple):
                text = f"{value[1]}x{value[0]}"
            elif isinstance(value, tuple):
                text = ",".join(map(str, value))
            else:
                text = "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            (parsed,) = parse_settings(recipe, [f"{field.name}={text}"]).values()
            assert parsed == (list(value) if isinstance(value, tuple) else value), field.name
