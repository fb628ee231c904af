"""Federated analytics: statistics over the clients' data of which the server gets the sums only."""
