"""Corpora on disk, one file per layout; what other modules need is named here."""

from utils.corpora.asvspoof_2019 import PROTOCOL_FILES, PROTOCOLS_FOLDER, audio_folder
from utils.corpora.examples import bona_fide_of, limit_examples
from utils.corpora.finding import Corpus, find_corpus, find_evaluation_part
from utils.corpora.parts import CorpusPart, PartName

__all__ = [
    "PROTOCOLS_FOLDER",
    "PROTOCOL_FILES",
    "Corpus",
    "CorpusPart",
    "PartName",
    "audio_folder",
    "bona_fide_of",
    "find_corpus",
    "find_evaluation_part",
    "limit_examples",
]
