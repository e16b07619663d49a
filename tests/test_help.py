"""Shows that help fits a terminal, has examples, and knows every option, as the tests do."""

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dptrain.cli import main as cli
from dptrain.cli.help import REST, SAFETY, TITLES
from dptrain.cli.main import command

HERE = Path(__file__).parent
GROUPS = {*TITLES.values(), SAFETY, REST}


def every(group: click.Group) -> list[tuple[list[str], click.Command]]:
    """Return each command, with the words that call it."""
    found: list[tuple[list[str], click.Command]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        one = group.get_command(context, name)
        assert one
        below = every(one) if isinstance(one, click.Group) else [([], one)]
        found += [([name, *words], leaf) for words, leaf in below]
    return found


COMMANDS = every(command)
NAMES = [" ".join(words) for words, _ in COMMANDS]
TESTS = "\n".join(path.read_text() for path in HERE.glob("*.py") if path != Path(__file__))


@pytest.mark.parametrize(("words", "one"), COMMANDS, ids=NAMES)
def test_help_fits_80_columns_and_has_examples(words: list[str], one: click.Command) -> None:
    text = CliRunner().invoke(command, [*words, "--help"], terminal_width=80).output
    assert not [line for line in text.splitlines() if len(line) > 80]
    _, _, examples = text.partition("\nExamples:\n")
    assert re.search(
        rf"^    (mpirun -n \d+ |srun )?dptrain {' '.join(words)} ", examples, re.MULTILINE
    )
    titles = {*re.findall(r"^(\S.*):$", text.partition("\nExamples:")[0], re.MULTILINE)}
    assert titles <= GROUPS
    for option in one.params:
        if isinstance(option, click.Option):
            assert re.search(rf"^  (-\w, )?{option.opts[0]}\b", text, re.MULTILINE), option.opts
            assert option.help


def test_the_list_of_commands_has_the_first_sentence_of_each_ones_help() -> None:
    assert [*cli.COMMANDS] == sorted(cli.COMMANDS)
    listed = CliRunner().invoke(command, ["--help"], terminal_width=80).output.split("Commands:")[1]
    told = " ".join(listed.split())
    for name in cli.COMMANDS:
        text = " ".join((command.get_command(None, name).help or "").split("\n\n")[0].split())
        assert f"{name} {text.split('. ')[0].rstrip('.')}" in told


@pytest.mark.parametrize("words", [words for words, _ in COMMANDS], ids=NAMES)
def test_examples_are_of_options_that_are_there(words: list[str]) -> None:
    text = CliRunner().invoke(command, [*words, "--help"], terminal_width=80).output
    examples = text.partition("\nExamples:\n\n")[2].partition("\n\n")[0]
    there = {name for _, each in COMMANDS for option in each.params for name in option.opts}
    named = {*re.findall(r"(?<= )--[a-z][\w-]*", examples)} - {"--nodes", "--mpi"}
    assert named <= there


def test_each_command_and_option_is_tested_somewhere() -> None:
    named = r'--([\w-]+)|\b(\w+)=|([\w-]+) = |"([\w-]+)"'
    there = {word.lstrip("-") for found in re.findall(named, TESTS) for word in found}
    for words, one in COMMANDS:
        assert all(f'"{word}"' in TESTS for word in words), words
        for option in one.params:
            names = {option.name, *(name.lstrip("-") for name in option.opts)}
            assert names & there or not isinstance(option, click.Option), (words, names)
