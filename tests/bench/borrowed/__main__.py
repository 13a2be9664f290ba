"""`python tests/bench/borrowed COMMAND`: pack at home; smoke, train, harvest on the borrowed machine; join at home."""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[0:1] = [str(HERE.parents[1]), str(HERE.parents[3])]  # so that this package and vtzoo need no installation

from borrowed import harvest, packing, training  # noqa: E402
from borrowed.machine import ROOT, Machine  # noqa: E402
from vtzoo.errors import VtzooError  # noqa: E402


def pack(arguments: argparse.Namespace) -> None:
    """Write the folders to carry, and keep the weights out of the working tree until Ctrl-C."""
    if arguments.back:
        print(f"{packing.put_back(ROOT)} folders of weights are back in {packing.WEIGHTS}")
        return
    parts = packing.pack(ROOT, arguments.data, arguments.model)
    tree = packing.tree_bytes(ROOT)
    for part in parts:
        size = sum(path.stat().st_size for path in part.iterdir())
        total = (size + tree) / packing.MIB
        print(f"{part.relative_to(ROOT)}: {size / 1e6:.1f} MB, with the working tree {total:.1f} of 64 MiB")
    if arguments.hold:
        packing.hold(
            ROOT, f"{packing.WEIGHTS} is empty: carry one part a call. Ctrl-C or SIGTERM puts the weights back."
        )
        print(f"the weights are back in {packing.WEIGHTS}")


def smoke(arguments: argparse.Namespace) -> None:
    """Check training steps on the borrowed machine, and measure their speed."""
    machine = Machine(folder=arguments.at)
    machine.arrive()
    from borrowed import smoking

    settings = smoking.Settings(
        seconds=arguments.seconds, batches=tuple(arguments.batch), steps=arguments.steps, checked=arguments.check,
        alone=arguments.alone, device=arguments.device,
    )  # fmt: skip
    if not smoking.smoke(machine, arguments.recipe, arguments.minutes, settings):
        raise SystemExit(1)


def train(arguments: argparse.Namespace) -> None:
    """Start a training that outlives the command."""
    machine = Machine(folder=arguments.at)
    missing = machine.arrive()
    from vtzoo.zoo.recipe_files import load_recipe, locate

    machine.require(load_recipe(locate(arguments.recipe)).dataset, missing)
    folder = training.start(
        machine, arguments.recipe, arguments.minutes, twin=arguments.twin, compiled=arguments.compiled,
        seed=arguments.seed, device=arguments.device, most=arguments.most, trial=arguments.trial,
    )  # fmt: skip
    print(f"{folder.name} trains in {folder}; harvest {folder.name} says how it goes")


def harvest_run(arguments: argparse.Namespace) -> None:
    """Write a run's pieces."""
    machine = Machine(folder=arguments.at)
    machine.arrive()
    state = harvest.harvest(
        machine, arguments.name, arguments.out, wait=arguments.wait, now=arguments.now, record=arguments.record
    )
    print(harvest.sentence(arguments.name, state))
    for path in sorted(arguments.out.iterdir()):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


def join(arguments: argparse.Namespace) -> None:
    """Make a model folder from pieces."""
    result = harvest.join(arguments.pieces, arguments.out, arguments.data)
    print(f"{arguments.out}: top-1 {result.top1:.2%} on {result.images:,} test images, {result.steps:,} steps")


def work(arguments: argparse.Namespace) -> None:
    """Train in the worker process that `train` starts."""
    machine = Machine(folder=arguments.at)
    machine.arrive()
    training.work(machine, arguments.folder)


def second_process(arguments: argparse.Namespace) -> None:
    """Run the second process that `smoke` starts to measure the speed of two processes together."""
    Machine(folder=arguments.at).arrive()
    from borrowed import smoking

    smoking.serve(arguments.recipe, arguments.device)


def _absolute(path: str) -> Path:
    return Path(path).resolve()


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    program = argparse.ArgumentParser(prog="python tests/bench/borrowed", description=__doc__)
    commands = program.add_subparsers(required=True, metavar="COMMAND")
    machine = argparse.ArgumentParser(add_help=False)
    machine.add_argument("--at", type=_absolute, default=Path("/tmp/borrowed"), help="the machine's own folder")
    machine.add_argument("--device", default="auto", help="cpu, cuda or auto")

    command = commands.add_parser(
        "pack", help="at home: write the folders to carry, and move the weights out of the tree"
    )
    command.add_argument(
        "--data", type=Path, nargs="+", default=[], help="folders of Parquet files, each named like its dataset"
    )
    command.add_argument("--model", type=Path, nargs="+", default=[], help="folders of trained teachers to take along")
    command.add_argument("--no-hold", dest="hold", action="store_false", help="leave the working tree as it is")
    command.add_argument("--back", action="store_true", help="put back the weights that a killed pack left aside")
    command.set_defaults(run=pack)

    command = commands.add_parser(
        "smoke", parents=[machine], help="there: check the training steps, and measure their speed"
    )
    command.add_argument("recipe", help="name or file of the recipe to measure")
    command.add_argument("minutes", type=float, help="minutes left for the training")
    command.add_argument("--seconds", type=float, default=60, help="start no row after this time")
    command.add_argument("--batch", type=int, nargs="+", default=[256, 512, 1024], help="batch sizes to measure")
    command.add_argument("--steps", type=int, default=30, help="timed steps per row")
    command.add_argument("--check", type=int, default=64, help="batch size of the steps compared between the devices")
    command.add_argument("--alone", action="store_true", help="do not measure two processes together")
    command.set_defaults(run=smoke)

    command = commands.add_parser("train", parents=[machine], help="there: start a training that outlives the command")
    command.add_argument("recipe", help="a recipe's name or file")
    command.add_argument("minutes", type=float, help="minutes from now to its end")
    command.add_argument("--compile", dest="compiled", action="store_true", help="compile the model's blocks")
    command.add_argument(
        "--twin",
        action="store_true",
        help="also train the baseline beside it, if smoke measured that both keep 80% of their speed",
    )
    command.add_argument("--seed", type=int, default=0, help="seed of the run")
    command.add_argument("--most", type=int, metavar="EPOCHS", help="maximum, even if more fit")
    command.add_argument(
        "--trial", type=float, default=6, metavar="SECONDS", help="seconds of steps that measure the speed"
    )
    command.set_defaults(run=train)

    command = commands.add_parser("harvest", parents=[machine], help="there: write a run's pieces")
    command.add_argument("name", help="name of the run: the recipe's, with -seedN for another seed")
    command.add_argument("--out", type=Path, required=True, help="folder to send home; emptied first")
    command.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="longest wait for the run's end")
    command.add_argument("--now", action="store_true", help="with the last checkpoint's weights, if the run goes on")
    command.add_argument("--record", action="store_true", help="without weights")
    command.set_defaults(run=harvest_run)

    command = commands.add_parser("join", help="at home: make a model folder from pieces")
    command.add_argument("pieces", type=Path, help="the folder that harvest wrote")
    command.add_argument("--out", type=Path, required=True, help="the model folder")
    command.add_argument("--data", type=Path, required=True, help="the dataset's folder, for its test images")
    command.set_defaults(run=join)

    command = commands.add_parser("work", parents=[machine])
    command.add_argument("folder", type=Path)
    command.set_defaults(run=work)
    command = commands.add_parser("beside", parents=[machine])
    command.add_argument("recipe")
    command.set_defaults(run=second_process)
    return program


def main() -> int:
    """Run a command and return its exit code; a VtzooError is printed without a traceback."""
    arguments = parser().parse_args()
    try:
        arguments.run(arguments)
    except VtzooError as error:
        print(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
