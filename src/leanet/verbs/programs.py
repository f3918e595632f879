"""phase1 and phase2: the original programs."""

from __future__ import annotations


def phase1(argv: list[str]) -> None:
    """Draw maps as the original program does."""
    from leanet.programs.flags import Phase1, parse

    given = parse("phase1", Phase1, argv)
    if isinstance(given, str):  # --print_config
        print(given, end="")
        return
    from leanet.programs.phase1 import phase1

    print(*given.notices, sep="\n", end="\n" if given.notices else "")
    print(phase1(given.flags, earlier=given.earlier))


def phase2(argv: list[str]) -> None:
    """Train classifiers as the original program does."""
    from leanet.programs.flags import Phase2, parse

    given = parse("phase2", Phase2, argv)
    if isinstance(given, str):
        print(given, end="")
        return
    from leanet.programs.phase2 import phase2

    print(*given.notices, sep="\n", end="\n" if given.notices else "")
    print(phase2(given.flags, earlier=given.earlier))
