"""Three minutes of training on Shakespeare, then what memory buys, a picture and 500 characters of new text."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from transformer_xl.data.corpus import read_text
from transformer_xl.evaluation import Protocol, evaluate, score_table, sweep
from transformer_xl.generation import generate_text
from transformer_xl.training.loop import train
from transformer_xl.training.pictures import draw_run
from transformer_xl.training.run_folder import load_run, read_metrics
from transformer_xl.training.settings import RunSettings, TextSettings, TrainingSettings

MEMORY_LENGTHS = (0, 16, 32, 64, 128, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", help="new folder for the model and the picture (demo-DATE-TIME)")
    parser.add_argument("--minutes", type=float, default=3.0, help="minutes of training (3)")
    options = parser.parse_args()
    out = Path(options.out or time.strftime("demo-%Y%m%d-%H%M%S"))

    print(f"Training for {options.minutes:g} minutes on builtin:shakespeare ...")
    settings = RunSettings(TextSettings("builtin:shakespeare"), training=TrainingSettings(minutes=options.minutes))
    train(settings, out, show_progress=True)

    print("\nWhat memory buys: the validation text, with more and more of the past in view")
    model, vocabulary = load_run(out)
    ids = vocabulary.encode(read_text("builtin:shakespeare", "valid"))
    protocol = Protocol(model.config.tgt_len, batch_size=16, begin=vocabulary.line_end_id)
    scores = [evaluate(model, ids, each) for each in sweep(protocol, memory_lengths=MEMORY_LENGTHS)]
    print(score_table(scores, vocabulary.unit))

    picture = out / "demo.png"
    draw_run(read_metrics(out), scores, vocabulary.unit, picture)
    print(f"\nThe picture of it is {picture}. The model writes:\n")
    for piece in generate_text(model, vocabulary, "\n", 500, temperature=0.8, seed=1):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
