"""The parts of app.messages."""
