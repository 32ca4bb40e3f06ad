"""Functions on tensors: no module, no configuration, no transformers."""
