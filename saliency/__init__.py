"""Explanations: attributions, the sound they keep, playback, event graphs and how far they can be trusted."""
