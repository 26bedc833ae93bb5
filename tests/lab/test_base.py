"""What all that can run has in common: keys that stay, parameters that are checked, a record of the same form."""

import pytest

from lib.lab.base import BadParameters, Clock
from lib.lab.calibration import Calibration
from lib.lab.experiment import Experiment
from lib.lab.models import Models
from lib.lab.rejudge import Rejudge
from lib.lab.training import Training
from lib.runs.provenance import run_key
from lib.runs.record import Record

PIPELINE = [{"step": "ask", "n": 8}, {"step": "prune", "by": "last"}]
# Keys of the code that sealed the first runs, under a fingerprint of f's.
KEYS = {
    "9ca0e1f6cec157ec595e42b08314ed00": Experiment(),
    "b28c24bc4943186d74b40b5210d19f42": Experiment(
        hypothesis="Fewer repeats.", predicted=1, min_effect=0.05, lever="over-generate and prune", pipeline=PIPELINE,
        model="toy", decoding={"temp": 1, "top_p": 0.9}, judge="claude", judging={"replicate": 1}, batch=True,
        gate="dev", seed=3, useful=True,
    ),
    "ea7193aea6105dbdc5ed7db7859250ca": Experiment(
        hypothesis="Again.", gate="confirm", of="0001-first", model="toy", kind="confirm"
    ),
    "3a0ad143a7bbece0219a56fd5252af13": Calibration(),
    "09d58a0a326eda0a6a2e4907b6439838": Calibration(
        hypothesis="h", damaged=3, repeats=2, model="toy", decoding={"temp": 1, "max_tokens": 90}, gate="dev", seed=5,
        of="0001-first",
    ),
    "c0bd657b3bace51b59a323437969aae3": Rejudge(),
    "198e846550ecc9764c297232216ad413": Rejudge(
        hypothesis="h", runs=["1", "0002-x"], without="naturalness", judge="claude", batch=True, judging={"dollars": 2}
    ),
    "6545a303fc5b2ed74ae6db398a604c7e": Training(),
    "9f3784c314402b519bf821f6a3e5c00b": Training(
        hypothesis="h", predicted=0, method="orpo", data={"kind": "styles", "pairs": 96}, model="smollm2",
        adapter="0001-sft", settings={"rank": 4, "alpha": 8}, objective={"beta": 1}, checkpoints=[1, 2], seed=2,
        request="0001-x",
    ),
}  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_the_same_parameters_have_the_key_that_they_always_had(key):
    assert run_key(KEYS[key].kind, KEYS[key].keyed, "f" * 64) == key


def test_the_same_comparison_has_the_key_that_it_always_had(lab, monkeypatch):
    monkeypatch.setenv("NOTCH_RUNS", str(lab.folder))
    lab.seal(slug="small", model="toy")
    lab.seal(slug="large", model="large")
    assert run_key("models", Models(groups={"ask": ["1", "2"]}).keyed, "f" * 64) == "8200ef0f152130cff38bb975c3ee31b4"


@pytest.mark.parametrize("made", [Experiment(), Calibration(), Training()], ids=lambda m: m.kind)
def test_a_key_names_kind_parameters_ruler_and_judge(made):
    assert made.key == run_key(made.kind, made.keyed, made.measured_by)
    assert (made.measured_by == made.fingerprint) == (made.kind != "train")


@pytest.mark.parametrize("made", [Experiment(), Calibration(), Rejudge(), Training()], ids=lambda m: m.kind)
def test_a_record_says_the_setup_and_what_came_out(made):
    record = made.record(status="crashed", error="why", **Clock().times)
    assert isinstance(record, Record) and record.kind == made.kind and record.key == made.key
    assert (record.status, record.error, record.seconds) == ("crashed", "why", pytest.approx(0, abs=0.1))


@pytest.mark.parametrize("kind", [Experiment, Calibration, Rejudge, Models, Training])
@pytest.mark.parametrize(
    "odd, said",
    [
        ({"hypotesis": "x"}, "no parameter 'hypotesis', did you mean 'hypothesis'?"),
        ({"hypothesis": None}, "hypothesis is None: expected text"),
        ({"hypothesis": "\udcff"}, "hypothesis has bytes that are no text"),
    ],
)
def test_odd_parameters_are_refused_in_one_line(kind, odd, said):
    with pytest.raises(BadParameters) as stopped:
        kind(**odd)
    assert said in str(stopped.value) and "\n" not in str(stopped.value)


@pytest.mark.parametrize("kind", [Experiment, Calibration, Rejudge, Models, Training])
def test_an_empty_hypothesis_is_refused(kind):
    with pytest.raises(BadParameters, match="hypothesis is empty"):
        kind(hypothesis=" \n").check()
