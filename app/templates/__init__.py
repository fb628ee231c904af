"""The projects that ``lethe new`` writes."""
