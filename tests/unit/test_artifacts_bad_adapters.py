"""Whatever is wrong with an adapter, `lorafleet adapter push` says it in a few lines and stores nothing."""

from pathlib import Path

import pytest

from handlers.serving import check
from handlers.serving.errors import ServingError
from lorafleet import cli
from lorafleet.load import load_stack
from providers.artifacts import weights
from providers.artifacts.fetch import parse_origin
from providers.artifacts.folder_store import FolderStore
from providers.artifacts.push import push
from providers.artifacts.rules import rules_of
from tests.support.artifacts_kit import DEMO_ADAPTER, copy_adapter, make_project
from tests.support.bad_adapters import ACCEPTED, CONFIG, REFUSED, WEIGHTS


def test_there_are_enough_of_them() -> None:
    assert len(REFUSED) >= 100


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project and a good adapter beside it, in `adapter`; its store is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = make_project(tmp_path / "project", f"file://{tmp_path}/store")
    monkeypatch.chdir(root)
    copy_adapter(DEMO_ADAPTER, tmp_path / "adapter")
    return tmp_path


def stored(project: Path) -> list[str]:
    return [entry.path for entry in FolderStore(project / "store").list("")]


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    REFUSED[name].change(project / "adapter")
    assert cli.main(["adapter", "push", "../adapter", "--name", "easycontract"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    first, *rest = err.rstrip("\n").split("\n")
    assert first.startswith(f"file://{project}/adapter: ")
    assert [line.split(":")[0].strip() for line in rest] == ["found", "allowed", "next"], err
    assert "staging" not in err
    assert all(len(line) < 600 and (line.isprintable()) for line in (first, *rest)), err
    assert str(REFUSED[name].says) in f"{first}\n{rest[0]}", err
    assert "Traceback" not in err
    assert stored(project) == []
    assert list((project / "cache/lorafleet/staging").glob("new-*")) == []


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ACCEPTED[name].change(project / "adapter")
    assert cli.main(["adapter", "push", "../adapter", "--name", "easycontract"]) == 0, capsys.readouterr().err
    out, err = capsys.readouterr()
    assert out.startswith("easycontract  sha256:")
    assert ("changes nothing" in err) is (name == "weights that change nothing")
    folder = next((project / "store/adapters/easycontract").iterdir())
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS, "lorafleet.json"]
    assert cli.main(["adapter", "verify"]) == 0


def test_servers_refuse_the_same_weights() -> None:
    assert weights.MAX_WEIGHT == check.MAX_WEIGHT


WEIGHTS_ALONE = ("weights that are too large", "alpha is larger", "not finite")


@pytest.mark.parametrize("name", [n for n, odd in REFUSED.items() if str(odd.says).startswith(WEIGHTS_ALONE)])
def test_servers_refuse_it_too(name: str, project: Path) -> None:
    REFUSED[name].change(project / "adapter")
    with pytest.raises(ServingError, match=r"huge numbers|lora_alpha"):
        check.check_adapter("easycontract", project / "adapter", 16)


@pytest.mark.parametrize("name", ACCEPTED)
def test_servers_take_it_too(name: str, project: Path) -> None:
    ACCEPTED[name].change(project / "adapter")
    assert check.check_adapter("easycontract", project / "adapter", 16) in (8, 16)


@pytest.mark.parametrize("name", ["../x", "a/b", "UPPER", "", "a" * 70, "a b", ".hidden", "ключ", "a\nb"])
def test_a_name_that_can_not_be(name: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["adapter", "push", "../adapter", "--name", name]) == 1
    assert "can't be the name of an adapter" in capsys.readouterr().err
    assert stored(project) == []


@pytest.mark.parametrize(
    "source",
    ["s3://bucket/x", "hf://owner/repo", "hf://owner/repo@main", "hf://x", "gs://bucket", "file://", "hf://a/b@"],
)
def test_a_source_that_can_not_be(source: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["adapter", "push", source, "--name", "x"]) == 1
    err = capsys.readouterr().err
    assert "allowed:" in err and "next:" in err
    assert stored(project) == []


def test_what_grows_while_it_is_read_is_noticed(project: Path) -> None:
    fleet = load_stack(project / "project", "local")
    store = FolderStore(project / "store")

    def grow(count: int) -> None:
        with (project / "adapter" / WEIGHTS).open("ab") as file:
            file.write(b"x")

    with pytest.raises(Exception, match="changed while it was being read"):
        push(
            store,
            parse_origin(str(project / "adapter"), Path.cwd()),
            "easycontract",
            rules_of(fleet, store),
            phase=lambda name, total: grow,
        )
    assert stored(project) == []


def test_what_is_put_in_its_place_while_it_is_read_is_noticed(project: Path) -> None:
    fleet = load_stack(project / "project", "local")
    store = FolderStore(project / "store")

    def swap(count: int) -> None:
        other = project / "other"
        other.write_bytes((project / "adapter" / WEIGHTS).read_bytes())
        other.replace(project / "adapter" / WEIGHTS)

    with pytest.raises(Exception, match="changed while it was being read"):
        push(
            store,
            parse_origin(str(project / "adapter"), Path.cwd()),
            "easycontract",
            rules_of(fleet, store),
            phase=lambda name, total: swap,
        )
    assert stored(project) == []
