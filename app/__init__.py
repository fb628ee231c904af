"""The Flower application: entry points, and everything that touches the outside."""
