"""Trackers: TensorBoard, MLflow and Weights & Biases get a run's figures, off the way of the training.

What they get is what the whole federation did: figures that are means or sums, seconds, bytes, and how many
clients answered or failed. Nothing of a single client is among it, and no key of the config that names one.
"""
