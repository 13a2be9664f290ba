"""`python tests/bench/borrowed COMMAND`: pack at home; smoke, train, harvest on the borrowed machine; join at home."""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[0:1] = [str(HERE.parents[1]), str(HERE.parents[3])]  # of this package, and of vtzoo, installed or not

from borrowed import harvest, packing, training  # noqa: E402
from borrowed.machine import ROOT, Machine  # noqa: E402
from vtzoo.errors import VtzooError  # noqa: E402


def pack(given: argparse.Namespace) -> None:
    """Write the folders to carry, and keep the tree light until Ctrl-C."""
    if given.back:
        print(f"{packing.put_back(ROOT)} folders of weights are back in {packing.WEIGHTS}")
        return
    parts = packing.pack(ROOT, given.data, given.model)
    tree = packing.tree_bytes(ROOT)
    for part in parts:
        size = sum(path.stat().st_size for path in part.iterdir())
        total = (size + tree) / packing.MIB
        print(f"{part.relative_to(ROOT)}: {size / 1e6:.1f} MB, with the working tree {total:.1f} of 64 MiB")
    if given.hold:
        packing.hold(
            ROOT, f"{packing.WEIGHTS} is empty: carry one part a call. Ctrl-C or SIGTERM puts the weights back."
        )
        print(f"the weights are back in {packing.WEIGHTS}")


def smoke(given: argparse.Namespace) -> None:
    """Look whether everything works there, and how fast."""
    machine = Machine(folder=given.at)
    machine.arrive()
    from borrowed import smoking

    how = smoking.How(
        seconds=given.seconds, batches=tuple(given.batch), steps=given.steps, checked=given.check, alone=given.alone,
        device=given.device,
    )  # fmt: skip
    if not smoking.smoke(machine, given.recipe, given.minutes, how):
        raise SystemExit(1)


def train(given: argparse.Namespace) -> None:
    """Start a training that goes on by itself."""
    machine = Machine(folder=given.at)
    missing = machine.arrive()
    from vtzoo.zoo.recipe_files import load_recipe, locate

    machine.require(load_recipe(locate(given.recipe)).dataset, missing)
    folder = training.start(
        machine, given.recipe, given.minutes, twin=given.twin, compiled=given.compiled, seed=given.seed,
        device=given.device, most=given.most, trial=given.trial,
    )  # fmt: skip
    print(f"{folder.name} trains in {folder}; harvest {folder.name} says how it goes")


def bring(given: argparse.Namespace) -> None:
    """Write a run's pieces."""
    machine = Machine(folder=given.at)
    machine.arrive()
    state = harvest.harvest(machine, given.name, given.out, wait=given.wait, now=given.now, record=given.record)
    print(harvest.sentence(given.name, state))
    for path in sorted(given.out.iterdir()):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


def join(given: argparse.Namespace) -> None:
    """Make a model folder of pieces."""
    result = harvest.join(given.pieces, given.out, given.data)
    print(f"{given.out}: top-1 {result.top1:.2%} on {result.images:,} test images, {result.steps:,} steps")


def work(given: argparse.Namespace) -> None:
    """What `train` starts."""
    machine = Machine(folder=given.at)
    machine.arrive()
    training.work(machine, given.folder)


def beside(given: argparse.Namespace) -> None:
    """What `smoke` starts to see how two processes get on together."""
    Machine(folder=given.at).arrive()
    from borrowed import smoking

    smoking.serve(given.recipe, given.device)


def _absolute(path: str) -> Path:
    return Path(path).resolve()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(prog="python tests/bench/borrowed", description=__doc__)
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    machine = argparse.ArgumentParser(add_help=False)
    machine.add_argument("--at", type=_absolute, default=Path("/tmp/borrowed"), help="the machine's own folder")
    machine.add_argument("--device", default="auto", help="cpu, cuda or auto")

    one = commands.add_parser("pack", help="at home: write the folders to carry, and keep the tree light")
    one.add_argument("--data", type=Path, nargs="+", default=[], help="folders of Parquet files, named as data sets")
    one.add_argument("--model", type=Path, nargs="+", default=[], help="folders of trained teachers to take along")
    one.add_argument("--no-hold", dest="hold", action="store_false", help="leave the working tree as it is")
    one.add_argument("--back", action="store_true", help="put weights back that a killed pack left aside")
    one.set_defaults(run=pack)

    one = commands.add_parser("smoke", parents=[machine], help="there: does it work, and how fast")
    one.add_argument("recipe", help="a recipe's name or file, whose speed is measured")
    one.add_argument("minutes", type=float, help="that are left to train")
    one.add_argument("--seconds", type=float, default=60, help="after which no row is begun")
    one.add_argument("--batch", type=int, nargs="+", default=[256, 512, 1024])
    one.add_argument("--steps", type=int, default=30, help="timed in a row")
    one.add_argument("--check", type=int, default=64, help="images of the steps that two devices compare")
    one.add_argument("--alone", action="store_true", help="do not measure two processes together")
    one.set_defaults(run=smoke)

    one = commands.add_parser("train", parents=[machine], help="there: start a training that goes on by itself")
    one.add_argument("recipe", help="a recipe's name or file")
    one.add_argument("minutes", type=float, help="from now to its end")
    one.add_argument("--compile", dest="compiled", action="store_true")
    one.add_argument("--twin", action="store_true", help="and its baseline beside it, where smoke says that it pays")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--most", type=int, metavar="EPOCHS", help="at the most, however many fit")
    one.add_argument("--trial", type=float, default=6, metavar="SECONDS", help="of steps that tell the speed")
    one.set_defaults(run=train)

    one = commands.add_parser("harvest", parents=[machine], help="there: write a run's pieces")
    one.add_argument("name", help="the run's, which is its recipe's")
    one.add_argument("--out", type=Path, required=True, help="the folder whose files travel home; it is emptied first")
    one.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="for its end, at the most")
    one.add_argument("--now", action="store_true", help="with the weights of its last checkpoint, if it goes on")
    one.add_argument("--record", action="store_true", help="without weights")
    one.set_defaults(run=bring)

    one = commands.add_parser("join", help="at home: make a model folder of pieces")
    one.add_argument("pieces", type=Path, help="the folder that harvest wrote")
    one.add_argument("--out", type=Path, required=True, help="the model folder")
    one.add_argument("--data", type=Path, required=True, help="the data set's folder, for its test images")
    one.set_defaults(run=join)

    one = commands.add_parser("work", parents=[machine])
    one.add_argument("folder", type=Path)
    one.set_defaults(run=work)
    one = commands.add_parser("beside", parents=[machine])
    one.add_argument("recipe")
    one.set_defaults(run=beside)
    return whole


def main() -> int:
    """Run a command; an error is a sentence."""
    given = parser().parse_args()
    try:
        given.run(given)
    except VtzooError as error:
        print(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
