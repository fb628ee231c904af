"""The parts of app.client."""
