"""Which servers are started, one after the other: with which models, adapters and arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loraloom.adapters.base import fingerprint
from loraloom.adapters.store import Store
from loraloom.server.proxy.evaluation.arms import BASE, Arm, ServerName, arms_of
from loraloom.server.proxy.evaluation.models import Models
from loraloom.server.proxy.evaluation.spec import EvaluationSpec
from loraloom.server.settings import Settings

TEMPLATE_FLAG = "--chat-template"
_RANK = 16


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

    @property
    def settings(self) -> Settings:
        """As `serve` has them, as far as they decide whether it refuses to start; no store is looked into."""
        pairs = zip(self.proxy[::2], self.proxy[1::2], strict=True)
        proxy = {flag.removeprefix("--").replace("-", "_"): value for flag, value in pairs}
        return Settings.model_validate(
            {"model": self.model, "served_name": BASE, "max_lora_rank": _RANK, **proxy},
        )


def servers_of(spec: EvaluationSpec, models: Models) -> tuple[ServerPlan, ...]:
    """Every server that some arm needs, in the order in which they are started."""
    arms = arms_of(spec)
    small, large = _adapters(spec, "small_adapter"), _adapters(spec, "large_adapter")
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


def vllm_arguments(vllm: Sequence[str], template: str, folder: Path) -> tuple[str, ...]:
    """What every server gets behind the `--`; writes the chat template by which every model is asked.

    It comes last, and counts where the user's own arguments name a file for it too.

    Raises:
        OSError: the folder cannot be written.
    """
    path = folder / "chat_template.jinja"
    path.write_text(template, encoding="utf-8")
    return (*vllm, TEMPLATE_FLAG, str(path))


def _adapters(spec: EvaluationSpec, kind: str) -> Mapping[str, Path]:
    return {task.adapter: folder for task in spec.tasks if (folder := getattr(task, kind)) is not None}
