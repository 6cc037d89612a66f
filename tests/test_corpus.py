"""The corpora: what is held out stays out, and batches depend on nothing but seed and step."""

from __future__ import annotations

import json

import pytest
import torch

from gptoss_lab.text.tokens import encode, encoding
from gptoss_lab.training import corpus
from gptoss_lab.training.corpus import (
    DOMAINS,
    Batches,
    heldout_text,
    heldout_windows,
    parallel_pairs,
    token_ids,
    training_text,
    without,
)
from gptoss_lab.training.tokenizer import learn, sample


def test_the_texts_are_the_ones_recorded():
    assert corpus.hashes() == json.loads((corpus.CORPORA / "hashes.json").read_text())


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_last_two_per_cent_are_held_out_in_whole_lines(domain):
    whole, train, tail = corpus.read(DOMAINS[domain].file), training_text(domain), heldout_text(domain)
    assert whole.endswith("\n" + tail)
    assert 0.02 <= len(tail) / len(whole) < 0.021
    assert tail not in train
    if not DOMAINS[domain].verses:
        assert train + tail == whole


def test_the_verses_are_the_two_thousand_from_genesis_to_exodus():
    pairs = parallel_pairs()
    assert len(pairs) == len({pair.key for pair in pairs}) == 2000
    assert (pairs[0].key, pairs[-1].key) == ("Genesis 1:1", "Exodus 17:16")
    assert pairs[2].english == "God said, “Let there be light,” and there was light."
    assert pairs[2].spanish == "Y dijo Dios: Sea la luz: y fué la luz."


@pytest.mark.parametrize("language, domain", [("english", "scripture"), ("spanish", "spanish")])
def test_no_verse_of_the_pairs_remains_in_its_training_text(language, domain):
    text = training_text(domain)
    assert [pair.key for pair in parallel_pairs() if getattr(pair, language) in text] == []
    assert len(text) > 0.9 * len(corpus.read(DOMAINS[domain].file))
    assert not any(gap in text for gap in ("  ", "\n ", " \n", "\n\n\n"))


def test_cutting_takes_overlapping_verses_and_their_gaps():
    text = "One two three four.\nThree four five. Six.\n\nTwo three.\n"
    assert without(text, ["two three", "three four.", "Six."]) == "One\nThree four five.\n\nTwo three.\n"
    assert without("a b\n\nverse\n\nc", ["verse"]) == "a b\n\nc"


def test_an_unknown_domain_is_refused_with_the_names():
    with pytest.raises(ValueError, match="no domain 'poetry'; there are fiction, dialogue"):
        training_text("poetry")


def test_documents_are_kept_apart_by_the_special_token():
    mini = encoding("mini")
    text = "# file: a.py\nx = 1\n# file: b.py\ny = 2\n"
    at = text.index("# file: b")
    first, second = encode(text[:at], mini), encode(text[at:], mini)
    assert token_ids(mini, text, "python").tolist() == [*first, 4095, *second]
    assert token_ids(mini, text, "arithmetic").tolist() == encode(text, mini)


@pytest.mark.parametrize("name", ["mini", "gpt2"])
def test_heldout_windows_cover_the_text_once_and_count_its_bytes(name):
    made = encoding(name)
    windows = heldout_windows(made, "spanish", context=64)
    ids = token_ids(made, heldout_text("spanish"), "spanish")
    assert windows.tokens.shape[1] == 65
    assert torch.equal(windows.tokens[:-1, -1], windows.tokens[1:, 0])
    targets = windows.tokens[:, 1:].flatten()
    assert torch.equal(targets, ids[1 : len(targets) + 1].long())
    end = made.encode_single_token("<|endoftext|>")
    read = made.decode_bytes([i for i in targets.tolist() if i != end])
    assert windows.bytes.sum() == len(read)
    assert windows.bytes[3] == len(made.decode_bytes([i for i in windows.tokens[3, 1:].tolist() if i != end]))
    few = heldout_windows(made, "spanish", context=64, limit=7)
    assert few.tokens.shape == (7, 65)
    assert (few.tokens[:, None] == windows.tokens[None]).all(-1).any(-1).all()
    assert torch.equal(few.tokens, heldout_windows(made, "spanish", 64, 7).tokens)


def test_a_window_longer_than_the_heldout_text_is_refused():
    with pytest.raises(ValueError, match="take a context below that, not 100000"):
        heldout_windows(encoding("mini"), "arithmetic", context=100_000)


MADE_UP = {"low": torch.arange(100, dtype=torch.int32), "high": 1000 + torch.arange(37, dtype=torch.int32)}


def test_a_batch_is_a_pure_function_of_seed_and_step():
    first, second = (Batches(MADE_UP, batch=5, context=7, seed=3) for _ in range(2))
    for step in (4, 0, 4, 10**9):
        tokens, domains = first.batch(step)
        assert tokens.shape == (5, 8) and tokens.dtype == torch.int64 and domains.shape == (5,)
        again, same = second.batch(step)
        assert torch.equal(tokens, again) and torch.equal(domains, same)
    assert not torch.equal(first.batch(0)[0], first.batch(1)[0])
    assert not torch.equal(first.batch(0)[0], Batches(MADE_UP, 5, 7, seed=4).batch(0)[0])


def test_windows_are_runs_of_their_own_domain_and_reach_both_ends():
    tokens, domains = Batches(MADE_UP, batch=4000, context=7, seed=0).batch(0)
    assert torch.equal(tokens, tokens[:, :1] + torch.arange(8))
    assert torch.equal(domains, (tokens[:, 0] >= 1000).long())
    for domain, (low, high) in enumerate([(0, 92), (1000, 1029)]):
        starts = tokens[domains == domain, 0]
        assert (starts.min(), starts.max()) == (low, high)
        assert len(starts.unique()) == high - low + 1
    assert 0.47 < domains.float().mean() < 0.53


def test_weights_set_the_share_of_a_domain():
    _, domains = Batches(MADE_UP, batch=4000, context=7, seed=0, weights={"high": 3, "low": 1}).batch(0)
    assert 0.72 < domains.float().mean() < 0.78
    _, domains = Batches(MADE_UP, batch=400, context=7, seed=0, weights={"low": 1}).batch(0)
    assert domains.max() == 0


@pytest.mark.parametrize("named", [
    {"weights": {"other": 1.0}}, {"weights": {"low": -1.0, "high": 2.0}}, {"weights": {"low": 0.0}},
    {"weights": {}}, {"weights": {"low": float("nan")}}, {"context": 37}, {"context": 0}, {"batch": 0},
    {"tokens_by_domain": {}},
])  # fmt: skip
def test_batches_that_cannot_be_drawn_are_refused(named):
    with pytest.raises(ValueError):
        Batches(**{"tokens_by_domain": MADE_UP, "batch": 2, "context": 7, "seed": 0, **named})


@pytest.mark.parametrize("domain", DOMAINS)
def test_mini_agrees_with_the_tokenizers_library_on_heldout_text(domain, mini_in_the_library):
    mini, text = encoding("mini"), heldout_text(domain)
    ids = encode(text, mini)
    assert ids == mini_in_the_library.encode(text).ids
    assert mini.decode(ids) == text


@pytest.fixture(scope="module")
def mini_in_the_library(tmp_path_factory):
    """mini as the tokenizers library reads it."""
    from gptoss_lab.text.tokenizer_json import write_tokenizer

    library = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("mini")
    write_tokenizer(folder, encoding("mini"), context=256)
    return library.Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_mini_is_worth_its_ids_in_both_languages_and_code():
    """Bytes a token: at least three in prose and code; 2.6 would be the pairs of letters alone."""
    for domain in ("fiction", "dialogue", "scripture", "spanish"):
        text = heldout_text(domain)
        assert len(text.encode()) / len(encode(text, encoding("mini"))) > 3, domain


def test_the_sample_for_the_tokenizer_comes_from_all_over_the_text():
    text = "".join(f"line {i:05d}\n" for i in range(10_000))
    pieces = list(sample(text, size=20_000, piece=1000))
    assert all(piece in text and piece.endswith("\n") for piece in pieces)
    assert 18_000 < sum(len(piece) for piece in pieces) <= 20_000
    assert "line 00000" in pieces[0] and "line 09" in pieces[-1]
    assert "".join(sample(text, size=10**9, piece=1000)) == text


def test_learning_merges_the_commonest_pair_first():
    pytest.importorskip("tokenizers")
    ranks = learn(iter(["hum hum hum 1212 1212 ham\n"] * 3), 260)
    assert sorted(ranks[:256]) == [bytes([i]) for i in range(256)]
    assert ranks[256] in (b"hu", b"um", b" h")
    assert not any(len(token) > 1 and b"1" in token for token in ranks)


@pytest.mark.slow
def test_mini_can_be_learned_again_to_the_byte(tmp_path):
    pytest.importorskip("tokenizers")
    from gptoss_lab.text.tokens import RANKS
    from gptoss_lab.training.tokenizer import main

    main(["--out", str(tmp_path / "again.tiktoken")])
    assert (tmp_path / "again.tiktoken").read_bytes() == (RANKS / "mini.tiktoken").read_bytes()
