"""Updates that the server adds up without being able to read them: homomorphic encryption."""
