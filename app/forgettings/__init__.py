"""The parts of app.forgettings."""
