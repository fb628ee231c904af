"""Compressed updates: codecs, error feedback, and the layer that wraps a strategy in them."""
