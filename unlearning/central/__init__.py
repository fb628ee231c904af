"""Forgetting methods as plain PyTorch: a model and examples in, a new model out.

Nothing of Flower is imported here. The federated methods of `unlearning.methods` are built from these
functions; with all the data in one place they can be called as they are. No function alters the model it is
given.
"""
