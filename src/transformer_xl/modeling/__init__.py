"""The model family in PyTorch."""
