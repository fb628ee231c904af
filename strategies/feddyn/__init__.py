"""FedDyn: dynamic regularisation."""
