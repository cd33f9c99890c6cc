"""Trained checkpoints, example clips and label lists."""
