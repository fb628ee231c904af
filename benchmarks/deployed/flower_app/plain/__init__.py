"""The Flower app of `lethe bench deployed`."""
