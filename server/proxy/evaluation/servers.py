"""Which servers are started, one after the other: with which models, adapters and arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.server.proxy.evaluation.arms import BASE, Arm, ServerName, arms_of
from loraloom.server.proxy.evaluation.plan import TEMPLATE_FLAG, Plan


@dataclass(frozen=True)
class ServerPlan:
    """One server.

    Attributes:
        name: in the results and of its log.
        model: folder or Hugging Face id that it serves.
        arms: that it has.
        adapters: folders of what goes into its store, by name.
        adapted: the model that these are adapters of.
        proxy: arguments that compose models.
    """

    name: ServerName
    model: str
    arms: tuple[Arm, ...]
    adapters: Mapping[str, Path]
    adapted: str
    proxy: tuple[str, ...] = ()

    def fill(self, store: Path) -> None:
        """Publish the adapters; makes the store.

        Raises:
            AdapterError: one of them is refused.
            OSError: the folder cannot be written.
        """
        opened, base = Store.open(str(store)), fingerprint(self.adapted)
        for name, folder in self.adapters.items():
            opened.publish(folder, name, base=base, base_name=self.adapted)

    def arguments(self, port: int, folder: Path, vllm: Sequence[str]) -> list[str]:
        """What follows `loraloom serve`.

        Args:
            port: to listen on.
            folder: for the store, the cache and the jobs.
            vllm: what goes behind the `--`.
        """
        ours = ["--served-name", BASE, "--port", str(port), "--adapters", str(folder / "store")]
        ours += ["--cache", str(folder / "cache"), "--jobs", str(folder / "jobs")]
        return [self.model, *ours, *self.proxy, "--", *vllm]


def servers_of(plan: Plan) -> tuple[ServerPlan, ...]:
    """Every server that some arm needs, in the order in which they are started."""
    models, arms = plan.models, arms_of(plan.spec)
    small, large = _adapters(plan, "small_adapter"), _adapters(plan, "large_adapter")
    proxy: tuple[str, ...] = ("--proxy-small", models.small)
    if models.expert is not None:
        proxy = (*proxy, "--proxy-expert", models.expert)

    def of(name: ServerName) -> tuple[Arm, ...]:
        return tuple(arm for arm in arms if arm.server == name)

    found = [
        ServerPlan("large", models.large, of("large"), large, models.large),
        ServerPlan("proxy", models.large, of("proxy"), small, models.small, proxy),
        ServerPlan("small", models.small, of("small"), small, models.small),
    ]
    if models.expert is not None:
        found.append(ServerPlan("expert", models.expert, of("expert"), {}, models.expert))
    return tuple(found)


def vllm_arguments(plan: Plan, folder: Path) -> tuple[str, ...]:
    """What every server gets behind the `--`; writes the large model's chat template for those that have another.

    Raises:
        OSError: the folder cannot be written.
    """
    if plan.template is None:
        return plan.spec.vllm
    path = folder / "chat_template.jinja"
    path.write_text(plan.template, encoding="utf-8")
    return (*plan.spec.vllm, TEMPLATE_FLAG, str(path))


def _adapters(plan: Plan, kind: str) -> Mapping[str, Path]:
    specs = [task.spec for task in plan.tasks]
    return {spec.adapter: folder for spec in specs if (folder := getattr(spec, kind)) is not None}
