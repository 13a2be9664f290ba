import hashlib
from pathlib import Path

import pytest

from vtzoo import grid, resources
from vtzoo.errors import VtzooError
from vtzoo.recipe import identity, load_recipe, locate, parse_recipe

FOLDER = resources.recipes_folder()
TEXT = (FOLDER / "swin_t-drloc-cifar100.toml").read_text()


def refused(text: str) -> str:
    with pytest.raises(VtzooError) as raised:
        parse_recipe(text, "mine.toml")
    return f"{raised.value.message} | {raised.value.hint}"


def test_every_shipped_recipe_loads_and_is_named_like_its_file() -> None:
    paths = sorted(FOLDER.glob("*-*.toml"))
    assert len(paths) >= 24
    for path in paths:
        assert load_recipe(path).name == path.stem


def test_a_recipe_says_what_its_file_says() -> None:
    recipe = parse_recipe(TEXT)
    assert (recipe.model.name, recipe.dataset, recipe.model.image_size) == ("swin_t", "cifar100", 32)
    assert recipe.model.arguments["patch_size"] == 4
    assert recipe.drloc is not None
    assert recipe.drloc.stage == 1


def test_identity_is_the_sha256_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a-drloc-b.toml"
    path.write_bytes(b"name = 1")
    assert identity(path) == hashlib.sha256(b"name = 1").hexdigest()


@pytest.mark.parametrize("table", ["", "model: ", "optimizer: ", "schedule: ", "augmentation: ", "drloc: "])
def test_an_unknown_key_is_named_with_its_table(table: str) -> None:
    head = f"[{table[:-2]}]\n" if table else 'name = "swin_t-drloc-cifar100"\n'
    message = refused(TEXT.replace(head, head + "epoch = 3\n", 1))
    assert f"mine.toml: {table}epoch" in message


def test_an_unknown_key_brings_the_nearest_known_one() -> None:
    assert "did you mean mine.toml: schedule: epochs" in refused(TEXT.replace("epochs = 44", "epoch = 44", 1))


@pytest.mark.parametrize(
    "line", ["dataset", "precision", "batch_size", "betas", "epochs", "ema_decay", "flip", "pairs", "image_size"]
)
def test_a_missing_key_is_named(line: str) -> None:
    kept = [text for text in TEXT.splitlines() if not text.startswith(f"{line} =")]
    assert f"{line} is missing" in refused("\n".join(kept))


def test_a_missing_table_is_named() -> None:
    assert "mine.toml: drloc" not in refused(TEXT.replace("[optimizer]", "[optimiser]"))
    assert "optimiser" in refused(TEXT.replace("[optimizer]", "[optimiser]"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs = 44", "epochs = 44.5", "epochs must be a whole number, not 44.5"),
        ("epochs = 44", 'epochs = "44"', "epochs must be a whole number, not '44'"),
        ("epochs = 44", "epochs = true", "epochs must be a whole number, not True"),
        ("flip = true", "flip = 1", "flip must be true or false, not 1"),
        ("weight_decay = 0.05", 'weight_decay = "x"', "weight_decay must be a number, not 'x'"),
        ("weight_decay = 0.05", "weight_decay = true", "weight_decay must be a number, not True"),
        ("betas = [0.9, 0.999]", "betas = [0.9]", "betas must be a list of 2 numbers"),
        ('dataset = "cifar100"', "dataset = 3", "dataset must be a string, not 3"),
        ("[drloc]", "[drloc.inner]", "inner"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(old: str, new: str, said: str) -> None:
    assert said in refused(TEXT.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('precision = "bfloat16"', 'precision = "half"', "precision is out of range: 'half'"),
        ("batch_size = 256", "batch_size = 0", "optimizer: batch_size is out of range: 0"),
        ("learning_rate = 0.0015", "learning_rate = 0", "optimizer: learning_rate is out of range"),
        ("learning_rate = 0.0015", "learning_rate = nan", "optimizer: learning_rate is out of range"),
        ("epochs = 44", "epochs = -1", "schedule: epochs is out of range: -1"),
        ("cosine_epochs = 44", "cosine_epochs = 43", "schedule: cosine_epochs is out of range: 43"),
        ("mix_probability = 0.5", "mix_probability = 1.5", "augmentation: mix_probability is out of range: 1.5"),
        ("pairs = 32", "pairs = 0", "drloc: pairs is out of range: 0"),
        ("schedule_epochs = 44", "schedule_epochs = 1", "drloc: schedule_epochs is out of range"),
        ("ema_decay = 0.998", "ema_decay = 1.0", "schedule: ema_decay is out of range: 1.0"),
    ],
)
def test_a_value_that_no_run_could_mean_is_refused(old: str, new: str, said: str) -> None:
    assert old in TEXT
    assert said in refused(TEXT.replace(old, new, 1))


def test_an_unknown_data_set_brings_the_nearest() -> None:
    message = refused(TEXT.replace('dataset = "cifar100"', 'dataset = "cifar"'))
    assert "unknown dataset 'cifar'" in message
    assert "cifar10" in message


def test_a_name_must_say_the_objective() -> None:
    message = refused(TEXT.replace("swin_t-drloc-cifar100", "swin_t-baseline-cifar100"))
    assert "<model>-drloc-<dataset>" in message


def test_text_that_is_not_toml_is_refused() -> None:
    assert "mine.toml is not valid TOML" in refused("name = ")


def test_a_file_that_is_missing_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match="no recipe at") as raised:
        load_recipe(tmp_path / "none.toml")
    assert "vtzoo list --recipes" in str(raised.value.hint)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VtzooError, match="cannot read the recipe"):
        load_recipe(tmp_path / "binary.toml")
    with pytest.raises(VtzooError, match="cannot read the recipe"):
        load_recipe(tmp_path)


def test_a_recipe_is_found_by_name_or_by_path() -> None:
    assert locate("swin_t-drloc-cifar100") == FOLDER / "swin_t-drloc-cifar100.toml"
    assert locate("mine/own.toml") == Path("mine/own.toml")
    with pytest.raises(VtzooError, match="unknown recipe 'swin_t-drloc-cifar1000'") as raised:
        locate("swin_t-drloc-cifar1000")
    assert "swin_t-drloc-cifar100" in str(raised.value.hint)


def test_the_rendered_recipes_are_those_of_the_grid() -> None:
    assert grid.stale(FOLDER) == []


def test_an_edited_a_missing_and_a_stray_recipe_are_stale(tmp_path: Path) -> None:
    for path in FOLDER.glob("*.toml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "swin_t-drloc-cifar10.toml").write_text(TEXT)
    (tmp_path / "swin_t-drloc-cifar100.toml").unlink()
    (tmp_path / "mine-drloc-cifar10.toml").write_text(TEXT)
    assert grid.stale(tmp_path) == ["mine-drloc-cifar10", "swin_t-drloc-cifar10", "swin_t-drloc-cifar100"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*-drloc-*.toml")), ids=lambda path: path.stem)
def test_a_pair_differs_only_in_drloc(path: Path) -> None:
    """The baseline's text is its twin's but for the name and the last table."""
    twin = path.with_name(path.name.replace("-drloc-", "-baseline-"))
    text, other = path.read_text(), twin.read_text()
    shared, _, localization = text.partition("\n[drloc]\n")
    assert localization
    assert shared.replace(path.stem, twin.stem) == other
    assert load_recipe(twin).drloc is None
