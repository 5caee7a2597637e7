"""Training classifiers whose heatmaps know the classes of a dataset."""
