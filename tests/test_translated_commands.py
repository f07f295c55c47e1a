"""Runs every command of docs/translated_commands.md, in its order, in small numbers."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from main import main
from tests.conftest import REPOSITORY, write_corpus
from tests.loading import load_payload
from tests.test_metric_discriminator import likeness
from tests.test_vocoder import narrow_vocoder, published
from training.tasks import judged_vocoder

PAGE = (REPOSITORY / "docs" / "translated_commands.md").read_text(encoding="utf-8")
# What stands in the page and what is run: a thousand steps become two, fifty epochs one.
IN_SMALL = {
    "checkpoint_{kstep}k.pt": "checkpoint_{step}.pt",
    "save_interval: 1000": "save_interval: 2",
    "--save_interval 500": "--save_interval 1",
    "--save_interval 10000 --val_interval 10000": "--save_interval 2 --val_interval 2",
    "checkpoint_5k.pt": "checkpoint_4.pt",
    "checkpoint_10k.pt": "checkpoint_1.pt",
    "--vocoder_size V1": "--vocoder_size small",
    "vocoder_size: V1": "vocoder_size: small",
    "checkpoint_epoch_050.pth": "checkpoint_epoch_001.pth",
    "--batch_size 32": "--batch_size 3 --num_epochs 3",  # on from a run that is at its end
    "--num_epochs 100": "--num_epochs 1",
    "--num_epochs 120": "--num_epochs 2",
    "--num_epochs 140": "--num_epochs 4",
    "--num_epochs 200": "--num_epochs 3",
}
LOOKS = ("--inspect_checkpoint", "--validate_checkpoints", "--list_checkpoints")
BEGINS_NOTHING = ("--resume", "--eval", "--export", *LOOKS)
SMALL = ["--num_epochs", "2", "--batch_size", "2", "--num_workers", "0", "--device", "cpu"]
ROW = re.compile(r"^\| (?P<there>.+) \| `(?P<here>(?:python|tensorboard) [^`]+)` \|$", re.MULTILINE)


@dataclass(frozen=True)
class Translation:
    """One row: what is typed there, and what is typed here."""

    there: str
    here: str


def section(title: str) -> list[Translation]:
    text = PAGE.partition(f"## {title}")[2].partition("\n## ")[0]
    return [Translation(found["there"], found["here"]) for found in ROW.finditer(text)]


def yaml_of(title: str) -> str:
    return PAGE.partition(f"## {title}")[2].partition("```yaml\n")[2].partition("```")[0]


@dataclass
class Story:
    """The folder in which the commands of a section are run one after the other."""

    corpus: Path
    run: str = ""  # the folder that RUN stands for: that of the section's first command

    def in_small(self, text: str) -> str:
        for written, small in IN_SMALL.items():
            text = text.replace(written, small)
        for found in Path().glob("outputs/*/checkpoints/version_0/step_*.ckpt"):
            text = text.replace("step_00050000-val_loss_0.1234.ckpt", found.name)
        return text.replace("PATH_TO_LA", str(self.corpus)).replace("RUN", self.run)

    def type(self, translation: Translation) -> None:
        """Run a command; what begins a training, and names no file that says how much, gets small numbers."""
        _, program, *arguments = shlex.split(self.in_small(translation.here))
        if program == "-c":
            exec(arguments[0], {})  # as it stands on the page, without another import of torch
            return
        small = [] if any(flag in arguments for flag in BEGINS_NOTHING) else SMALL
        small = small[2:] if "--num_epochs" in arguments else small
        assert main([*arguments, *small]) == 0, translation
        self.run = self.run or next(Path("models").iterdir()).name if Path("models").is_dir() else ""


@pytest.fixture
def story(workplace: Path) -> Story:
    corpus = write_corpus(workplace / "LA", train=4, dev=4)
    shutil.copytree(corpus / "ASVspoof2019_LA_dev", corpus / "ASVspoof2019_LA_eval")
    protocols = corpus / "ASVspoof2019_LA_cm_protocols"
    shutil.copy(protocols / "ASVspoof2019.LA.cm.dev.trl.txt", protocols / "ASVspoof2019.LA.cm.eval.trl.txt")
    return Story(corpus)


def test_the_page_has_a_row_for_every_command_of_the_four_documents() -> None:
    there = " ".join(found["there"] for found in ROW.finditer(PAGE))
    for command in (
        "uv run cmd/train_adapter.py`",
        "checkpoint.resume_from=",
        "auto_resume_adapter.sh",
        "uv run cmd/train_vocoder.py`",
        "cmd/train_vocoder.py checkpoint.resume_from=",
        "auto_resume_hifigan.sh",
        "`python train.py`, `epochs = 120`, `resume_from_checkpoint = None`",
        "`load_checkpoint_type = 'best'`, `epochs = 200`",
        "`load_checkpoint_type = 'last'`",
        "`'last'`, `epochs = 120`",
        "`init_lr = 1e-4`, `epochs = 140`",
        "predict PESQ",
        "scaler_state_dict",
        "ls -lh checkpoint_*.pt",
        "torch.load('checkpoint_best.pt')",
        "src/train.py --resume .../checkpoints/last_model.pth",
        "src/train.py --resume .../checkpoints/checkpoint_epoch_050.pth",
        "scripts/test_model.py --checkpoint",
        "main.py --config config/train_default.yaml",
        "--train_batch_size 8 --max_steps 100000",
        "main.py --config outputs/fractalgen/checkpoints/version_0/config.yaml",
        "tensorboard --logdir",
        "inference.py --checkpoint",
    ):
        assert command in there


def test_steps_a_settings_file_and_wandb(story: Story) -> None:
    Path("run.yaml").write_text(story.in_small(yaml_of("Steps, a settings file and W&B")), encoding="utf-8")
    rows = section("Steps, a settings file and W&B")
    assert len(rows) == 6
    for row in rows:
        story.type(row)
    assert (Path("models") / story.run / "checkpoint_4.pt").is_file()


def test_the_vocoder(story: Story) -> None:
    title = "The vocoder (HiFi-GAN, beside that adapter)"
    written = story.in_small(yaml_of(title)).replace("save_interval: 2", "save_interval: 1")
    Path("vocoder.yaml").write_text(written, encoding="utf-8")
    rows = section(title)
    assert len(rows) == 9
    with narrow_vocoder():
        for row in rows:
            if "g_02500000" in row.here:
                published(Path("models") / story.run, 2_500_000, 2_500_000, into=Path())
            story.type(row)
    assert story.run == "hifigan_small_2_2_0.0002"
    assert (Path("models") / story.run / "checkpoint_2.pt").is_file()


def test_a_generator_and_its_discriminator(
    story: Story, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package for PESQ need not be there: a figure of ours stands for it."""
    monkeypatch.setattr(judged_vocoder, "required_pesq", lambda: likeness)
    rows = section("A generator and its discriminator")
    assert len(rows) == 10
    with narrow_vocoder():
        for row in rows:
            story.type(row)
    assert sorted(path.name for path in Path("models").iterdir()) == [
        "hifigan_small_2_2_0.0002",
        "hifigan_small_2_2_0.0002_metric_discriminatorTrue",
        "hifigan_small_3_2_0.0002",
        "hifigan_small_4_2_0.0001",
    ]
    held = load_payload(Path("models") / story.run / "best_checkpoint_mel.pth")
    told = capsys.readouterr().out
    assert f"{held['epoch']} {held['val_mel']} {held['best_val_mel']}\n" in told
    assert told.count("Target epochs already reached: 2 completed") == 2


def test_epochs_the_best_and_the_last(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    rows = section("Epochs, the best and the last")
    assert len(rows) == 10
    for row in rows:
        story.type(row)
    assert Path("best.onnx").is_file()
    assert Path("best.pt").is_file()
    assert "EER: " in capsys.readouterr().out


def test_versions_of_an_experiment(story: Story) -> None:
    Path("config").mkdir()
    settings = f"model_type: lcnn\ndatabase_path: {story.corpus}\nlr: 1e-3\n"
    named = re.search(r"`(--save_interval 10000 [^`]+)`", PAGE)
    assert named
    Path("config/train_default.yaml").write_text(settings, encoding="utf-8")
    rows = section("Versions of an experiment")
    assert len(rows) == 5
    for number, row in enumerate(rows):
        if row.here.startswith("tensorboard"):  # reads what the folder holds, and waits for a browser
            folder = Path(row.here.split()[-1])
            assert list(folder.glob("events.out.tfevents.*")), folder
            continue
        extra = f" {named[1]}" if number == 0 else ""
        story.type(Translation(row.there, row.here + " ".join(extra.split("\n"))))
    assert Path("outputs/fractalgen/checkpoints/version_2/config.yaml").is_file()
