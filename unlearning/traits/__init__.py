"""What each forgetting method takes, needs and promises: a module per method, none of which imports torch."""
