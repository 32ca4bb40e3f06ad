"""Tensors of TensorFlow from a tokenizer, which transformers 5 no longer makes."""

from __future__ import annotations

from typing import Any

from transformers import BatchEncoding


class TensorFlowTensors:
    """A base class in front of one of transformers' tokenizers: `return_tensors="tf"` works as in transformers 4."""

    def __call__(self, *texts: Any, return_tensors: Any = None, **options: Any) -> BatchEncoding:
        """Return the inputs of a model for texts, as lists or as tensors of "pt", "np" or "tf".

        Raises:
            ImportError: TensorFlow is asked for and not installed.
        """
        make: Any = super().__call__  # type: ignore[misc]  # of the tokenizer behind this class
        if return_tensors != "tf":
            encoded: BatchEncoding = make(*texts, return_tensors=return_tensors, **options)
            return encoded
        try:
            import tensorflow
        except ModuleNotFoundError as error:
            raise ImportError(
                "return_tensors='tf' needs TensorFlow: pip install 'transformer-xl[tensorflow]', or take 'np'."
            ) from error
        encoded = make(*texts, return_tensors="np", **options)
        for name, numbers in encoded.items():
            encoded[name] = tensorflow.constant(numbers, tensorflow.int32)
        return encoded
