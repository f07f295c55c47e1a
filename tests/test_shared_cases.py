"""The small inputs that once went wrong, as they were handed over, where they are at hand.

Each has a test with an input of its own making elsewhere, which runs everywhere; here the very files are read.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from utils.audio.checking import AudioFault, check_audio
from utils.audio.reading import UnreadableAudioError
from utils.audio.waveforms import read_waveform
from utils.corpora.protocols import scan_protocol
from utils.errors import UserError

CASES = Path(__file__).parents[2] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is not there")

AUDIO: list[tuple[str, AudioFault | None, str]] = [
    ("gsm610_wav/gsm.wav", None, ""),
    ("float_wav_int16_scale/float_int16range.wav", AudioFault.LOUD, "a peak of 10,503 where full scale is 1"),
    ("flac_false_length/flac_total0.flac", AudioFault.UNREADABLE, "its header does not say how long it is"),
    ("flac_false_length/flac_total_max.flac", AudioFault.UNREADABLE, "its header says 68,719,476,735"),
    ("wav_false_rate/rate_max.wav", AudioFault.UNREADABLE, "Hz is none of audio"),
    ("zero_length_header/zero_size.wav", AudioFault.UNREADABLE, "length 0, while 64,000 bytes follow"),
]


@pytest.mark.parametrize(("name", "fault", "words"), AUDIO)
def test_training_and_the_check_say_the_same_of_a_file(name: str, fault: AudioFault | None, words: str) -> None:
    checked = check_audio(CASES / name)
    assert checked.fault is fault and words in checked.reason
    if fault is AudioFault.UNREADABLE:
        with pytest.raises(UnreadableAudioError, match=words):
            read_waveform(CASES / name)
    else:
        assert read_waveform(CASES / name).size


def test_a_table_with_the_line_ends_of_old_macs_is_read_as_with_others(tmp_path: Path) -> None:
    path = CASES / "cr_line_ends" / "all.csv"
    (tmp_path / "all.csv").write_bytes(path.read_bytes().replace(b"\r", b"\n"))
    assert len(scan_protocol(path).protocol()) == path.read_bytes().count(b"\r") - 1
    assert scan_protocol(path).trials == scan_protocol(tmp_path / "all.csv").trials


def test_a_quote_that_is_never_closed_is_refused_by_its_line(tmp_path: Path) -> None:
    shutil.copy(CASES / "unbalanced_quote" / "lost.csv", tmp_path)
    opened = next(n for n, line in enumerate((tmp_path / "lost.csv").read_text().splitlines(), 1) if '"' in line)
    with pytest.raises(UserError, match=rf'line {opened}: the quote \("\)'):
        scan_protocol(tmp_path / "lost.csv").protocol()
