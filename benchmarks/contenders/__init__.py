"""The contenders: each a module that runs one job in a process of its own and prints what it measured."""
