"""The run page: what it tells, that nothing in it is taken for markup, and how a real browser shows it."""

from __future__ import annotations

import html
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from main import main
from tests.conftest import DuringStep
from tests.html_pages import Page, read
from tests.records import STEPS_PER_EPOCH, metrics, record, validated
from tests.small_state import OPTIONS, complete_epoch, small_state, train
from training.checkpoints.history import History, Session, UnfinishedEpoch
from training.checkpoints.rows import EpochTime
from training.reports.page.pictures import read_heatmaps
from training.reports.page.rendering import report_html
from training.reports.page.wording import state_text
from training.reports.page.writing import RunPage
from training.reports.reporting import Reports
from training.reports.story import Moment, Story, story_in, story_of
from training.runs.directory import RunDirectory
from training.runs.survey import RunFolder, survey_folder
from training.settings.options import Options
from training.settings.tasks import DETECTION
from training.tasks.detection import DetectionTask
from training.tasks.task import Scores

RUN = RunDirectory(Path("models/run"))
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def session(step: int, **changes: list[object]) -> Session:
    environment = {"host": "here", "device": "cpu", "torch": "2", "python": "3", "num_threads": 1, "git_commit": None}
    source, saved_at = (f"models/run/checkpoint_step_{step}.pth", 1_790_000_000.0) if step else ("", None)
    return Session(1_790_000_060.0 + step, step, source, saved_at, environment, dict(changes))


def story(epochs: int = 4, sessions: Sequence[Session] = (session(0),), **changes: Any) -> Story:
    """Return a run of `epochs` completed epochs of 10 steps, the second of them the best.

    `changes` are those of its history and of what stands beside it.
    """
    scores = torch.linspace(-4, 4, 200)
    history = History(
        DETECTION.figures,
        UnfinishedEpoch(STEPS_PER_EPOCH),
        (("run-a", 0),),
        epoch=epochs,
        step=epochs * STEPS_PER_EPOCH,
        epochs=[metrics(epoch, val_eer=2.0 if epoch == 2 else 5.0 + epoch) for epoch in range(1, epochs + 1)],
        times=[EpochTime(epoch, 1_790_000_000.0 + 60 * epoch, 12.5) for epoch in range(1, epochs + 1)],
        sessions=list(sessions),
        training_seconds=3725.0,
    )
    of_history = {name: changes.pop(name) for name in list(changes) if hasattr(history, name)}
    made = Story(
        OPTIONS.replaced(num_epochs=max(epochs, 1)),
        replace(history, **of_history),
        [Scores(epochs * STEPS_PER_EPOCH, scores, torch.arange(200) % 7 > 3)],
        num_parameters=1234,
    )
    return replace(made, **changes)


def page_of(told: Story, folder: RunFolder | None = None) -> Page:
    return read(report_html(told, folder or RunFolder(RUN.folder), None, written_at=1_790_000_300.0))


def test_each_epoch_stands_in_the_table_exactly_once_however_often_the_run_was_stopped() -> None:
    page = page_of(story(12, [session(step) for step in (0, 13, 20, 20, 57)]))
    assert page.values("data-epoch") == [str(epoch) for epoch in range(12, 0, -1)]


def test_validations_within_epochs_stand_between_the_epochs() -> None:
    validations = [validated(15, 1, 7.25, 0.5, 90.0), validated(25, 2, 6.75, 0.5, 90.0)]
    rows = page_of(story(3, validations=validations)).elements
    marks = [element.attributes.get("data-step") or element.attributes.get("data-epoch") for element in rows]
    assert [mark for mark in marks if mark] == ["3", "25", "2", "15", "1"]


def test_every_stop_and_resume_is_marked_on_every_curve_where_it_was() -> None:
    page = page_of(story(4, [session(0), session(15), session(30)]))
    assert page.values("data-at") == ["1.5000", "3.0000"] * 5
    assert page.values("data-resumed") == ["3", "2"]


def test_a_run_that_was_never_stopped_has_no_mark() -> None:
    page = page_of(story(4))
    assert page.values("data-at") == []
    assert page.values("data-session") == ["1"]


def test_a_stop_within_an_epoch_is_marked_on_the_page_that_is_written_then() -> None:
    told = story(2, step=24, under_way=UnfinishedEpoch(10, 4), options=OPTIONS, interrupted="by SIGTERM")
    page = page_of(told)
    assert page.values("data-at") == ["2.4000"] * 5
    assert "Stopped in epoch 3 of 4, after 4 of 10 batches: by SIGTERM." in page.elements[0].text


def test_settings_that_a_resume_changed_are_told_old_and_new() -> None:
    page = page_of(story(4, [session(0), session(20, lr=[0.01, 0.005], milestones=[[], [3, 4]])]))
    assert "lr: 0.01 → 0.005" in page.text_of("data-session", "2")
    assert "milestones: - → 3,4" in page.text_of("data-session", "2")
    assert "0.01 → 0.005 in session 2" in page.text_of("data-setting", "lr")


def test_settings_other_than_the_default_say_what_it_is() -> None:
    page = page_of(story(4))
    assert page.text_of("data-setting", "weight_decay") == "0.0001"
    assert page.text_of("data-setting", "lr") == "0.01default 1e-06"
    assert set(page.values("data-setting")) == set(Options().as_dict())


def test_checkpoints_are_listed_newest_first_with_the_best_and_the_last_marked() -> None:
    told = story(3)
    best = told.history.best
    found = [record(RUN.folder / f"e{n}.pth", n, last=told.history.epochs[n - 1], best=best) for n in (1, 2, 3)]
    page = page_of(told, RunFolder(RUN.folder, tuple(found), best=replace(found[1], path=RUN.best_checkpoint)))
    assert page.values("data-checkpoint") == ["e3.pth", "e2.pth", "e1.pth"]
    rows = [page.text_of("data-checkpoint", f"e{n}.pth") for n in (1, 2, 3)]
    assert [row[: len("e1.pthbest")] for row in rows] == ["e1.pthepoc", "e2.pthbest", "e3.pthlast"]


@pytest.mark.parametrize("harm", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ story }}"])
def test_text_of_others_is_shown_and_never_taken_for_markup(harm: str) -> None:
    told = story(2, [session(0), replace(session(10), source=harm)], options=Options(checkpoint_name=None, comment="c"))
    told = replace(told, interrupted=harm, options=told.options.replaced(database_path=harm))
    page = page_of(told, RunFolder(Path("models", harm.replace("/", "|"))))
    assert not [element for element in page.elements if element.tag in ("script", "img")]
    assert page.text_of("data-setting", "database_path").startswith(harm)
    assert harm in page.text_of("data-session", "2")


def test_no_control_character_of_others_comes_into_the_page() -> None:
    harm = "a\x1b[2J\x07\u202eb"
    told = story(2, options=Options(checkpoint_name=None, comment="c", database_path=harm))
    told = replace(told, interrupted=harm)
    page = report_html(told, RunFolder(Path("models", harm)), None, written_at=1_790_000_300.0)
    assert "a?[2J??b" in page and not {"\x1b", "\x07", "\u202e"} & set(page)


def test_the_page_needs_no_other_file_and_runs_nothing() -> None:
    page = page_of(story(4, [session(0), session(15)]))
    assert not [e.tag for e in page.elements if e.tag in ("script", "iframe", "object", "form")]
    assert all(address.startswith("data:") for address in page.values("href") + page.values("src"))
    assert "url(" not in next(element.text for element in page.elements if element.tag == "style")


def test_a_figure_that_is_no_number_leaves_a_gap_in_its_curve_alone() -> None:
    told = story(4)
    for number, row in enumerate(told.history.epochs):
        loss = float("nan") if row.epoch == 2 else 0.5
        told.history.epochs[number] = replace(row, figures={**row.figures, "val_loss": loss})
    page = page_of(told)
    assert "nan" in page.text_of("data-epoch", "2")
    drawn = [str(e.attributes["points"]) for e in page.elements if e.tag == "polyline"]
    assert len(drawn) == 7 + 1 + 2, "seven curves, one of them in two parts, and two lines of the DET curve"
    assert not [points for points in drawn if "nan" in points]


def test_a_run_that_has_no_epoch_yet_has_a_page_that_says_so() -> None:
    page = page_of(story(0, exhibits=()))
    assert "No epoch is completed yet." in page.elements[0].text
    assert page.values("data-epoch") == []


@pytest.mark.parametrize(
    ("told", "state", "sentence"),
    [
        (story(0), "training", "Training, epoch 1 of 1 is not completed yet."),
        (story(3, options=OPTIONS), "training", "Training, 3 of 4 epochs completed."),
        (story(4), "finished", "All 4 epochs are completed."),
        (story(4, options=OPTIONS.replaced(num_epochs=9, patience=2)), "finished", "Ended after epoch 4 of 9"),
        (story(3, options=OPTIONS, interrupted="the loss is nan"), "stopped", "after epoch 3 of 4: the loss is nan."),
        (story(4, interrupted="by SIGTERM"), "finished", "All 4 epochs are completed."),
    ],
)
def test_one_sentence_says_where_the_run_stands(told: Story, state: str, sentence: str) -> None:
    found = state_text(told)
    assert found[0] == state
    assert sentence in found[1]


def test_a_page_from_a_checkpoint_tells_what_the_page_of_its_run_told() -> None:
    state = small_state(OPTIONS)
    state.history.sessions.append(session(0))
    train(state, 10)
    scores, is_bona_fide = torch.linspace(-1, 1, 50), torch.arange(50) % 2 == 1
    state.kept["last_validation"] = {"step": 10, "scores": scores, "is_bona_fide": is_bona_fide}
    complete_epoch(state)
    folder = RunFolder(RUN.folder)
    task = DetectionTask(OPTIONS, torch.device("cpu"))
    payload = {**state.to_payload(), "metadata": {"num_parameters": state.num_parameters}}
    pages = [report_html(told, folder, None, 0.0) for told in (story_of(state, task), story_in(payload, task))]
    assert pages[0] == pages[1]
    del payload["sessions"], payload["last_validation"]
    assert "Not recorded" in read(report_html(story_in(payload, task), folder, None)).elements[0].text


def test_heatmaps_are_made_small_and_what_is_no_picture_is_left_out(tmp_path: Path) -> None:
    noise = Image.effect_noise((1800, 20), 90)
    for number in range(9):
        noise.save(tmp_path / f"sample_{number:03d}_spoof_pred_bonafide_wrong.png")
    noise.save(tmp_path / "layer_importance_bonafide.png")
    (tmp_path / "layer_importance_spoof.png").write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing")
    found = read_heatmaps(tmp_path, most_bytes=40_000)
    assert found is not None
    assert {picture.width for picture in found.pictures} == {1000}
    assert found.pictures[0].caption == "Importance of each layer, bona fide"
    assert found.pictures[1].caption == "Utterance 0: spoof, taken for bona fide"
    assert sum(len(picture.address) for picture in found.pictures) <= 40_000
    assert found.num_left_out == 11 - len(found.pictures) > 0
    page = read(report_html(story(2), RunFolder(RUN.folder), found))
    assert len(page.values("src")) == len(found.pictures)


def test_a_folder_that_is_gone_costs_a_warning_and_no_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = Reports([RunPage(RUN)], lambda: story(2))
    for _ in range(3):
        reports.tell(Moment.EPOCH_DRAWN)
    assert f"[WARNING] {RUN.report} could not be written: No such file or directory" in (
        said := capsys.readouterr().out
    )
    assert said.count("[WARNING]") == 1


def test_the_page_belongs_to_the_run_and_moves_with_it(workplace: Path) -> None:
    RUN.folder.mkdir(parents=True)
    RunPage(RUN).tell(story(3))
    found = survey_folder(RUN.folder)
    assert (found.entries, found.reported_epochs) == (("report.html",), 3)


def test_a_real_run_stopped_and_resumed_with_a_changed_setting_has_one_whole_page(
    corpus: Path, workplace: Path, during_step: DuringStep, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--model_type", "lcnn", "--batch_size", "4", "--num_workers", "0"]
    command = [*small, "--database_path", str(corpus), "--num_epochs", "2", "--val_interval", "2"]
    during_step({4: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    assert main(command) == 143
    (path,) = Path("models").glob("*/report.html")
    stopped = read(path.read_text())
    assert "Stopped in epoch 2 of 2, after 1 of 3 batches: by SIGTERM." in stopped.elements[0].text
    assert "config.yaml, which trains the same run again." in stopped.elements[0].text
    stopped_at = path.with_name("checkpoint_step_4.pth")
    assert main(["--resume", "--model_path", str(stopped_at), "--weight_decay", "0.5"]) == 0
    path = path.parent.with_name(f"{path.parent.name}_weight_decay0.5") / path.name
    page = read(path.read_text())
    assert (
        "config.yaml, which does not train the same run again: it holds the settings of the end, and until step 4 "
        "--weight_decay was 0.0001, from there on 0.5. To repeat the run: begin with the earlier values, and go on "
        "from step 4 by --resume with the later ones."
    ) in page.elements[0].text
    assert page.values("data-epoch") == ["2", "1"]
    assert page.values("data-step") == ["6", "4", "2"]
    assert page.values("data-at") == ["1.3333"] * 5
    assert "weight_decay: 0.0001 → 0.5" in page.text_of("data-session", "2")
    assert {"checkpoint_step_4.pth", "checkpoint_epoch_2.pth"} <= set(page.values("data-checkpoint"))
    assert "All 2 epochs are completed." in page.elements[0].text
    path.unlink()
    capsys.readouterr()
    assert main([*command, "--auto_resume", "--weight_decay", "0.5"]) == 0
    assert "report.html tells 0 of 2 epochs" in capsys.readouterr().out
    again = read(path.read_text())
    assert (again.values("data-epoch"), again.values("data-at")) == (["2", "1"], ["1.3333"] * 5)


@pytest.mark.skipif(BROWSER is None, reason="needs chromium or chrome: apt-get install chromium")
def test_in_a_real_browser_the_page_fits_a_phone_and_a_desktop(tmp_path: Path) -> None:
    """The page is shown as it is in frames of these widths, and the page around them measures it."""
    assert BROWSER is not None
    long = "g3_heatmap_DF_CCE_100_16_1e-06_group3_contrastiveFalse_" + "x" * 100
    found = tuple(record(Path("models", long, f"checkpoint_{long}_{n}.pth"), n) for n in (1, 2))
    told = story(120, [session(0), session(15, lr=[0.01, 0.005], database_path=[f"/{long}", f"/other/{long}"])])
    shown = html.escape(report_html(told, RunFolder(Path("models", long), found), None))
    widths = (360, 768, 1200)
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{shown}"></iframe>' for width in widths)
    measure = """
        const measured = [...document.querySelectorAll("iframe")].map(frame => {
            const page = frame.contentDocument, root = page.documentElement, phone = frame.clientWidth < 400;
            const charts = [...page.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect());
            return {
                width: root.clientWidth, needed: root.scrollWidth,
                epochs: page.querySelectorAll("tr[data-epoch]").length,
                charts: charts.length, narrowest: Math.min(...charts.map(box => box.width)),
                text: parseFloat(frame.contentWindow.getComputedStyle(page.querySelector("svg text")).fontSize)
                    * charts[0].width / 400,
            };
        });
        document.querySelector("pre").textContent = JSON.stringify(measured);"""
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(f"<!doctype html><pre></pre>{frames}<script>onload = () => {{{measure}}}</script>")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    asked = subprocess.run([BROWSER, *flags, wrapper.as_uri()], capture_output=True, text=True, timeout=60, check=False)
    measured = json.loads(html.unescape(asked.stdout.partition("<pre>")[2].partition("</pre>")[0]))
    assert [frame["needed"] <= frame["width"] <= width for frame, width in zip(measured, widths, strict=True)] == [
        True
    ] * 3, measured
    assert [(frame["epochs"], frame["charts"]) for frame in measured] == [(120, 7)] * 3
    assert all(frame["narrowest"] > 150 and frame["text"] >= 8.5 for frame in measured), measured


def test_the_page_says_how_long_saves_take_and_how_the_mirror_stands() -> None:
    lines = ["A save takes up to 62 s until it is on disk.", "Mirror: /mnt/<disk>: up to date."]
    told = report_html(replace(story(), asides=lambda: lines), RunFolder(RUN.folder), None)
    assert all(f'<p class="quiet">{html.escape(line)}</p>' in told for line in lines)
