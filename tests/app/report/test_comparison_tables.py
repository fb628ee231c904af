"""app/report/comparison_tables.py: a comparison in tables, for terminal and report alike."""

from typing import Any

from app.report.comparison_tables import models, over, tables, title


def spread(mean: float | None, std: float | None = None) -> dict[str, float | None]:
    return {"mean": mean, "std": std}


def figures(accuracy: float, disparity: float, seconds: float, gap: float) -> dict[str, Any]:
    return {
        "test_accuracy": spread(accuracy, 0.5),
        "test_accuracy_gap": spread(gap, 0.25),
        "unlearning_accuracy": spread(None),
        "disparity": spread(disparity, 0.25),
        "seconds": spread(seconds),
        "seconds_ratio": spread(seconds / 4.0),
        "client_visits": spread(1200.0),
        "bytes_up": spread(1_480_000.0),
        "parameter_distance": spread(0.5, 0.125),
    }


def comparison(**changes: Any) -> dict[str, Any]:
    """Return two methods against retraining, over three seeds."""
    return {
        "request": {"kind": "client", "clients": ["3"], "classes": [], "samples": {}},
        "settings": {"prune": "none", "sparsity": 0.95},
        "seeds": [0, 1, 2],
        "notes": [],
        "before": figures(97.0, 7.0, 8.0, 7.0),
        "retrain": figures(90.0, 0.0, 4.0, 0.0),
        "methods": {
            "slow": figures(91.0, 2.0, 3.0, 1.0),
            "quick": figures(89.0, 1.0, 0.5, -1.0),
            "failed": {},
        },
        **changes,
    }


def test_methods_with_the_smallest_disparity_come_first() -> None:
    assert list(models(comparison())) == ["before", "retrained", "quick", "slow", "failed"]


def test_without_an_attacker_that_does_more_than_guess_the_order_is_that_without_mia() -> None:
    slow, quick = figures(91.0, 2.0, 3.0, 1.0), figures(89.0, 1.0, 0.5, -1.0)
    slow["disparity_without_mia"], quick["disparity_without_mia"] = spread(0.1), spread(0.9)
    found = comparison(methods={"slow": slow, "quick": quick}, mia_counts=False)
    assert list(models(found)) == ["before", "retrained", "slow", "quick"]


def test_rates_have_mean_spread_and_gap() -> None:
    """Retraining has no gap to itself, and a method without figures has dashes."""
    rates = tables(comparison())[0]
    place = 1 + rates.columns.index("TA")
    cells = {row[0]: row[place] for row in rates.rows}
    assert cells == {
        "before": "97.0 ± 0.5 (+7.0)",
        "retrained": "90.0 ± 0.5",
        "quick": "89.0 ± 0.5 (−1.0)",
        "slow": "91.0 ± 0.5 (+1.0)",
        "failed": "–",
    }
    assert [row[1] for row in rates.rows] == ["7.0 ± 0.2", "0.0 ± 0.2", "1.0 ± 0.2", "2.0 ± 0.2", "–"]
    assert all(len(row) == 1 + len(table.columns) for table in tables(comparison()) for row in table.rows)


def test_costs_have_units() -> None:
    costs = tables(comparison())[2]
    quick = dict(zip(costs.columns, costs.rows[2][1:], strict=True))
    assert quick == {
        "seconds": "0.50",
        "of retraining": "0.12 ×",
        "client visits": "1,200",
        "from clients": "1.5 MB",
        "to clients": "–",
        "update log": "–",
    }


def test_what_was_compared_and_over_what() -> None:
    assert title(comparison()) == "Client 3: 3 methods compared"
    pruned = comparison(settings={"prune": "omp", "sparsity": 0.95})
    assert title(pruned) == "Client 3, 95 % pruned (omp): 3 methods compared"
    assert over(comparison()) == "Mean ± standard deviation over 3 runs with seeds 0, 1 and 2"
    assert over(comparison(seeds=[7])).startswith("One run with one seed (7)")
