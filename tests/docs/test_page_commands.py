"""Every command in README.md and docs/ is read as main reads it: its gin files are there, its macros exist, nothing is missing."""

import pytest
from pages import PAGES, ROOT, commands

from cptjax.configuration.configured import configure
from cptjax.configuration.flags import parse_command
from cptjax.configuration.macros import check_unreferenced
from cptjax.configuration.statements import read_program
from cptjax.errors import ConfigurationError
from cptjax.main import main

SHOWN = [command for page in PAGES for command in commands(page)]
# Of a reader's own files, that the page itself has: tests/docs/test_extending.py follows those.
OWN = ("my_", "runs/")


def test_there_are_commands_to_check():
    assert SHOWN[0].arguments == ("--gin_file=gin/quickstart.gin",)
    assert len(SHOWN) > 40 and {command.page for command in SHOWN} >= {"README.md", "index.md", "training.md"}


@pytest.mark.parametrize("shown", SHOWN, ids=str)
def test_a_command_of_the_pages_is_one_that_main_takes(shown, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = parse_command(shown.arguments)
    if command.help or any(name.startswith(OWN) for name in command.gin_files):
        return
    if shown.partial:
        check_unreferenced(read_program(command))
        return
    configure(command)


def test_what_was_run_is_said_whole():
    """papers.md tells how its numbers were made: nothing of those commands is left out."""
    shown = [command for command in SHOWN if command.page == "papers.md"]
    assert shown and not [str(command) for command in shown if command.partial]


def test_a_macro_that_has_gone_would_be_found(monkeypatch):
    monkeypatch.chdir(ROOT)
    command = parse_command(["--gin_file=gin/recipes/reuse.gin", "--gin.TRAIN_TOKEN=1"])
    with pytest.raises(ConfigurationError, match="TRAIN_TOKEN"):
        check_unreferenced(read_program(command))


def test_the_drawn_schedule_of_the_training_page(tmp_path, monkeypatch, capsys):
    """That page's own command, but for the file it writes."""
    shown = next(each for each in SHOWN if any("infinite.gin" in word for word in each.arguments))
    monkeypatch.chdir(ROOT)
    assert main([*shown.arguments, f"--gin.OUTPUT='{tmp_path / 'infinite.svg'}'"]) == 0
    assert "<svg" in (tmp_path / "infinite.svg").read_text() and "0.0003" in capsys.readouterr().out
