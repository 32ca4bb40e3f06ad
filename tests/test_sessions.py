from __future__ import annotations

import resource
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from transformer_xl import TransfoXLConfig, TransfoXLLMHeadModel
from transformer_xl.sessions import Sampling, Session

VOCAB = 40


def make_model(**overrides) -> TransfoXLLMHeadModel:
    settings = {
        "vocab_size": VOCAB,
        "cutoffs": [8, 20],
        "d_model": 16,
        "d_embed": 16,
        "n_head": 2,
        "d_head": 8,
        "d_inner": 32,
        "n_layer": 2,
        "mem_len": 6,
        "clamp_len": -1,
        "div_val": 2,
        "init_std": 0.3,
        "proj_init_std": 0.3,
        "eos_token_id": None,
        "tgt_len": 5,
    }
    torch.manual_seed(3)
    return TransfoXLLMHeadModel(TransfoXLConfig(**settings | overrides))


def some_ids(*shape: int) -> torch.Tensor:
    return torch.randint(0, VOCAB, shape, generator=torch.Generator().manual_seed(1))


def text_of(session: Session, num_tokens: int, **sampling) -> list[list[int]]:
    return [token.tolist() for token in session.write(num_tokens, Sampling(**sampling))]


def test_what_is_fed_in_pieces_is_what_is_fed_at_once():
    model = make_model()
    ids = some_ids(2, 50)
    at_once = Session(model, 2).feed(ids).log_probabilities()
    in_pieces = Session(model, 2)
    for piece in ids.split([1, 7, 2, 30, 10], dim=1):
        in_pieces.feed(piece)
    torch.testing.assert_close(in_pieces.log_probabilities(), at_once, rtol=1e-4, atol=1e-4)
    assert in_pieces.num_read == 50


def test_the_distribution_is_that_of_the_model():
    model = make_model(initial_memory="empty", mem_len=40, same_length=False, tgt_len=100)
    ids = some_ids(1, 20)
    believed = Session(model).feed(ids[0]).log_probabilities()
    with torch.no_grad():
        torch.testing.assert_close(believed, model(ids).logits[:, -1], rtol=1e-4, atol=1e-4)


def test_each_token_is_scored_by_what_was_read_before_it():
    model = make_model()
    ids = some_ids(2, 30)
    session = Session(model, 2)
    losses = torch.cat([session.score(ids[:, :11]), session.score(ids[:, 11:])], dim=1)
    assert losses[:, 0].isnan().all()
    other = Session(model, 2)
    for i in range(29):
        expected = -other.feed(ids[:, i : i + 1]).log_probabilities().gather(1, ids[:, i + 1 : i + 2]).squeeze(1)
        torch.testing.assert_close(losses[:, i + 1], expected, rtol=1e-4, atol=1e-4)


def test_greedy_writing_is_what_generate_writes():
    model = make_model()
    ids = some_ids(2, 9)
    written = torch.tensor(text_of(Session(model, 2).feed(ids), 15, temperature=0)).T
    assert torch.equal(written, model.generate(ids, max_new_tokens=15, do_sample=False)[:, 9:])


def test_drawing_from_the_likeliest_keeps_to_the_likeliest():
    session = Session(make_model(), seed=1).feed(some_ids(9))
    for _ in range(20):
        allowed = session.log_probabilities().topk(3).indices[0].tolist()
        ((token,),) = text_of(session, 1, top_k=3)
        assert token in allowed


def test_what_is_never_written_is_never_written():
    model = make_model()
    likeliest = Session(model).feed(some_ids(9)).log_probabilities().argmax().item()
    for sampling in ({"temperature": 0}, {"top_k": 2}, {}):
        session = Session(model, seed=1).feed(some_ids(9))
        assert likeliest not in [token for (token,) in text_of(session, 30, never=(likeliest,), **sampling)][:1]


@pytest.mark.parametrize("kind", [{}, {"attn_type": 2}, {"initial_memory": "empty"}], ids=str)
def test_a_model_can_learn_from_what_it_wrote_and_the_session_go_on(kind):
    model = make_model(cutoffs=[], div_val=1, **kind)
    session = Session(model, 2, seed=0).feed(some_ids(2, 3))
    tokens = list(session.write(300))
    written = torch.stack(tokens, dim=1)
    session.reset(torch.tensor([True, False]))
    for each in (session.fork(), session):
        losses = each.feed(written[:, :4]).score(written)
        assert losses.isfinite().all()
    model.transformer(tokens[-1][:, None]).last_hidden_state.sum().backward()


def test_a_fork_goes_its_own_way():
    session = Session(make_model(), seed=1).feed(some_ids(9))
    fork = session.fork()
    expected = text_of(fork.fork(), 10)
    text_of(session, 20)
    assert text_of(fork, 10) == expected


@pytest.mark.parametrize("memory", ["zeros", "empty"])
def test_a_new_text_in_one_row_leaves_the_other_alone(memory):
    model = make_model(initial_memory=memory)
    first, second = some_ids(2, 9), some_ids(2, 4)
    session = Session(model, 2).feed(first)
    session.reset(torch.tensor([True, False]))
    assert session.log_probabilities()[0].isnan().all()
    believed = session.feed(second).log_probabilities()
    begun = Session(model).feed(second[:1]).log_probabilities()
    gone_on = Session(model).feed(torch.cat([first, second], dim=1)[1:]).log_probabilities()
    torch.testing.assert_close(believed, torch.cat([begun, gone_on]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [{}, {"initial_memory": "empty"}, {"attn_type": 2}, {"mem_len": 0}], ids=str)
def test_a_saved_session_goes_on_to_the_bit(kind, tmp_path):
    model = make_model(**kind)
    session = Session(model, 2, seed=4).feed(some_ids(2, 300))
    session.reset(torch.tensor([True, False]))
    session.feed(some_ids(2, 3))
    session.save(tmp_path / "session.safetensors")
    resumed = Session.load(model, tmp_path / "session.safetensors")
    assert resumed.num_read == session.num_read
    assert text_of(resumed, 300) == text_of(session, 300)
    assert torch.equal(resumed.log_probabilities(), session.log_probabilities())


def test_another_process_goes_on_to_the_bit(tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path / "model")
    session = Session(model).feed(some_ids(77))
    session.save(tmp_path / "session.safetensors")
    program = """
import sys, torch
from transformer_xl import TransfoXLLMHeadModel
from transformer_xl.sessions import Session
session = Session.load(TransfoXLLMHeadModel.from_pretrained(sys.argv[1]), sys.argv[2])
torch.save(session.feed(torch.arange(9)).log_probabilities(), sys.argv[3])
"""
    paths = [str(tmp_path / name) for name in ("model", "session.safetensors", "believed.pt")]
    subprocess.run([sys.executable, "-c", program, *paths], check=True, capture_output=True)
    believed = torch.load(tmp_path / "believed.pt", weights_only=True)
    assert torch.equal(believed, session.feed(torch.arange(9)).log_probabilities())


def test_a_session_of_another_model_is_refused(tmp_path):
    Session(make_model()).feed(some_ids(5)).save(tmp_path / "session.safetensors")
    with pytest.raises(ValueError, match="another model"):
        Session.load(make_model(mem_len=7), tmp_path / "session.safetensors")


def test_files_that_are_no_session_are_refused(tmp_path):
    model = make_model()
    with pytest.raises(FileNotFoundError, match="no session at"):
        Session.load(model, tmp_path / "nothing")
    (tmp_path / "text").write_text("not a session at all")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        Session.load(model, tmp_path / "text")
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match="no session"):
        Session.load(model, tmp_path / "other")


@pytest.mark.parametrize(
    ("sampling", "name"),
    [({"temperature": -1.0}, "temperature"), ({"temperature": float("nan")}, "temperature"), ({"top_k": -1}, "top_k"),
     ({"top_p": 0.0}, "top_p"), ({"top_p": 1.5}, "top_p")],
)  # fmt: skip
def test_impossible_sampling_is_refused(sampling, name):
    with pytest.raises(ValueError, match=name):
        Sampling(**sampling)


def test_an_empty_session_has_nothing_to_go_on_from():
    session = Session(make_model())
    with pytest.raises(ValueError, match="feed it at least one token"):
        session.log_probabilities()
    with pytest.raises(ValueError, match="feed it at least one token"):
        session.write(3)
    with pytest.raises(ValueError, match="one row of token ids"):
        session.feed(some_ids(2, 3))


def test_the_past_has_a_constant_size():
    session = Session(make_model())
    session.feed(some_ids(600))
    size = sum(tensor.numel() for tensor in session._reader.state().values())
    session.feed(some_ids(3000))
    assert sum(tensor.numel() for tensor in session._reader.state().values()) == size


@pytest.mark.slow
def test_a_million_tokens_take_no_more_memory_than_ten_thousand():
    model = make_model(n_layer=1, cutoffs=[], same_length=True, mem_len=64)
    session = Session(model)
    session.feed(some_ids(10_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(99):
        session.feed(some_ids(10_000))
    list(session.write(100, Sampling(temperature=0)))
    assert session.num_read == 1_000_100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4 * 1024
