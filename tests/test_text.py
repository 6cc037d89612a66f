"""Text: what the three encodings give, how labels show it, and how it streams."""

from __future__ import annotations

import base64
import hashlib
import json
import lzma
import math
import os
import random
import re
import socket
from pathlib import Path

import matplotlib
import pytest
import tiktoken
import torch
from matplotlib.ft2font import FT2Font

from gptoss_lab.text import tokenizer_json, tokens
from gptoss_lab.text.tokenizer_json import byte_letters, encoding_from, merge_of, write_tokenizer
from gptoss_lab.text.tokens import TextStream, decode_stream, encode, encoding, encoding_of, label, labels

NAMES = ("mini", "gpt2", "o200k_harmony")
SAMPLES = (
    "Once upon a time, there wasn't 1 king; there were 3,141.",
    "¿Qué dirá él? ¡Año nuevo! «Jehová» — ñandú, pingüino",
    "def f(x):\n    return {'a': x ** 2}\t# café\r\n\r\n",
    "  two spaces before, three after   ",
    "👩‍👩‍👧 emoji 🇪🇸, naïve nai\u0308ve, 日本語, עברית, \u00a0 and \u200b",
    "bell \x07, null \x00, escape \x1b[0m, delete \x7f, next line \x85, \u2028",
    "JEHOVÁ’s 'tis we'll CamelCase 12.5e-3 ½ ² Ⅳ ª",
    "", " ", "\n", "\n\n \n",
)  # fmt: skip


@pytest.fixture
def no_sockets(monkeypatch):
    """Not a socket can be made, nor a name looked up; encodings are made anew."""
    def deny(*arguments, **named):
        raise AssertionError(f"a socket was asked for: {arguments}")

    for verb in ("socket", "create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, verb, deny)
    encoding.cache_clear()


@pytest.mark.parametrize("name, total, end", [
    ("mini", 4096, 4095), ("gpt2", 50257, 50256), ("o200k_harmony", 201088, 199999),
])  # fmt: skip
def test_every_encoding_loads_without_a_socket(no_sockets, name, total, end):
    made = encoding(name)
    assert made.n_vocab == total
    assert made.encode_single_token("<|endoftext|>") == end
    assert made.decode(made.encode_ordinary(SAMPLES[0])) == SAMPLES[0]
    assert encoding(name) is made


def test_gpt2_and_harmony_are_what_tiktoken_says_they_are(tmp_path, monkeypatch):
    public = pytest.importorskip("tiktoken_ext.openai_public")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    for file in ("r50k_base.tiktoken", "o200k_base.tiktoken"):
        address = f"https://openaipublic.blob.core.windows.net/encodings/{file}"
        data = lzma.decompress((tokens.RANKS / f"{file}.xz").read_bytes())
        (tmp_path / hashlib.sha1(address.encode()).hexdigest()).write_bytes(data)
    # GPT-2's ranks are r50k_base's, written in another format
    ranks = public.r50k_base()["mergeable_ranks"]
    monkeypatch.setattr(public, "data_gym_to_mergeable_bpe_ranks", lambda **_: ranks)
    for name, theirs in (("gpt2", public.gpt2()), ("o200k_harmony", public.o200k_harmony())):
        ours = encoding(name)
        assert ours._mergeable_ranks == theirs["mergeable_ranks"]
        assert ours._special_tokens == theirs["special_tokens"]
        assert ours._pat_str == theirs["pat_str"]


def test_the_ids_that_openai_prints():
    assert encode("Hello world", encoding("gpt2")) == [15496, 995]
    harmony = encoding("o200k_harmony")
    assert encode("<|start|>user<|message|>", harmony, allow_special=True) == [200006, 1428, 200008]


@pytest.mark.parametrize("name", NAMES)
def test_text_survives_the_round_trip(name):
    for text in SAMPLES:
        assert encoding(name).decode(encode(text, encoding(name))) == text


def test_mini_spells_numbers_digit_by_digit():
    mini = encoding("mini")
    assert labels(encode("x = 1024", mini), mini)[-4:] == ["1", "0", "2", "4"]
    learned = [mini.decode_single_token_bytes(i) for i in range(256, 4095)]
    assert [token for token in learned if set(token) & set(b"0123456789")] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_special_token_typed_by_a_user_is_plain_text(name):
    made, text = encoding(name), "a<|endoftext|>b"
    end, ids = made.encode_single_token("<|endoftext|>"), encode(text, made)
    assert end not in ids
    assert made.decode(ids) == text
    assert encode(text, made, allow_special=True).count(end) == 1


@pytest.mark.parametrize("call, says", [
    (lambda: encoding("gpt5"), "mini, gpt2, o200k_harmony"),
    (lambda: encode("hello", None), "token ids instead"),
    (lambda: encode(b"hello", encoding("mini")), "bytes, expected str"),
    (lambda: encode("\t" * 1_500_000 + "x", encoding("mini")), "200000 spaces"),
    (lambda: tokens.parse_ranks(b"IQ== 0\nIg==\n"), "line 2 of a rank file"),
])  # fmt: skip
def test_what_cannot_be_done_is_refused_with_a_way_on(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_a_damaged_rank_file_is_refused(tmp_path, monkeypatch):
    data = (tokens.RANKS / "mini.tiktoken").read_bytes()
    (tmp_path / "mini.tiktoken").write_bytes(data.replace(b" 300\n", b" 5000\n"))
    monkeypatch.setattr(tokens, "RANKS", tmp_path)
    with pytest.raises(ValueError, match="install the package again"):
        tokens.read_ranks("mini.tiktoken")


# Labels


@pytest.mark.parametrize("data, shown", [
    (b" the", "·the"), (b"\n\n", "⏎⏎"), (b"\t", "⇥"), (b"\r", "⟨U+000D⟩"), (b"\x00", "⟨U+0000⟩"),
    (b"\xc3", "⟨C3⟩"), (b" \xe2\x80", "·⟨E2 80⟩"), (b"\x80a\xf0\x9f", "⟨80⟩a⟨F0 9F⟩"),
    ("ñ".encode(), "ñ"), ("\u00a0".encode(), "⟨U+00A0⟩"),
    ("·".encode(), "⟨U+00B7⟩"), ("⟨C3⟩".encode(), "⟨U+27E8⟩C3⟨U+27E9⟩"), ("\u0301".encode(), "◌\u0301"),
    (" \u0301".encode(), "·◌\u0301"), ("e\u0301".encode(), "e\u0301"), ("日".encode(), "日"),
    (b"\xed\xa0\x80", "⟨ED A0 80⟩"), ("\ufffd".encode(), "\ufffd"), (b"", ""),
])  # fmt: skip
def test_a_label_shows_every_byte(data, shown):
    assert label(data) == shown


@pytest.mark.parametrize("name", ["mini", "gpt2"])
def test_labels_are_distinct_printable_and_never_guess_a_character(name):
    made = encoding(name)
    shown = labels(range(made.n_vocab), made)
    assert len(set(shown)) == made.n_vocab
    assert [text for text in shown if not text.isprintable() or " " in re.sub("⟨[^⟩]*⟩", "", text)] == []
    honest = {i for i in range(made.n_vocab) if "\ufffd".encode() in made.decode_single_token_bytes(i)}
    assert {i for i, text in enumerate(shown) if "\ufffd" in text} == honest


def test_the_marks_of_labels_are_in_the_font_of_figures():
    font = FT2Font(os.path.join(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")).get_charmap()
    assert {mark for mark in [*tokens.SHOWN.values(), *tokens.OURS] if ord(mark) not in font} == set()


def test_labels_name_special_tokens_missing_ids_and_bare_ids():
    harmony = encoding("o200k_harmony")
    assert labels([200006, 200018], harmony) == ["<|start|>", "<|endofprompt|>"]
    assert labels([200013], harmony) == ["<|reserved_200013|>"]
    assert labels(torch.tensor([4095, 4096]), encoding("mini")) == ["<|endoftext|>", "⟨id 4096⟩"]
    assert labels([-1], encoding("mini")) == ["⟨id -1⟩"]
    assert labels([5, 60000], None) == ["5", "60000"]
    special = {"<|\x1b[2J|>": 256, "<|\x9b\n|>": 257}
    made = tiktoken.Encoding("x", pat_str=".", mergeable_ranks={bytes([i]): i for i in range(256)},
                             special_tokens=special)  # fmt: skip
    assert labels([256, 257], made) == ["<|⟨U+001B⟩[2J|>", "<|⟨U+009B⟩⏎|>"]


# Streams


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_never_emits_half_a_character(name):
    made = encoding(name)
    for text in SAMPLES:
        pieces = list(decode_stream(encode(text, made), made))
        assert "".join(pieces) == text
        assert not any("\ufffd" in piece for piece in pieces)


def test_a_stream_holds_bytes_back_until_the_character_is_whole():
    mini = encoding("mini")
    stream = TextStream(mini)
    ids = [mini.encode_single_token(bytes([byte])) for byte in "日".encode()]
    assert [stream.push(i) for i in ids] == ["", "", "日"]
    assert [stream.push(i) for i in ids[:2]] == ["", ""]
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""
    assert stream.push(ids[0]) + stream.push(99999) == "\ufffd\ufffd"
    assert [TextStream(None).push(i) for i in (3, 14)] == ["3 ", "14 "]


def test_any_ids_stream_to_what_decoding_them_gives():
    mini, draw = encoding("mini"), random.Random(0)
    for _ in range(50):
        ids = [draw.randrange(4096) for _ in range(40)]
        assert "".join(decode_stream(ids, mini)) == mini.decode(ids, errors="replace")


# tokenizer.json


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model's folder with mini's tokenizer files."""
    made = tmp_path_factory.mktemp("model")
    write_tokenizer(made, encoding("mini"), context=256)
    return made


def test_transformers_reads_the_files_and_gives_the_same_ids(folder):
    transformers = pytest.importorskip("transformers")
    theirs, mini = transformers.AutoTokenizer.from_pretrained(folder), encoding("mini")
    assert len(theirs) == 4096
    assert theirs.model_max_length == 256
    assert theirs.eos_token_id == 4095
    for text in SAMPLES:
        ids = theirs(text, add_special_tokens=True)["input_ids"]
        assert ids == encode(text, mini), text
        assert theirs.decode(ids) == text
    assert theirs("a<|endoftext|>")["input_ids"] == encode("a<|endoftext|>", mini, allow_special=True)


def test_the_files_come_back_as_the_same_encoding(folder):
    made, mini = encoding_of(folder, "gpt_oss", 4096), encoding("mini")
    assert made._mergeable_ranks == mini._mergeable_ranks
    assert made._special_tokens == mini._special_tokens
    assert made._pat_str == mini._pat_str


def test_a_model_is_known_by_its_kind_and_vocabulary(folder, tmp_path):
    assert encoding_of(None, "gpt_oss", 201088) is encoding("o200k_harmony")
    assert encoding_of(folder, "gpt2", 50257) is encoding("gpt2")
    assert encoding_of(None, "gpt_oss", 4096) is None
    assert encoding_of(tmp_path, "qwen3_moe", 151936) is None
    with pytest.raises(ValueError, match="ids up to 4095, but the model's vocabulary is 4000"):
        encoding_of(folder, "gpt2", 4000)


def rewritten(folder: Path, to: Path, change) -> Path:
    """mini's tokenizer.json with `change` made to it."""
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(spec)
    to.joinpath("tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    return to / "tokenizer.json"


def swap_merges(spec):
    merges = spec["model"]["merges"]
    merges[10], merges[900] = merges[900], merges[10]


@pytest.mark.parametrize("change", [
    swap_merges,
    lambda spec: spec["model"].update(type="Unigram"),
    lambda spec: spec["model"].update(byte_fallback=True),
    lambda spec: spec.update(pre_tokenizer={"type": "Metaspace", "replacement": "▁"}),
    lambda spec: spec.update(pre_tokenizer=None),
    lambda spec: spec.update(normalizer={"type": "Lowercase"}),
    lambda spec: spec["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True),
    lambda spec: spec["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed"),
    lambda spec: spec["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": r"\p{L}+"}),
    lambda spec: spec["model"]["vocab"].pop("!"),
    lambda spec: spec["model"]["vocab"].update({"日本": 5000}),
])  # fmt: skip
def test_a_tokenizer_of_another_kind_is_left_alone(folder, tmp_path, change):
    assert encoding_from(rewritten(folder, tmp_path, change)) is None


@pytest.mark.parametrize("change", [
    lambda spec: spec.pop("model"),
    lambda spec: spec.update(model=[]),
    lambda spec: spec["model"].pop("merges"),
    lambda spec: spec["model"]["merges"].append(["zq", "zq"]),
    lambda spec: spec["model"]["merges"].append("one"),
    lambda spec: spec["model"]["vocab"].update(a="x"),
    lambda spec: spec["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": "("}),
    lambda spec: spec.update(added_tokens=[{"content": "<|endoftext|>"}]),
    lambda spec: spec["model"]["vocab"].update(a=-1),
    *(lambda spec, token=token: spec["added_tokens"][0].update(id=token)
      for token in (math.inf, -5, 2**40, 2**31, 1.0, True, None)),
    *(lambda spec, name=name: spec["added_tokens"][0].update(content=name) for name in (5, "", None)),
    *(lambda spec, regex=regex: spec["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": regex})
      for regex in (5, [1], "", r"(?:(?:.|..)+(?=$)b)|[\s\S]")),
])  # fmt: skip
def test_a_damaged_tokenizer_file_is_refused(folder, tmp_path, change):
    with pytest.raises(ValueError, match="tokenizer.json"):
        encoding_from(rewritten(folder, tmp_path, change))


def test_a_pattern_that_gives_a_text_up_is_told(folder, tmp_path):
    pattern = {"Regex": r"(?:(?:a|aa)+(?=$)b)|[\s\S]"}
    made = encoding_from(
        rewritten(folder, tmp_path, lambda s: s["pre_tokenizer"]["pretokenizers"][0].update(pattern=pattern))
    )
    assert encode("aba", made)
    for special, said in ((False, "text of 60 characters .* tokenizer.json failed"), (True, "Max limit")):
        with pytest.raises(ValueError, match=said):
            encode("a" * 60, made, allow_special=special)


def test_only_panics_become_mistakes():
    with pytest.raises(KeyboardInterrupt), tokenizer_json.no_panic("waiting"):
        raise KeyboardInterrupt


def test_a_cut_off_tokenizer_file_is_refused(folder, tmp_path):
    tmp_path.joinpath("tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes()[:5000])
    with pytest.raises(ValueError, match="fetch it again"):
        encoding_from(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("as_gpt2", [True, False])
def test_files_of_the_tokenizers_library_give_its_ids(tmp_path, as_gpt2):
    """Trained there, either way of cutting, with the special token first: ids are then ranks plus one."""
    library = pytest.importorskip("tokenizers")
    theirs = library.Tokenizer(library.models.BPE())
    byte_level = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=as_gpt2)
    split = library.pre_tokenizers.Split(library.Regex(tokens.MINI_PATTERN), "isolated")
    theirs.pre_tokenizer = byte_level if as_gpt2 else library.pre_tokenizers.Sequence([split, byte_level])
    trainer = library.trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<|endoftext|>"], initial_alphabet=[*byte_letters().values()]
    )
    theirs.train_from_iterator(SAMPLES * 3, trainer)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = encoding_of(tmp_path, "gpt2", 420)
    assert ours.encode_single_token("<|endoftext|>") == 0
    for text in SAMPLES:
        assert encode(text, ours) == theirs.encode(text).ids


def test_a_file_is_never_seen_half_written(tmp_path, monkeypatch):
    file = tmp_path / "ranks"
    tokenizer_json.write_whole(file, b"old")

    def full(*arguments):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        tokenizer_json.write_whole(file, b"new")
    assert file.read_bytes() == b"old"


def test_a_token_that_no_merge_makes_is_not_written():
    ranks = {b"a": 0, b"b": 1, b"c": 2, b"bc": 3, b"abc": 4}
    assert merge_of(b"abc", ranks) == (b"a", b"bc")
    with pytest.raises(ValueError, match="no merge makes the token b'abcab'"):
        merge_of(b"abcab", ranks | {b"abcab": 5})


def test_the_rank_file_of_mini_is_in_rank_order():
    lines = (tokens.RANKS / "mini.tiktoken").read_bytes().splitlines()
    assert [int(line.split()[1]) for line in lines] == list(range(4095))
    alphabet = sorted(base64.b64decode(line.split()[0]) for line in lines[:256])
    assert alphabet == [bytes([i]) for i in range(256)]
