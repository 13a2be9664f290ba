"""Python processes that are forked from a process with torch imported, because the import takes seconds.

`Python` is the parent process. A call takes the arguments of `python` and returns the result of `subprocess.run`. By
default the parent imports only torch and torchvision: timm would import huggingface_hub, which reads its environment
variables on import. Tests that measure a process, or that must not import torch, use `subprocess` instead.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

LARGEST = 1 << 20  # bytes of a command with its environment


class Python:
    """Runs Python commands: `-c PROGRAM`, `-m MODULE` or a script's path, each with arguments.

    The parent process has imported `modules`, with the variables of `environment` set.
    """

    def __init__(self, *modules: str, **environment: str) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno()), *modules]
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], env=os.environ | {"PYTHONPATH": ""} | environment,
                start_new_session=True,
            )  # fmt: skip
        self._socket = ours

    def __call__(
        self, *arguments: object, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout: float = 120,
        kill_after: float | None = None, hurried: bool = False,
    ) -> "subprocess.CompletedProcess[str]":  # fmt: skip
        """The exit code and output of a command without stdin.

        After `timeout` seconds a TimeoutError is raised, and the parent process ends too. SIGKILL ends the command
        after `kill_after` seconds. If `hurried`, `time.sleep` takes a twentieth of its time, for commands that retry.
        """
        words, variables = list(map(str, arguments)), dict(os.environ if env is None else env)
        order = {
            "words": words, "env": variables, "cwd": str(cwd or Path.cwd()), "kill_after": kill_after,
            "hurried": hurried,
        }  # fmt: skip
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            self._socket.settimeout(timeout)
            socket.send_fds(self._socket, [json.dumps(order).encode()], [out.fileno(), errors.fileno()])
            try:
                code = int(self._socket.recv(100))
            except TimeoutError:
                self.close()
                raise
            outputs = []
            for file in (out, errors):
                file.seek(0)
                outputs.append(file.read().decode())
        return subprocess.CompletedProcess([sys.executable, *words], code, *outputs)

    def close(self) -> None:
        """End the parent process and its command."""
        self._socket.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def serve(orders: socket.socket) -> tuple[list[str], dict[str, str]]:
    """Fork a child for each order and report its exit code; returns only in the child, with its command."""
    while True:
        content, descriptors, *_ = socket.recv_fds(orders, LARGEST, 2)
        if not content:
            raise SystemExit
        order = json.loads(content)
        if (child := os.fork()) == 0:
            orders.close()
            for number, descriptor in enumerate([os.open(os.devnull, os.O_RDONLY), *descriptors]):
                os.dup2(descriptor, number)
                os.close(descriptor)
            os.chdir(order["cwd"])
            os.environ.clear()
            os.environ.update(order["env"])
            if order["hurried"]:
                hurry()
            return order["words"], order["env"]
        for descriptor in descriptors:
            os.close(descriptor)
        if order["kill_after"] is not None:  # only the parent knows that the process id is still the child's
            time.sleep(order["kill_after"])
            os.kill(child, signal.SIGKILL)
        orders.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def hurry() -> None:
    """Let `time.sleep` take a twentieth of its time from now on."""
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(seconds / 20)


def run(words: list[str], env: dict[str, str]) -> None:
    """Run a command as the interpreter would."""
    first, *arguments = words
    sys.path[:1] = ["", *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    if first not in ("-c", "-m"):
        sys.argv = words
        runpy.run_path(first, run_name="__main__")
        return
    sys.argv = [first, *arguments[1:]]
    if first == "-m":
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(arguments[0], "<string>", "exec"), vars(main))


def run_and_end(words: list[str], env: dict[str, str]) -> None:
    """Run a command, and exit like the interpreter, but without destroying torch's modules."""
    code: object = 0
    try:
        run(words, env)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads, as the interpreter does
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    import torchvision  # noqa: F401 - imports torch; timm imports torchvision too

    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.freeze()  # garbage collections in children do not copy shared memory
    run_and_end(*serve(socket.socket(fileno=int(sys.argv[1]))))
