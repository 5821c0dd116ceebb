"""What the command line of a pod does to the machine it runs on.

Repair and validation pods carry what a real node would run; this module gives those words their
effect. A pod that restarts forever is a service; one whose command nobody knows ends with 127.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from simfleet import bandwidth, diag
from simfleet.coreutils import FOREVER_S, WORDS
from simfleet.faults import Repair
from simfleet.kube.machines import Execution
from simfleet.shell import BAD_SYNTAX, NOT_FOUND, Outcome, Shell, ShellSyntax, script_of

if TYPE_CHECKING:
    from simfleet.machine import SimMachine

SYSRQ = "/proc/sysrq-trigger"
GPU_IS_LOST = 15  # NVML_ERROR_GPU_IS_LOST, also nvidia-smi's exit status
NO_DEVICE = 6  # NVML_ERROR_NOT_FOUND
IN_USE = 19  # NVML_ERROR_IN_USE
PLUGIN_APP = "nvidia-device-plugin-daemonset"
EXPORTER_APP = "nvidia-dcgm-exporter"
_SYSTEMCTL_BOOTS = frozenset({"reboot", "kexec", "soft-reboot"})
_LOOK_THROUGH = frozenset(
    {"nsenter", "chroot", "sudo", "exec", "timeout", "nice", "env", "command"}
)


def run_pod(machine: SimMachine, pod: dict[str, Any]) -> Execution | None:
    """What the kubelet will see of this pod; None when it is a service.

    Starting the device plugin's or the exporter's own pod has its effect here, at once.
    """
    app = pod["metadata"].get("labels", {}).get("app", "")
    if app == EXPORTER_APP:
        machine.repair(Repair.EXPORTER_RESTART)
    spec = pod["spec"]
    container = spec["containers"][0]
    env = _environment(container)
    argv = [_kube_expand(word, env) for word in _argv(container)]
    if spec.get("restartPolicy", "Always") == "Always" or not argv:
        return None
    return _Run(machine, pod["metadata"].get("uid", ""), env).start(argv)


def _argv(container: Mapping[str, Any]) -> list[str]:
    return [*container.get("command", []), *container.get("args", [])]


def _environment(container: Mapping[str, Any]) -> dict[str, str]:
    pairs = container.get("env") or []
    return {pair["name"]: str(pair["value"]) for pair in pairs if pair.get("value") is not None}


def _kube_expand(word: str, env: Mapping[str, str]) -> str:
    return re.sub(r"\$\((\w+)\)", lambda m: env.get(m[1], m[0]), word)


class _Run:
    """One container's run: collects the effects, which happen when it has finished."""

    def __init__(self, machine: SimMachine, uid: str, env: dict[str, str]) -> None:
        self.machine = machine
        self.uid = uid
        self.env = env
        self.effects: list[Callable[[], None]] = []
        self._programs: dict[str, Callable[[list[str]], Outcome]] = {
            "nvidia-smi": self._nvidia_smi,
            "dcgmi": self._dcgmi,
            "all_reduce_perf": self._all_reduce,
            "nvbandwidth": self._nvbandwidth,
            "systemctl": self._systemctl,
            "shutdown": self._shutdown,
            "reboot": lambda _args: self._reboots(),
        }

    def start(self, argv: list[str]) -> Execution | None:
        shell = Shell(self.command, self.env)
        script = script_of(argv)
        try:
            if script is None:
                result = self.command(argv, shell)
                code, shell.took_s = result.code, result.took_s
                shell.out.append(result.out)
            else:
                shell.errexit = script[1]
                code = shell.run(script[0])
        except ShellSyntax as error:
            code = BAD_SYNTAX
            shell.out.append(f"sh: syntax error: {error}\n")
        if shell.took_s >= FOREVER_S:
            return None
        self.machine.world.note(
            self.machine.spec.name, "pod_run", uid=self.uid, argv=argv, exit_code=code
        )
        took_s = max(shell.took_s, self.machine.world.takes("command"))
        return Execution(took_s, code, "".join(shell.out), self._finish if self.effects else None)

    def _finish(self) -> None:
        while self.effects:
            self.effects.pop(0)()

    def command(self, words: list[str], shell: Shell) -> Outcome:
        """Run one simple command."""
        name, args = words[0].rsplit("/", 1)[-1], words[1:]
        if (script := script_of(words)) is not None:
            nested = Shell(self.command, shell.env, errexit=script[1])
            code = nested.run(script[0])
            return Outcome(code, "".join(nested.out), nested.took_s)
        if name in _LOOK_THROUGH:
            inner = _inner_command(name, args)
            return self.command(inner, shell) if inner else Outcome()
        if name in self._programs:
            return self._programs[name](args)
        if name == "echo" and shell.redirect == SYSRQ and "b" in args:
            return self._reboots()
        if name in WORDS:
            return WORDS[name](self.machine, args, shell)
        return Outcome(NOT_FOUND, f"{name}: command not found on this simulated node\n")

    # ---- the machine

    def _nvidia_smi(self, args: list[str]) -> Outcome:
        if {"--gpu-reset", "-r"} & set(args):
            return self._gpu_reset(args)
        visible = [gpu for gpu in self.machine.gpus if gpu.on_bus]
        if {"-L", "--list-gpus"} & set(args):
            lines = [f"GPU {g.index}: {g.sku.model_name} (UUID: {g.uuid})\n" for g in visible]
        elif any(arg.startswith("--query-gpu=") for arg in args):
            fields = next(a for a in args if a.startswith("--query-gpu=")).split("=", 1)[1]
            lines = [_queried(self.machine, g.index, fields) for g in visible]
        else:
            lines = [f"Driver Version : {self.machine.driver_version}\n"]
            lines += [f"Attached GPUs : {len(visible)}\n"]
            lines += [
                f"GPU {g.pci_bus_id}\n    Product Name : {g.sku.model_name}\n" for g in visible
            ]
        return Outcome(0, "".join(lines))

    def _gpu_reset(self, args: list[str]) -> Outcome:
        machine = self.machine
        took_s = machine.world.takes("gpu_reset")
        chosen = _chosen_gpus(machine, args)
        if chosen is None:
            return Outcome(NO_DEVICE, "No devices were found\n")
        for gpu in (machine.gpus[index] for index in chosen):
            if not gpu.on_bus:
                text = f"Unable to determine the device handle for GPU{gpu.index}: "
                return Outcome(GPU_IS_LOST, f"{text}{gpu.pci_bus_id}: GPU is lost\n")
            holder = machine.holders.get(gpu.index)
            if holder is not None and holder.uid != self.uid:
                text = f"The following GPUs could not be reset:\n  GPU {gpu.pci_bus_id}: "
                return Outcome(IN_USE, f"{text}In use by another client\n")
        self.effects.append(lambda: machine.repair(Repair.GPU_RESET, chosen))
        lines = [f"GPU {machine.gpus[i].pci_bus_id} was successfully reset.\n" for i in chosen]
        return Outcome(0, "".join([*lines, "All done.\n"]), took_s)

    def _dcgmi(self, args: list[str]) -> Outcome:
        machine = self.machine
        if args[:1] != ["diag"]:
            return Outcome(0, f"{len(machine.gpus)} GPUs found.\n")
        level = diag.LEVELS.get(_option(args, "-r", "--run") or "1")
        if level is None:
            return Outcome(diag.EXIT_FAILED, diag.runtime_error("unknown run level"))
        if any(fault.kind.hangs_dcgm for fault in machine.faults):
            text = diag.runtime_error("Unable to connect to the host engine: timeout")
            return Outcome(diag.EXIT_NO_HOST_ENGINE, text, machine.world.takes("diag_1"))
        broken = next((f.kind.diag_exit for f in machine.faults if f.kind.diag_exit), 0)
        if broken:
            return Outcome(broken, diag.runtime_error("Unable to run diagnostic"))
        self._finish()  # what came before it in the same script has happened
        now = machine.world.now()
        if now < machine.diag_until:
            text = diag.runtime_error("Unable to run diagnostic: another diag instance is running")
            return Outcome(diag.EXIT_BUSY, text)
        took_s = machine.world.takes(f"diag_{level}")
        machine.diag_until = now + took_s
        code, text = diag.run_diag(machine, level, self.uid)
        return Outcome(code, text + "\n", took_s)

    def _all_reduce(self, args: list[str]) -> Outcome:
        count = _option(args, "-g", "--ngpus") or "1"
        code, text = bandwidth.all_reduce_perf(self.machine, int(count) if count.isdigit() else 1)
        return Outcome(code, text, self.machine.world.takes("all_reduce"))

    def _nvbandwidth(self, args: list[str]) -> Outcome:
        names = args[args.index("-t") + 1 :] if "-t" in args else []
        tests = [name for name in names if not name.startswith("-")]
        code, text = bandwidth.nvbandwidth(self.machine, tests)
        return Outcome(code, text, self.machine.world.takes("nvbandwidth"))

    def _reboots(self) -> Outcome:
        self.effects.append(self.machine.reboot)
        return Outcome()

    def _systemctl(self, args: list[str]) -> Outcome:
        if _SYSTEMCTL_BOOTS & set(args):
            return self._reboots()
        if "restart" in args and any("dcgm" in arg for arg in args):
            self.effects.append(lambda: self.machine.repair(Repair.EXPORTER_RESTART))
        return Outcome()

    def _shutdown(self, args: list[str]) -> Outcome:
        if {"-r", "--reboot"} & set(args):
            return self._reboots()
        return Outcome(1, "shutdown: this fleet only ever restarts (-r)\n")


def _inner_command(name: str, args: list[str]) -> list[str]:
    """What `nsenter -t 1 -m -- CMD`, `chroot /host CMD`, `timeout 60 CMD` and the like start."""
    if "--" in args:
        return args[args.index("--") + 1 :]
    rest = list(args)
    if name == "nsenter":
        while rest and rest[0].startswith("-"):
            takes_value = rest.pop(0) in {"-t", "--target", "-S", "-G"}
            rest = rest[1:] if takes_value else rest
        return rest
    while rest and (rest[0].startswith("-") or "=" in rest[0]):
        rest.pop(0)
    return rest[1:] if name in {"chroot", "timeout"} else rest


def _option(args: list[str], *names: str) -> str | None:
    for at, arg in enumerate(args):
        if arg in names and at + 1 < len(args):
            return args[at + 1]
        for name in names:
            if arg.startswith(name + "="):
                return arg.split("=", 1)[1]
    return None


def _chosen_gpus(machine: SimMachine, args: list[str]) -> list[int] | None:
    """GPU indexes that `-i` names (index, UUID or bus id, commas allowed); None when unknown."""
    wanted = _option(args, "-i", "--id")
    if wanted is None:
        return [gpu.index for gpu in machine.gpus]
    by_name: dict[str, int] = {}
    for gpu in machine.gpus:
        by_name |= {
            str(gpu.index): gpu.index,
            gpu.uuid: gpu.index,
            gpu.pci_bus_id.lower(): gpu.index,
        }
        by_name[gpu.pci_bus_id.lower()[4:]] = gpu.index
    names = [name if name in by_name else name.lower() for name in wanted.split(",")]
    return [by_name[name] for name in names] if set(names) <= set(by_name) else None


def _queried(machine: SimMachine, index: int, fields: str) -> str:
    gpu = machine.gpus[index]
    values = {
        "index": str(index),
        "uuid": gpu.uuid,
        "gpu_uuid": gpu.uuid,
        "name": gpu.sku.model_name,
        "pci.bus_id": gpu.pci_bus_id,
        "serial": gpu.serial,
        "driver_version": machine.driver_version,
    }
    return ", ".join(values.get(f.strip(), "[N/A]") for f in fields.split(",")) + "\n"
