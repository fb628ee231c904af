"""The parts of app.models."""
