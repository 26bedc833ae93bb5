"""Tokens a second and what each stage took stand in the record, and old records without them still show."""

from lib.lab.experiment import Experiment, _speed
from lib.models.model import Cost
from lib.runs.record import RunCost


def test_a_run_records_what_each_stage_took():
    pipeline = [{"step": "ask", "n": 9}, {"step": "prune"}]
    run = Experiment(hypothesis="h", model="toy", gate="dev", pipeline=pipeline).run()
    cost, n = run.record.cost, len(run.cases)
    assert list(cost.stages) == ["1 ask", "2 prune"]
    ask, prune = cost.stages.values()
    assert (ask.calls, prune.calls) == (n, 0) and ask.calls == cost.calls
    for name in ("prompt_tokens", "generation_tokens"):
        assert getattr(ask, name) == getattr(cost, name) > 0
    assert all(isinstance(v, (int, float)) for k, v in cost.as_dict().items() if k != "stages")
    table = run._repr_markdown_()
    assert f"| 1 ask | {n} | {ask.prompt_tokens} | {ask.generation_tokens} |" in table and "prune" not in table


def test_tokens_a_second_are_those_of_reading_and_of_writing():
    cost = Cost(2, 600, 100, seconds=3.0, prompt_seconds=1.0)
    assert (cost.prompt_tps, cost.generation_tps) == (600, 50)
    assert Cost(1, 10, 10).generation_tps is None and Cost(1, 10, 10, 2.0).prompt_tps is None
    assert (
        _speed(RunCost(prompt_tps=600.2, generation_tps=1250.0))
        == " 600 prompt tokens a second; 1,250 new tokens a second."
    )


def test_a_record_from_before_shows_no_speed():
    assert _speed(RunCost(calls=30, generation_tokens=100)) == ""
