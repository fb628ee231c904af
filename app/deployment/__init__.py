"""The parts of app.deployment."""
