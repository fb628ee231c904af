"""app/report/comparison_tables.py: a comparison in tables, for terminal and report alike."""

from typing import Any

from app.report.comparison_tables import OTHER_SEED, Table, models, over, tables, title


def spread(mean: float | None, std: float | None = None) -> dict[str, Any]:
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


def column(table: Table, name: str) -> dict[str, str]:
    """Return a column's cells by row."""
    return {row[0]: row[1 + table.columns.index(name)] for row in table.rows}


def test_rates_have_mean_and_spread_and_gaps_stand_in_a_table_of_their_own() -> None:
    """Retraining has no gap to itself, and a method without figures has dashes."""
    disparities, rates, gaps, *_ = tables(comparison())
    assert column(rates, "TA") == {
        "before": "97.0 ± 0.5",
        "retrained": "90.0 ± 0.5",
        "quick": "89.0 ± 0.5",
        "slow": "91.0 ± 0.5",
        "failed": "–",
    }
    assert column(gaps, "TA") == {"before": "+7.0", "quick": "−1.0", "slow": "+1.0", "failed": "–"}
    shown = column(disparities, "disparity")
    assert list(shown.values()) == ["7.0 ± 0.2", "0.0 ± 0.2", "1.0 ± 0.2", "2.0 ± 0.2", "–"]
    assert all(len(row) == 1 + len(table.columns) for table in tables(comparison()) for row in table.rows)


def test_gaps_have_their_interval_and_disparities_stand_beside_doing_nothing() -> None:
    quick = figures(89.0, 1.0, 0.5, -1.0)
    quick["test_accuracy_gap"] |= {"low": -1.75, "high": -0.25}
    quick["disparity_ratio"] = spread(0.15, 0.05)
    quick["disparity_difference"] = spread(-6.0, 1.0) | {"low": -7.5, "high": -4.5}
    disparities, _, gaps, *_ = tables(comparison(methods={"quick": quick}))
    assert column(gaps, "TA")["quick"] == "−1.0 ± 0.8"
    assert column(disparities, "of nothing")["quick"] == "0.15 ± 0.05"
    assert column(disparities, "less nothing")["quick"] == "−6.0 ± 1.5"
    assert "paired by seed" in gaps.caption
    assert "one seed has no interval" in tables(comparison(seeds=[0]))[2].caption


def test_the_floor_stands_in_every_table_and_where_there_is_none_that_is_said() -> None:
    other = figures(90.0, 0.5, 4.0, 0.5)
    found = tables(comparison(methods={"quick": figures(89.0, 1.0, 0.5, -1.0), OTHER_SEED: other}))
    assert all("floor" in [row[0] for row in table.rows] for table in found)
    assert list(models(comparison(methods={"quick": other, OTHER_SEED: other})))[2] == "floor"
    assert "There is no floor (audit.seeds)" in tables(comparison())[0].caption


def test_values_in_two_groups_are_listed_and_ranked_by_their_median() -> None:
    two = spread(None) | {"listed": True, "values": [[80.0], [7.0], [82.0]]}
    found = comparison(methods={"odd": {"disparity": two}, "quick": figures(89.0, 1.0, 0.5, -1.0)})
    assert list(models(found)) == ["before", "retrained", "quick", "odd"]
    assert column(tables(found)[0], "disparity")["odd"] == "7.0, 80.0, 82.0"


def test_several_forgettings_split_the_spread() -> None:
    parted = figures(89.0, 1.0, 0.5, -1.0)
    parted["disparity"] |= {"std_training": 0.75, "std_forgetting": 0.25}
    found = comparison(methods={"quick": parted}, forgettings=2)
    assert column(tables(found)[0], "± training")["quick"] == "0.8"
    assert column(tables(found)[0], "± forgetting")["quick"] == "0.2"
    assert over(found).endswith("with seeds 0, 1 and 2, 2 forgettings by each method on each")
    assert "± training" not in tables(comparison())[0].columns


def test_kinds_of_examples_stand_apart_where_there_are_any() -> None:
    quick = figures(89.0, 1.0, 0.5, -1.0) | {
        "unlearning_accuracy_poisoned": spread(96.0),
        "unlearning_accuracy_clean": spread(4.0),
        "mia_efficacy_hard": spread(None),
    }
    (apart,) = (table for table in tables(comparison(methods={"quick": quick})) if "by kind" in table.caption)
    assert apart.columns == ("UA poisoned", "UA clean")
    assert column(apart, "UA poisoned")["quick"] == "96.0"
    assert not any("by kind" in table.caption for table in tables(comparison()))


def test_an_attack_on_single_examples_stands_with_its_gap_where_it_was_tried() -> None:
    area = {"rmia_area": spread(0.625, 0.01), "rmia_area_gap": {"mean": 0.125, "low": 0.1, "high": 0.16}}
    retrained = figures(90.0, 0.0, 4.0, 0.0) | {"rmia_area": spread(0.5), "rmia_area_gap": spread(0.0)}
    found = comparison(methods={"quick": figures(89.0, 1.0, 0.5, -1.0) | area}, retrain=retrained)
    (table,) = (table for table in tables(found) if "RMIA" in table.caption)
    assert column(table, "area")["quick"] == "0.62 ± 0.01"
    assert column(table, "gap to retrained") == {"before": "–", "retrained": "–", "quick": "+0.12 ± 0.03"}
    assert not any("RMIA" in table.caption for table in tables(comparison()))


def test_costs_have_units() -> None:
    costs = tables(comparison())[-1]
    quick = dict(zip(costs.columns, costs.rows[2][1:], strict=True))
    assert quick == {
        "seconds": "0.50",
        "of retraining": "0.12 ×",
        "visits": "1,200",
        "up": "1.5 MB",
        "down": "–",
        "update log": "–",
    }


def test_what_was_compared_and_over_what() -> None:
    assert title(comparison()) == "Client 3: 3 methods compared"
    pruned = comparison(settings={"prune": "omp", "sparsity": 0.95})
    assert title(pruned) == "Client 3, 95 % pruned (omp): 3 methods compared"
    assert over(comparison()) == "Mean ± standard deviation over 3 runs with seeds 0, 1 and 2"
    assert over(comparison(seeds=[7])).startswith("One run with one seed (7)")
