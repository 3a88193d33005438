"""Instructions are counted of a shard that really runs, and told per instance."""

from __future__ import annotations

import pytest

from benchmarks.costs.instructions import each, sums_of, table_of
from benchmarks.costs.lone_shard import load
from shardrt.testing.virtual import run_virtual

REPORT = """\
==7== I   refs:      4,000
==7== I1  misses:      70
==7== D   refs:      2,000  (1,500 rd + 500 wr)
==7== D1  misses:      300  (  200 rd + 100 wr)
==7== LLd misses:       50  (   40 rd +  10 wr)
"""


def test_a_lone_shard_runs_all_of_them_in_its_partitions() -> None:
    few = run_virtual(load(partitions=1, in_flight=20, n=60))
    many = run_virtual(load(partitions=16, in_flight=20, n=60))
    assert few.pop("cpu_us_each") > 0
    assert many.pop("cpu_us_each") > 0
    # Three waves of six commits, and each has a record of each partition that takes part.
    assert few == pytest.approx({"commits_each": 18 / 60, "records_each": 18 / 60})
    assert many == pytest.approx({"commits_each": 18 / 60, "records_each": 16 * 18 / 60})


def test_what_one_takes_is_the_difference_of_two_runs() -> None:
    short = sums_of(REPORT) | {"records_each": 0.5}
    assert short == {
        "instructions": 4000,
        "lines_from_l2": 300,
        "lines_from_beyond": 50,
        "records_each": 0.5,
    }
    longer = {"instructions": 6000, "lines_from_l2": 350, "lines_from_beyond": 70}
    found = each(short, longer | {"records_each": 0.4}, 10)
    assert found == {
        "instructions": 200,
        "lines_from_l2": 5,
        "lines_from_beyond": 2,
        "records_each": 0.4,
    }
    table = table_of([{"partitions": 4, "of_first": 1.0} | found])
    assert [list(column.cells) for column in table.columns][2] == ["200"]


def test_a_report_without_sums_is_no_result() -> None:
    with pytest.raises(RuntimeError, match="nothing of instructions"):
        sums_of("valgrind: failed to start")
