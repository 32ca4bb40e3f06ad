"""Losses, scores and classes: every token counted once, and nothing but the tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from transformer_xl.modeling.heads import TransfoXLForSequenceClassification, TransfoXLLMHeadModel

from .tiny_models import ATTENTION_TYPES, VOCABULARY, assert_close, random_ids, tiny_config, tiny_model

BANDS = [{}, {"div_val": 1}, {"cutoffs": [], "div_val": 1}, {"d_embed": 32}, {"cutoffs": [20], "d_embed": 8}]


def log_probabilities_of(model: Any, ids: Tensor, targets: Tensor) -> Tensor:
    return model(ids).logits.gather(-1, targets[..., None]).squeeze(-1)


# Losses


@pytest.mark.parametrize("changes", BANDS, ids=str)
def test_scores_are_log_probabilities(changes: dict[str, Any]) -> None:
    logits = tiny_model(**changes)(random_ids(2, 5)).logits
    assert logits.shape == (2, 5, VOCABULARY)
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(2, 5))


@pytest.mark.parametrize("changes", BANDS, ids=str)
def test_losses_stand_in_the_order_of_the_tokens(changes: dict[str, Any]) -> None:
    model = tiny_model(**changes)
    ids, targets = random_ids(2, 30), random_ids(2, 30)
    output = model(ids, shift_labels=targets)
    assert_close(output.losses, -log_probabilities_of(model, ids, targets))
    assert_close(output.loss, output.losses.mean())


@pytest.mark.parametrize("changes", BANDS, ids=str)
def test_labels_are_shifted_inside_so_that_the_last_position_is_not_scored(changes: dict[str, Any]) -> None:
    model, ids = tiny_model(**changes), random_ids(2, 6)
    output = model(ids, labels=ids)
    assert output.losses.shape == (2, 5)
    assert_close(output.losses, -log_probabilities_of(model, ids[:, :-1], ids[:, 1:]))
    assert_close(output.loss, output.losses.mean())


def test_shift_labels_score_every_token_of_a_text_once_whatever_the_segments() -> None:
    model, text = tiny_model(initial_memory="empty", mem_len=30), random_ids(1, 21)
    whole = model(text[:, :-1], shift_labels=text[:, 1:]).losses
    losses, mems = [], None
    for ids, targets in zip(text[:, :-1].split(6, dim=1), text[:, 1:].split(6, dim=1), strict=True):
        output = model(ids, mems=mems, shift_labels=targets)
        mems = output.mems
        losses.append(output.losses)
    assert_close(torch.cat(losses, dim=1), whole)


@pytest.mark.parametrize("changes", BANDS, ids=str)
def test_a_label_of_minus_100_is_left_out_of_the_mean(changes: dict[str, Any]) -> None:
    model, ids, targets = tiny_model(**changes), random_ids(2, 6), random_ids(2, 6)
    every_loss = model(ids, shift_labels=targets).losses
    left_out = torch.rand(2, 6) < 0.5
    left_out[0, 0], left_out[0, 1] = True, False
    output = model(ids, shift_labels=targets.masked_fill(left_out, -100))
    assert not output.losses[left_out].any()
    assert_close(output.losses[~left_out], every_loss[~left_out])
    assert_close(output.loss, every_loss[~left_out].mean())


def test_a_loss_of_exactly_zero_counts_in_the_mean() -> None:
    model, ids = tiny_model(cutoffs=[], div_val=1), random_ids(1, 4)
    with torch.no_grad():
        model.crit.out_layers[0].bias[7] = 1000.0
    output = model(ids, shift_labels=torch.tensor([[7, 3, 7, -100]]))
    assert output.losses[0, [0, 2]].tolist() == [0, 0]
    assert_close(output.loss, output.losses[0, 1] / 3)


@pytest.mark.parametrize("name", ["labels", "shift_labels"])
@pytest.mark.parametrize("changes", BANDS, ids=str)
def test_labels_of_nothing_but_minus_100_give_a_loss_of_zero_with_a_graph(name: str, changes: dict[str, Any]) -> None:
    model, ids = tiny_model(**changes), random_ids(2, 4)
    loss = model(ids, **{name: torch.full((2, 4), -100)}).loss
    assert loss.item() == 0
    loss.backward()
    for parameter in model.parameters():
        assert not parameter.grad.any()


def test_one_token_has_nothing_to_predict_within_its_segment() -> None:
    output = tiny_model()(random_ids(2, 1), labels=random_ids(2, 1))
    assert output.losses.shape == (2, 0)
    assert output.loss.item() == 0


@pytest.mark.parametrize("changes", [{"div_val": 1}, {"cutoffs": [], "div_val": 1}, {"div_val": 1, "d_embed": 32}])
@pytest.mark.parametrize("is_training", [False, True])
def test_a_matrix_of_inputs_and_outputs_gets_both_gradients_in_one(changes: dict[str, Any], is_training: bool) -> None:
    tied, apart = (tiny_model(tie_word_embeddings=tie, **changes).train(is_training) for tie in (True, False))
    inputs, outputs = apart.transformer.word_emb.emb_layers[0], apart.crit.out_layers[0]
    apart.load_state_dict(tied.state_dict())
    ids = random_ids(2, 9)
    for model in (tied, apart):
        torch.manual_seed(0)
        model(ids, labels=ids).loss.backward()
    gradient = tied.crit.out_layers[0].weight.grad
    assert gradient.layout is torch.strided
    assert_close(gradient, inputs.weight.grad + outputs.weight.grad)


def test_hooks_of_an_embedding_run_while_it_shares_its_matrix() -> None:
    model, ids, seen = tiny_model(cutoffs=[], div_val=1).train(), random_ids(2, 5), []
    model.transformer.word_emb.emb_layers[0].register_forward_hook(lambda *call: seen.append(call))
    model(ids, labels=ids)
    assert len(seen) == 1


@pytest.mark.parametrize("name", ["labels", "shift_labels"])
@pytest.mark.parametrize("wrong", [VOCABULARY, -1, -101])
def test_a_label_outside_the_vocabulary_is_named_with_its_place(name: str, wrong: int) -> None:
    labels = random_ids(2, 4)
    labels[1, 2] = wrong
    with pytest.raises(ValueError, match=rf"^{name} holds the token id {wrong} at position \[1, 2\].*0 to 49, or -100"):
        tiny_model()(random_ids(2, 4), **{name: labels})


def test_a_token_outside_the_vocabulary_is_named_with_its_place() -> None:
    ids = random_ids(2, 4)
    ids[0, 3] = 60
    with pytest.raises(ValueError, match=r"input_ids holds the token id 60 at position \[0, 3\].*0 to 49"):
        tiny_model()(ids)


@pytest.mark.parametrize("name", ["labels", "shift_labels"])
def test_labels_of_another_shape_than_the_segment_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} has the shape \(2, 3\).*\(2, 4\)"):
        tiny_model()(random_ids(2, 4), **{name: random_ids(2, 3)})


def test_both_kinds_of_labels_at_once_are_refused() -> None:
    ids = random_ids(2, 4)
    with pytest.raises(ValueError, match=r"either labels.* or shift_labels"):
        tiny_model()(ids, labels=ids, shift_labels=ids)


def test_a_sampled_softmax_of_bands_is_refused_rather_than_ignored() -> None:
    with pytest.raises(ValueError, match=r"sample_softmax=10 .*cutoffs=\[10, 30\].*sample_softmax=-1"):
        TransfoXLLMHeadModel(tiny_config(sample_softmax=10))


@pytest.mark.parametrize(
    "shape",
    [
        {"d_embed": 16},
        {"d_embed": 8},
        {"d_embed": 16, "tie_word_embeddings": False},
        {"d_embed": 8, "tie_word_embeddings": False},
    ],
    ids=["tied", "tied_narrow", "untied", "untied_narrow"],
)
def test_a_sampled_softmax_estimates_while_training_and_is_exact_in_evaluation(shape: dict[str, Any]) -> None:
    torch.manual_seed(0)
    sampled = tiny_model(cutoffs=[], div_val=1, sample_softmax=10, **shape)
    exact = TransfoXLLMHeadModel(tiny_config(cutoffs=[], div_val=1, **shape))
    exact.load_state_dict(sampled.state_dict())
    ids = random_ids(2, 6)
    labels = ids.clone()
    labels[0, 2] = -100
    assert torch.equal(sampled(ids, labels=labels).losses, exact.eval()(ids, labels=labels).losses)
    one, two = (sampled.train()(ids, labels=labels) for _ in range(2))
    assert not torch.equal(one.losses, two.losses)
    assert one.losses[0, 1] == 0
    one.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in sampled.parameters())
    sampled.config.sample_softmax = 10**7
    sampled.zero_grad()
    sampled(ids, labels=labels).loss.backward()
    exact(ids, labels=labels).loss.backward()
    for ours, theirs in zip(sampled.parameters(), exact.parameters(), strict=True):
        assert_close(ours.grad, theirs.grad)


# Which scores are returned


def test_logits_to_keep_returns_the_last_or_the_chosen_positions() -> None:
    model, ids = tiny_model(), random_ids(2, 6)
    logits = model(ids).logits
    assert_close(model(ids, logits_to_keep=0).logits, logits)
    assert_close(model(ids, logits_to_keep=1).logits, logits[:, -1:])
    assert_close(model(ids, logits_to_keep=4).logits, logits[:, -4:])
    assert_close(model(ids, logits_to_keep=torch.tensor([0, 5, 2])).logits, logits[:, [0, 5, 2]])


def test_with_labels_scores_are_returned_only_on_request() -> None:
    model, ids = tiny_model(), random_ids(2, 6)
    assert model(ids, labels=ids).logits is None
    output = model(ids, labels=ids, logits_to_keep=2)
    assert_close(output.logits, model(ids).logits[:, -2:])
    assert output.losses.shape == (2, 5)


class Shapes(TorchDispatchMode):
    """Notes the shape of every tensor that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.Size] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.seen.add(result.shape)
        return result


def test_with_labels_no_score_of_a_rare_token_is_computed_where_it_is_not_needed() -> None:
    model, ids = tiny_model(vocab_size=400, cutoffs=[11, 30]), random_ids(2, 6)
    targets = torch.tensor([[0, 1, 2, 3, 12, 5], [6, 7, 399, 350, 10, 0]])
    with Shapes() as shapes:
        model(ids, shift_labels=targets)
    assert (2, 370) in shapes.seen
    assert not any(400 in shape or shape in ((12, 370), (2, 6, 370)) for shape in shapes.seen if len(shape) > 1)


# Outputs as tuples, in the order of transformers 4


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    return len(first) == len(second) and all(map(same, first, second))


def test_the_arguments_of_the_page_work_by_position() -> None:
    model, ids, head_mask = tiny_model(), random_ids(2, 4), torch.tensor([1.0, 0.5])
    mems = model(random_ids(2, 6)).mems
    named = model(ids, mems=mems, head_mask=head_mask, labels=ids, output_attentions=True, output_hidden_states=True)
    positional = model(ids, mems, head_mask, None, ids, True, True, True)
    assert named.keys() == positional.keys()
    assert all(same(named[name], positional[name]) for name in named)


def test_a_tuple_has_the_order_of_transformers_4_and_keeps_the_place_of_scores() -> None:
    model, ids = tiny_model(), random_ids(2, 4)
    named = model(ids, labels=ids, output_attentions=True, output_hidden_states=True)
    losses, scores, mems, hidden_states, attentions, loss = model(ids, None, None, None, ids, True, True, False)
    assert scores == ()
    assert same(losses, named.losses)
    assert same(mems, named.mems)
    assert same(hidden_states, named.hidden_states)
    assert same(attentions, named.attentions)
    assert same(loss, named.loss)
    scores, mems = model(ids, return_dict=False)
    assert same(scores, model(ids).logits)
    assert same(mems, model(ids).mems)
    assert same(model(ids, labels=ids, logits_to_keep=0, return_dict=False)[1], scores)


def test_a_trainer_compatible_tuple_begins_with_the_loss() -> None:
    model, ids = tiny_model(trainer_compatible=True), random_ids(2, 4)
    named = model(ids, labels=ids, output_hidden_states=True)
    loss, scores, losses, mems, hidden_states = model(ids, labels=ids, output_hidden_states=True, return_dict=False)
    assert scores == ()
    assert all(
        map(same, (loss, losses, mems, hidden_states), (named.loss, named.losses, named.mems, named.hidden_states))
    )
    scores, _ = model(ids, return_dict=False)
    assert same(scores, model(ids).logits)


# Classification


def classifier(**changes: Any) -> TransfoXLForSequenceClassification:
    return tiny_model(TransfoXLForSequenceClassification, num_labels=3, **changes)


@pytest.mark.parametrize("d_embed", [16, 32])
def test_a_classifier_scores_the_hidden_state_of_the_last_token(d_embed: int) -> None:
    model, ids = classifier(d_embed=d_embed), random_ids(2, 4)
    output = model(ids, output_hidden_states=True, output_attentions=True)
    assert_close(output.logits, output.hidden_states[-1][:, -1] @ model.score.weight.T)
    assert model.score.weight.shape == (3, 16)
    assert len(output.mems) == len(output.attentions) == 2
    assert output.loss is None


@pytest.mark.parametrize("attn_type", ATTENTION_TYPES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_text_is_classified_as_it_is_alone(attn_type: int, side: str) -> None:
    model, text, padding = classifier(attn_type=attn_type), random_ids(1, 3), random_ids(1, 2)
    alone = model(text).logits
    parts = [padding, text] if side == "left" else [text, padding]
    mask = torch.cat([torch.full_like(part, int(part is text)) for part in parts], dim=1)
    batch = torch.cat([torch.cat(parts, dim=1), random_ids(1, 5)])
    masks = torch.cat([mask, torch.ones(1, 5, dtype=torch.long)])
    assert_close(model(batch, attention_mask=masks).logits[:1], alone)
    assert_close(model(inputs_embeds=model.transformer.word_emb(batch), attention_mask=masks).logits[:1], alone)


@pytest.mark.parametrize(
    ("row", "last"),
    [([4, 5, 6, 1, 1], 2), ([1, 1, 4, 5, 6], 4), ([1, 4, 1, 5, 1], 3), ([4, 4, 4, 4, 4], 4), ([1, 1, 1, 1, 1], 4)],
)
def test_without_a_mask_the_last_token_is_the_last_that_is_not_padding(row: list[int], last: int) -> None:
    model, ids = classifier(pad_token_id=1), torch.tensor([row])
    output = model(ids, output_hidden_states=True)
    assert_close(output.logits, output.hidden_states[-1][:, last] @ model.score.weight.T)


def test_without_padding_token_or_ids_the_last_token_is_the_last_position() -> None:
    ids = torch.tensor([[4, 5, 1]])
    for model, inputs in ((classifier(), {"input_ids": ids}), (classifier(pad_token_id=1), {})):
        inputs = inputs or {"inputs_embeds": model.transformer.word_emb(ids)}
        output = model(**inputs, output_hidden_states=True)
        assert_close(output.logits, output.hidden_states[-1][:, -1] @ model.score.weight.T)


CLASSES = torch.tensor([2, 0])
SETS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
NUMBERS = torch.tensor([[0.5, -1.0, 2.0], [3.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("problem_type", "labels", "loss"),
    [
        (None, CLASSES, torch.nn.functional.cross_entropy),
        ("single_label_classification", CLASSES, torch.nn.functional.cross_entropy),
        (None, SETS, torch.nn.functional.binary_cross_entropy_with_logits),
        ("multi_label_classification", SETS, torch.nn.functional.binary_cross_entropy_with_logits),
        (
            "multi_label_classification",
            SETS.long(),
            lambda logits, labels: torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float()),
        ),
        ("regression", NUMBERS, torch.nn.functional.mse_loss),
    ],
)
def test_the_loss_is_that_of_the_problem(problem_type: str | None, labels: Tensor, loss: Any) -> None:
    model, ids = classifier(problem_type=problem_type), random_ids(2, 4)
    output = model(ids, labels=labels)
    assert_close(output.loss, loss(output.logits, labels))
    assert model.config.problem_type == problem_type
    output.loss.backward()
    assert model.score.weight.grad.any()


@pytest.mark.parametrize("labels", [torch.tensor([0.5, -1.0]), torch.tensor([[0.5], [-1.0]]), torch.tensor([1, 2])])
@pytest.mark.parametrize("problem_type", [None, "regression"])
def test_one_label_means_regression(labels: Tensor, problem_type: str | None) -> None:
    model = tiny_model(TransfoXLForSequenceClassification, num_labels=1, problem_type=problem_type)
    output = model(random_ids(2, 4), labels=labels)
    assert output.logits.shape == (2, 1)
    assert_close(output.loss, (output.logits.flatten() - labels.flatten()).pow(2).mean())


def test_the_arguments_of_the_page_work_by_position_for_the_classifier_too() -> None:
    model, ids = classifier(), random_ids(2, 4)
    named = model(ids, labels=CLASSES, output_attentions=True, output_hidden_states=True)
    loss, logits, mems, hidden_states, attentions = model(ids, None, None, None, CLASSES, True, True, False)
    fields = (named.loss, named.logits, named.mems, named.hidden_states, named.attentions)
    assert all(map(same, (loss, logits, mems, hidden_states, attentions), fields))
    logits, mems = model(ids, return_dict=False)
    assert same(logits, model(ids).logits)


def test_the_examples_of_the_page_work_with_the_import_line_changed(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    inputs = {"input_ids": random_ids(1, 6)}

    model = TransfoXLLMHeadModel.from_pretrained(tmp_path)
    outputs = model(**inputs, labels=inputs["input_ids"])
    assert outputs.loss.isfinite()
    assert model(**inputs).logits.shape == (1, 6, VOCABULARY)

    model = TransfoXLForSequenceClassification.from_pretrained(tmp_path, problem_type="multi_label_classification")
    logits = model(**inputs).logits
    predicted = torch.arange(0, logits.shape[-1])[torch.sigmoid(logits).squeeze(dim=0) > -1]
    num_labels = len(model.config.id2label)
    model = TransfoXLForSequenceClassification.from_pretrained(
        tmp_path, num_labels=num_labels, problem_type="multi_label_classification"
    )
    labels = torch.sum(torch.nn.functional.one_hot(predicted[None, :].clone(), num_classes=num_labels), dim=1)
    assert model(**inputs, labels=labels.to(torch.float)).loss.isfinite()

    model = TransfoXLForSequenceClassification.from_pretrained(tmp_path, num_labels=4)
    assert model(**inputs, labels=torch.tensor([1])).loss.isfinite()
    assert 0 <= model(**inputs).logits.argmax().item() < 4
