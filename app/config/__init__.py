"""The parts of app.config."""
