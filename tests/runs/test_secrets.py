"""Names that hold a secret, by whole words, and texts that hold one's value."""

import pytest

from lib.runs.secrets import held, is_secret

VALUE = "sk-ant-planted-0123456789"


@pytest.mark.parametrize(
    "name",
    [
        "TOKEN",
        "HF_TOKEN",
        "GITHUB_TOKEN_2",
        "OPENAI_APIKEY",
        "api_key",
        "authToken",
        "DB_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
    ],
)
def test_a_name_with_the_word_in_it_holds_a_secret(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["TOKENIZER", "TOKENIZER_PATH", "max_tokens", "SECRETARY", "KEYBOARD", "MONKEY_KEY", ""]
)
def test_a_word_that_merely_begins_like_one_does_not(name):
    assert not is_secret(name)


def test_a_value_is_found_by_the_name_of_its_variable(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", VALUE)
    assert held(["nothing", f"here: {VALUE}."]) == "HF_TOKEN" and held(["nothing"]) == ""


def test_a_value_is_found_as_json_spells_it(monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", 'pass"word\\with\tescäpes')
    assert held(['{"x": "pass\\"word\\\\with\\tesc\\u00e4pes"}']) == "DB_PASSWORD"


@pytest.mark.parametrize("value", ["short", "discoveryplanner"])
def test_a_short_value_or_a_plain_word_is_no_secret(monkeypatch, value):
    monkeypatch.setenv("HF_TOKEN", value)
    assert held([f"a text with {value} in it"]) == ""


def test_the_folder_of_a_model_is_no_secret_because_a_tokenizer_is_named_by_it(monkeypatch):
    monkeypatch.setenv("TOKENIZER_PATH", "/models/SmolLM2-135M")
    assert held(['{"model": "/models/SmolLM2-135M"}']) == ""
