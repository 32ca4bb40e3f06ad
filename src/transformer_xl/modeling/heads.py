"""What is put on top of the model: next-token prediction with `generate()`, and classification."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.generation.configuration_utils import GenerationConfig, GenerationMode
from transformers.generation.logits_process import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper
from transformers.generation.stopping_criteria import MaxLengthCriteria, StoppingCriteriaList
from transformers.generation.utils import GenerationMixin

from transformer_xl.modeling import memory
from transformer_xl.modeling.adaptive import IGNORED_LABEL, ProjectedAdaptiveLogSoftmax, check_token_ids
from transformer_xl.modeling.memory import TransfoXLCache
from transformer_xl.modeling.model import TransfoXLModel, TransfoXLPreTrainedModel
from transformer_xl.modeling.outputs import TransfoXLLMHeadModelOutput, TransfoXLSequenceClassifierOutputWithPast
from transformer_xl.modeling.stop_strings import StopStrings
from transformer_xl.ops.shared_matrix import shared_matrix
from transformer_xl.pretrained_config import TransfoXLConfig

LONGEST_SEGMENT = 512


class TransfoXLLMHeadModel(TransfoXLPreTrainedModel, GenerationMixin):
    """Transformer-XL that predicts the next token, with an adaptive softmax tied to its embedding as configured.

    With `sample_softmax` the losses are estimates while it trains, and exact in evaluation mode.

    Example:
        >>> model = TransfoXLLMHeadModel(config)
        >>> out = model(input_ids, labels=input_ids)      # labels are shifted inside
        >>> out.loss, out.losses.shape                    # nats per token; [B, T - 1]
        >>> model.generate(input_ids, max_new_tokens=20)
    """

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__(config)
        if config.sample_softmax > 0 and config.cutoffs:
            raise ValueError(
                f"sample_softmax={config.sample_softmax} draws candidates for one softmax over the whole vocabulary, "
                f"but cutoffs={config.cutoffs} divide it into bands: pass cutoffs=[], or sample_softmax=-1 for the "
                "exact softmax."
            )
        self.transformer = TransfoXLModel(config)
        self.crit = ProjectedAdaptiveLogSoftmax(
            config.vocab_size, config.d_embed, config.d_model, config.cutoffs, div_val=config.div_val
        )
        self.trainer_compatible = getattr(config, "trainer_compatible", False)
        self._tied_weights_keys = self.tied_weights()
        # The `<eos>` of this family's vocabularies is a line end, after which a text goes on.
        self.generation_config.eos_token_id = None
        self.post_init()

    def tied_weights(self) -> dict[str, str]:
        """Return the ties of outputs to inputs: layers by `tie_word_embeddings`, projections by `tie_projs`."""
        embedding = self.get_input_embeddings()
        ties = {}
        if self.config.tie_word_embeddings:
            for i in range(len(embedding.emb_layers)):
                ties[f"crit.out_layers.{i}.weight"] = f"transformer.word_emb.emb_layers.{i}.weight"
        if self.crit.out_projs:
            for i, tied in enumerate(self.config.tie_projs):
                if tied:
                    ties[f"crit.out_projs.{i}"] = (
                        f"transformer.word_emb.emb_projs.{min(i, len(embedding.emb_projs) - 1)}"
                    )
        return ties

    def get_output_embeddings(self) -> nn.Module:
        """Return the output layer of the last band, as transformers 4 does."""
        return self.crit.out_layers[-1]

    def get_adaptive_softmax(self) -> ProjectedAdaptiveLogSoftmax:
        """Return the adaptive softmax."""
        return self.crit

    def reset_memory_length(self, mem_len: int) -> None:
        """Remember `mem_len` positions from now on."""
        self.transformer.reset_memory_length(mem_len)

    def init_mems(self, bsz: int) -> list[Tensor] | None:
        """Return the memory before the first segment; see `TransfoXLModel.init_mems`."""
        return self.transformer.init_mems(bsz)

    def forward(
        self,
        input_ids: Tensor | None = None,
        mems: Sequence[Tensor] | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        past_key_values: TransfoXLCache | None = None,
        logits_to_keep: int | Tensor | None = None,
        shift_labels: Tensor | None = None,
        num_candidates: int | None = None,
    ) -> tuple[Any, ...] | TransfoXLLMHeadModelOutput:
        """Read one segment and predict, or score, the token after each position.

        The arguments of `TransfoXLModel.forward`, and:

        Args:
            labels: Token ids [B, T], -100 to leave one out. They are shifted inside, so `labels=input_ids` is right;
                the last position, whose next token lies in the next segment, is not scored.
            logits_to_keep: For which positions to return scores: the last n, 0 for all, or the indices [n]. By default
                all without labels and none with them.
            shift_labels: Labels that are shifted already [B, T]: the token after each position. Every token of a text
                can so be scored once, segment by segment.
            num_candidates: Scores are wanted for this many of the likeliest tokens; others may be minus infinity, which
                saves computing rare tokens that are none of them. By default all are wanted.

        Returns:
            `TransfoXLLMHeadModelOutput`, or a tuple of its fields that are not None: (losses, prediction_scores, mems,
            hidden_states, attentions, loss), or (loss, prediction_scores, losses, ...) if `config.trainer_compatible`.
            Scores that were not asked for keep their place in the tuple as `()`, as in transformers 4.

        Raises:
            ValueError: Both kinds of labels, labels of another shape than the segment, an id outside the vocabulary, or
                less than one candidate.
        """
        return_dict = self.config.return_dict if return_dict is None else return_dict
        matrix = None
        if inputs_embeds is None and input_ids is not None and self._has_shared_gradient(labels, shift_labels):
            lookup, matrix = shared_matrix(cast(Tensor, self.crit.out_layers[0].weight))
            inputs_embeds, input_ids = self.transformer.embedded(input_ids, lookup), None
        body = self.transformer(
            input_ids,
            mems,
            head_mask,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
            attention_mask=attention_mask,
            use_cache=use_cache,
            past_key_values=past_key_values,
        )
        hidden = body.last_hidden_state
        losses = loss = scores = None
        if labels is not None and shift_labels is not None:
            raise ValueError("Give either labels, which are shifted inside, or shift_labels, which are not; not both.")
        if labels is not None:
            losses, loss = self._losses(hidden, labels, matrix, shifted=False)
        if shift_labels is not None:
            losses, loss = self._losses(hidden, shift_labels, matrix, shifted=True)
        if logits_to_keep is not None or loss is None:
            kept = _kept(hidden, 0 if logits_to_keep is None else logits_to_keep)
            if num_candidates is None:
                scores = self.crit.log_prob(kept)
            else:
                scores = self.crit.log_prob_of_likeliest(kept, num_candidates)
        output = TransfoXLLMHeadModelOutput(
            losses=losses,
            prediction_scores=scores,
            mems=body.mems,
            hidden_states=body.hidden_states,
            attentions=body.attentions,
            loss=loss,
            past_key_values=body.past_key_values,
        )
        if return_dict:
            return output
        scores_or_nothing = () if scores is None else scores
        rest = (body.mems, body.hidden_states, body.attentions)
        fields = (loss, scores_or_nothing, losses, *rest)
        if not self.trainer_compatible:
            fields = (losses, scores_or_nothing, *rest, loss)
        return tuple(field for field in (*fields, body.past_key_values) if field is not None)

    def _has_shared_gradient(self, *labels: Tensor | None) -> bool:
        """Return whether inputs and outputs have one matrix, and the losses of these labels its gradient in one piece.

        An adapter in the place of the embedding must be called as a whole, and so must an embedding with hooks.
        """
        embedding, output = self.transformer.word_emb.emb_layers[0], self.crit.out_layers[0]
        return (
            any(kind is not None for kind in labels)
            and self.crit.has_one_gradient
            and not (self.training and self.config.sample_softmax > 0)
            and type(embedding) is nn.Embedding
            and not (embedding._forward_hooks or embedding._forward_pre_hooks)
            and embedding.weight is output.weight
            and output.weight.requires_grad
            and output.weight.device.type == "cpu"
        )

    def _losses(self, hidden: Tensor, labels: Tensor, matrix: Tensor | None, shifted: bool) -> tuple[Tensor, Tensor]:
        """Return the loss of each label, [B, T] or [B, T - 1] if they have yet to be shifted, and their mean."""
        name = "shift_labels" if shifted else "labels"
        if labels.shape != hidden.shape[:2]:
            raise ValueError(
                f"{name} has the shape {tuple(labels.shape)}, but the segment has {tuple(hidden.shape[:2])}: give one "
                "label for each token."
            )
        check_token_ids(name, labels, self.crit.n_token, ignored=IGNORED_LABEL)
        if not shifted:
            hidden, labels = hidden[:, :-1], labels[:, 1:]
        labels = labels.to(hidden.device)
        if self.training and self.config.sample_softmax > 0:
            losses = self.crit.sampled(hidden.flatten(0, 1), labels.flatten(), self.config.sample_softmax)
        else:
            losses = self.crit(hidden.flatten(0, 1), labels.flatten(), matrix)
        losses = losses.view(labels.shape)
        return losses, losses.sum() / labels.ne(IGNORED_LABEL).sum().clamp(min=1)

    def adjust_generation_fn(self, *args: Any, **kwargs: Any) -> None:
        """Take up the settings that came with a model; what only repeats its configuration ends no text."""
        super().adjust_generation_fn(*args, **kwargs)
        if self.generation_config._from_model_config:
            self.generation_config.eos_token_id = None

    def _prepare_generated_length(
        self, generation_config: GenerationConfig, has_default_max_length: bool, *args: Any, **kwargs: Any
    ) -> GenerationConfig:
        """Let a call that names no length write the default number of new tokens; transformers would cap it at -1."""
        if has_default_max_length and generation_config.max_new_tokens is None:
            generation_config.max_new_tokens = generation_config.max_length
        return super()._prepare_generated_length(generation_config, has_default_max_length, *args, **kwargs)

    def _get_stopping_criteria(
        self,
        generation_config: GenerationConfig,
        stopping_criteria: StoppingCriteriaList | None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> StoppingCriteriaList:
        """Stop at strings of any tokenizer, and do not warn that the text has grown longer than -1 positions."""
        strings = generation_config.stop_strings
        if strings is not None and tokenizer is not None:
            generation_config = copy.copy(generation_config)
            generation_config.stop_strings = None
        criteria = super()._get_stopping_criteria(generation_config, stopping_criteria, tokenizer)
        if strings is not None and tokenizer is not None:
            criteria.append(StopStrings(strings, tokenizer))
        for criterion in criteria:
            if isinstance(criterion, MaxLengthCriteria):
                criterion.max_position_embeddings = None
        return criteria

    def new_cache(self, mems: Sequence[Tensor] | None = None) -> TransfoXLCache:
        """Return a cache for inference; see `TransfoXLModel.new_cache`."""
        return self.transformer.new_cache(mems)

    def _prepare_cache_for_generation(
        self,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        generation_mode: GenerationMode,
        batch_size: int,
        max_cache_length: int,
    ) -> None:
        """Put a cache where `generate()` looks for it, and let it read long prompts segment by segment.

        Without a memory, or with positions in the hidden states, there is nothing to cache.
        """
        if self.transformer.mem_len == 0 and model_kwargs.get("inputs_embeds") is not None:
            raise ValueError(
                "generate() reads inputs_embeds once and goes on from memory, but mem_len is 0: give input_ids, or a "
                "memory with reset_memory_length."
            )
        given = model_kwargs.get("past_key_values")
        mems = model_kwargs.pop("mems", None)
        if mems is not None:
            copies = max(generation_config.num_beams or 1, generation_config.num_return_sequences or 1)
            mems = memory.reorder(mems, torch.arange(mems[0].shape[1]).repeat_interleave(copies))
        if given is not None:
            given._is_user_defined = True
        elif generation_config.use_cache is False or not self.transformer.has_cache:
            if mems is not None:
                model_kwargs["mems"] = mems
            return
        else:
            cache = model_kwargs["past_key_values"] = self.new_cache(mems)
            if generation_config.is_assistant:
                cache.activate_past_recording()
        if generation_config.prefill_chunk_size is None and model_kwargs.get("inputs_embeds") is None:
            generation_config.prefill_chunk_size = self.longest_segment

    def _sample(
        self,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **kwargs: Any,
    ) -> Any:
        """Generate greedily or by sampling, without computing rare tokens that cannot be chosen."""
        kwargs["num_candidates"] = _num_candidates(logits_processor, generation_config)
        ids = cast(torch.LongTensor, input_ids)
        return super()._sample(ids, logits_processor, stopping_criteria, generation_config, **kwargs)

    @property
    def longest_segment(self) -> int:
        """How many positions of a long text are read at once.

        With `same_length` every token sees the same window however the text is cut. Otherwise the cut is part of the
        result, and a text is cut only where it is longer than what the model was made for.
        """
        if self.transformer.same_length:
            return LONGEST_SEGMENT
        return max(self.config.tgt_len, self.transformer.mem_len)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: TransfoXLCache | Sequence[Tensor] | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        mems: Sequence[Tensor] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | None = None,
        num_candidates: int | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return what `forward` needs for the next tokens.

        `past_key_values` is a cache, or the memory that `forward` returned, which `generate()` keeps under this name.
        With neither, all tokens are read anew.
        """
        if past_key_values is None:
            next_sequence_length = None
        elif not isinstance(past_key_values, TransfoXLCache):
            past_key_values, mems, next_sequence_length = None, past_key_values, 1
        name, sequence = "input_ids", input_ids
        if inputs_embeds is not None and is_first_iteration:
            name, sequence = "inputs_embeds", inputs_embeds
        if next_sequence_length is not None:
            sequence = sequence[:, -next_sequence_length:]
        if attention_mask is not None:
            attention_mask = attention_mask[:, -sequence.shape[1] :]
        return {
            name: sequence,
            "mems": mems,
            "past_key_values": past_key_values,
            "attention_mask": attention_mask,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
            "num_candidates": num_candidates,
        }

    @staticmethod
    def _reorder_cache(
        past_key_values: TransfoXLCache | Sequence[Tensor], beam_idx: Tensor
    ) -> TransfoXLCache | list[Tensor]:
        if not isinstance(past_key_values, TransfoXLCache):
            return memory.reorder(past_key_values, beam_idx)
        past_key_values.reorder_cache(beam_idx)
        return past_key_values


class TransfoXLForSequenceClassification(TransfoXLPreTrainedModel):
    """Transformer-XL that sorts texts into classes by the hidden state of each row's last token.

    The last token is the last one that `attention_mask` does not mask, else the last one that is not
    `config.pad_token_id`, else the last position. Padding may stand on either side.
    """

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__(config)
        self.num_labels = cast(int, config.num_labels)
        self.transformer = TransfoXLModel(config)
        self.score = nn.Linear(config.d_model, self.num_labels, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        mems: Sequence[Tensor] | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
    ) -> tuple[Any, ...] | TransfoXLSequenceClassifierOutputWithPast:
        """Read one segment and classify each row.

        The arguments of `TransfoXLModel.forward`, and:

        Args:
            labels: Class of each row [B]; numbers [B] or [B, number of labels] for regression; 0 or 1 for each label
                [B, number of labels] for multi-label classification. `config.problem_type` says which; if it is None,
                one label means regression, whole numbers single-label and others multi-label classification.

        Returns:
            `TransfoXLSequenceClassifierOutputWithPast`, or a tuple of its fields that are not None.
        """
        return_dict = self.config.return_dict if return_dict is None else return_dict
        body = self.transformer(
            input_ids,
            mems,
            head_mask,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
            attention_mask=attention_mask,
            use_cache=use_cache,
        )
        hidden = body.last_hidden_state
        last = self._last_tokens(input_ids, attention_mask, hidden)
        logits = self.score(hidden[torch.arange(hidden.shape[0], device=hidden.device), last])
        output = TransfoXLSequenceClassifierOutputWithPast(
            loss=None if labels is None else self._loss(logits, labels.to(logits.device)),
            logits=logits,
            mems=body.mems,
            hidden_states=body.hidden_states,
            attentions=body.attentions,
        )
        return output if return_dict else output.to_tuple()

    def _last_tokens(self, input_ids: Tensor | None, attention_mask: Tensor | None, hidden: Tensor) -> Tensor:
        length = hidden.shape[1]
        if attention_mask is not None:
            is_token = attention_mask[:, -length:].bool()
        elif input_ids is not None and self.config.pad_token_id is not None:
            is_token = input_ids != self.config.pad_token_id
        else:
            return torch.full(hidden.shape[:1], length - 1, device=hidden.device)
        positions = torch.arange(length, device=hidden.device)
        last = positions.masked_fill(~is_token.to(hidden.device), -1).amax(dim=1)
        return last.where(last >= 0, length - 1)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        problem = self.config.problem_type
        if problem is None:
            whole = labels.dtype in (torch.long, torch.int)
            problem = "single_label_classification" if whole else "multi_label_classification"
            problem = "regression" if self.num_labels == 1 else problem
        if problem == "regression":
            return nn.functional.mse_loss(logits.view_as(labels), labels.to(logits.dtype))
        if problem == "single_label_classification":
            return nn.functional.cross_entropy(logits, labels.view(-1))
        return nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def _num_candidates(logits_processor: LogitsProcessorList, generation_config: GenerationConfig) -> int | None:
    """Return how many of the likeliest tokens decide what is generated; None if all do, or are asked for.

    Temperature keeps the order, and after top-k only its tokens are left.
    """
    if generation_config.return_dict_in_generate and (
        generation_config.output_scores or generation_config.output_logits
    ):
        return None
    for processor in logits_processor:
        if isinstance(processor, TopKLogitsWarper):
            return processor.top_k
        if not isinstance(processor, TemperatureLogitsWarper):
            return None
    return None if generation_config.do_sample else 1


def _kept(hidden: Tensor, logits_to_keep: int | Tensor) -> Tensor:
    """Return the positions of [B, T, D] whose scores are asked for."""
    if isinstance(logits_to_keep, Tensor):
        return hidden[:, logits_to_keep]
    return hidden[:, -logits_to_keep:]
