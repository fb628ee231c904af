"""MobileNet with BatchNorm under each policy, on images spread evenly and unevenly over six clients.

The last client leaves by each method that the policy allows. With `local` the clients measure, as the server
has no whole model, and only retraining forgets. ``--data npz:FILE`` takes images of one's own.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from forgetting import COLUMNS, Options, forget_by, table

import lethe

METHODS = ("finetune", "subtract", "federaser")
POLICIES = ("refuse", "group", "local", "recalibrate")
SPREADS: Mapping[str, Mapping[str, object]] = {
    "iid": {},
    "dirichlet 0.1": {"data.partition": "dirichlet", "data.alpha": 0.1},
}
SHOWN = ("policy", "spread", "server", "clients", "MB up")
"""Accuracy of the server's model on test data, that on the clients' own held out data, and what they sent."""


def read_data() -> str:
    """Return the name of the data set, and leave the other options on the command line."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--data", default="digits")
    given, sys.argv[1:] = parser.parse_known_args()
    kind, _, place = given.data.partition(":")
    return f"npz:{Path(place).absolute()}" if kind == "npz" else str(given.data)


def config(options: Options, data: str, policy: str, spread: str) -> dict[str, object]:
    """Return the run config of one policy and one spread."""
    keys = options.config(
        model__name="torchvision:mobilenet_v3_small",
        data__name=data,
        data__train_limit=120 if options.small else 1200,
        data__test_limit=40 if options.small else 500,
        data__local_test_share=0.2,
        run__federated_evaluation=True,
        run__evaluate_every=10,
        train__learning_rate=0.02,
        forget__finetune__epochs=2,
    )
    name = f"{policy}-{spread.partition(' ')[0]}"
    return {**keys, **SPREADS[spread], "run.name": name, "model.batch-norm": policy}


def trained(options: Options, data: str, policy: str, spread: str) -> "tuple[lethe.Run | None, list[str]]":
    """Return a run and what it measured; None and the reason where the policy refuses."""
    rounds = 1 if options.small else 6
    try:
        run = lethe.train(
            rounds=rounds, clients=6, config=config(options, data, policy, spread), progress=False
        )
    except lethe.BadInput as reason:
        return None, [policy, spread, "", "", str(reason)[:40]]
    final, sent = run.summary["final"], run.summary["traffic"]["bytes-up"] / 1e6
    measured = [f"{final[key]:.1f}" if key in final else "" for key in ("test-accuracy", "client-accuracy")]
    return run, [policy, spread, *measured, f"{sent:.1f}"]


def main() -> None:
    """Train under each policy, then let the last client leave the runs with an even spread."""
    data = read_data()
    options = Options.read(__doc__ or "")
    made = {(p, s): trained(options, data, p, s) for s in SPREADS for p in POLICIES}
    table(SHOWN, [row for _, row in made.values()])
    for policy in POLICIES:
        run, _ = made[policy, "iid"]
        if run is None:
            continue
        print(f"\nforgetting client 5, {policy}")  # noqa: T201
        if policy == "local":
            gone = run.forget(client="5", method="retrain")
            print(f"{gone.name}: {gone.result['seconds']:.0f} s")  # noqa: T201
        else:
            table(COLUMNS, forget_by(run, "5", METHODS))


if __name__ == "__main__":
    main()
