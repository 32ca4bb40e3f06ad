"""Writes tests/golden/original_sampled_softmax.safetensors: the authors' sampled softmax on given candidates.

Run with a checkout of kimiyoung/transformer-xl, by the environment that README.md beside this file describes:
`python tests/oracles/write_sampled_softmax.py PATH_TO_CHECKOUT`. Running twice gives the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

GOLDEN_FILE = Path(__file__).resolve().parent.parent / "golden" / "original_sampled_softmax.safetensors"
VOCABULARY, WIDTH, SAMPLES = 300, 12, 20


def main(checkout: Path) -> None:
    sys.path.insert(0, str(checkout / "pytorch" / "utils"))
    from log_uniform_sampler import LogUniformSampler, sample_logits

    torch.manual_seed(0)
    embedding = torch.nn.Embedding(VOCABULARY, WIDTH)
    bias = torch.randn(VOCABULARY, requires_grad=True)
    hidden = torch.randn(3, 4, WIDTH, requires_grad=True)
    sampler = LogUniformSampler(VOCABULARY, SAMPLES)
    # What the comment in their sampler says; its code has log1p(p) where the comment has log1p(-p).
    ids = torch.arange(VOCABULARY).double()
    probability = (1 / (ids + 1)).log1p() / torch.tensor(VOCABULARY + 1).double().log()
    sampler.log_q = (-torch.expm1(2 * SAMPLES * torch.log1p(-probability))).log().float()
    _, _, candidates = drawn = sampler.sample(torch.zeros(1, dtype=torch.long))
    # Labels that are candidates themselves and labels that are not.
    labels = torch.cat([candidates[:6], torch.arange(VOCABULARY - 6, VOCABULARY)]).view(3, 4)
    sampler.sample = lambda labels: (sampler.log_q[labels], *drawn[1:])
    logits = sample_logits(embedding, bias, labels, hidden, sampler)
    losses = -torch.nn.functional.log_softmax(logits, -1)[:, :, 0]
    losses.mean().backward()
    arrays = {
        "weight": embedding.weight.detach(),
        "bias": bias.detach(),
        "hidden": hidden.detach(),
        "labels": labels,
        "candidates": candidates,
        "num_samples": torch.tensor(SAMPLES),
        "losses": losses.detach(),
        "gradients/weight": embedding.weight.grad,
        "gradients/bias": bias.grad,
        "gradients/hidden": hidden.grad,
    }
    save_file({name: array.contiguous() for name, array in arrays.items()}, GOLDEN_FILE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
