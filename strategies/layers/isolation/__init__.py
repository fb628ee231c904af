"""Groups of clients that are trained apart."""
