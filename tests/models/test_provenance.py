"""What a folder of weights is by content, and an adapter that was changed, in its weights or in what scales them."""

import json
import os
import shutil

import pytest

from lib.files import ROOT, sha256
from lib.models import load, provenance
from lib.models.model import NoModel
from lib.models.provenance import CONFIG, NAME, WEIGHTS, content_hash


def test_the_hash_of_a_folder_changes_with_a_byte_and_not_with_the_place(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
        (tmp_path / name / "config.json").write_text('{"x": 1}')
        (tmp_path / name / "README.md").write_text(name)
    first = content_hash(tmp_path / "a")
    assert content_hash(tmp_path / "b") == first and len(first) == 16
    (tmp_path / "b" / "model.safetensors").write_bytes(b"Weights")
    assert content_hash(tmp_path / "b") != first


@pytest.mark.parametrize(
    "part, at",
    [
        ("model-00001-of-00002.safetensors", 4_600_000),
        ("tokenizer.json", 3),
        ("tokenizer.model", 3),
        ("chat_template.jinja", 0),
        ("additional_chat_templates/tool_use.jinja", 1),
        ("generation_config.json", 1),
        ("config.json", 2),
    ],
)
def test_every_byte_of_what_a_model_is_counts(tmp_path, part, at):
    """Also far behind the head of a large file, in the words that it is spoken to, in where its replies end."""
    path = tmp_path / part
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(5_000_000 if part.endswith("safetensors") else 9))
    before = content_hash(tmp_path)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert content_hash(tmp_path) != before


def test_another_file_of_the_same_size_and_time_is_another_model(tmp_path):
    """As `cp -p` leaves it: the time of change comes along with the content."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(2_000_000))
    before, times = content_hash(tmp_path), path.stat()
    path.write_bytes(b"x" * 2_000_000)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns and content_hash(tmp_path) != before


def sealed_adapter(folder):
    """An adapter's files as a training writes them, without the training."""
    files = {WEIGHTS: b"weights", CONFIG: b'{"lora_parameters": {"scale": 2.0}}'}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    about = {"base": {"name": "x", "weights": "ab" * 8}, "files": {name: sha256(c) for name, c in files.items()}}
    (folder / NAME).write_text(json.dumps(about))


@pytest.mark.parametrize("part", [WEIGHTS, CONFIG])
def test_an_adapter_whose_weights_or_scale_were_changed_is_refused_by_name(tmp_path, part):
    sealed_adapter(tmp_path)
    provenance.check(tmp_path, "x", "ab" * 8)
    (tmp_path / part).write_bytes((tmp_path / part).read_bytes().replace(b"2.0", b"20.") + b" ")
    with pytest.raises(NoModel, match=f"{part} is not the file that its provenance.json names"):
        provenance.check(tmp_path, "x", "ab" * 8)


def test_an_adapter_of_the_projects_own_runs_is_found_from_another_folder_of_runs(tmp_path):
    own = ROOT / "runs" / "0003-train-sft-1000"
    assert provenance.find("0003-train-sft-1000", tmp_path) == own / "adapter"
    nearer = tmp_path / own.name / "adapter"
    shutil.copytree(own / "adapter", nearer)
    assert provenance.find("0003-train-sft-1000", tmp_path) == nearer
    with pytest.raises(NoModel, match=f"called so in {tmp_path} or the project's own runs"):
        provenance.find("0003-no-such-run", tmp_path)


def test_an_adapter_of_another_base_is_refused_by_name(tmp_path):
    sealed_adapter(tmp_path)
    with pytest.raises(NoModel, match=r"was trained on x \(weights abababababababab\), not on y \(0000\)"):
        provenance.check(tmp_path, "y", "0000")


def test_every_sealed_adapter_is_as_it_was_sealed_and_fits_its_base():
    folders = sorted(path.parent for path in (ROOT / "runs").glob(f"*/adapter/**/{NAME}"))
    if not folders:
        pytest.skip("no adapter is sealed in runs")
    for folder in folders:
        about = provenance.read(folder)
        assert about["files"].keys() == {WEIGHTS, CONFIG}
        load.check(about["base"]["name"], str(folder))
        assert load.identity(about["base"]["name"]) == about["base"]["weights"]
