"""What it costs to be observed: variants are compared within their round."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from benchmarks.costs.observing import main, ratios, table_of


def row(number: int, variant: str, total: float) -> dict[str, object]:
    cpu = {"shard": total - 3, "postgres a": 1.0, "postgres b": 2.0, "total": total}
    return {"round": number, "variant": variant, "hello_per_s": 10, "cpu_us": cpu}


def test_a_variant_is_compared_with_the_base_of_its_round() -> None:
    found = [row(0, "metrics", 100.0), row(0, "tracing 0.01", 110.0)]
    found += [row(1, "metrics", 200.0), row(1, "tracing 0.01", 220.0)]
    assert ratios(found, "tracing 0.01") == "1.100 (1.100-1.100)"
    table = table_of("serve", found)
    assert [column.header for column in table.columns][1:4] == ["postgres", "shard", "total"]
    assert list(table.columns[3].cells) == ["150.0", "165.0"]


@pytest.mark.slow
@pytest.mark.proc
def test_each_variant_runs() -> None:
    arguments = ["--mode", "embedded", "--rounds", "1", "--n", "20"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    for name in ("neither", "metrics", "tracing 0.01", "tracing 1.0"):
        assert name in result.stdout
