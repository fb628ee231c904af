"""Server-side optimisers: FedAvgM, FedAdagrad, FedAdam and FedYogi."""
