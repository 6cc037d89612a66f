"""What the notebooks read of the benchmark's recorded results: files written here in its layout."""

from __future__ import annotations

import json

import pytest

from gptoss_lab.study import performance

RESULT = {
    "model": "gpt-oss-20b", "weights": "random, seed 0", "a token": {"bytes": 4e9, "FLOP": 6e9},
    "machine": {"processor": "a processor", "cores": 3}, "versions": {"gptoss_lab": "0.1", "torch": "2.9"},
    "parts": {
        "machine": {"at": "2026-01-02T03:04:05+00:00", "bandwidth": 24e9, "products": 150e9},
        "first token: ours": {"at": "2026-01-02T03:05:00+00:00", "cold": {"all": 9.0}},
        "round 1": {
            "at": "2026-01-03T01:00:00+00:00", "lasted": 3.0,
            "ours": {"decode": {"each": [0.25, 0.15]}, "prompts": {"128": 8.0}, "peak": {"group": 14e9}},
            "llama.cpp": {"ended": "killed"},
        },
        "round 2": {
            "at": "2026-01-03T02:00:00+00:00", "lasted": 3.0,
            "ours": {"decode": {"each": [0.5, 0.5]}, "prompts": {"128": 16.0, "2048": 100.0},
                     "peak": {"process": 12e9}},
            "llama.cpp": {"decode": {"each": [0.25]}, "prompts": {"128": 10.0}},
        },
        "round 3": {"at": "2026-01-03T03:00:00+00:00", "ours": {"decode": {"each": [1.0]}},
                    "llama.cpp": {"decode": {"each": [0.25]}},
                    "llama.cpp-mapped": {"decode": {"each": [0.1]}}},
    },
}  # fmt: skip


def put(folder, name, **changes):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(RESULT | changes), "utf-8")


def test_medians_are_over_rounds_and_leave_out_who_did_not_live_or_ran_in_few():
    assert performance.medians(RESULT) == {
        "decode": {"ours": 2.0, "llama.cpp": 4.0},
        "prompt of 128": {"ours": 12.0, "llama.cpp": 12.8},
        "prompt of 2,048": {"ours": 20.48},
    }


def test_what_the_machine_allows_is_its_bandwidth_and_products_by_a_token():
    assert performance.allowed(RESULT) == {"decode": 6.0, "prompts": 25.0}
    assert performance.allowed(RESULT | {"parts": {}}) == {}


def test_the_peak_is_the_largest_of_the_rounds():
    assert performance.peak(RESULT) == 14e9
    assert performance.peak(RESULT, "llama.cpp") is None


def test_who_measured_what_when_is_said():
    said = performance.about(RESULT)
    told = ("gpt-oss-20b", "random, seed 0", "a processor", "3 cores", "2026-01-03")
    assert all(words in said for words in told)


def test_the_newest_results_of_the_model_are_read(tmp_path):
    assert performance.recorded("gpt-oss-20b", tmp_path) is None
    put(tmp_path, "performance-b.json", weights="older")
    late = {"parts": {"round 1": {"at": "2027-01-01T00:00:00+00:00", "ours": {}}}}
    put(tmp_path, "performance/a.json", weights="newest", **late)
    put(tmp_path, "performance/c.json", model="mini-oss", **late)
    put(tmp_path, "performance/d.json", weights="no rounds", parts={"machine": {"at": "2028"}})
    put(tmp_path, "claims.json", weights="another thing", **late)
    assert performance.recorded("gpt-oss-20b", tmp_path)["weights"] == "newest"
    assert performance.recorded("mini-oss", tmp_path)["model"] == "mini-oss"
    assert performance.recorded("gpt2", tmp_path) is None


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"model": "gpt-oss-20b"}', '{"model": "gpt-oss-20b", "parts": 3}']
)
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "performance.json").write_text(text)
    with pytest.raises(ValueError, match=r"performance\.json does not hold the results of gptoss-lab bench"):
        performance.recorded("gpt-oss-20b", tmp_path)


def test_what_is_shipped_can_be_read():
    """Whatever results the package holds: none yet, or some that say whose they are."""
    found = performance.recorded("gpt-oss-20b")
    assert found is None or performance.medians(found)["decode"] and performance.about(found)
