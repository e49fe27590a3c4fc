"""docs/builds.md, "What a build may not do": hostile builds on real workers. Linux only."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import psutil  # type: ignore[import-untyped]
import pytest

from service.operate.embedded import PostgresServer, RedisServer
from service.worker.build_stderr import LINES_PER_BUILD
from tests.support.build_environment import BuildEnvironment, ask, build_environment, ends
from tests.support.build_events import changes
from tests.support.processes import ROOT, ServiceProcess, service_environment
from tests.support.signing import HMAC_SECRET, TOKEN_SECRET
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="build keepers exist on Linux only")

_ATTACKER = ROOT / "tests" / "support" / "hostile_build.py"
_CANARY = "canary-in-place-of-an-operator-secret"
_numbers = count(1)


def attack(folder: Path, name: str) -> str:
    """Return the build command that runs an attack."""
    return f"{sys.executable} {_ATTACKER} {folder} '{name}'"


@pytest.fixture(scope="module")
def hostile_database(postgres: PostgresServer, template_database: str) -> Iterator[str]:
    """URL of a database for this file."""
    yield postgres.create_database("hostile", template=template_database)
    postgres.psql('DROP DATABASE "hostile" WITH (FORCE)')


@pytest.fixture(scope="module")
async def service(
    hostile_database: str, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServiceProcess]:
    """One service for this file."""
    environment = service_environment(hostile_database, redis_server.url)
    async with ServiceProcess("service", tmp_path_factory.mktemp("hostile"), environment) as one:
        yield one


@pytest.fixture
async def home(
    service: ServiceProcess, postgres: PostgresServer, tmp_path: Path
) -> AsyncIterator[BuildEnvironment]:
    """A project on this file's service."""
    project = f"hostile-{next(_numbers)}"
    async with build_environment(service, project, tmp_path, service.environment) as made:
        yield made
    postgres.psql("DELETE FROM builds", database="hostile")


def remaining_processes(folder: Path) -> list[int]:
    """Pids of attacks in this folder and of their keepers: both have it in the command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if str(folder) in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


async def _wait_no_process(folder: Path) -> None:
    await wait_until(
        lambda: not remaining_processes(folder), what="the end of the build's processes"
    )


async def _result(home: BuildEnvironment) -> Any:
    (end,) = ends(await home.api.log(home.project))
    return msgspec.json.decode(end.data)["metadata"]["response_data"]["result"]


async def test_a_build_reads_no_secret_of_its_parent_processes(
    home: BuildEnvironment, tmp_path: Path
) -> None:
    """Neither from their environment or memory, nor through descriptors or ptrace."""
    await home.worker(attack(tmp_path, "look"), AWS_SECRET_ACCESS_KEY=_CANARY)
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "completed")
    found = await _result(home)
    refused = dict.fromkeys(("environ", "maps", "fd", "mem", "ptrace"), "refused")
    keeper, worker, *_ = found["above"]
    assert keeper == refused
    assert worker == refused
    output = str(found)
    for secret in (home.environment["DATABASE_URL"], HMAC_SECRET, TOKEN_SECRET, _CANARY):
        assert secret not in output


async def test_the_worker_has_no_secret_in_its_environment(home: BuildEnvironment) -> None:
    """Even a process that may read `/proc/<pid>/environ`, such as one of root, finds no secret."""
    worker = await home.worker(AWS_SECRET_ACCESS_KEY=_CANARY)
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "completed")
    shown = psutil.Process(worker.pid).environ()
    assert not [name for name in shown if name.endswith("_URL") or "SECRET" in name]
    assert _CANARY not in str(shown)
    assert not [file for file in _descriptors(worker.pid) if "memfd" in file]


def _descriptors(pid: int) -> list[str]:
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(fd.readlink()))
    return found


async def test_a_build_gets_only_allowed_variables_and_descriptors(
    home: BuildEnvironment, tmp_path: Path
) -> None:
    """An allowlist plus the names in SEQSTREAM_BUILD_ENV; standard input, output and error."""
    await home.worker(
        attack(tmp_path, "look"),
        AWS_SECRET_ACCESS_KEY=_CANARY, WANTED="yes", SEQSTREAM_BUILD_ENV="WANTED,NOT_SET",
    )  # fmt: skip
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "completed")
    found = await _result(home)
    allowed = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR"}
    own = {name for name in found["environ"] if not name.startswith("LC_")} - allowed
    assert own == {"BUILD_ID", "PROJECT_ID", "WANTED"}
    # Descriptor 3 is the folder of descriptors, open while it is listed.
    assert found["descriptors"] == [0, 1, 2, 3]


async def test_a_build_has_limits_and_cannot_gain_privileges(
    home: BuildEnvironment, tmp_path: Path
) -> None:
    """Core dumps are off, other limits as set; a root build lacks the dangerous capabilities."""
    await home.worker(
        attack(tmp_path, "look"),
        SEQSTREAM_BUILD_MEMORY_BYTES=str(1 << 30), SEQSTREAM_BUILD_FILE_BYTES="1000000",
        SEQSTREAM_BUILD_PROCESSES="5000", SEQSTREAM_BUILD_OPEN_FILES="99",
    )  # fmt: skip
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "completed")
    found = await _result(home)
    assert found["limits"] == {
        "CORE": [0, 0], "AS": [1 << 30, 1 << 30], "FSIZE": [1_000_000, 1_000_000],
        "NPROC": [5000, 5000], "NOFILE": [99, 99],
    }  # fmt: skip
    assert found["status"]["NoNewPrivs"] == "1"
    held = int(found["status"]["CapEff"], 16)
    # dac_read_search, kill, net_admin, net_raw, sys_module, sys_rawio, sys_ptrace, sys_admin,
    # sys_boot, mknod, bpf, checkpoint_restore
    assert not [
        number for number in (2, 5, 12, 13, 16, 17, 19, 21, 22, 27, 39, 40) if held >> number & 1
    ]


async def test_a_worker_needs_no_signing_secret(home: BuildEnvironment) -> None:
    """It starts and runs builds without them."""
    secrets = ("SEQSTREAM_HMAC_SECRETS", "SEQSTREAM_TOKEN_SECRETS")
    without = {name: value for name, value in home.environment.items() if name not in secrets}
    home.environment = without
    await home.worker()
    first = await ask(home.api, home.project)
    await home.wait_status(first.build_id, "completed")


async def test_background_processes_of_a_build_end_with_it(
    home: BuildEnvironment, tmp_path: Path
) -> None:
    """Also after `setsid`, a double fork, or repeated forks to evade the keeper."""
    worker = await home.worker(attack(tmp_path, "end"))
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "completed")
    assert remaining_processes(tmp_path) == []
    assert worker.is_running()


@pytest.mark.parametrize("how", ["stay", "stop the keeper"])
async def test_cancelling_ends_all_processes_of_a_build(
    home: BuildEnvironment, tmp_path: Path, how: str
) -> None:
    """Also when the build has stopped its keeper, so that the keeper cannot kill them."""
    worker = await home.worker(attack(tmp_path, how))
    asked = await ask(home.api, home.project)
    name = "stopped" if how == "stop the keeper" else "ready"
    await wait_until((tmp_path / name).exists, what="the daemons")
    path = f"/v1/projects/{home.project}/builds/{asked.build_id}/cancel"
    assert (await home.api.request("POST", path)).status_code == 202
    await home.wait_status(asked.build_id, "failed", timeout_s=20)
    assert remaining_processes(tmp_path) == []
    assert worker.is_running()


async def test_a_timeout_ends_all_processes_of_a_build(
    home: BuildEnvironment, tmp_path: Path
) -> None:
    """SEQSTREAM_BUILD_TIMEOUT_SECONDS: the build fails and no process remains."""
    await home.worker(attack(tmp_path, "stay"), SEQSTREAM_BUILD_TIMEOUT_SECONDS="2")
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "failed")
    assert remaining_processes(tmp_path) == []


async def test_processes_of_a_build_end_with_a_killed_worker(
    home: BuildEnvironment, tmp_path: Path
) -> None:
    """The keeper notices the end of its worker, also after SIGKILL."""
    worker = await home.worker(attack(tmp_path, "stay"))
    await ask(home.api, home.project)
    await wait_until((tmp_path / "ready").exists, what="the daemons")
    await worker.kill()
    await _wait_no_process(tmp_path)


async def test_processes_of_a_build_end_with_a_stopped_worker(
    home: BuildEnvironment, tmp_path: Path
) -> None:
    """SIGTERM: after the grace period the worker kills the build and releases its lease."""
    worker = await home.worker(attack(tmp_path, "stay"), SEQSTREAM_WORKER_GRACE_SECONDS="0")
    await ask(home.api, home.project)
    await wait_until((tmp_path / "ready").exists, what="the daemons")
    assert await worker.terminate() == 0
    assert remaining_processes(tmp_path) == []


async def test_a_build_that_kills_its_keeper_is_killed_by_the_worker(
    home: BuildEnvironment, tmp_path: Path
) -> None:
    """The worker adopts the orphans, recognises and kills them, and continues."""
    worker = await home.worker(attack(tmp_path, "kill the keeper"))
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "failed")
    assert remaining_processes(tmp_path) == []
    assert worker.is_running()
    (end,) = ends(await home.api.log(home.project))
    assert b"keeper of the build command was killed" in end.data


async def test_a_build_that_kills_its_keeper_harms_no_other_build(
    home: BuildEnvironment, tmp_path: Path
) -> None:
    """The worker does not take the keepers of other builds for orphans."""
    harmless, hostile = tmp_path / "harmless", tmp_path / "hostile"
    for folder in (harmless, hostile):
        folder.mkdir()
    # The first build to run creates `taken` and is the harmless one; the second attacks.
    script = (
        f"if mkdir {tmp_path}/taken; then touch {harmless}/runs;"
        f" until test -e {harmless}/end; do sleep 0.05; done;"
        f" else exec {attack(hostile, 'kill the keeper').replace(chr(39), chr(34))}; fi"
    )
    await home.worker(f"sh -c '{script}'")
    first = await ask(home.api, home.project)
    await wait_until((harmless / "runs").exists, what="the harmless build")
    second = await ask(home.api, home.project)
    await home.wait_status(second.build_id, "failed")
    (harmless / "end").touch()
    await home.wait_status(first.build_id, "completed")
    assert remaining_processes(hostile) == []


def _records(log_path: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in log_path.read_bytes().splitlines()]


async def test_a_build_cannot_forge_log_records_on_standard_error(
    home: BuildEnvironment, tmp_path: Path
) -> None:
    """Whatever a build writes there is a single field of a record by the worker."""
    worker = await home.worker(attack(tmp_path, "forge"))
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "completed")
    records = _records(worker.log_path)
    assert not [
        each for each in records if each["message"] == "forged" or each["level"] == "critical"
    ]
    written = [each for each in records if "build_stderr" in each]
    assert {each["build_id"] for each in written} == {asked.build_id}
    assert sum("forged" in each["build_stderr"] for each in written) == 9
    assert all(each["build_stderr"].isprintable() for each in written)


async def test_a_flood_on_standard_error_is_bounded_and_counted(
    home: BuildEnvironment, tmp_path: Path
) -> None:
    """It does not block the build, and the log has the number of dropped lines."""
    worker = await home.worker(attack(tmp_path, "flood"))
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "completed", timeout_s=30)
    records = _records(worker.log_path)
    written = [each for each in records if "build_stderr" in each]
    (dropped,) = [each for each in records if "dropped_lines" in each]
    assert 0 < len(written) <= LINES_PER_BUILD
    assert len(written) + dropped["dropped_lines"] == 200 * 1000 + 1
    assert worker.log_path.stat().st_size < 1_000_000


async def test_three_deploys_do_not_fail_a_healthy_build(
    home: BuildEnvironment, tmp_path: Path
) -> None:
    """§8: a lease released at SIGTERM does not count as an attempt; clients see one attempt."""
    client = await home.client()
    asked = await ask(home.api, home.project)
    for deploy in range(4):
        folder = tmp_path / f"deploy-{deploy}"
        folder.mkdir()
        worker = await home.worker(
            attack(folder, "stay"),
            SEQSTREAM_WORKER_GRACE_SECONDS="0", SEQSTREAM_BUILD_LEASE_SECONDS="3600",
        )  # fmt: skip
        await wait_until((folder / "ready").exists, what="the build under the next worker")
        assert await worker.terminate() == 0
    await home.worker("true")
    await client.wait_seq(2)
    assert changes(client.events(), asked.build_id) == [
        ("queued", 0), ("in_progress", 1), ("completed", 1),
    ]  # fmt: skip
