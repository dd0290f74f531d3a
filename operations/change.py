"""Whether earlier operations change something, asked while planning and while executing alike."""

from collections.abc import Iterable

from pyinfra.api.operation import OperationMeta


def any_changes(metas: Iterable[OperationMeta]) -> bool:
    """Whether one of these operations has changed its host or, before it ran, will.

    Under `-y` pyinfra 3.10 plans nothing, and `will_change`, asked after the operation, compares with what it has
    just made.
    """
    return any(meta.did_change() if meta.is_complete() else meta.will_change for meta in metas)
