from __future__ import annotations

import gzip
import warnings
import zipfile
from dataclasses import replace

import pytest

from transformer_xl.data import datasets
from transformer_xl.data.corpus import encode_corpus
from transformer_xl.data.datasets import KNOWN_SETS, SPLITS
from transformer_xl.data.text_settings import TextSettings

LINES = {"train": " Mr. N saw <unk>\n \n it\n", "valid": " it saw Mr.\n", "test": " saw it\n"}


@pytest.fixture
def counted(monkeypatch):
    """Lets a known set count what is in these files."""

    def count(name, symbols, **counts):
        known = replace(KNOWN_SETS[name], counts=counts, num_symbols=symbols)
        monkeypatch.setitem(datasets.KNOWN_SETS, name, known)

    return count


def write(folder, pattern):
    for split, text in LINES.items():
        (folder / pattern.format(split)).write_text(text)


def encoded(name, folder, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return encode_corpus(TextSettings(dataset=name, data=str(folder)), folder / "corpus", **options)


def words(corpus, split="train"):
    return [corpus.vocabulary.symbols[i] for i in corpus.ids(split)]


def test_wikitext_ends_lines_with_eos_and_keeps_its_case(tmp_path):
    write(tmp_path, "wiki.{}.tokens")
    corpus = encoded("wt2", tmp_path)
    assert words(corpus) == ["Mr.", "N", "saw", "<unk>", "<eos>", "<eos>", "it", "<eos>"]
    assert words(corpus, "test") == ["saw", "it", "<eos>"]


def test_penn_treebank_is_lower_cased_whatever_reads_it(tmp_path):
    write(tmp_path, "ptb.{}.txt")
    corpus = encoded("ptb", tmp_path)
    assert words(corpus)[:4] == ["mr.", "n", "saw", "<unk>"]
    assert corpus.vocabulary.encode("MR. SAW").tolist() == corpus.vocabulary.encode("mr. saw").tolist()


def test_one_billion_words_are_sentences_between_borders(tmp_path):
    train = tmp_path / "all" / "training-monolingual.tokenized.shuffled"
    held_out = tmp_path / "all" / "heldout-monolingual.tokenized.shuffled"
    for folder in (train, held_out):
        folder.mkdir(parents=True)
    (train / "news.en-00001-of-00100").write_text("a b\nc\n")
    (train / "news.en-00002-of-00100").write_text("b zebra\n")
    (held_out / "news.en.heldout-00000-of-00050").write_text("a\n")
    (tmp_path / "1b_word_vocab.txt").write_text("<S>\n<UNK>\na\nb\nc\n")
    corpus = encoded("lm1b", tmp_path)
    assert words(corpus) == ["a", "b", "<S>", "c", "<S>", "b", "<UNK>", "<S>"]
    assert corpus.starts["train"].tolist() == [0, 3, 5]
    assert corpus.manifest.begin == corpus.vocabulary.symbols.index("<S>")
    assert corpus.manifest.splits["train"].unknown == 1


def test_files_may_be_packed_or_in_the_archive_as_published(tmp_path):
    (tmp_path / "train.txt.gz").write_bytes(gzip.compress(LINES["train"].encode()))
    with zipfile.ZipFile(tmp_path / "wikitext-2-v1.zip", "w") as archive:
        for split in ("valid", "test"):
            archive.writestr(f"wikitext-2/wiki.{split}.tokens", LINES[split])
    corpus = encoded("wt2", tmp_path)
    assert [len(corpus.ids(split)) for split in SPLITS] == [8, 4, 3]


@pytest.mark.parametrize(("name", "train", "test"), [("enwik8", b"ab\ncd", b"gh"), ("enwik8-authors", b"abcd", b"gh")])
def test_enwik8_is_cut_by_bytes_with_or_without_line_ends(name, train, test, tmp_path, monkeypatch):
    shares = {"train": (0, 5), "valid": (5, 8), "test": (8, 10)}
    monkeypatch.setitem(datasets.KNOWN_SETS, name, replace(KNOWN_SETS[name], shares=shares))
    (tmp_path / "enwik8").write_bytes(b"ab\ncde\nfgh")
    corpus = encoded(name, tmp_path)
    assert (bytes(corpus.train), bytes(corpus.test)) == (train, test)


def test_counts_that_are_right_are_not_spoken_of(tmp_path, counted):
    write(tmp_path, "wiki.{}.tokens")
    counted("wt2", 6, train=8, valid=4, test=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_corpus(TextSettings(dataset="wt2", data=str(tmp_path)), tmp_path / "corpus", strict=True)


def test_a_count_that_is_wrong_is_said_and_refused_if_asked(tmp_path, counted):
    write(tmp_path, "wiki.{}.tokens")
    counted("wt2", 6, train=9, valid=4, test=3)
    settings = TextSettings(dataset="wt2", data=str(tmp_path))
    with pytest.raises(ValueError, match="WikiText-2, train: 8 symbols were counted, but 9 are in the published one"):
        encode_corpus(settings, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()
    with pytest.warns(UserWarning, match="WikiText-2, train: 8 symbols were counted"):
        encode_corpus(settings, tmp_path / "corpus")


def test_an_unknown_set_lists_the_known_ones():
    with pytest.raises(ValueError, match="no known set 'wikitext': the known ones are wt103, wt2, ptb"):
        TextSettings(dataset="wikitext", data=".")


def test_a_missing_file_or_folder_of_a_known_set_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no ptb\.train\.txt or train\.txt \(Penn Treebank, train\)"):
        encoded("ptb", tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        encode_corpus(TextSettings(dataset="ptb", data=str(tmp_path / "none")), tmp_path / "corpus")
    with pytest.raises(ValueError, match="data is missing"):
        encode_corpus(TextSettings(dataset="ptb"), tmp_path / "corpus")
