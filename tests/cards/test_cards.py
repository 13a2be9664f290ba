"""Cards: their content, their metadata for the Hub, the folders that may have one, and their snippets, which run."""

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from forked import Python
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from typer.testing import CliRunner

from vtzoo import cards
from vtzoo.cli import DEFAULT_MODEL, app
from vtzoo.data import named
from vtzoo.errors import VtzooError
from vtzoo.zoo import lookup, resources
from vtzoo.zoo.config import Config
from vtzoo.zoo.model_folder import ModelFolder
from vtzoo.zoo.recipe import Recipe, Teacher
from vtzoo.zoo.recipe_files import load_recipe
from vtzoo.zoo.result import Certificate, Result, TeacherResult

EMBEDDED = resources.weights_folder() / DEFAULT_MODEL
REPO = f"my-org/{DEFAULT_MODEL}"
ROCKET = Path(__file__).parents[1] / "photos" / "rocket.jpg"
ROOT = Path(__file__).resolve().parents[2]
ABOUT = {"architecture": "swin_tiny_patch4_window7_224", "num_classes": 100}
CONFIG = Config(content=ABOUT | {"pretrained_cfg": {"license": "apache-2.0"}})
RESULT = Result(
    name="swin_t-drloc-cifar100", top1=0.51234, top5=0.8, images=10_000, manifest="ab" * 32, seed=3, steps=8_580,
    batch=256, train_images=50_000, train_seconds=5_400, hardware="2 CPU cores", versions={"torch": "2.15.0"},
    recipe_sha256="cd" * 32, certificate=Certificate(images=256, max_logit_difference=1e-6, top1_agreement=1.0),
)  # fmt: skip


def shipped(name: str) -> Recipe:
    return load_recipe(resources.recipes_folder() / f"{name}.toml")


@pytest.fixture
def recipe() -> Recipe:
    return shipped("swin_t-drloc-cifar100")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., ModelFolder]:
    """Writes a run with the embedded model's files under another name, with changed values."""

    def make(
        place: str = "run", /, *, without: str = "", config: dict[str, Any] | None = None, **values: Any
    ) -> ModelFolder:
        folder = tmp_path / place
        folder.mkdir()
        for file in EMBEDDED.iterdir():
            (folder / file.name).symlink_to(file, target_is_directory=file.is_dir())
        changes = {"result.json": values, "config.json": config or {}}
        for file, changed in changes.items():
            content = {**json.loads((EMBEDDED / file).read_text()), **changed}
            (folder / file).unlink()
            (folder / file).write_text(json.dumps({key: one for key, one in content.items() if one is not None}))
        if without:
            (folder / without).unlink()
        return ModelFolder(place, folder)

    return make


def flat(text: str) -> str:
    """The text without its line breaks."""
    return " ".join(text.split())


# Content


def test_a_card_holds_the_numbers_of_its_result(recipe: Recipe) -> None:
    card = cards.render(CONFIG, recipe, RESULT)
    for said in ("51.23%", "80.00%", "10,000", "8,580", "--seed 3", "in 90 minutes on 2 CPU cores", "torch 2.15.0"):
        assert said in card, said


def test_a_card_without_a_trained_twin_says_so(recipe: Recipe) -> None:
    assert "swin_t-baseline-cifar100, its twin | not trained yet" in cards.render(CONFIG, recipe, RESULT)


def test_a_card_shows_its_twins_numbers_in_a_row_of_the_same_form(recipe: Recipe) -> None:
    twin = replace(RESULT, name="swin_t-baseline-cifar100", top1=0.5, top5=0.7, seed=4)
    card = cards.render(CONFIG, recipe, RESULT, twin)
    assert "| swin_t-drloc-cifar100 | 51.23% | 80.00% | 10,000 | 1 (seed 3) | 8,580 | 256 |\n" in card
    assert "| swin_t-baseline-cifar100, its twin | 50.00% | 70.00% | 10,000 | 1 (seed 4) | 8,580 | 256 |\n" in card
    assert "other test images" not in card


def test_a_card_says_that_its_twin_was_measured_on_other_images(recipe: Recipe) -> None:
    card = cards.render(CONFIG, recipe, RESULT, replace(RESULT, manifest="ef" * 32))
    assert "The twin was measured on other test images: the two do not compare." in flat(card)


def test_a_baselines_card_says_that_it_has_no_localization() -> None:
    baseline = shipped("swin_t-baseline-cifar100")
    card = cards.render(CONFIG, baseline, replace(RESULT, name=baseline.name))
    assert "the baseline" in card
    assert "swin_t-drloc-cifar100, its twin" in card
    assert "localizer.safetensors" not in card
    assert "drloc" not in ModelCard(card).data.tags


def test_a_card_of_a_plain_network_mentions_neither_localization_nor_a_twin() -> None:
    plain = replace(shipped("swin_t-baseline-cifar100"), name="small_cnn-baseline-cifar100")
    card = cards.render(CONFIG, plain, replace(RESULT, name=plain.name), paired=False)
    assert "trained without dense relative localization. From scratch" in flat(card)
    assert "| small_cnn-baseline-cifar100 | 51.23% |" in card
    for said in ("twin", "not trained yet", "Citation", "Liu", "drloc"):
        assert said not in card, said


TEACHER = TeacherResult(name="small_cnn-baseline-cifar100", weights="ef" * 32, top1=0.7654)


@pytest.mark.parametrize(("known", "right"), [(TEACHER, " (76.54% on the same test images)"), (None, "")])
def test_a_card_says_who_taught_the_model_and_how(recipe: Recipe, known: TeacherResult | None, right: str) -> None:
    teacher = Teacher(name=TEACHER.name, weight=0.8, temperature=2.0)
    card = flat(cards.render(CONFIG, replace(recipe, teacher=teacher), replace(RESULT, teacher=known)))
    assert (
        f"and no other data. Taught by small_cnn-baseline-cifar100{right}: its logits are a second target, weight 0.8, "
        "temperature 2." in card
    )
    assert "Taught by" not in cards.render(CONFIG, replace(recipe, teacher=None), RESULT)


@pytest.mark.parametrize(
    ("own", "twins", "same"),
    [
        (TEACHER, TEACHER, True), (TEACHER, None, False), (None, TEACHER, False),
        (TEACHER, replace(TEACHER, weights="ab" * 32), False),
    ],
)  # fmt: skip
def test_a_card_says_that_its_twin_had_another_teacher(recipe: Recipe, own: Any, twins: Any, same: bool) -> None:
    card = cards.render(CONFIG, recipe, replace(RESULT, teacher=own), replace(RESULT, teacher=twins))
    assert ("localization is not their only difference" in flat(card)) is not same


def test_a_card_says_how_many_processes_trained_and_which_images_were_left_out(recipe: Recipe) -> None:
    card = flat(cards.render(CONFIG, recipe, replace(RESULT, processes=8, train_skipped=1_234)))
    assert "in 90 minutes on 8 processes, each on 2 CPU cores." in card
    assert "1,234 training images could not be read and were left out." in card


@pytest.mark.parametrize("usual", [{}, {"processes": 1, "train_skipped": 0}])
def test_a_card_mentions_neither_a_single_process_nor_zero_skipped_images(
    recipe: Recipe, usual: dict[str, int]
) -> None:
    card = cards.render(CONFIG, recipe, replace(RESULT, **usual))
    assert "processes" not in card
    assert "left out" not in card


@pytest.mark.parametrize(
    ("seconds", "words"), [(59, "59 seconds"), (150, "2 minutes"), (7_199, "120 minutes"), (36_000, "10.0 hours")]
)
def test_a_training_time_has_a_suitable_unit(recipe: Recipe, seconds: int, words: str) -> None:
    assert f"in {words} on 2 CPU cores" in flat(cards.render(CONFIG, recipe, replace(RESULT, train_seconds=seconds)))


def test_only_a_published_graph_is_called_self_contained(recipe: Recipe) -> None:
    assert "onnx/model.onnx reads its weights from model.safetensors" in cards.render(CONFIG, recipe, RESULT)
    assert "onnx/model.onnx is one self-contained file" in cards.render(CONFIG, recipe, RESULT, repo=REPO)


@pytest.mark.parametrize("repo", [None, REPO])
def test_the_prose_of_a_card_is_no_wider_than_the_source_code(recipe: Recipe, repo: str | None) -> None:
    card = cards.render(CONFIG, recipe, replace(RESULT, processes=8, train_skipped=3), repo=repo)
    assert [line for line in card.splitlines() if len(line) > 120 and " " in line] == []


# Metadata for the Hub


def test_the_hub_reads_the_cards_metadata(recipe: Recipe) -> None:
    data = ModelCard(cards.render(CONFIG, recipe, RESULT)).data
    assert data.license == "apache-2.0"
    assert data.library_name == "timm"
    assert data.pipeline_tag == "image-classification"
    assert data.datasets == ["uoft-cs/cifar100"]
    assert data.metrics == ["accuracy"]
    assert {"image-classification", "timm", "drloc"} <= {*data.tags}
    assert data.model_name == "swin_t-drloc-cifar100"
    first, fifth = data.eval_results
    assert (first.metric_value, first.metric_type, first.metric_name) == (0.5123, "accuracy", "top-1")
    assert (fifth.metric_value, fifth.metric_type, fifth.metric_name) == (0.8, "accuracy", "top-5")
    for one in data.eval_results:
        assert (one.dataset_type, one.dataset_split) == ("uoft-cs/cifar100", "test")
        assert one.dataset_revision == named.named_set("cifar100").revision
        assert (one.verified, one.verify_token) == (None, None)  # the Hub sets it


@pytest.mark.parametrize("repo", [None, REPO])
def test_the_model_index_is_what_the_hubs_own_helpers_make_of_it(
    recipe: Recipe, tmp_path: Path, repo: str | None
) -> None:
    (tmp_path / "README.md").write_text(cards.render(CONFIG, recipe, RESULT, repo=repo))
    stated = metadata_load(tmp_path / "README.md") or {}
    name, results = model_index_to_eval_results(stated["model-index"])
    assert eval_results_to_model_index(name, results) == stated["model-index"]
    assert (name, len(results)) == ("swin_t-drloc-cifar100", 2)


def test_a_published_cards_accuracies_name_their_source(recipe: Recipe) -> None:
    published, own = (ModelCard(cards.render(CONFIG, recipe, RESULT, repo=repo)).data for repo in (REPO, None))
    sources = {(one.source_name, one.source_url) for one in published.eval_results}
    assert sources == {("result.json", f"https://huggingface.co/{REPO}/blob/main/result.json")}
    assert {one.source_url for one in own.eval_results} == {None}


@pytest.mark.parametrize(
    ("name", "split", "config", "revision"),
    [
        ("swin_t-drloc-imagenet100", "validation", None, "0519dc2f402a3a18c6e57f7913db059215eee25b"),
        ("swin_t-drloc-svhn", "test", "cropped_digits", None),
    ],
)
def test_the_test_split_goes_by_its_name_on_the_hub(
    name: str, split: str, config: str | None, revision: str | None
) -> None:
    card = ModelCard(cards.render(CONFIG, shipped(name), RESULT))
    for one in card.data.eval_results:
        assert (one.dataset_split, one.dataset_config, one.dataset_revision) == (split, config, revision)


def test_reading_and_writing_a_card_by_the_hubs_client_changes_nothing(recipe: Recipe) -> None:
    card = cards.render(CONFIG, recipe, RESULT, repo=REPO)
    assert yaml.safe_load(str(ModelCard(card)).split("---")[1]) == yaml.safe_load(card.split("---")[1])
    assert ModelCard(card).text == card.split("\n---\n", 1)[1]


# Errors


@pytest.mark.parametrize("repo", [None, REPO])
def test_a_rendered_card_is_accepted(recipe: Recipe, repo: str | None) -> None:
    cards.check(cards.render(CONFIG, recipe, RESULT, repo=repo), RESULT)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("---\ndatasets", "datasets", "has no metadata: it does not begin with a block between two lines of ---"),
        ("\n---\n", "\n", "has no metadata"),
        ("library_name: timm", "library_name: [timm", "metadata is not YAML: while parsing a flow sequence"),
        ("library_name: timm\n", "", "metadata has no library_name"),
        ("library_name: timm", "library_name:", "metadata has no library_name"),
        ("pipeline_tag: image-classification\n", "", "metadata has no pipeline_tag"),
        ("license: apache-2.0\n", "", "states no license"),
        ("datasets:\n- uoft-cs/cifar100\n", "", "metadata has no datasets"),
        ("model-index:", "model_index:", "metadata has no model-index"),
        ("  results:", "  result:", "model-index is not one that the Hub reads: KeyError('results')"),
        ("value: 0.5123", "value: 0.6", "top-1 is 0.6, and result.json's 0.5123"),
        ("value: 0.8\n", "value: 80.0\n", "top-5 is 80.0, and result.json's 0.8"),
        ("name: top-5", "name: top-3", "top-5 is absent, and result.json's 0.8"),
        ("type: accuracy", "type: f1", "top-1 is absent, and result.json's 0.5123"),
    ],
)
def test_a_card_that_was_tampered_with_is_refused(recipe: Recipe, old: str, new: str, message: str) -> None:
    card = cards.render(CONFIG, recipe, RESULT)
    assert old in card
    with pytest.raises(VtzooError) as raised:
        cards.check(card.replace(old, new), RESULT)
    assert message in raised.value.message
    assert raised.value.hint


def test_a_metadata_block_that_is_not_a_mapping_is_refused() -> None:
    with pytest.raises(VtzooError, match="is not a YAML mapping"):
        cards.check("---\n- a\n- b\n---\n\n# text\n", RESULT)


def test_a_card_of_another_run_is_refused(recipe: Recipe) -> None:
    with pytest.raises(VtzooError, match=r"top-1 is 0\.5123, and result\.json's 0\.6"):
        cards.check(cards.render(CONFIG, recipe, RESULT), replace(RESULT, top1=0.6))


# The card of a folder


def test_the_card_of_a_folder_has_the_numbers_of_its_files(run: Callable[..., ModelFolder]) -> None:
    card = cards.card_of(run(top1=0.25, processes=2))
    assert f"| swin_t-drloc-cifar100 | 25.00% | {lookup.find_model(DEFAULT_MODEL).result.top5:.2%} |" in card
    assert "2 processes" in card
    assert "--model . photo.jpg" in card


def test_a_folder_of_an_earlier_version_has_a_card_too(run: Callable[..., ModelFolder]) -> None:
    entry = run(processes=None, train_skipped=None)
    assert entry.result.processes is entry.result.train_skipped is None
    assert "# swin_t-drloc-cifar100" in cards.card_of(entry)


TWIN = "swin_t-baseline-cifar100"


@pytest.fixture
def nothing_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "weights_folder", lambda: tmp_path / "no-weights")


@pytest.mark.usefixtures("nothing_embedded")
def test_the_twin_is_found_beside_the_folder_whatever_it_is_called(
    run: Callable[..., ModelFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = run("flowers")
    assert f"| {TWIN}, its twin | not trained yet |" in cards.card_of(entry)
    run(TWIN, name=TWIN, top1=0.125)
    assert f"| {TWIN}, its twin | 12.50% |" in cards.card_of(entry)
    monkeypatch.chdir(entry.folder)
    assert f"| {TWIN}, its twin | 12.50% |" in cards.card_of(lookup.find_model("."))


@pytest.mark.usefixtures("nothing_embedded")
@pytest.mark.parametrize("values", [{"top1": None}, {"name": "another"}, {"certificate": None}])
def test_a_twin_that_is_not_measured_or_another_model_is_no_twin(run: Callable[..., ModelFolder], values: Any) -> None:
    run(TWIN, **({"name": TWIN} | values))
    assert f"| {TWIN}, its twin | not trained yet |" in cards.card_of(run())


def test_an_embedded_twin_comes_before_the_folder_beside(
    run: Callable[..., ModelFolder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(TWIN, name=TWIN, top1=0.125)
    entry = run()
    (tmp_path / "weights").mkdir()
    embedded = run(f"weights/{TWIN}", name=TWIN, top1=0.375)
    monkeypatch.setattr(resources, "weights_folder", lambda: embedded.folder.parent)
    assert f"| {TWIN}, its twin | 37.50% |" in cards.card_of(entry)


def test_the_record_of_a_twin_whose_weights_are_not_kept_is_enough(
    run: Callable[..., ModelFolder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry, record = run(), tmp_path / "weights" / TWIN
    record.mkdir(parents=True)
    (record / "result.json").write_text(json.dumps(replace(entry.result, name=TWIN, top1=0.375).as_json()))
    monkeypatch.setattr(resources, "weights_folder", lambda: tmp_path / "weights")
    assert f"| {TWIN}, its twin | 37.50% |" in cards.card_of(entry)


def test_a_twin_is_found_by_its_name_in_a_protocol_of_its_own(
    run: Callable[..., ModelFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, twins = "swin_t-drloc-cifar100-untaught", "swin_t-baseline-cifar100-untaught"
    recipe = (EMBEDDED / "recipe.toml").read_text().replace(DEFAULT_MODEL, ours)
    (tmp_path / "weights" / twins).mkdir(parents=True)
    entry = run(f"weights/{ours}", name=ours, recipe_sha256=hashlib.sha256(recipe.encode()).hexdigest())
    (entry.folder / "recipe.toml").unlink()
    (entry.folder / "recipe.toml").write_text(recipe)
    monkeypatch.setattr(resources, "weights_folder", lambda: tmp_path / "weights")
    assert f"| {twins}, its twin | not trained yet |" in cards.card_of(entry)
    record = replace(entry.result, name=twins, top1=0.125)
    (tmp_path / "weights" / twins / "result.json").write_text(json.dumps(record.as_json()))
    assert f"| {twins}, its twin | 12.50% |" in cards.card_of(entry)


@pytest.mark.parametrize(
    ("name", "paired"),
    [(TWIN, True), (f"{TWIN}-paper", True), ("resnet10t-baseline-cifar100", False)],
)
def test_a_baseline_has_a_twin_where_there_is_a_recipe_of_one(
    run: Callable[..., ModelFolder], name: str, paired: bool
) -> None:
    recipe = (resources.recipes_folder() / f"{TWIN}.toml").read_text().replace(TWIN, name)
    entry = run(name=name, recipe_sha256=hashlib.sha256(recipe.encode()).hexdigest())
    (entry.folder / "recipe.toml").unlink()
    (entry.folder / "recipe.toml").write_text(recipe)
    assert ("its twin" in cards.card_of(entry)) is paired


def test_a_card_of_a_model_that_is_in_the_repository_alone_says_how_to_get_it(recipe: Recipe) -> None:
    here, default = (flat(cards.render(CONFIG, recipe, RESULT, name=name)) for name in ("another", DEFAULT_MODEL))
    assert "In a clone of vtzoo, `pip install -e .` brings the model" in here
    assert 'With timm and `pip install -e ".[train]"`:' in here
    assert "`pip install vtzoo` brings what predicts" in default
    assert 'With timm and `pip install "vtzoo[train]"`:' in default


def test_an_embedded_models_snippet_imports_all_that_it_uses(recipe: Recipe) -> None:
    config = Config(content=CONFIG.content | {"architecture": "vtzoo_cvt_13"})
    card = cards.render(config, recipe, RESULT, name="another")
    assert "import torch\nimport vtzoo.models  # which registers vtzoo_cvt_13 with timm\nimport vtzoo.zoo\n" in card


AGAIN = "vtzoo train {folder}/recipe.toml --out {folder} --resume, with the --seed and --data that it was started with"
BACK = "put back the file that training wrote, or train the edited one into another folder"
LICENSE = 'add "license": "apache-2.0", or another of the Hub\'s, to pretrained_cfg in config.json'


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"without": "result.json"}, "{folder} has no result.json: it was not trained to its end", AGAIN),
        ({"top1": None}, "{folder} has no top1 in its result.json: it was never measured", AGAIN),
        ({"top5": None}, "{folder} has no top5 in its result.json: it was never measured", AGAIN),
        ({"teacher": "a CNN"}, "{folder}/result.json: teacher must be a table, not 'a CNN'", AGAIN),
        ({"steps": "many"}, "{folder}/result.json: steps must be a whole number, not 'many'", AGAIN),
        ({"certificate": {}}, "{folder}/result.json: certificate: images is missing", AGAIN),
        (
            {"without": "recipe.toml"}, "{folder} has no recipe.toml",
            "put the recipe there that the model was trained by",
        ),
        (
            {"recipe_sha256": "ab" * 32}, "{folder}/recipe.toml is not the recipe that the model was trained by", BACK,
        ),
        ({"config": {"pretrained_cfg": None}}, "the card states no license", LICENSE),
    ],
)  # fmt: skip
def test_a_folder_without_a_card_yet_is_refused_with_the_next_command(
    run: Callable[..., ModelFolder], changes: dict[str, Any], message: str, hint: str
) -> None:
    entry = run(**changes)
    with pytest.raises(VtzooError) as raised:
        cards.card_of(entry)
    assert raised.value.message == message.format(folder=entry.folder)
    assert raised.value.hint == hint.format(folder=entry.folder)


@pytest.mark.parametrize("repo", ["model", "a/b/c", "my org/model", "", "../model"])
def test_a_repository_is_named_by_its_organization_and_its_name(run: Callable[..., ModelFolder], repo: str) -> None:
    with pytest.raises(VtzooError, match="is not the name of a repository") as raised:
        cards.card_of(run(), repo)
    assert raised.value.hint == "a repository is named ORG/NAME"


def test_a_card_is_written_into_its_folder(run: Callable[..., ModelFolder]) -> None:
    entry = run(top1=0.25)
    (entry.folder / "README.md").unlink()
    assert cards.write(entry, REPO) == entry.folder / "README.md"
    assert (entry.folder / "README.md").read_text(encoding="utf-8") == cards.card_of(entry, REPO)


def test_an_embedded_models_card_is_not_written_by_itself() -> None:
    before = (EMBEDDED / "README.md").read_bytes()
    with pytest.raises(VtzooError, match="ships with vtzoo") as raised:
        cards.write(lookup.find_model(DEFAULT_MODEL))
    assert raised.value.hint == "in a checkout of vtzoo: python -m vtzoo.cards"
    assert (EMBEDDED / "README.md").read_bytes() == before


# Its snippets


def snippets(card: str) -> tuple[str, str, str]:
    """The command line, the Python and the timm snippet in a card's section on its use."""
    section = card.split("\n## Use\n")[1].split("\n## ")[0]
    (command,) = re.findall(r"^```bash\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    python, timms = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return command, python, timms


def answer(snippet: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, float]:
    """The class and the probability that a snippet prints; the snippet runs in this process."""
    if snippet.startswith("vtzoo "):
        printed = CliRunner().invoke(app, shlex.split(snippet)[1:], catch_exceptions=False)
        probability, label = printed.stdout.splitlines()[1].split()
        return label, float(probability.rstrip("%")) / 100
    capsys.readouterr()
    exec(compile(snippet, "README.md", "exec"), {})
    label, probability = capsys.readouterr().out.split()
    return label, float(probability)


def agree(card: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that a card's three snippets agree, run in a folder with photo.jpg."""
    shutil.copy(ROCKET, folder / "photo.jpg")
    monkeypatch.chdir(folder)
    (label, probability), *others = [answer(snippet, capsys) for snippet in snippets(card)]
    assert f"%  {label}\n" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert others == [(label, pytest.approx(probability, abs=1e-3))] * 2


def test_the_snippets_of_an_embedded_models_card_give_one_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (EMBEDDED / "README.md").read_text(encoding="utf-8")
    agree(card, tmp_path, capsys, monkeypatch)


def test_the_snippets_of_a_runs_card_give_one_answer_in_its_folder(
    run: Callable[..., ModelFolder], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = run()
    card = cards.card_of(entry)
    assert DEFAULT_MODEL not in card.split("\n## Use\n")[1].split("\n## ")[0]  # that is another model
    agree(card, entry.folder, capsys, monkeypatch)


def test_the_snippets_of_a_published_card_give_one_answer_where_its_files_are(
    run: Callable[..., ModelFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = run()
    card = cards.card_of(entry, REPO)
    command, python, timms = snippets(card)
    assert command == f"vtzoo predict --model {REPO} photo.jpg\n"
    assert f'vtzoo.load("{REPO}")' in python
    assert f'timm.create_model("hf-hub:{REPO}", pretrained=True)' in timms
    assert "import vtzoo" not in timms
    here = card.replace(f"hf-hub:{REPO}", f"local-dir:{entry.folder}").replace(REPO, str(entry.folder))
    agree(here, tmp_path, capsys, monkeypatch)


def test_a_card_and_the_table_say_that_the_images_are_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest of the test images identifies the copy; the official images have another manifest."""
    recipe = shipped("swin_t-drloc-flowers102")
    (manifest, told), *_ = named.named_set("flowers102").copies.items()
    assert told == "64 px copy"
    for found, copied in ((manifest, True), (RESULT.manifest, False)):
        result = replace(RESULT, dataset="flowers102", manifest=found)
        text = flat(cards.render(CONFIG, recipe, result))
        assert ("(a 64 px copy) in 100 classes" in text) == copied
        assert ("are a 64 px copy of the data set's: with its own pixels the numbers differ" in text) == copied
        assert ("name: flowers102, 64 px copy" in text) == copied
        assert ("vtzoo evaluate --model . --data DATA" in text) == copied
        assert ("vtzoo train recipe.toml --data DATA --seed 3" in text) == copied
        monkeypatch.setattr(lookup, "embedded_models", lambda result=result: [ModelFolder("a", EMBEDDED)])
        monkeypatch.setattr(ModelFolder, "result", property(lambda _, result=result: result))
        assert ("| flowers102, 64 px copy |" in cards.models_table()) == copied


@pytest.mark.parametrize("repo", [None, "my-org/cvt_13-drloc-cifar10"])
def test_timm_loads_an_architecture_of_our_own_by_the_snippet(repo: str | None, python: Python, tmp_path: Path) -> None:
    """The snippet runs in a new process, which has not imported vtzoo.models."""
    from safetensors.torch import save_file

    from vtzoo import models

    recipe = shipped("cvt_13-drloc-cifar10")
    arguments = {"img_size": 32, "patch_size": 2}
    described = {
        "architecture": "vtzoo_cvt_13", "num_classes": 10, "label_names": list(named.labels("cifar10") or ()),
        "model_args": arguments,
        "pretrained_cfg": {
            "license": "apache-2.0", "num_classes": 10, "input_size": [3, 32, 32], "interpolation": "bicubic",
            "crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.25] * 3, "classifier": "head",
        },
    }  # fmt: skip
    config = Config(content=described)
    (tmp_path / "config.json").write_text(json.dumps(config.content))
    weights = models.create(config.content).state_dict()
    save_file({key: value.half() for key, value in weights.items()}, tmp_path / "model.safetensors")
    shutil.copy(ROCKET, tmp_path / "photo.jpg")
    snippet = snippets(cards.render(config, recipe, RESULT, repo=repo))[2]
    if repo:
        assert f'"hf-hub:{repo}"' in snippet
        snippet = snippet.replace(f"hf-hub:{repo}", f"local-dir:{tmp_path}")
    done = python("-c", snippet, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    label, probability = done.stdout.split()
    assert label in config.labels
    assert 0.1 <= float(probability) <= 1
