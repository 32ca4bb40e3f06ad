"""The adaptive embedding and softmax: one distribution over all bands, in the order of the tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from transformer_xl.modeling import adaptive
from transformer_xl.modeling.adaptive import AdaptiveEmbedding, ProjectedAdaptiveLogSoftmax

VOCABULARY, EMBEDDING, WIDTH = 50, 16, 12

# Cutoffs, divisor of the widths, width of the hidden states.
SHAPES = [
    ([], 1, EMBEDDING),
    ([], 1, WIDTH),
    ([10], 1, EMBEDDING),
    ([10, 30], 1, WIDTH),
    ([], 2, WIDTH),
    ([10, 30], 2, EMBEDDING),
    ([10, 30, 40], 2, WIDTH),
    ([10, 30], 4, WIDTH),
]


def softmax(cutoffs: list[int], div_val: int, width: int) -> ProjectedAdaptiveLogSoftmax:
    layer = ProjectedAdaptiveLogSoftmax(VOCABULARY, EMBEDDING, width, cutoffs, div_val)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.5)
    return layer


def written_out(layer: ProjectedAdaptiveLogSoftmax, hidden: Tensor) -> Tensor:
    """The probability of every token, from the state dict alone."""
    state = layer.state_dict()
    bands = layer.bands
    scores = []
    for i, band in enumerate(bands):
        part = "0" if layer.div_val == 1 else str(i)
        rows = slice(band.start, band.stop) if layer.div_val == 1 else slice(None)
        projected = hidden @ state[f"out_projs.{i}"] if layer.out_projs else hidden
        weight, bias = state[f"out_layers.{part}.weight"][rows], state[f"out_layers.{part}.bias"][rows]
        if i == 0 and len(bands) > 1:
            weight, bias = torch.cat([weight, state["cluster_weight"]]), torch.cat([bias, state["cluster_bias"]])
        scores.append((projected @ weight.T + bias).softmax(-1))
    shortlist = bands[0].stop
    tails = [scores[0][:, shortlist + i - 1, None] * scores[i] for i in range(1, len(bands))]
    return torch.cat([scores[0][:, :shortlist], *tails], dim=-1)


@pytest.mark.parametrize(("cutoffs", "div_val", "width"), SHAPES)
def test_the_probabilities_of_all_bands_sum_to_one(cutoffs: list[int], div_val: int, width: int) -> None:
    log_probabilities = softmax(cutoffs, div_val, width).log_prob(torch.randn(3, 7, width))
    assert log_probabilities.shape == (3, 7, VOCABULARY)
    torch.testing.assert_close(log_probabilities.exp().sum(-1), torch.ones(3, 7))


@pytest.mark.parametrize(("cutoffs", "div_val", "width"), SHAPES)
def test_a_rare_token_is_as_likely_as_its_cluster_times_itself_within_it(
    cutoffs: list[int], div_val: int, width: int
) -> None:
    layer, hidden = softmax(cutoffs, div_val, width), torch.randn(5, width)
    torch.testing.assert_close(layer.log_prob(hidden).exp(), written_out(layer, hidden))


@pytest.mark.parametrize(("cutoffs", "div_val", "width"), SHAPES)
def test_losses_are_minus_the_log_probabilities_in_the_order_of_the_labels(
    cutoffs: list[int], div_val: int, width: int
) -> None:
    layer, hidden = softmax(cutoffs, div_val, width), torch.randn(VOCABULARY, width)
    labels = torch.randperm(VOCABULARY)
    expected = -layer.log_prob(hidden).gather(1, labels[:, None]).squeeze(1)
    torch.testing.assert_close(layer(hidden, labels), expected)


@pytest.mark.parametrize(("most_rows", "most_scores"), [(1, 1), (4, 60), (512, 2**19)])
@pytest.mark.parametrize(("cutoffs", "div_val", "width"), SHAPES)
def test_losses_without_gradients_are_the_same_however_few_scores_are_held_at_a_time(
    monkeypatch: pytest.MonkeyPatch, cutoffs: list[int], div_val: int, width: int, most_rows: int, most_scores: int
) -> None:
    monkeypatch.setattr(adaptive, "MOST_ROWS", most_rows)
    monkeypatch.setattr(adaptive, "MOST_SCORES", most_scores)
    layer, hidden = softmax(cutoffs, div_val, width), torch.randn(9, width)
    labels = torch.tensor([-100, *torch.randint(0, VOCABULARY, (8,))])
    expected = layer(hidden, labels)
    with torch.no_grad():
        torch.testing.assert_close(layer(hidden, labels), expected.detach())


@pytest.mark.parametrize(("cutoffs", "div_val", "width"), SHAPES)
def test_a_label_of_minus_100_costs_nothing_and_teaches_nothing(cutoffs: list[int], div_val: int, width: int) -> None:
    layer, hidden = softmax(cutoffs, div_val, width), torch.randn(4, width, requires_grad=True)
    losses = layer(hidden, torch.tensor([3, -100, 45, -100]))
    losses.sum().backward()
    assert losses[[1, 3]].tolist() == [0, 0]
    assert not hidden.grad[[1, 3]].any()
    assert hidden.grad[[0, 2]].all()


@pytest.mark.parametrize("labels", [[0, 3, 9], [-100, -100, -100], []])
def test_a_cluster_that_no_label_touches_still_gets_a_gradient_of_zero(labels: list[int]) -> None:
    layer = softmax([10, 30], 2, WIDTH)
    layer(torch.randn(len(labels), WIDTH), torch.tensor(labels, dtype=torch.long)).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    assert not any(parameter.grad.any() for parameter in layer.out_layers[1:].parameters())
    assert not any(projection.grad.any() for projection in layer.out_projs[1:])


@pytest.mark.parametrize("layer", [softmax([10, 30], 2, WIDTH), AdaptiveEmbedding(VOCABULARY, 16, 12, [10], 2)])
def test_a_band_of_the_public_layers_can_be_counted(layer: torch.nn.Module) -> None:
    assert sum(band.size for band in layer.bands) == VOCABULARY


@pytest.mark.parametrize("wrong", [-1, VOCABULARY, -99])
def test_a_label_outside_the_vocabulary_is_named_with_its_place(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"labels.* {wrong} at position \[2\].*0 to 49, or -100"):
        softmax([10], 1, WIDTH)(torch.randn(3, WIDTH), torch.tensor([0, 1, wrong]))


def test_losses_and_probabilities_are_float32_in_a_half_precision_model() -> None:
    layer = softmax([10, 30], 2, WIDTH)
    hidden, labels = torch.randn(6, WIDTH), torch.tensor([0, 9, 10, 29, 30, 49])
    exact = layer(hidden, labels)
    half = layer.bfloat16()
    losses = half(hidden.bfloat16(), labels)
    assert losses.dtype == half.log_prob(hidden.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(losses, exact, rtol=0.02, atol=0.05)


@pytest.mark.parametrize(("cutoffs", "div_val", "width"), SHAPES)
def test_no_parameter_list_holds_nothing(cutoffs: list[int], div_val: int, width: int) -> None:
    embedding = AdaptiveEmbedding(VOCABULARY, EMBEDDING, width, cutoffs, div_val)
    assert all(
        isinstance(p, torch.nn.Parameter) for p in [*embedding.emb_projs, *softmax(cutoffs, div_val, width).out_projs]
    )


def table(embedding: AdaptiveEmbedding) -> Tensor:
    """The embedding of every token [V, D], from the state dict alone."""
    state = embedding.state_dict()
    if embedding.div_val == 1:
        rows = state["emb_layers.0.weight"]
        rows = rows @ state["emb_projs.0"].T if embedding.emb_projs else rows
    else:
        bands = range(len(embedding.bands))
        rows = torch.cat([state[f"emb_layers.{i}.weight"] @ state[f"emb_projs.{i}"].T for i in bands])
    return rows * embedding.d_proj**0.5


@pytest.mark.parametrize(("cutoffs", "div_val", "width"), SHAPES)
def test_an_embedding_is_its_row_projected_and_scaled(cutoffs: list[int], div_val: int, width: int) -> None:
    embedding = AdaptiveEmbedding(VOCABULARY, EMBEDDING, width, cutoffs, div_val)
    ids = torch.randint(VOCABULARY, (3, 40))
    torch.testing.assert_close(embedding(ids), table(embedding)[ids])


def test_the_embedding_takes_the_arguments_of_the_page_by_position() -> None:
    embedding = AdaptiveEmbedding(VOCABULARY, EMBEDDING, WIDTH, [10], 1, True)
    assert embedding.emb_layers[0].sparse
    assert not AdaptiveEmbedding(VOCABULARY, EMBEDDING, WIDTH, [10]).emb_layers[0].sparse


def test_every_band_of_the_embedding_gets_a_gradient_though_no_token_of_it_was_read() -> None:
    embedding = AdaptiveEmbedding(VOCABULARY, EMBEDDING, WIDTH, [10, 30], 2)
    embedding(torch.tensor([[1, 2, 10, 29]])).sum().backward()
    touched = [layer.weight.grad.any(1).nonzero().flatten().tolist() for layer in embedding.emb_layers]
    assert touched == [[1, 2], [0, 19], []]
    assert [bool(projection.grad.any()) for projection in embedding.emb_projs] == [True, True, False]


@pytest.mark.parametrize("wrong", [-1, VOCABULARY, -100])
@pytest.mark.parametrize("div_val", [1, 2])
def test_a_token_outside_the_vocabulary_is_named_with_its_place(wrong: int, div_val: int) -> None:
    embedding = AdaptiveEmbedding(VOCABULARY, EMBEDDING, WIDTH, [10], div_val)
    with pytest.raises(ValueError, match=rf"input_ids.* {wrong} at position \[1, 0\].*0 to 49"):
        embedding(torch.tensor([[1, 2], [wrong, wrong]]))


@pytest.mark.parametrize(("cutoffs", "div_val", "width"), SHAPES)
@pytest.mark.parametrize("k", [1, 3, 12])
@torch.no_grad()
def test_the_likeliest_have_the_numbers_that_they_have_among_all(
    cutoffs: list[int], div_val: int, width: int, k: int
) -> None:
    layer, hidden = softmax(cutoffs, div_val, width), torch.randn(40, 1, width)
    if layer.n_clusters:
        layer.cluster_bias -= 2
    everything = layer.log_prob(hidden)
    for rows in (slice(None), *(slice(i, i + 1) for i in range(40))):
        likeliest = layer.log_prob_of_likeliest(hidden[rows], k)
        is_computed = likeliest > float("-inf")
        torch.testing.assert_close(likeliest[is_computed], everything[rows][is_computed])
        assert is_computed.gather(-1, everything[rows].topk(k).indices).all()


def test_no_candidate_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="num_candidates is 0, but must be at least 1"):
        softmax([10, 30], 2, WIDTH).log_prob_of_likeliest(torch.randn(1, WIDTH), 0)


@torch.no_grad()
def test_a_tail_that_cannot_win_is_not_computed() -> None:
    layer, hidden = softmax([10, 30], 2, WIDTH), torch.randn(3, WIDTH)
    layer.cluster_bias.copy_(torch.tensor([0.0, -50.0]))
    assert (layer.log_prob_of_likeliest(hidden, 3)[:, 30:] == float("-inf")).all()
    layer.cluster_bias.fill_(50)
    assert torch.equal(layer.log_prob_of_likeliest(hidden, 3), layer.log_prob(hidden))
