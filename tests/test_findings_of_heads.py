"""Heads, experts and verses: what is measured of them is known beforehand, by construction or by loops."""

from __future__ import annotations

import math
import statistics

import pytest
import tiktoken
import torch
import toys

from gptoss_lab.model import Transformer
from gptoss_lab.study import heads, information, token_classes, verses
from gptoss_lab.text.tokens import encoding
from gptoss_lab.training.forms import attach


def looking_at(model: Transformer, choose) -> Transformer:
    """The model with heads that look where `choose(query, keys, window)` says, and nowhere else."""

    def attend(q, k, v, seen, sink=None, tap=None, dropout=0.0):
        T = q.shape[1]
        pattern = torch.zeros(len(q), q.shape[2], T, T)
        for t in range(T):
            pattern[:, :, t, choose(t)] = 1.0
        tap("pattern", pattern)
        shared = q.shape[2] // k.shape[2]
        return torch.einsum("bhts,bshc->bthc", pattern, v.repeat_interleave(shared, dim=2))

    for block in model.blocks:
        block.attention.attend = attend
    return model


def test_a_head_that_looks_at_the_token_before_scores_one_and_no_other_offset_does():
    model = looking_at(toys.random_model(toys.gpt2()), lambda t: max(t - 1, 0))
    windows = toys.random_tokens(model.config, 5, 12)
    share = heads.previous_token(model, windows)
    assert share.shape == (5, 3, 8) and torch.equal(share, torch.ones_like(share))
    first, even = heads.first_token(model, windows)
    assert torch.equal(first, torch.zeros_like(first))
    assert even.tolist() == pytest.approx([statistics.fmean(1 / (t + 1) for t in range(8, 12))] * 3)


def test_a_head_that_parks_at_the_first_token_is_seen():
    model = looking_at(toys.random_model(toys.gpt2()), lambda t: 0)
    first, _ = heads.first_token(model, toys.random_tokens(model.config, 2, 12))
    assert torch.equal(first, torch.ones_like(first))


def test_a_head_that_looks_after_the_earlier_occurrence_is_an_induction_head():
    n = 6
    model = looking_at(toys.random_model(toys.gpt2()), lambda t: t - (n - 1) if t >= n else 0)
    found = heads.copying(model, heads.random_passages(torch.arange(29), 4, n))
    assert torch.equal(found.score, torch.ones(4, 3, 8))
    assert torch.equal(found.control, found.score)  # this one goes by place: the control tells
    elsewhere = looking_at(toys.random_model(toys.gpt2()), lambda t: max(t - 1, 0))
    assert not heads.copying(elsewhere, heads.random_passages(torch.arange(29), 4, n)).score.any()


@toys.every_family
def test_shares_are_those_that_a_loop_reads_from_the_patterns(family):
    model = toys.random_model(family())
    windows = toys.random_tokens(model.config, 3, 12)
    kept = toys.record(model, windows)
    share = heads.previous_token(model, windows)
    first = heads.first_token(model, windows)[0] if model.config.window is None else None
    for n in range(3):
        pattern = kept[f"blocks.{n}.attention.pattern"]
        for b in range(3):
            for h in range(8):
                row = [float(pattern[b, h, t, t - 1]) for t in range(1, 12)]
                assert float(share[b, n, h]) == pytest.approx(statistics.fmean(row), abs=1e-6)
                if first is not None:
                    row = [float(pattern[b, h, t, 0]) for t in range(8, 12)]
                    assert float(first[b, n, h]) == pytest.approx(statistics.fmean(row), abs=1e-6)


def test_a_window_counts_only_while_it_sees_the_first_token():
    model = toys.random_model(toys.gpt_oss(window=10))
    windows = toys.random_tokens(model.config, 2, 14)
    kept, (first, even) = toys.record(model, windows), heads.first_token(model, windows)
    for n, end in ((0, 10), (1, 14), (2, 10)):
        row = kept[f"blocks.{n}.attention.pattern"][1, 3, 8:end, 0]
        assert float(first[1, n, 3]) == pytest.approx(statistics.fmean(row.tolist()), abs=1e-6)
        assert float(even[n]) == pytest.approx(statistics.fmean(1 / (t + 1) for t in range(8, end)))


def test_an_even_head_sees_what_a_window_of_three_shows():
    rows = heads.even(5, 3)
    assert rows[0].tolist() == [1, 0, 0, 0, 0]
    assert rows[4].tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 1 / 3])
    assert heads.even(4, None)[3].tolist() == [0.25] * 4


def test_first_tokens_of_windows_too_short_to_say_are_refused():
    with pytest.raises(ValueError, match="none may end before 9"):
        heads.first_token(toys.random_model(toys.gpt_oss()), torch.zeros(1, 12, dtype=torch.int64))


def test_losses_of_a_second_half_are_the_models_own():
    model = toys.random_model(toys.gpt_oss())
    passages = heads.random_passages(torch.arange(29), 3, 7)
    found = heads.copying(model, passages)
    for i in range(3):
        for before, nats in ((passages[i], found.copied[i]), (passages[i - 1], found.other[i])):
            row = torch.cat((before, passages[i]))
            logs = model(row[None, :-1])[0].log_softmax(-1)
            expected = [-float(logs[7 + t, passages[i, t + 1]]) for t in range(6)]
            assert nats.tolist() == pytest.approx(expected, abs=1e-5)


def test_scores_of_copying_are_read_at_the_token_after_the_earlier_occurrence():
    model, n = toys.random_model(toys.gpt2()), 5
    passages = heads.random_passages(torch.arange(29), 2, n)
    pattern = toys.record(model, torch.cat((passages, passages), 1))["blocks.1.attention.pattern"]
    found = heads.copying(model, passages)
    for h in range(8):
        row = [float(pattern[0, h, n + i, i + 1]) for i in range(n - 1)]
        assert float(found.score[0, 1, h]) == pytest.approx(statistics.fmean(row), abs=1e-6)
    assert float(found.even[1]) == pytest.approx(statistics.fmean(1 / (n + i + 1) for i in range(n - 1)))


def test_passages_have_no_token_twice_and_are_the_same_every_time():
    rows = heads.random_passages(torch.arange(29), 6, 20, seed=3)
    assert all(len(set(row)) == 20 for row in rows.tolist())
    assert torch.equal(rows, heads.random_passages(torch.arange(29), 6, 20, seed=3))
    with pytest.raises(ValueError, match="29 different tokens for passages of 30"):
        heads.random_passages(torch.arange(29), 1, 30)
    with pytest.raises(ValueError, match="two or more, of three"):
        heads.copying(toys.random_model(toys.gpt2()), rows[:1])


def test_a_silenced_head_is_one_whose_columns_are_zero():
    model, tokens = toys.random_model(toys.gpt_oss()), toys.random_tokens(toys.gpt_oss())
    edits = {name: edit[0] for name, edit in heads.silenced(1, 2).items()}
    silent = toys.record(model, tokens, edits=edits)["blocks.1.residual"]
    with torch.no_grad():
        model.blocks[1].attention.o.weight[:, 12:18] = 0
    assert torch.allclose(silent, toys.record(model, tokens)["blocks.1.residual"], atol=1e-5)
    heads.previous_token(attach(model), tokens)  # the forms for training hand over where a pattern is wanted


def test_experts_that_go_by_language_tell_all_of_it():
    language = torch.arange(3).repeat_interleave(400)
    choice = torch.stack((2 * language, 2 * language + 1), 1)  # two experts of its own for each
    found = information.information(choice, language)
    assert found.bits == pytest.approx(math.log2(3)) == pytest.approx(information.entropy(torch.ones(3)))
    assert 0 < found.shuffled < 0.02 and found.beyond > 1.5 and 0 < found.spread < 0.01


def test_experts_that_know_nothing_tell_as_much_as_chance_and_as_the_formula_says():
    dice = torch.Generator().manual_seed(0)
    choice, label = torch.randint(8, (5000,), generator=dice), torch.randint(6, (5000,), generator=dice)
    found = information.information(choice, label, times=60)
    assert abs(found.beyond) < 4 * found.spread
    assert found.shuffled == pytest.approx(information.bias(8, 6, 5000), rel=0.1)
    assert information.bias(8, 6, 5000) == pytest.approx(35 / (10_000 * math.log(2)))


def test_mutual_information_is_its_definition_in_a_loop():
    counts = torch.tensor([[5, 1, 0], [2, 8, 4]])
    p = (counts.double() / counts.sum()).tolist()
    rows, columns = [sum(row) for row in p], [sum(column) for column in zip(*p)]
    expected = sum(x * math.log2(x / (rows[i] * columns[j]))
                   for i, row in enumerate(p) for j, x in enumerate(row) if x)  # fmt: skip
    assert information.mutual_information(counts) == pytest.approx(expected, abs=1e-12)
    choice = torch.tensor([[0, 2], [1, 1], [0, 1]])
    assert information.joint(choice, torch.tensor([1, 0, 1])).tolist() == [[0, 2, 0], [2, 1, 1]]


def test_what_the_token_alone_tells_is_left_when_equal_tokens_are_shuffled():
    """Experts go by token, and tokens by domain: shuffled among equal tokens nothing is lost."""
    ids = torch.randint(12, (4000,), generator=torch.Generator().manual_seed(1))
    domain, choice = ids // 6, ids % 12 // 3
    found = information.information(choice, domain, information.equal(ids))
    assert found.bits == pytest.approx(found.shuffled, abs=1e-12)
    same = torch.zeros_like(ids)
    by_domain = information.information(domain, domain, information.equal(same))
    assert by_domain.bits == pytest.approx(1.0, abs=0.01) and by_domain.shuffled < 0.01


def test_shuffles_keep_what_they_say_they_keep():
    dice = torch.Generator().manual_seed(2)
    lengths = torch.tensor([3, 1, 4])
    label = torch.tensor([5, 6, 7]).repeat_interleave(lengths)
    seen = set()
    for _ in range(40):
        new = information.whole(lengths)(label, dice)
        assert all(len(set(part.tolist())) == 1 for part in new.split([3, 1, 4]))
        seen.add((int(new[0]), int(new[3]), int(new[4])))
    assert len(seen) == 6
    ids = torch.tensor([1, 2, 1, 2, 1, 3])
    new = information.equal(ids)(torch.arange(6), dice)
    assert torch.equal(ids[new], ids) and sorted(new.tolist()) == list(range(6))


@pytest.mark.parametrize(("text", "kind"), [
    (" the", "space and letters"), ("ñandú", "letters"), ("_name", "sign and letters"), ("7", "digits"),
    (" 7", "digits"), (".\n", "punctuation"), ("”", "punctuation"), (" +=", "other signs"),
    ("):", "punctuation"),
    ("   ", "spaces"), ("\n\n", "line end"),
    ("{", "other signs"), (".(", "punctuation"), ("=\"", "other signs"),
])  # fmt: skip
def test_a_token_has_the_class_that_its_bytes_say(text, kind):
    assert token_classes.class_of(text.encode()) == kind


def test_every_token_of_the_vocabulary_has_a_class():
    mini: tiktoken.Encoding = encoding("mini")
    found = token_classes.classes(mini, torch.arange(4096).reshape(2, -1))
    names = [token_classes.CLASSES[i] for i in found.flatten().tolist()]
    assert names[4095] == "special" and names.count("special") == 1
    assert names[mini.encode_single_token(" the")] == "space and letters"
    assert token_classes.class_of(b"\xc3") == "part of a character"
    assert set(names) == set(token_classes.CLASSES)


def test_verses_read_side_by_side_are_verses_read_alone(monkeypatch):
    monkeypatch.setattr(verses, "AT_ONCE", 24)
    model = toys.random_model(toys.gpt_oss())
    rows = [toys.random_tokens(model.config, 1, n, seed=n)[0].tolist() for n in (4, 9, 2, 7, 12, 3)]
    found = verses.read(model, rows)
    assert found.lengths.tolist() == [3, 8, 1, 6, 11, 2]
    for i, row in enumerate(rows):
        kept = toys.record(model, torch.tensor([row]))
        choice = kept["blocks.2.experts.choice"][0, 1:]
        assert torch.equal(found.choices[i][:, 2], choice)
        shares = choice.flatten().bincount(minlength=7) / choice.numel()
        assert torch.allclose(found.shares[i, 2], shares.double())
        for layer, name in ((0, "embedding"), (3, "blocks.2.residual")):
            assert torch.allclose(found.residual[i, layer], kept[name][0, 1:].mean(0), atol=1e-5)


def test_a_model_without_experts_has_verses_and_no_shares():
    found = verses.read(toys.random_model(toys.gpt2()), [[1, 2, 3], [4, 5]])
    assert found.shares is None and not found.choices and found.residual.shape == (2, 4, 10)
    for rows, said in (([[1]], "empty"), ([[1] * 40], "40 tokens; 31")):
        with pytest.raises(ValueError, match=said):
            verses.read(toys.random_model(toys.gpt2()), rows)


def one_hot(experts: torch.Tensor) -> torch.Tensor:
    """N verses whose one layer sends everything to one expert: N 1 8."""
    return torch.nn.functional.one_hot(experts, 8)[:, None].double()


def test_experts_by_language_and_experts_by_topic_are_told_apart():
    topic, lengths = torch.arange(40) % 8, torch.arange(40) // 2
    zeros = torch.zeros(40, dtype=torch.int64)
    language = verses.kinship(one_hot(zeros), one_hot(zeros + 1), lengths)
    assert language.by_language.mean() == 1 and language.by_topic.mean() == 0
    found = verses.kinship(one_hot(topic), one_hot(topic), lengths)
    assert found.translation.mean() == 1 and found.by_topic.mean() == 1 and found.by_language.mean() == 0


def test_another_verse_is_another_one_of_about_the_same_length():
    lengths = torch.tensor([9, 2, 5, 30, 4, 8])
    to = verses.others(lengths, 1)
    assert to.tolist() == [3, 4, 5, 1, 2, 0] and verses.others(lengths, 5).tolist() == [5, 3, 4, 0, 1, 2]


def test_translations_are_found_again_where_the_residual_holds_the_topic_beside_the_language():
    dice = torch.Generator().manual_seed(0)
    topic, language = torch.randn(60, 16, generator=dice), 9 * torch.randn(2, 16, generator=dice)
    one, other = topic + language[0], topic + language[1]
    assert verses.retrieved(one, other).tolist() == [1.0] * 60
    assert float(verses.retrieved(one, torch.randn(60, 16, generator=dice)).mean()) < 0.15
    assert verses.overlap(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.2, 0.0, 0.8])) == pytest.approx(0.2)
