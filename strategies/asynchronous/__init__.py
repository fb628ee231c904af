"""Asynchronous training: nobody waits for the slowest client, and late updates are used with less weight."""
