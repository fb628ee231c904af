"""Differential privacy as a section of the run config: accounting, private training, clipping and noise.

It works with any strategy that trains on clients: it changes what local training is (example-level), what a
client sends (client-level, local) or what the server adds up (client-level, central), and nothing else.
"""
