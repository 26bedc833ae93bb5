"""Every parameter of a training, with every method and source: it acts, or it is refused beside what it cannot act with."""

import json
from dataclasses import fields

import pytest

from lib.agent.guard import LeakGuard
from lib.lab.training import Training
from lib.models.model import NoModel
from lib.train.data import BadData
from lib.train.lora import Settings
from lib.train.recipe import SOURCES, TERMS, Recipe
from tests.llama import small

# A value of every parameter that is not the one it has by itself.
SETTINGS = {
    "rank": 4, "alpha": 3.0, "layers": 1, "dropout": 0.5, "learning_rate": 0.1, "epochs": 5, "batch": 3, "warmup": 1,
    "decay": 0.5, "clip": 9.0, "patience": 1, "mask_prompt": False, "longest": 99, "keep": "best", "threads": 1,
    "quantised": True, "grad_checkpoint": True,
}  # fmt: skip
DATA = {"kind": "coverage", "pairs": 6, "seed": 3, "draft_temp": 0.5, "model": "claude-haiku-4-5", "dollars": 9.0,
        "batch": False, "path": "pairs.jsonl"}  # fmt: skip
OBJECTIVE = {"beta": 0.5, "drafts": 3, "temp": 0.5, "top_p": 0.5, "kl": 0.5, "clip": 0.5, "weights": [0.5, 0.5]}
WHOLE = {"adapter": "0001-sft", "merge": ("one", "two"), "checkpoints": (1,), "seed": 7}
# What acts, by hand; everything else is refused.
LOOP = set(SETTINGS) - {"mask_prompt", "quantised"}
BY_METHOD = {
    "sft": LOOP | {"mask_prompt", "adapter", "checkpoints", "seed"},
    "orpo": LOOP | {"beta", "adapter", "checkpoints", "seed"},
    "grpo": LOOP | {"drafts", "temp", "top_p", "kl", "clip", "adapter", "checkpoints", "seed"},
    "gad": LOOP | {"drafts", "temp", "top_p", "kl", "clip", "adapter", "checkpoints", "seed"},
    "merge": {"merge", "weights"},
}
BY_SOURCE = {"teacher": {"kind", "pairs", "seed"}, "file": {"path"},
             "claude": {"kind", "pairs", "seed", "model", "dollars", "batch"}}  # fmt: skip


def one(tmp_path, method, data=None, settings=None, objective=None, **more):
    usual = {"kind": "styles"} if method == "orpo" else {}
    if method == "merge":
        usual, more = {}, {"merge": ("one", "two")} | more
    return Recipe(method, small(), tmp_path, LeakGuard([]), "code", usual if data is None else data,
                  settings=Settings.of(settings or {}), objective=objective or {}, **more)  # fmt: skip


def said(recipe):
    """Why a recipe is refused, "" where it is not; nothing is built."""
    try:
        recipe.check_parameters()
    except ValueError as error:
        return str(error)
    except NoModel:
        pass  # an adapter is looked for, so it acts
    return ""


def test_the_lists_here_are_whole():
    assert set(SETTINGS) == {f.name for f in fields(Settings)}
    assert set(DATA) == {f.name for one in SOURCES.values() for f in fields(one)} - {"source"}
    assert set(OBJECTIVE) == {f.name for one in TERMS.values() for f in fields(one)}
    of_recipe = {f.name for f in fields(Recipe)} - {"work", "guard", "code", "reward", "store", "progress", "runs"}
    assert of_recipe == {"method", "model", "data", "settings", "objective", *WHOLE}
    of_training = {f.name for f in fields(Training)}
    assert of_training - of_recipe == {"hypothesis", "kind", "predicted", "judge", "request", "folder"}


def check(recipe, name, choice, acts):
    message = said(recipe)
    if acts:
        assert message == "", (name, choice)
    else:
        assert name in message and choice in message and "\n" not in message, (name, choice, message)


@pytest.mark.parametrize("method", TERMS)
def test_a_setting_acts_or_is_refused_with_the_method(tmp_path, method):
    for name, value in SETTINGS.items():
        if name == "quantised" and method != "merge":
            check(one(tmp_path, method, settings={name: value}), "quantised", "model", False)  # its base is not
            continue
        settings = {name: value} | ({"epochs": 3} if name == "patience" else {})
        acts = name in BY_METHOD[method]
        check(one(tmp_path, method, settings=settings), "settings" if method == "merge" else name, method, acts)


@pytest.mark.parametrize("method", TERMS)
def test_a_term_of_the_objective_acts_or_is_refused_with_the_method(tmp_path, method):
    for name, value in OBJECTIVE.items():
        acts = name in BY_METHOD[method] - (LOOP if method not in ("grpo", "gad") else set())
        check(one(tmp_path, method, objective={name: value}), name, method, acts)


@pytest.mark.parametrize("method", TERMS)
def test_what_stands_beside_them_acts_or_is_refused_with_the_method(tmp_path, method):
    for name, value in WHOLE.items():
        check(one(tmp_path, method, **{name: value}), name, method, name in BY_METHOD[method])
    check(one(tmp_path, method, data={"pairs": 6, "kind": "styles" if method == "orpo" else "clean"}), "data", method,
          method != "merge")  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_a_parameter_of_the_data_acts_or_is_refused_with_the_source(tmp_path, source):
    needs = {"path": "pairs.jsonl"} if source == "file" else {}
    for name, value in DATA.items():
        if name == "draft_temp" and source != "file":
            check(one(tmp_path, "sft", {"source": source, name: value}), name, "clean", False)
            check(one(tmp_path, "orpo", {"source": source, "kind": "on-policy", name: value}), name, "", True)
            continue
        check(one(tmp_path, "sft", {"source": source, **needs, name: value}), name, source, name in BY_SOURCE[source])


def test_a_file_without_its_source_is_refused_and_never_the_knowledge_base(tmp_path):
    with pytest.raises(BadData, match="path and source 'teacher': path acts with source file alone"):
        one(tmp_path, "sft", {"path": "pairs.jsonl"}).check()


@pytest.mark.parametrize(
    "odd", [{"source": "web"}, {"source": ["file"]}, {"sorce": "file"}, {"source": "file"}], ids=json.dumps
)
def test_a_source_that_is_none_is_refused_in_one_line(tmp_path, odd):
    with pytest.raises(BadData) as stopped:
        one(tmp_path, "sft", odd).check_parameters()
    assert "data" in str(stopped.value) and "\n" not in str(stopped.value)


def test_what_acts_makes_another_work_folder(tmp_path):
    """Else a training would be taken for another one that is done."""
    usual = one(tmp_path, "sft", {"pairs": 4}).folder
    changed = [one(tmp_path, "sft", {"pairs": 4}, settings={name: SETTINGS[name]} | ({"epochs": 3} if name == "patience" else {}))
               for name in LOOP | {"mask_prompt"}]  # fmt: skip
    changed += [one(tmp_path, "sft", {"pairs": 4} | {name: DATA[name]}) for name in BY_SOURCE["teacher"]]
    folders = {r.folder for r in changed}
    assert len(folders) == len(changed) and usual not in folders
