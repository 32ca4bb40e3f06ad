"""`transformer-xl generate`: text that goes on from a prompt."""

from __future__ import annotations

import argparse

SENTENCE = "Let a model go on from a prompt; the text appears while it is written."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of writing."""
    parser.add_argument("out", metavar="OUT", help="folder that training wrote")
    parser.add_argument("--prompt", help="text to go on from (a line end, or what the session has read)")
    parser.add_argument(
        "--session",
        metavar="FILE",
        help="go on where the session in this file stopped, if there is one, and keep it there",
    )
    parser.add_argument("--length", type=int, metavar="N", default=500, help="symbols to write (%(default)s)")
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="X",
        default=0.8,
        help="0 takes the likeliest symbol, 1 draws as the model believes (%(default)s)",
    )
    parser.add_argument("--top-k", type=int, metavar="N", default=0, help="draw from the N likeliest only (all)")
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="X",
        default=1.0,
        help="draw from the likeliest that reach this probability (all)",
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="number that makes the text repeatable (a new one each time)"
    )


def run(options: argparse.Namespace) -> None:
    """Prints the prompt and what the model writes after it; keeps the session if there is a file for it."""
    from transformer_xl.generation import continue_text, open_session
    from transformer_xl.sessions import Session
    from transformer_xl.training.run_folder import load_run

    model, vocabulary = load_run(options.out)
    session = (
        open_session(model, options.session, options.seed) if options.session else Session(model, seed=options.seed)
    )
    prompt = ("" if session.num_read else "\n") if options.prompt is None else options.prompt
    pieces = continue_text(
        session,
        vocabulary,
        prompt,
        options.length,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
    )
    print(prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    if options.session:
        session.save(options.session)
