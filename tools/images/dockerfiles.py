"""Dockerfiles as data: instructions as BuildKit's own parser reads them, the build context, the tree that results."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import dockerfile  # type: ignore[import-not-found, import-untyped, unused-ignore]
from docker.utils.build import exclude_paths  # type: ignore[import-not-found, import-untyped, unused-ignore]

from tools.images.places import IMAGES, ROOT, ImagesError, Problem

SEPARATORS = {"&&", "||", ";", "|", "&"}


@dataclass(frozen=True)
class Instruction:
    """One instruction: `flags` are those with two dashes in front of its values; `exec_form` is that of JSON lists."""

    name: str
    flags: tuple[str, ...]
    values: tuple[str, ...]
    exec_form: bool
    where: str
    stage: int
    """0 for the first FROM; -1 before it"""

    def flag(self, name: str) -> str | None:
        """The value of `--name=value`, None when it is not there."""
        return next((flag.partition("=")[2] for flag in self.flags if flag.startswith(f"--{name}=")), None)

    def commands(self) -> list[list[str]]:
        """The commands of a RUN, split at `&&`, `;` and pipes; a pipe stays as the last word of what writes to it."""
        if self.exec_form:
            return [list(self.values)]
        lexer = shlex.shlex(self.values[0], posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        found: list[list[str]] = [[]]
        for word in lexer:
            if word in SEPARATORS:
                if word == "|":
                    found[-1].append(word)
                found.append([])
            else:
                found[-1].append(word)
        return [command for command in found if command]


@dataclass(frozen=True)
class Dockerfile:
    """One image's build file."""

    name: str
    """the image's: serving"""
    path: Path
    instructions: tuple[Instruction, ...]
    text: str

    @property
    def last_stage(self) -> int:
        return max(instruction.stage for instruction in self.instructions)

    def all(self, name: str, stage: int | None = None) -> list[Instruction]:
        """Every instruction of a kind, of one stage or of all."""
        return [item for item in self.instructions if item.name == name and stage in (None, item.stage)]

    def stage_names(self) -> dict[str, int]:
        """The names that `FROM … AS name` gives, and their stages' numbers."""
        return {item.values[2]: item.stage for item in self.all("FROM") if len(item.values) == 3}


def read(path: Path, name: str) -> Dockerfile:
    """Parses a Dockerfile. Raises ImagesError."""
    try:
        text = path.read_text()
        parsed = dockerfile.parse_string(text)
    except (OSError, dockerfile.GoParseError) as error:
        raise ImagesError(f"{path}: {error}\n  next: correct the file") from None
    where = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    stage = -1
    instructions: list[Instruction] = []
    for command in parsed:
        stage += command.cmd == "FROM"
        line = f"{where}:{command.start_line}"
        instructions.append(Instruction(command.cmd, command.flags, command.value, command.json, line, stage))
    return Dockerfile(name, path, tuple(instructions), text)


def read_all() -> dict[str, Dockerfile]:
    """Every Dockerfile of images/, by the image's name."""
    return {path.parent.name: read(path, path.parent.name) for path in sorted(IMAGES.glob("*/Dockerfile"))}


def ignore_patterns(image: Dockerfile) -> list[str]:
    """The lines of the .dockerignore beside the Dockerfile (BuildKit prefers it to one at the context's root)."""
    path = image.path.with_name("Dockerfile.dockerignore")
    try:
        return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    except OSError as error:
        raise ImagesError(f"{path}: {error.strerror}\n  next: write one that begins with `*`") from None


def context(image: Dockerfile, root: Path = ROOT) -> set[str]:
    """The files that a build is given, relative to the repository's root."""
    names = exclude_paths(str(root), ignore_patterns(image), dockerfile="no-such-file")
    return {name for name in names if (root / name).is_file()}


def missing(image: Dockerfile, root: Path = ROOT) -> list[Problem]:
    """What a COPY or a bind mount of any stage names and the build is not given."""
    known = context(image, root)
    asked = [(item, source) for item in image.all("COPY") if item.flag("from") is None for source in item.values[:-1]]
    for item in image.all("RUN"):
        mounts = [
            dict(part.partition("=")[::2] for part in flag[8:].split(",")) for flag in item.flags if "mount" in flag
        ]
        asked += [(item, m["source"]) for m in mounts if m.get("type") == "bind" and "from" not in m and "source" in m]
    return [
        Problem(item.where, f"{source} is not in the build context", f"let it in in {image.path.name}.dockerignore")
        for item, source in asked
        if not any(PurePosixPath(name).is_relative_to(source) for name in known)
    ]


def mirror(image: Dockerfile, target: Path, images: dict[str, Dockerfile], root: Path = ROOT) -> list[Path]:
    """Lays the files that end up in the image out under `target`, where the Dockerfile puts them.

    Only what comes from the build context: not what packages, apt or a base bring. Gives the paths in `target`.

    Raises:
        ImagesError: a COPY names something that the build context does not have.
    """
    stages = image.stage_names()
    kept = image.last_stage
    base = image.all("FROM", kept)[0].values[0]
    laid = mirror(images[base], target, images, root) if base in images and base not in stages else []
    for copy in image.all("COPY", kept):
        origin = copy.flag("from")
        *sources, destination = copy.values
        if origin is None:
            laid += _lay(copy, root, context(image, root), target, PurePosixPath(destination))
            continue
        if sources != [destination]:
            raise ImagesError(f"{copy.where}: between stages a folder keeps its path\n  next: COPY --from={origin} X X")
        for inner in image.all("COPY", stages[origin]):
            into = PurePosixPath(inner.values[-1])
            if inner.flag("from") is None and into.is_relative_to(destination):
                laid += _lay(inner, root, context(image, root), target, into)
    return laid


def _lay(copy: Instruction, root: Path, known: set[str], target: Path, into: PurePosixPath) -> list[Path]:
    *sources, destination = copy.values
    laid: list[Path] = []
    for source in sources:
        inside = sorted(name for name in known if PurePosixPath(name).is_relative_to(source))
        if not inside:
            raise ImagesError(
                f"{copy.where}: {source} is not in the build context\n"
                f"  next: let it in in {copy.where.partition(':')[0]}.dockerignore, or correct the COPY"
            )
        for name in inside:
            # A folder's content goes into the destination; a file takes its name, or goes into a folder "…/".
            rest = PurePosixPath(name).relative_to(source)
            end = (
                into / (PurePosixPath(name).name if destination.endswith("/") else "")
                if name == source
                else into / rest
            )
            place = target / end.relative_to("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, place)
            laid.append(place)
    return laid
