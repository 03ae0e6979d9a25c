"""`pulvinar doctor`: what is here, and what is missing."""

import argparse

from pulvinar.cli.common import Commands, Result, UsageError, say


def _doctor(arguments: argparse.Namespace) -> Result:
    from pulvinar.app import doctor

    if arguments.clear_cache and arguments.devices:
        raise UsageError("doctor: --clear-cache and --devices are two things; give one")
    if arguments.clear_cache:
        result = doctor.clear_cache()
        used = f"; {result['in_use']} sets of features are in use and stay" if result["in_use"] else ""
        say(arguments, f"freed {result['freed'] / 2**20:.1f} MB in {result['path']}{used}")
        return result
    result = doctor.doctor(devices=arguments.devices)
    say(arguments, doctor.as_text(result))
    return result


def declare(commands: Commands) -> None:
    """The command line of this file."""
    doctor = commands.add(
        "doctor",
        _doctor,
        "versions, devices, memory, disk, cache; what is missing for which command",
        example="pulvinar doctor",
    )
    doctor.add_argument("--devices", action="store_true", help="ask torch which devices it can use (takes seconds)")
    doctor.add_argument("--clear-cache", action="store_true", help="remove cached features that no process is writing")
