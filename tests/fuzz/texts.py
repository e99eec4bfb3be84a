"""Texts that are selections, or almost."""

from hypothesis import strategies as st

from tests.fuzz.mutations import mutated

NAMES = ("sql", "date", "a", "org/sql", "Sql", "a.b-c_d", "0", "x" * 64, "versions", "org/Tags", "org/x/y", "")
NUMBERS = (
    *("0", "-0", "1", "0.7", "-0.3", ".5", "5.", "1e-400", "1e308", "1e309", "-1e999", "1e-5", "1E5", "0x1", "1_0"),
    *("00", "9" * 400, "0." + "0" * 400 + "1", "inf", "nan", "1e+5", "--1", "1e", "5e-324", "9007199254740993"),
)
VERSIONS = ("latest", "stable", "1", "4", "01", "999999999", "1000000000", "4a", "sha256:01234567", "sha256:0")
METHODS = (
    *("exact", "lorahub", "svd(rank=2)", "svd(rank=0)", "svd(rank=1e9)", "ties(density=0.5,rank=2)", "svd(rank=2.5)"),
    *("dare_ties(density=1,seed=3)", "dare_linear(density=0.5,density=0.5)", "svd", "svd()", "nothing", "SVD(rank=2)"),
)
SYMBOLS = (
    *("@", "/", ":", "*", "+", " + ", "~", "(", ")", ",", "=", "-", ".", "_", "\0", "\n", " ", "%2B", "..", "//"),
    *("\u00b2", "\u0661", "\uff21", "\u212a", "\u0131", "\ud800", "\U0001f600", "\u202e", "\\", "'", '"'),
    *(" " * 300, "a" * 65, "+a" * 200, "1" * 4200, "1*" * 50, "(" * 200),
)
PIECES = (*NAMES, *NUMBERS, *VERSIONS, *METHODS, *SYMBOLS)

adapters = st.one_of(
    st.sampled_from(NAMES), st.builds("{}@{}".format, st.sampled_from(NAMES), st.sampled_from(VERSIONS))
)
terms = adapters | st.builds("{}*{}".format, st.sampled_from(NUMBERS), adapters)
mixtures = st.builds(
    "{}{}".format,
    st.just("") | st.sampled_from(METHODS).map("{}:".format),
    st.builds(str.join, st.sampled_from(("+", " + ", "+ ")), st.lists(terms, min_size=1, max_size=6)),
)
formed = st.builds("{}{}".format, mixtures, st.just("") | st.sampled_from(NUMBERS).map("~{}".format))
selections = st.one_of(
    mutated(formed, PIECES),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.text(max_size=30),
)
