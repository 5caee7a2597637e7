"""Measures: `boxes` against annotations, `heatmaps` against them, and `faithfulness` to a model."""
