import hashlib
from pathlib import Path

import pytest

from vtzoo.errors import VtzooError
from vtzoo.zoo import resources
from vtzoo.zoo.recipe import LOSSES, Optimizer, Teacher
from vtzoo.zoo.recipe_files import copy, facts, identity, load_recipe, locate, parse_recipe, shipped

FOLDER = resources.recipes_folder()
TEXT = (FOLDER / "swin_t-drloc-svhn.toml").read_text()  # a recipe without trained weights in the zoo
ADAMW = (FOLDER / "paper" / "swin_t-drloc-cifar100-paper.toml").read_text()  # as released: AdamW without a teacher
MUON = """[optimizer]
name = "muon"
momentum = 0.95
iterations = 5
adamw_learning_rate = 0.002
"""
TEACHER = """[teacher]
name = "small_cnn-baseline-cifar100"
weight = 0.8
temperature = 2.0

"""
TAUGHT = ADAMW.replace("[optimizer]\n", MUON).replace("[drloc]", f"{TEACHER}[drloc]")


def refused(text: str) -> str:
    with pytest.raises(VtzooError) as raised:
        parse_recipe(text, "mine.toml")
    return f"{raised.value.message} | {raised.value.hint}"


def test_every_shipped_recipe_loads_and_is_named_like_its_file() -> None:
    for name, path in shipped().items():
        assert load_recipe(path).name == path.stem == name


def test_the_zoos_own_recipes_come_first_and_the_papers_after_them() -> None:
    paths = list(shipped().values())
    assert [path.parent.name for path in paths] == sorted((path.parent.name for path in paths), reverse=True)
    assert {path.parent for path in paths} == {FOLDER, FOLDER / "paper"}
    assert {path for path in FOLDER.rglob("*.toml") if path.stem != "grid"} == set(paths)


def test_a_recipe_has_the_values_of_its_file() -> None:
    recipe = parse_recipe(TEXT)
    assert (recipe.model.name, recipe.dataset, recipe.model.image_size) == ("swin_t", "svhn", 32)
    assert recipe.model.arguments["patch_size"] == 2
    assert recipe.drloc is not None
    assert recipe.drloc.stage == 2


def test_identity_is_the_sha256_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a-drloc-b.toml"
    path.write_bytes(b"name = 1")
    assert identity(path) == hashlib.sha256(b"name = 1").hexdigest()


@pytest.mark.parametrize("table", ["", "model: ", "optimizer: ", "schedule: ", "augmentation: ", "drloc: "])
def test_an_unknown_key_is_named_with_its_table(table: str) -> None:
    head = f"[{table[:-2]}]\n" if table else 'name = "swin_t-drloc-svhn"\n'
    message = refused(TEXT.replace(head, head + "epoch = 3\n", 1))
    assert f"mine.toml: {table}epoch" in message


def test_an_unknown_key_is_answered_with_the_nearest_known_key() -> None:
    assert "did you mean mine.toml: schedule: epochs" in refused(TEXT.replace("epochs = 200", "epoch = 200", 1))


@pytest.mark.parametrize(
    "line", ["dataset", "precision", "batch_size", "betas", "epochs", "ema_decay", "flip", "pairs", "image_size"]
)
def test_a_missing_key_is_named(line: str) -> None:
    kept = [text for text in TEXT.splitlines() if not text.startswith(f"{line} =")]
    assert f"{line} is missing" in refused("\n".join(kept))


def test_a_misspelt_table_is_named() -> None:
    assert "optimiser" in refused(TEXT.replace("[optimizer]", "[optimiser]"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 200", "epochs = 200.5", "epochs must be a whole number, not 200.5"),
        ("epochs = 200", 'epochs = "200"', "epochs must be a whole number, not '200'"),
        ("epochs = 200", "epochs = true", "epochs must be a whole number, not True"),
        ("flip = false", "flip = 1", "flip must be true or false, not 1"),
        ("weight_decay = 0.05", 'weight_decay = "x"', "weight_decay must be a number, not 'x'"),
        ("weight_decay = 0.05", "weight_decay = true", "weight_decay must be a number, not True"),
        ("betas = [0.9, 0.999]", "betas = [0.9]", "betas must be a list of 2 numbers"),
        ('dataset = "svhn"', "dataset = 3", "dataset must be a string, not 3"),
        ("[drloc]", "[drloc.inner]", "inner"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(old: str, new: str, message: str) -> None:
    assert message in refused(TEXT.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('precision = "bfloat16"', 'precision = "half"', "precision is out of range: 'half'"),
        ("batch_size = 128", "batch_size = 0", "optimizer: batch_size is out of range: 0"),
        ("learning_rate = 0.001", "learning_rate = 0", "optimizer: learning_rate is out of range"),
        ("learning_rate = 0.001", "learning_rate = nan", "optimizer: learning_rate is out of range"),
        ("epochs = 200", "epochs = -1", "schedule: epochs is out of range: -1"),
        ("cosine_epochs = 200", "cosine_epochs = 199", "schedule: cosine_epochs is out of range: 199"),
        ("mix_probability = 0.5", "mix_probability = 1.5", "augmentation: mix_probability is out of range: 1.5"),
        ("pairs = 32", "pairs = 0", "drloc: pairs is out of range: 0"),
        ("schedule_epochs = 200", "schedule_epochs = 1", "drloc: schedule_epochs is out of range"),
        ("ema_decay = 0.9998", "ema_decay = 1.0", "schedule: ema_decay is out of range: 1.0"),
        ("[model]", "[model]\nwhitening = 0.0", "model: whitening is out of range: 0.0"),
        ("[model]", "[model]\nwhitening = true", "model: whitening must be a number, not True"),
    ],
)
def test_a_value_out_of_its_range_is_refused(old: str, new: str, message: str) -> None:
    assert old in TEXT
    assert message in refused(TEXT.replace(old, new, 1))


@pytest.mark.parametrize(
    ("loss", "near"), [("cross_entropi", "cross_entropy"), ("L1", "l1"), ("zzz", "known: cross_entropy, every_stage")]
)
def test_an_unknown_loss_is_answered_with_the_nearest_or_all(loss: str, near: str) -> None:
    message = refused(TEXT.replace("pairs = 32", f'pairs = 32\nloss = "{loss}"'))
    assert f"unknown loss '{loss}' | " in message
    assert near in message


def test_every_loss_may_be_named() -> None:
    for loss in LOSSES:
        drloc = parse_recipe(TEXT.replace("pairs = 32", f'pairs = 32\nloss = "{loss}"')).drloc
        assert drloc is not None
        assert drloc.loss == loss


def test_a_recipe_without_muon_teacher_and_ema_every_has_none_of_their_keys() -> None:
    recipe = parse_recipe(ADAMW)
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.momentum, optimizer.iterations, optimizer.adamw_learning_rate) == (None,) * 4
    assert (recipe.teacher, recipe.schedule.ema_every) == (None, None)


def test_a_recipe_has_its_optimizer_its_teacher_and_ema_every() -> None:
    recipe = parse_recipe(TAUGHT.replace("[schedule]", "[schedule]\nema_every = 8"))
    assert recipe.optimizer == Optimizer(
        name="muon", momentum=0.95, iterations=5, adamw_learning_rate=0.002, batch_size=1024, learning_rate=0.001,
        weight_decay=0.05, betas=(0.9, 0.999), clip_norm=5.0,
    )  # fmt: skip
    assert recipe.teacher == Teacher(name="small_cnn-baseline-cifar100", weight=0.8, temperature=2.0)
    assert recipe.schedule.ema_every == 8


@pytest.mark.parametrize(("name", "near"), [("moun", "did you mean muon?"), ("adamw", "leave out the name for AdamW")])
def test_an_unknown_optimizer_is_answered_with_the_nearest_and_how_to_choose_adamw(name: str, near: str) -> None:
    message = refused(TAUGHT.replace('"muon"', f'"{name}"'))
    assert f"unknown optimizer '{name}' | " in message
    assert near in message
    assert "leave out the name for AdamW" in message


@pytest.mark.parametrize("key", ["momentum", "iterations", "adamw_learning_rate"])
def test_muon_requires_each_of_its_keys_and_adamw_refuses_them(key: str) -> None:
    (line,) = [line for line in MUON.splitlines() if line.startswith(key)]
    message = refused(TAUGHT.replace(f"{line}\n", ""))
    assert f"mine.toml: optimizer: {key} is missing | Muon needs momentum, iterations and adamw_" in message
    message = refused(ADAMW.replace("[optimizer]", f"[optimizer]\n{line}"))
    assert message == f'mine.toml: AdamW has no optimizer: {key} | add name = "muon", or leave the key out'


@pytest.mark.parametrize("key", ["name", "weight", "temperature"])
def test_a_teacher_requires_each_of_its_keys(key: str) -> None:
    lines = [line for line in TEACHER.splitlines(keepends=True) if not line.startswith(key)]
    assert f"mine.toml: teacher: {key} is missing" in refused(TAUGHT.replace(TEACHER, "".join(lines)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("momentum = 0.95", "momentum = 1.0", "optimizer: momentum is out of range: 1.0"),
        ("momentum = 0.95", "momentum = -0.1", "optimizer: momentum is out of range: -0.1"),
        ("iterations = 5", "iterations = 0", "optimizer: iterations is out of range: 0"),
        ("iterations = 5", "iterations = 8", "optimizer: iterations is out of range: 8"),
        ("iterations = 5", "iterations = 2.5", "optimizer: iterations must be a whole number, not 2.5"),
        ("adamw_learning_rate = 0.002", "adamw_learning_rate = 0.0", "adamw_learning_rate is out of range: 0.0"),
        ("adamw_learning_rate = 0.002", "adamw_learning_rate = nan", "adamw_learning_rate is out of range: nan"),
        ("weight = 0.8", "weight = 0.0", "teacher: weight is out of range: 0.0"),
        ("weight = 0.8", "weight = 1.5", "teacher: weight is out of range: 1.5"),
        ("temperature = 2.0", "temperature = 0", "teacher: temperature is out of range: 0"),
        ("temperature = 2.0", "temperature = inf", "teacher: temperature is out of range: inf"),
        ("temperature = 2.0", 'temperature = "hot"', "teacher: temperature must be a number, not 'hot'"),
        ("[schedule]", "[schedule]\nema_every = 0", "schedule: ema_every is out of range: 0"),
        ("[schedule]", "[schedule]\nema_every = 2.5", "schedule: ema_every must be a whole number, not 2.5"),
        ("[teacher]", "[teacher]\nepochs = 3", "teacher: epochs"),
    ],
)
def test_a_value_out_of_its_range_for_muon_or_the_teacher_is_refused(old: str, new: str, message: str) -> None:
    assert old in TAUGHT
    assert message in refused(TAUGHT.replace(old, new, 1))


def test_a_recipe_may_train_on_the_teacher_alone_without_labels() -> None:
    teacher = parse_recipe(TAUGHT.replace("weight = 0.8", "weight = 1.0")).teacher
    assert teacher is not None
    assert teacher.weight == 1


def test_facts_name_the_optimizer_and_the_teacher(tmp_path: Path) -> None:
    (tmp_path / "taught.toml").write_text(TAUGHT)
    values = facts(tmp_path / "taught.toml")
    assert (values["optimizer"], values["teacher"]) == ("muon", "small_cnn-baseline-cifar100")


def test_an_unknown_data_set_is_answered_with_the_nearest() -> None:
    message = refused(TEXT.replace('dataset = "svhn"', 'dataset = "cifar"'))
    assert "unknown dataset 'cifar'" in message
    assert "cifar10" in message


def test_a_name_must_say_the_objective() -> None:
    message = refused(TEXT.replace("swin_t-drloc-svhn", "swin_t-baseline-svhn"))
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
    assert locate("swin_t-drloc-cifar100-paper") == FOLDER / "paper" / "swin_t-drloc-cifar100-paper.toml"
    assert locate("mine/own.toml") == Path("mine/own.toml")
    with pytest.raises(VtzooError, match="unknown recipe 'swin_t-drloc-cifar1000'") as raised:
        locate("swin_t-drloc-cifar1000")
    assert "swin_t-drloc-cifar100" in str(raised.value.hint)


def test_steps_are_whole_batches_and_a_set_smaller_than_a_batch_is_one_batch() -> None:
    assert parse_recipe(TEXT).steps == 200 * 572  # 73,257 images make 572 batches of 128 and leave 41
    assert parse_recipe(TEXT.replace("batch_size = 128", "batch_size = 73257")).steps == 200
    assert parse_recipe(TEXT.replace("batch_size = 128", "batch_size = 80000")).steps == 200


def test_facts_come_from_the_file_and_the_row_of_the_data_set() -> None:
    path = FOLDER / "paper" / "cvt_13-drloc-flowers102-paper.toml"
    assert facts(path) == {
        "name": "cvt_13-drloc-flowers102-paper", "file": str(path), "dataset": "flowers102", "images": 2_040,
        "image_size": 224, "epochs": 100, "batch": 1_024, "steps": 100, "optimizer": "adamw", "teacher": None,
    }  # fmt: skip


def test_a_copy_differs_from_its_original_only_in_the_first_line_which_names_the_original(tmp_path: Path) -> None:
    original = FOLDER / "swin_t-drloc-cifar100.toml"
    copied = copy("swin_t-drloc-cifar100", tmp_path / "my.toml")
    head, *rest = copied.read_text().splitlines()
    assert rest == original.read_text().splitlines()[1:]
    assert head == f"# A copy of swin_t-drloc-cifar100, sha256 {identity(original)}. Any key may be edited."
    assert load_recipe(copied) == load_recipe(original)


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("big-drloc-cifar100", "big-drloc-cifar100"),
        ("big-baseline-cifar100", "swin_t-drloc-cifar100"),  # not a name for a recipe with a [drloc] table
        ("my", "swin_t-drloc-cifar100"),
    ],
)
def test_a_copy_takes_the_name_of_its_file_if_that_is_a_recipe_name(tmp_path: Path, stem: str, name: str) -> None:
    copied = load_recipe(copy("swin_t-drloc-cifar100", tmp_path / f"{stem}.toml"))
    assert (copied.name, copied.model.name) == (name, "swin_t")


def test_a_copy_of_a_copy_has_one_first_line_which_names_the_last_original(tmp_path: Path) -> None:
    first = copy("swin_t-drloc-cifar100", tmp_path / "one-drloc-cifar100.toml")
    second = copy(str(first), tmp_path / "two-drloc-cifar100.toml")
    head, name, *_ = second.read_text().splitlines()
    assert head.startswith(f"# A copy of one-drloc-cifar100, sha256 {identity(first)}")
    assert name == 'name = "two-drloc-cifar100"'


def test_a_copy_overwrites_nothing(tmp_path: Path) -> None:
    copied = copy("swin_t-drloc-cifar100", tmp_path / "my.toml")
    with pytest.raises(VtzooError, match=r"my\.toml exists already") as raised:
        copy("swin_t-drloc-cifar10", copied)
    assert f"vtzoo train {copied}" in str(raised.value.hint)
    assert load_recipe(copied).dataset == "cifar100"


def test_the_file_of_a_copy_must_end_in_toml(tmp_path: Path) -> None:
    with pytest.raises(VtzooError, match=r"ends in \.toml, unlike '.*my'") as raised:
        copy("swin_t-drloc-cifar100", tmp_path / "my")
    assert raised.value.hint == f"vtzoo recipe copy swin_t-drloc-cifar100 {tmp_path / 'my'}.toml"
    assert not list(tmp_path.iterdir())
