"""Forgetting methods as plain PyTorch: a model and examples in, a new model out.

Nothing of Flower is imported here. The federated methods of `unlearning.methods` are built from these
functions; whoever holds all the data in one place can call them as they are. No function alters the model it
is given.
"""
