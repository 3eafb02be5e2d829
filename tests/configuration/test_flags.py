"""The command line, taken apart."""

import shlex

import pytest

from cptjax.configuration.flags import Command, parse_command
from cptjax.errors import ConfigurationError


def test_everything_in_its_place():
    command = parse_command(
        ["--gin_file=a.gin", "--gin_file", "b.gin", "--gin.X=1", "--gin.s/f.x='a=b'", "--gin.X=2"]
        + ["--gin_search_paths=p, q", "--gin_search_paths=r", "--allow_imports=mine", "--dry_run"]
    )
    assert command.gin_files == ("a.gin", "b.gin")
    assert command.bindings == (("X", "1"), ("s/f.x", "'a=b'"), ("X", "2"))
    assert command.search_paths == ("p", "q", "r") and command.allow_imports == ("mine",)
    assert command.dry_run and not command.help


def test_a_switch_can_be_written_out():
    assert not parse_command(["--dry_run=false"]).dry_run
    assert parse_command(["--dry_run=true"]).dry_run
    with pytest.raises(ConfigurationError, match="given alone"):
        parse_command(["--dry_run=maybe"])


def test_the_command_can_be_typed_again():
    arguments = ["--gin_file=a b.gin", "--gin.X='it'", '--gin.Y={"a": 1}']
    typed = shlex.split(str(parse_command(arguments)))
    assert typed[:3] == ["python", "-m", "cptjax.main"]
    assert parse_command(typed[3:]) == parse_command(arguments)


def test_nothing_given():
    assert parse_command([]) == Command()
